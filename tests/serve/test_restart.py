"""A service that is killed in the middle of a job goes on with it, and its result is that of an unbroken run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx
from videos import frames_of, write_video
from waiting import PATIENCE_SECONDS

OPTIONS = {"model": "nano", "batch": 2, "preset": "ultrafast"}
_SCRIPT = """
import os
from vsr.jobs import resume
resume._FEWEST_FRAMES = resume._MOST_FRAMES = 8
print(os.getpid(), flush=True)
from vsr.cli import main
main()
"""


class Service:
    """`vsr serve` in a process of its own."""

    def __init__(self, python: str, state: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [python, "-c", _SCRIPT, "serve", "--port", str(port), "--state", str(state)]
        command += ["--device", "cpu", "--backend", "pytorch", "--model", "nano"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self._number = int(self._process.stdout.readline())
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/health/live")
                return
            assert self._process.poll() is None, "the service has ended"
            time.sleep(0.02)

    def kill(self) -> None:
        """End the process with no time to clear up."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._number, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def follow(self, job_id: str, until: str) -> None:
        """Read a job's events until a line with some text comes, or they end."""
        with httpx.stream("GET", f"{self.url}/v1/jobs/{job_id}/events", timeout=PATIENCE_SECONDS) as answer:
            for line in answer.iter_lines():
                if until in line:
                    return


@pytest.fixture
def start(warm_python: str, tmp_path: Path) -> Iterator[Callable[[], Service]]:
    services: list[Service] = []

    def start() -> Service:
        services.append(Service(warm_python, tmp_path / "state"))
        return services[-1]

    yield start
    services[-1].kill()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_job(
    start: Callable[[], Service], tmp_path: Path, enhanced: Callable[..., Path]
) -> None:
    video, service = write_video(tmp_path / "in.mp4", 60), start()
    with video.open("rb") as file:
        data: dict[str, Any] = {"options": '{"model": "nano", "batch": 2, "preset": "ultrafast"}'}
        job_id = httpx.post(f"{service.url}/v1/jobs", files={"video": file}, data=data).json()["id"]
    upload = httpx.post(f"{service.url}/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "10"}).headers[
        "Location"
    ]
    headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    httpx.patch(service.url + upload, content=b"0123", headers=headers)
    service.follow(job_id, "event: segment")
    service.kill()
    service = start()
    service.follow(job_id, '"state": "running"')
    service.kill()
    service = start()
    service.follow(job_id, '"state": "done"')
    job = httpx.get(f"{service.url}/v1/jobs/{job_id}").json()
    assert (job["state"], job["frames"], job["error"]) == ("done", 60, None)
    (tmp_path / "out.mp4").write_bytes(httpx.get(service.url + job["result"]["url"]).content)
    assert frames_of(tmp_path / "out.mp4") == frames_of(enhanced(video, OPTIONS))
    assert sorted(path.name for path in (tmp_path / "state" / "jobs" / job_id).iterdir()) == ["result.mp4", "source"]
    assert httpx.head(service.url + upload, headers=headers).headers["Upload-Offset"] == "4"
