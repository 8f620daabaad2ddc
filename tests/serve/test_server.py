"""`vsr serve` as it is started: the curl line of the earlier service, and a clean end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from waiting import PATIENCE_SECONDS, until

from vsr.media.images import read_image, write_image


@pytest.fixture
def service(tmp_path: Path, warm_python: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [warm_python, "-m", "vsr.cli", "serve", "--port", str(port), "--state", str(tmp_path / "state")]
    command += ["--model", "nano", "--device", "cpu", "--backend", "pytorch"]
    environment = {key: value for key, value in os.environ.items() if key != "VSR_TOKEN"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process)
            yield url, process
        finally:
            process.kill()


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            with urllib.request.urlopen(f"{url}/health/ready"):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    until(is_ready, "the service is not ready")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_earlier_curl_line_works_and_the_service_ends_cleanly(
    service: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    url, process = service
    write_image(tmp_path / "x.png", np.full((12, 20, 3), 90, np.uint8))
    line = f'curl -sS -F "image=@x.png" -XPOST {url}/model/predict > y.png'
    subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    assert read_image(tmp_path / "y.png").shape == (48, 80, 3)
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o077 == 0  # of this user alone
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_SECONDS)
    assert '"path": "/model/predict", "status": 200' in log
    assert "Traceback" not in log
    assert process.returncode in (0, 143, -signal.SIGTERM)
    assert [path for path in (state / "tmp").rglob("*") if path.is_file()] == []


def test_a_public_address_without_a_token_is_refused(warm_python: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "VSR_TOKEN"}
    command = [warm_python, "-m", "vsr.cli", "serve", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_SECONDS)
    assert done.returncode == 4
    assert "--host 0.0.0.0" in done.stderr
    assert "--allow-public" in done.stderr
    assert len(done.stderr.splitlines()) == 1
