"""Bombs by every door of the service: each is refused, opens nothing that it points at, and leaves nothing behind."""

from __future__ import annotations

import base64
import ctypes
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from bombs import BOMBS
from videos import write_video

_IN_ACCESS, _IN_OPEN = 0x1, 0x20
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
KEPT = {"lock", "jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"}  # of a service that has nothing


class Watch:
    """Notices, on Linux, whether anybody opens a file, and whether anybody calls at a port."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self.path, self._listener = path, listener
        self.addresses = (path.as_uri(), str(path), f"http://127.0.0.1:{listener.getsockname()[1]}/secret.mp4")
        self._events: int | None = None
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            self._events = libc.inotify_init1(os.O_NONBLOCK)
            assert libc.inotify_add_watch(self._events, os.fsencode(path), _IN_ACCESS | _IN_OPEN) > 0

    def is_touched(self) -> bool:
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            pass
        else:
            return True
        try:
            return self._events is not None and bool(os.read(self._events, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        if self._events is not None:
            os.close(self._events)


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Watch]:
    """A video that no bomb may have opened, and a server that none may have asked."""
    path = write_video(tmp_path / "secret.mp4", 3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        watch = Watch(path, listener)
        yield watch
        watch.close()


def test_a_file_that_is_opened_and_a_port_that_is_called_are_noticed(secret: Watch) -> None:
    assert not secret.is_touched()
    socket.create_connection(("127.0.0.1", int(secret.addresses[2].split(":")[2].split("/")[0]))).close()
    assert secret.is_touched()
    if sys.platform == "linux":
        secret.path.read_bytes()
        assert secret.is_touched()


# -- the doors -----------------------------------------------------------------------------------------


def _as_image(client: Any, data: bytes, name: str) -> list[Any]:
    return [client.post("/model/predict", files={"image": (name, data, "image/png")})]


def _as_json(client: Any, data: bytes, name: str) -> list[Any]:
    body = {"signature_name": "image_bytes", "instances": [{"b64": base64.b64encode(data).decode()}]}
    return [client.post("/v1/models/nano:predict", json=body)]


def _as_video(client: Any, data: bytes, name: str) -> list[Any]:
    return [client.post("/v1/jobs", files={"video": (name, data, "video/mp4")})]


def _as_upload(client: Any, data: bytes, name: str) -> list[Any]:
    metadata = f"filename {base64.b64encode(name.encode()).decode()}"
    headers = TUS | {"Upload-Length": str(len(data)), "Upload-Metadata": metadata}
    url = client.post("/v1/uploads", content=data, headers=headers).headers["location"]
    answer = client.post("/v1/jobs", json={"upload": url.rsplit("/", 1)[1]})
    assert client.delete(url, headers=TUS).status_code == 204
    return [answer]


def _as_body(client: Any, data: bytes, name: str) -> list[Any]:
    """Bodies are taken as they are: none is unpacked on the way."""
    paths = ("/model/predict", "/v1/models/nano:predict", "/v1/jobs")
    kinds = ("multipart/form-data; boundary=x", "application/json", "application/json")
    headers = [{"Content-Type": kind, "Content-Encoding": "gzip"} for kind in kinds]
    return [client.post(path, content=data, headers=each) for path, each in zip(paths, headers, strict=True)]


DOORS = {
    "image": (_as_image, {400}),
    "JSON": (_as_json, {400, 413}),
    "video": (_as_video, {413, 415}),
    "upload": (_as_upload, {413, 415}),
    "body": (_as_body, {400}),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("door", DOORS)
def test_a_bomb_is_refused(client: Any, door: str, bomb: str, secret: Watch, tmp_path: Path) -> None:
    send, statuses = DOORS[door]
    for address in secret.addresses:
        data = BOMBS[bomb](address)
        for answer in send(client, data, "a bomb.png"):
            assert answer.status_code in statuses, answer.text
            assert str(tmp_path) not in answer.text and "Traceback" not in answer.text
        if BOMBS[bomb]("") == data:  # it points at nothing
            break
    assert not secret.is_touched()
    assert client.get("/v1/jobs").json() == []
    state = tmp_path / "state"
    assert {str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()} <= KEPT


@pytest.mark.parametrize("name", ["../secret.mp4", "linked.mp4", "folder/secret.mp4", "SECRET"])
def test_a_path_out_of_the_root_is_refused(
    make_client: Callable[..., Any], secret: Watch, tmp_path: Path, name: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked.mp4").symlink_to(secret.path)
    (root / "folder").symlink_to(tmp_path, target_is_directory=True)
    client = make_client(roots=(root,))
    answer = client.post("/v1/jobs", json={"path": str(secret.path) if name == "SECRET" else name})
    assert answer.status_code in (403, 404)
    assert str(tmp_path) not in answer.text
    assert not secret.is_touched()
    assert not list((tmp_path / "state").glob("jobs/*"))
