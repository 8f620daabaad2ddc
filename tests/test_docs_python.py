"""The examples of docs/python.md, run in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from faulty_copies import NUM_FRAMES, make_source

import vsr

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def test_the_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_source(tmp_path / "input.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"{PAGE.name}, example {number}", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert f"{NUM_FRAMES} 256 192" in printed
    assert "(48, 64, 3) uint8 0.04" in printed
    assert [line for line in printed if line.endswith("256, 3)")] == ["(192, 256, 3)", "(2, 192, 256, 3)"]
    assert any(line.startswith("True frames.mp4: as in input.mp4") for line in printed)
    assert printed[-1].startswith("2 missing.mp4")
    assert vsr.verify("input.mp4", "output.mp4").is_same
