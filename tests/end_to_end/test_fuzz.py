"""A bounded run of the fuzzer, always on the same damaged files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

FUZZER = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz.py"
TIMEOUT_SECONDS = 300
COUNT = 60


@pytest.mark.slow
def test_damaged_files_end_well_or_with_one_line(tmp_path: Path, warm_python: str) -> None:
    arguments = ["--count", str(COUNT), "--seed", "1", "--out", str(tmp_path / "fuzz.json")]
    command = [warm_python, str(FUZZER), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "fuzz.json").read_text("utf-8"))
    assert result["inputs"] == sum(result["ends"].values()) == COUNT
    assert result["findings"] == []
    # The files are damaged so far that some cannot be used, and not so far that none can.
    assert result["ends"]["done"] > COUNT // 10
    assert sum(count for end, count in result["ends"].items() if "exit code" in end) > COUNT // 10
