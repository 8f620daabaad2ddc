"""Files beside the output, and stdout, for which there is no room."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from vsr.cli.log import LogFile
from vsr.cli.main import main
from vsr.cli.progress import FfmpegProgress
from vsr.events import Progress

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
REMEDY = "make room there, or write to another disk)"


def test_a_log_without_room_ends_with_a_line_and_not_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    with LogFile(FULL) as log:
        log.write("a note")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vsr: /dev/full: the log ends here (") and lines[0].endswith(REMEDY)


def test_progress_without_room_ends_with_a_line_and_not_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    progress = FfmpegProgress(str(FULL))
    progress.update(Progress(1, 2, 1.0, 0))
    progress.update(Progress(2, 2, 2.0, 0))
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vsr: -progress /dev/full: ends here (") and lines[0].endswith(REMEDY)


def test_what_is_printed_without_room_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vsr", "models"])
    stdout = FULL.open("w")
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as ended:
        main()
    monkeypatch.undo()
    with contextlib.suppress(OSError):  # what was not written is tried again
        stdout.close()
    assert ended.value.code == 3
    line = capsys.readouterr().err
    assert line.startswith("vsr: stdout: writing failed (") and line.rstrip().endswith(REMEDY)
