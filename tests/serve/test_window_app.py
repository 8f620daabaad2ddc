"""`vsr app` as a process: its address and token, its window under a virtual display, and its end.

VSR_APP=FOLDER tests the application of scripts/build_app.py, too: FOLDER/vsr, built there if it is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

import httpx
from videos import frames_of, write_video
from waiting import PATIENCE_SECONDS, until

from vsr.media.images import read_image, write_image
from vsr.serve.window.show import has_chromium


@contextmanager
def _app(python: str, state: Path, window: str, display: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `vsr app`; give its process and address."""
    command = [python, "-m", "vsr.cli", "app", "--window", window, "--state", str(state), "--device", "cpu"]
    with _started([*command, "--backend", "pytorch"], os.environ | {"DISPLAY": display}) as started:
        yield started


@contextmanager
def _started(command: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a program that tells its address; give its process and address."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"http://127\.0\.0\.1:\d+/page/enter\?token=\S+", line)
            if found:
                break
        else:
            raise AssertionError(f"no address: {lines}")
        yield process, found[0]
    finally:
        process.kill()
        process.wait()


def _status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_only_its_own_window_may_use_it_and_it_ends_cleanly(tmp_path: Path, warm_python: str) -> None:
    with _app(warm_python, tmp_path, "none") as (process, address):
        bare = address.partition("/page/")[0]
        assert _status(bare) == 401
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with browser.open(address, timeout=PATIENCE_SECONDS) as answer:
            assert answer.status == 200 and "vsr" in answer.read().decode()
        assert _status(address.replace("token=", "token=x")) == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 143


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb, the virtual display, is installed")
@pytest.mark.skipif(not has_chromium(), reason="no Chromium or Chrome is installed")
def test_closing_its_window_ends_it(tmp_path: Path) -> None:
    with _virtual_display() as display, _app(sys.executable, tmp_path, "chromium", display) as (process, _):
        window = _child_with(process.pid, "--app=")
        assert process.poll() is None  # it waits for the window
        os.kill(window, signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.fixture
def built_app() -> Path:
    """The program of the double-clickable application."""
    folder = os.environ.get("VSR_APP")
    if not folder:
        pytest.skip("VSR_APP names no folder for the application, which takes minutes to build")
    program = Path(folder).resolve() / "vsr" / "vsr"
    if not program.exists():
        pytest.importorskip("PyInstaller")
        recipe = Path(__file__).resolve().parents[2] / "scripts" / "build_app.py"
        subprocess.run([sys.executable, str(recipe), folder], check=True)
    return program


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb, the virtual display, is installed")
@pytest.mark.skipif(not has_chromium(), reason="no Chromium or Chrome is installed")
def test_the_built_application_upscales_an_image_and_a_video(built_app: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", np.full((12, 20, 3), 90, np.uint8))
    write_video(tmp_path / "in.mp4", 6)
    own = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "VSR_STATE": str(tmp_path / "state")}  # no Python of ours
    with _virtual_display() as display, _started([str(built_app)], own | {"DISPLAY": display}) as (process, address):
        window = _child_with(process.pid, "--app=")
        base, token = address.split("/page/enter?token=")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=base, headers=headers, timeout=PATIENCE_SECONDS) as client:
            assert "vsr" in client.get("/").text
            files = {"image": (tmp_path / "x.png").read_bytes()}
            (tmp_path / "y.png").write_bytes(client.post("/model/predict?model=nano", files=files).content)
            files = {"video": (tmp_path / "in.mp4").read_bytes()}
            job = client.post("/v1/jobs", files=files, data={"options": '{"model": "video-fast"}'}).json()["id"]
            assert '"state": "done"' in client.get(f"/v1/jobs/{job}/events").text
            (tmp_path / "out.mp4").write_bytes(client.get(f"/v1/jobs/{job}/result").content)
            engine = client.get(f"/v1/jobs/{job}").json()["engine"]
        os.kill(window, signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    assert read_image(tmp_path / "y.png").shape == (48, 80, 3)
    assert [time for time, _ in frames_of(tmp_path / "out.mp4")] == [time for time, _ in frames_of(tmp_path / "in.mp4")]
    assert "OpenVINO" in engine


@contextmanager
def _virtual_display() -> Iterator[str]:
    """Run Xvfb on a display that is free; give its name."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x960x24", "-nolisten", "tcp"]
    screen = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as numbers:
            yield f":{numbers.readline().strip()}"
    finally:
        screen.terminate()
        screen.wait()


def _child_with(parent: int, word: str) -> int:
    """Wait for a child of a process whose command line has a word in it; return its id."""
    found: list[int] = []

    def has_come() -> bool:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                is_child = f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
                if is_child and word in (folder / "cmdline").read_text():
                    found.append(int(folder.name))
        return bool(found)

    until(has_come, "no window is opened")
    return found[0]
