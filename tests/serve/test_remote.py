"""`vsr remote`: a service as a device, over connections that break and calls that are interrupted."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx
from click.testing import CliRunner
from videos import Gate, frames_of, write_video
from waiting import PATIENCE_SECONDS, until

from vsr.cli.main import cli
from vsr.errors import InputError, ModelError, OptionError, OutputError, VsrError
from vsr.events import Progress
from vsr.serve import client as client_module
from vsr.serve.app import make_app
from vsr.serve.client import RemoteService
from vsr.serve.settings import Settings

pytestmark = pytest.mark.usefixtures("short_segments")
OPTIONS = {"model": "nano", "batch": 2, "preset": "ultrafast"}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start services in this process; give their addresses."""
    import uvicorn

    with ExitStack() as stack:

        def start(**settings: Any) -> str:
            given = {"state": tmp_path / "state", "model": "nano", "device": "cpu", "backend": "pytorch"} | settings
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = uvicorn.Server(uvicorn.Config(make_app(Settings(**given)), log_config=None))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join()

            stack.callback(stop)
            until(lambda: server.started or not thread.is_alive())
            assert thread.is_alive()
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start


@pytest.fixture
def url(serve: Callable[..., str]) -> str:
    return serve()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "_PAUSE_SECONDS", PATIENCE_SECONDS)


