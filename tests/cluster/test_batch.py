"""Many files on the same workers: in turn, each for itself, with the progress of each and of all."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from inline_pool import InlinePool
from torch import Tensor

from vsr.cli.progress import ProgressPrinter
from vsr.cluster.batch import FileEvents, enhance_each_on
from vsr.cluster.pool import Worker
from vsr.cluster.segment_task import SegmentTask
from vsr.events import Progress
from vsr.jobs.job import Job
from vsr.jobs.model_cache import GivenModel, ModelCache
from vsr.jobs.options import JobOptions
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler


class Identity:
    """An engine that gives back what it gets."""

    name, device, dtype = "identity", torch.device("cpu"), torch.float32

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs


class Models(GivenModel, ModelCache):
    """A cache that always gives the same model."""

    def forget(self) -> None: ...


def _models() -> Models:
    card = ModelCard("identity", "luma", {}, 1, "y", 0)
    return Models(Upscaler(CheckedNetwork(card, lambda precision: Identity(), "fp32")))


def _clip(path: Path, num_frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + 2 * index, np.uint8), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_files_take_turns_and_one_that_fails_keeps_no_other_from_it(tmp_path: Path) -> None:
    lengths = {"a.mkv": 60, "b.mkv": 18, "c.mkv": 24}
    named = [(_clip(tmp_path / name, length), tmp_path / f"out_{name}") for name, length in lengths.items()]
    (tmp_path / "broken.mkv").write_bytes(b"no video")
    named.insert(1, (tmp_path / "broken.mkv", tmp_path / "out_broken.mkv"))
    (tmp_path / "out_c.mkv").write_bytes(b"there already")
    order: list[str] = []

    def faults(worker: Worker, task: SegmentTask) -> str | None:
        name = Job.from_json(task.job).source.path.name
        order.append(name)
        return "raises" if name == "b.mkv" and task.range.number == 2 else None

    complaints: list[str] = []
    far: dict[str, int] = {}
    events = FileEvents(
        complain=complaints.append, on_progress=lambda source, p: far.update({source.name: p.num_frames})
    )
    with InlinePool(num_workers=12, models=_models(), faults=faults) as pool:
        outcome = enhance_each_on(pool, named, JobOptions.of(batch=2, preset="veryfast"), _models(), events)
    assert {name: len(paths) for name, paths in outcome.by_name().items()} == {"done": 1, "skipped": 1, "failed": 2}
    assert outcome.exit_code != 0
    assert any("broken.mkv" in line for line in complaints)
    assert any("b.mkv" in line and "out of memory" in line for line in complaints)
    assert _frames(tmp_path / "out_a.mkv") == far["a.mkv"] == 60
    assert "b.mkv" in order[: order.index("a.mkv") + 20], "the second file does not wait for the end of the first"


def test_the_next_file_is_begun_as_soon_as_a_worker_has_nothing_to_do(tmp_path: Path) -> None:
    """Its segments go out while those of the file before are still made."""
    named = [(_clip(tmp_path / f"{name}.mkv", 36), tmp_path / f"out_{name}.mkv") for name in "ab"]
    given: list[str] = []
    with InlinePool(num_workers=7, models=_models()) as pool:
        start = pool.start

        def noted(worker: Worker, task: SegmentTask) -> None:
            given.append(Job.from_json(task.job).source.path.name)
            start(worker, task)

        pool.start = noted  # type: ignore[method-assign]
        outcome = enhance_each_on(pool, named, JobOptions.of(batch=2, preset="veryfast"), _models(), FileEvents())
    assert [path.name for path in sorted(outcome.done)] == ["a.mkv", "b.mkv"]
    first, *rest = [name for name, _ in itertools.groupby(given)]
    assert (first, rest) == ("a.mkv", ["b.mkv"])


def test_json_has_each_file_and_all(capfd: pytest.CaptureFixture[str]) -> None:
    printer = ProgressPrinter("json", quiet=False)
    printer.update_one(Path("a.mkv"), Progress(10, 40, 2.0))
    printer.update_one(Path("b.mkv"), Progress(5, 20, 1.0))
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    files = {line["file"]: line["frames"] for line in lines if line["event"] == "file"}
    assert files == {"a.mkv": 10, "b.mkv": 5}
    assert {line["frames_expected"] for line in lines if line["event"] == "progress"} <= {40, 60}
