"""Workers that end, hang, lie or fail, and a driver that is stopped: the output is the same, and nothing is left."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster_clips import packets_of, write_clip
from inline_pool import FAULTS, Faults, InlinePool
from torch import Tensor

from vsr.cli.progress import _summary
from vsr.cluster import divided_job, scheduler
from vsr.cluster.pool import Worker
from vsr.cluster.run import enhance_file_on
from vsr.cluster.segment_task import SegmentTask
from vsr.errors import EngineError, OutputError
from vsr.jobs.journal import work_folder
from vsr.jobs.model_cache import GivenModel
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

NUM_FRAMES, NUM_SEGMENTS = 70, 12


class Identity:
    """An engine that gives back what it gets."""

    name, device, dtype = "identity", torch.device("cpu"), torch.float32

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs


class Stopped(BaseException):
    """What ends the driver, as Ctrl-C does."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make frames for twelve segments."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mkv", NUM_FRAMES, step=2)


def _model() -> GivenModel:
    card = ModelCard("identity", "luma", {}, 1, "y", 0)
    return GivenModel(Upscaler(CheckedNetwork(card, lambda precision: Identity(), "fp32")))


def _options(**more: Any) -> JobOptions:
    return JobOptions.of(**{"batch": 2, "preset": "veryfast", "reuse": False, **more})


@pytest.fixture
def whole(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int | None, int | None, bytes]]:
    output = tmp_path_factory.mktemp("whole") / "whole.mkv"
    enhance_file(clip, output, _options(resume=True), models=_model())
    return packets_of(output)


class _Clock:
    """Stands in for the module `time`, with the clock of a pool."""

    def __init__(self, pool: InlinePool) -> None:
        self._pool = pool

    def monotonic(self) -> float:
        return self._pool.now


@pytest.fixture
def make_pool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., InlinePool]:
    """Makes a pool by whose clock deadlines go."""

    def make(faults: Faults = lambda worker, task: None, **rest: Any) -> InlinePool:
        pool = InlinePool(models=_model(), faults=faults, **rest)
        for module in (divided_job, scheduler):
            monkeypatch.setattr(module, "time", _Clock(pool))
        return pool

    return make


def _once(number: int, fault: str) -> Faults:
    """Let the first attempt on a segment fail."""
    return lambda worker, task: fault if (task.range.number, task.attempt) == (number, 0) else None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("gone", "segment 5 of 12 failed on here:.*ended by signal 9"),
        ("hung", "segment 5 of 12 failed on here:.*past the deadline"),
        ("damaged", "segment 5 of 12 failed on here:.*is damaged"),
        ("raises", "segment 5 of 12 failed on here:.*out of memory"),
    ],
)
def test_a_segment_that_fails_is_made_elsewhere(
    fault: str, reason: str, clip: Path, whole: list[Any], make_pool: Callable[..., InlinePool], tmp_path: Path
) -> None:
    notes: list[str] = []
    workers: list[str] = []

    def faults(worker: Worker, task: SegmentTask) -> str | None:
        if task.range.number == 4:
            workers.append(worker.name)
        return _once(4, fault)(worker, task)

    with make_pool(faults) as pool:
        options = _options(report=tmp_path / "report.json")
        report = enhance_file_on(pool, clip, tmp_path / "out.mkv", options, note=notes.append, models=_model())
    assert packets_of(tmp_path / "out.mkv") == whole
    (line,) = [line for line in notes if line.startswith("segment ")]
    assert re.search(reason, line)
    (retried,) = json.loads((tmp_path / "report.json").read_text("utf-8"))["retried_segments"]
    assert retried["segment"] == 5
    assert retried["worker"] == workers[0]
    assert line.startswith(f"segment 5 of 12 failed on {workers[0]}: {retried['reason']}; it is made again")
    assert f"made again: segment 5 ({workers[0]}: {retried['reason']})" in _summary(report)
    assert len(set(workers)) == 2, "another worker took it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mkv", "report.json"]


