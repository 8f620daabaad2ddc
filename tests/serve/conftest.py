"""Shared by the tests of the service: a client that talks to an application in this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from videos import Gate, write_video
from waiting import PATIENCE_SECONDS

ADDRESS = "http://127.0.0.1:5000"


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make clients of a service with the given settings: started, and stopped after the test."""
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from vsr.serve.app import make_app
    from vsr.serve.settings import Settings

    with ExitStack() as stack:

        def make(**settings: Any) -> TestClient:
            given = {"state": tmp_path / "state", "model": "nano", "device": "cpu", "backend": "pytorch"} | settings
            app = make_app(Settings(**given))
            return stack.enter_context(TestClient(app, base_url=ADDRESS, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(make_client: Callable[..., Any]) -> Any:
    """A client of a service as it is started by default, with the smallest model."""
    return make_client()


@pytest.fixture(scope="module")
def listen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[Any, int]]]:
    """Start services that listen in a thread of this process; give their application and port."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with ExitStack() as stack:

        def start(**settings: Any) -> tuple[Any, int]:
            return stack.enter_context(_listening(tmp_path_factory.mktemp("state"), settings))

        yield start


@contextmanager
def _listening(state: Path, settings: dict[str, Any]) -> Iterator[tuple[Any, int]]:
    import uvicorn

    from vsr.serve.app import make_app
    from vsr.serve.settings import Settings

    given = {"state": state, "model": "nano", "device": "cpu", "backend": "pytorch"} | settings
    app = make_app(Settings(**given))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not (server.started and app.state.services.images.is_ready):
            assert thread.is_alive(), "the service has ended"
            time.sleep(0.05)
        try:
            yield app, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE_SECONDS)


# -- video jobs ----------------------------------------------------------------------------------------

FRAMES_PER_SEGMENT = 8


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 20 frames, 32x24."""
    return write_video(tmp_path_factory.mktemp("video") / "a film.mp4")


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs finish a segment every eight frames."""
    monkeypatch.setattr("vsr.jobs.resume._FEWEST_FRAMES", FRAMES_PER_SEGMENT)
    monkeypatch.setattr("vsr.jobs.resume._MOST_FRAMES", FRAMES_PER_SEGMENT)


@pytest.fixture(scope="session")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run a job as `vsr enhance` does, with segments of eight frames; each once."""
    import vsr

    made: dict[str, Path] = {}

    def run(source: Path, options: dict[str, Any]) -> Path:
        key = f"{source} {sorted(options.items())}"
        if key not in made:
            output = tmp_path_factory.mktemp("enhanced") / "out.mp4"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("vsr.jobs.resume._FEWEST_FRAMES", FRAMES_PER_SEGMENT)
                patch.setattr("vsr.jobs.resume._MOST_FRAMES", FRAMES_PER_SEGMENT)
                vsr.enhance(source, output, **options, device="cpu", backend="pytorch", resume=True)
            made[key] = output
        return made[key]

    return run


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Hold the video jobs of this process."""
    from vsr.events import Progress
    from vsr.serve.job_run import JobRun

    gate, on_progress = Gate(), JobRun._on_progress

    def held(run: JobRun, progress: Progress) -> None:
        on_progress(run, progress)
        gate.arrive(progress.num_frames)

    monkeypatch.setattr(JobRun, "_on_progress", held)
    yield gate
    gate.open()  # for what a failed test has left waiting