def test_a_remote_job_is_that_of_this_machine(
    url: str, video: Path, enhanced: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    options = ["--model", "nano", "--preset", "ultrafast", "--progress", "json"]
    ended = CliRunner().invoke(cli, ["remote", url, "enhance", str(video), str(output), *options])
    assert ended.exit_code == 0, ended.output
    assert frames_of(output) == frames_of(enhanced(video, {"model": "nano", "preset": "ultrafast"}))
    told = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {"event": "note", "code": "model", "text": "model nano (as asked)"} in told
    assert [line["frames"] for line in told if line["event"] in ("progress", "done")][-1] == 20
    assert url in told[-1]["engine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "state"]
    assert httpx.get(f"{url}/v1/jobs").json() == []
    assert not list((tmp_path / "state" / "uploads").iterdir())
    again = CliRunner().invoke(cli, ["remote", url, "enhance", str(video), str(output), *options])
    assert isinstance(again.exception, OutputError)


def test_interrupted_and_gone_on_with(
    url: str, video: Path, enhanced: Callable[..., Path], tmp_path: Path, gate: Gate
) -> None:
    output, gate.num_frames = tmp_path / "out.mp4", 4

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if "the same command goes on" in text:  # the service knows that the job is to pause
            gate.open()

    with RemoteService(url, note=note) as service:
        with pytest.raises(KeyboardInterrupt):
            service.enhance(video, output, OPTIONS, on_progress=interrupt)
        assert "the same command goes on" in notes[-1]
        (job,) = httpx.get(f"{url}/v1/jobs").json()
        assert job["state"] in ("pausing", "paused")
        report = service.enhance(video, output, OPTIONS)
        assert [note for note in notes if "going on with the job" in note]
    assert report.num_frames == 20
    assert frames_of(output) == frames_of(enhanced(video, OPTIONS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "state"]


def test_an_upload_that_breaks_off_goes_on(url: str, tmp_path: Path) -> None:
    """The connection is cut in the middle of a request; the bytes that came are kept."""
    data, host = bytes(range(256)) * 400, url.removeprefix("http://")
    tus = {"Tus-Resumable": "1.0.0"}
    answer = httpx.post(f"{url}/v1/uploads", headers=tus | {"Upload-Length": str(len(data))})
    path = answer.headers["Location"]
    with socket.create_connection(tuple(host.split(":"))) as connection:  # type: ignore[arg-type]
        connection.sendall(
            f"PATCH {path} HTTP/1.1\r\nHost: {host}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data[:50_000]
        )
    until(lambda: httpx.head(url + path, headers=tus).headers["Upload-Offset"] == "50000")
    headers = tus | {"Upload-Offset": "50000", "Content-Type": "application/offset+octet-stream"}
    assert httpx.patch(url + path, content=data[50_000:], headers=headers).status_code == 204
    assert (tmp_path / "state" / "uploads" / path.rsplit("/", 1)[1] / "data").read_bytes() == data


def test_the_client_goes_on_after_breaks(
    url: str, video: Path, enhanced: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some requests fail on the way there, and some answers on the way back."""
    monkeypatch.setattr(client_module, "_PART_BYTES", 1000)
    send, chance = httpx.Client.send, random.Random(1)

    def unsteady(self: Any, request: Any, **given: Any) -> Any:
        if chance.random() < 0.3:
            raise httpx.ConnectError("no route to host")
        answer = send(self, request, **given)
        if request.method == "PATCH" and chance.random() < 0.3:
            answer.close()
            raise httpx.ReadError("connection reset")
        return answer

    monkeypatch.setattr(httpx.Client, "send", unsteady)
    notes: list[str] = []
    with RemoteService(url, note=notes.append) as service:
        report = service.enhance(video, tmp_path / "out.mp4", OPTIONS)
    assert report.num_frames == 20
    assert frames_of(tmp_path / "out.mp4") == frames_of(enhanced(video, OPTIONS))
    assert [note for note in notes if "trying again" in note]


@pytest.mark.parametrize(
    ("name", "options", "kind", "word"),
    [
        ("out.mp4", {"model": "none"}, ModelError, "unknown model 'none'"),
        ("out.avi", {}, OptionError, "mp4, mkv"),
        ("out.mp4", {"scale": 99}, OptionError, "scale"),
    ],
)
def test_jobs_that_cannot_be(
    url: str, video: Path, tmp_path: Path, name: str, options: dict[str, Any], kind: type[VsrError], word: str
) -> None:
    with RemoteService(url) as service, pytest.raises(kind, match=word):
        service.enhance(video, tmp_path / name, options)
    assert not (tmp_path / name).exists()


def test_what_is_no_video_is_refused(url: str, tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    path.write_text("nothing to see")
    with RemoteService(url) as service, pytest.raises(InputError, match="not a video"):
        service.enhance(path, tmp_path / "out.mp4", {})


def test_a_token_and_an_address(serve: Callable[..., str], video: Path, tmp_path: Path) -> None:
    url = serve(token="secret")
    with RemoteService(url) as service, pytest.raises(InputError, match="VSR_TOKEN"):
        service.enhance(video, tmp_path / "out.mp4", OPTIONS)
    with RemoteService(url, "secret") as service:
        assert service.enhance(video, tmp_path / "out.mp4", OPTIONS, preview_seconds=0.1).num_frames == 3
    with pytest.raises(OptionError, match="no address"):
        RemoteService("localhost:5000")


def test_no_service(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_MOST_FAILURES", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with RemoteService(url) as service, pytest.raises(InputError, match="cannot be reached"):
        service.enhance(video, tmp_path / "out.mp4", OPTIONS)


def test_a_result_that_is_damaged_on_its_way(
    url: str, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = RemoteService._fetch

    def damaged(self: RemoteService, url: str, file: Any) -> None:
        fetch(self, url, file)
        file.seek(100)
        file.write(b"?")
        file.seek(0, 2)

    monkeypatch.setattr(RemoteService, "_fetch", damaged)
    with RemoteService(url) as service, pytest.raises(OutputError, match="damaged on its way"):
        service.enhance(video, tmp_path / "out.mp4", OPTIONS, preview_seconds=0.1)
    assert not (tmp_path / "out.mp4").exists()


def test_a_path_that_changes_is_another_job(url: str, tmp_path: Path) -> None:
    source, output = write_video(tmp_path / "in.mp4", 10), tmp_path / "out.mp4"
    output.with_name(".out.mp4.vsr-remote").write_text('{"request": {}, "upload": "gone", "job": "gone"}')
    with RemoteService(url) as service:
        assert service.enhance(source, output, OPTIONS).num_frames == 10