def test_a_worker_that_always_fails_is_replaced(
    clip: Path, whole: list[Any], make_pool: Callable[..., InlinePool], tmp_path: Path
) -> None:
    def faults(worker: Worker, task: SegmentTask) -> str | None:
        return "raises" if worker.name == "here:2" else None

    with make_pool(faults, num_workers=2) as pool:
        enhance_file_on(pool, clip, tmp_path / "out.mkv", _options(), models=_model())
        assert "here:2" not in [worker.name for worker in pool.ready()]
    assert packets_of(tmp_path / "out.mkv") == whole


@pytest.mark.parametrize(("fault", "error"), [("raises", EngineError), ("damaged", OutputError)])
def test_a_segment_that_fails_everywhere_ends_the_job_with_its_error(
    fault: str,
    error: type[Exception],
    clip: Path,
    whole: list[Any],
    make_pool: Callable[..., InlinePool],
    tmp_path: Path,
) -> None:
    with (
        make_pool(lambda worker, task: fault if task.range.number == 4 else None) as pool,
        pytest.raises(error, match=r"in\.mkv.*\(tried 3 times\)"),
    ):
        enhance_file_on(pool, clip, tmp_path / "out.mkv", _options(), models=_model())
    kept = sorted(path.name[:6] for path in work_folder(tmp_path / "out.mkv").glob("*.mkv"))
    assert "000000" in kept
    assert "000004" not in kept
    with make_pool() as pool:  # what was done is done
        enhance_file_on(pool, clip, tmp_path / "out.mkv", _options(), models=_model())
        assert len(pool.made) == NUM_SEGMENTS - len(kept)
    assert packets_of(tmp_path / "out.mkv") == whole


def test_a_driver_that_is_stopped_keeps_what_is_done_and_one_process_goes_on(
    clip: Path, whole: list[Any], make_pool: Callable[..., InlinePool], tmp_path: Path
) -> None:
    pool = make_pool(lambda worker, task: "hung" if task.range.number == 1 else None, seed=5)
    notes: list[str] = []
    with pytest.raises(Stopped):
        enhance_file_on(_Stopping(pool, 7), clip, tmp_path / "out.mkv", _options(), note=notes.append, models=_model())
    assert pool.is_closed
    kept = {path.name[:6] for path in work_folder(tmp_path / "out.mkv").glob("*.mkv")}
    assert len(kept) >= 4
    assert f"{6 * len(kept)} frames are done and kept; the same command goes on from there" in notes
    assert "000001" not in kept
    enhance_file(clip, tmp_path / "out.mkv", _options(resume=True), models=_model())
    assert packets_of(tmp_path / "out.mkv") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_without_resume_a_driver_that_is_stopped_leaves_nothing(
    clip: Path, make_pool: Callable[..., InlinePool], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        enhance_file_on(_Stopping(make_pool(), 5), clip, tmp_path / "o.mkv", _options(resume=False), models=_model())
    assert not list(tmp_path.iterdir())


class _Stopping:
    """A pool that ends the driver after so many waits."""

    def __init__(self, pool: InlinePool, num_waits: int) -> None:
        self._pool, self._num_left = pool, num_waits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def wait(self, seconds: float) -> Any:
        if not self._num_left:
            raise Stopped
        self._num_left -= 1
        return self._pool.wait(seconds)


def test_thirty_faults_in_a_row_lose_and_leave_nothing(
    clip: Path, whole: list[Any], make_pool: Callable[..., InlinePool], tmp_path: Path
) -> None:
    """Faults of workers and stops of the driver, one after the other, until thirty have been."""
    chance, num_faults = random.Random(17), 0

    def faults(worker: Worker, task: SegmentTask) -> str | None:
        nonlocal num_faults
        if task.attempt or chance.random() < 0.3:  # not twice on a segment: that is another test
            return None
        num_faults += 1
        return chance.choice(FAULTS)

    for number in range(100):
        output = tmp_path / f"{number}.mkv"
        while not output.exists():
            pool = make_pool(faults, seed=number)
            stopping = _Stopping(pool, chance.randrange(2, 40))
            try:
                enhance_file_on(stopping, clip, output, _options(), models=_model())  # type: ignore[arg-type]
            except Stopped:
                num_faults += 1
        assert packets_of(output) == whole
        output.unlink()
        assert not list(tmp_path.iterdir())
        if num_faults >= 30:
            return
    pytest.fail("there were fewer faults than thirty")
