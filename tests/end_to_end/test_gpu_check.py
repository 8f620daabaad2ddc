"""The check of GPUs, on a machine that need not have one: its lines are passed, or skipped by name."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner, Result

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # where dataclasses look for their names
    spec.loader.exec_module(module)
    return module


def _run(script: ModuleType, out: Path, *words: str) -> Result:
    return CliRunner().invoke(script.main, [*words, "--device", "cpu", "--models", "nano", "--out", str(out)])


def test_on_a_cpu_all_parts_run_and_what_needs_a_gpu_is_skipped_by_name(script: ModuleType, tmp_path: Path) -> None:
    done = _run(script, tmp_path / "gpu.json", "--minutes", "600")
    assert done.exit_code == 0, done.output
    values = json.loads((tmp_path / "gpu.json").read_text())
    lines = {(line["part"], line["name"]): line for line in values["lines"]}
    assert {part for part, _ in lines} == set(script.PARTS)
    assert {line["outcome"] for line in lines.values()} == {"pass", "skip"} and values["counts"]["fail"] == 0
    assert lines["environment", "GPU"]["detail"].startswith("no NVIDIA GPU")
    assert lines["engines", "built, and loaded by the next"]["outcome"] == "skip"
    assert lines["planes", "yuv420p10le, network of rgb"]["outcome"] == "pass"
    assert lines["models", "nano pytorch fp32"]["outcome"] == "pass"
    assert lines["models", "nano pytorch int8"]["detail"] == "PyTorch has no engine for int8"
    assert lines["speed", "time of a batch"]["outcome"] == "pass"
    assert lines["steady", "a state: steps 1 to 8 are equal twice"]["outcome"] == "pass"
    assert lines["planes", "frames for the encoder, as they were fetched"]["outcome"] == "pass"
    assert lines["planes", "state of float16 along motion, by one kernel against the CPU"]["outcome"] == "pass"
    for part, name in (
        ("planes", "the sample by NVDEC, fetched by DLPack"),
        ("planes", "samples of a state, by one kernel against the CPU"),
        ("steady", "several GPUs make the file of one"),
        ("steady", "a state and its graph, PyTorch: runs 1, 2 and 100 are equal, and equal steps without"),
    ):
        assert lines[part, name]["detail"].startswith("no NVIDIA GPU")
    assert all(line["detail"] for line in lines.values())


def test_a_line_that_fails_is_told_and_ends_in_exit_code_1(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planes(setting: object) -> object:
        def fail() -> str:
            assert torch.tensor(0) == 1, "samples\ndiffer"
            return ""

        yield "a check", fail

    monkeypatch.setitem(script.PARTS, "planes", planes)
    done = _run(script, tmp_path / "gpu.json", "planes")
    assert done.exit_code == 1 and "fail  planes       a check  samples differ" in done.output


def test_without_time_nothing_begins(script: ModuleType, tmp_path: Path) -> None:
    done = _run(script, tmp_path / "gpu.json", "models", "--minutes", "0")
    assert done.exit_code == 0 and "no time left; run this part alone" in done.output
