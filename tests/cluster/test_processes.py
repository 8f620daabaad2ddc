"""Workers as processes of this machine, through the command line and by themselves."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_clips import options_of, packets_of

from vsr.cluster import segment_task
from vsr.cluster.pool import Worker
from vsr.cluster.processes import ProcessPool
from vsr.cluster.run import enhance_file_on
from vsr.cluster.segment_task import Hello, SegmentTask, check_version
from vsr.errors import OptionError, VsrError
from vsr.jobs.journal import work_folder
from vsr.jobs.run import enhance_file

NUM_FRAMES = 40


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    """Two processes, for all tests here that leave two behind."""
    with ProcessPool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def whole(clip: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job in one process, with cuts every 6 frames."""
    from vsr.jobs import resume, segmented_sink

    output = tmp_path_factory.mktemp("whole") / "whole.mkv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "_FEWEST_FRAMES", 6)
        patch.setattr(resume, "_MOST_FRAMES", 6)
        patch.setattr(segmented_sink, "_FIRST_SEGMENT_SECONDS", math.inf)
        enhance_file(clip, output, options_of(model, resume=True))
    return output


def test_two_processes_make_the_file_that_one_makes(
    pool: ProcessPool, clip: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    frames: list[int] = []
    report = enhance_file_on(
        pool,
        clip,
        tmp_path / "out.mkv",
        options_of(model),
        on_progress=lambda progress: frames.append(progress.num_frames),
    )
    assert packets_of(tmp_path / "out.mkv") == packets_of(whole)
    assert (report.num_frames, frames[-1]) == (NUM_FRAMES, NUM_FRAMES)
    assert frames == sorted(frames)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_a_process_that_is_killed_is_replaced_and_its_segment_made_again(
    pool: ProcessPool, clip: Path, model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, killed = pool.start, []

    def start_and_kill(worker: Worker, task: SegmentTask) -> None:
        if task.range.number != 2 or killed:
            start(worker, task)
            return
        killed.append(int(worker.name.rpartition(":")[2]))
        os.kill(killed[0], signal.SIGSTOP)  # or it might be done with the segment before it is killed
        start(worker, task)
        os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(pool, "start", start_and_kill)
    notes: list[str] = []
    enhance_file_on(pool, clip, tmp_path / "out.mkv", options_of(model), note=notes.append)
    assert packets_of(tmp_path / "out.mkv") == packets_of(whole)
    assert [line for line in notes if "segment 3 of 7 failed" in line and "ended by signal 9" in line]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of a stranger's process is seen on Linux alone")
def test_workers_end_with_the_process_that_started_them(clip: Path) -> None:
    script = "from vsr.cluster.processes import ProcessPool; import time\np = ProcessPool(1)\n"
    script += "while not p.ready(): p.wait(1)\nprint(p.ready()[0].name, flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline().rpartition(":")[2])
        driver.kill()
    _wait_for_the_end_of(worker)


def _wait_for_the_end_of(process: int) -> None:
    """Return when a process that is not a child of this one has ended."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])
    os.close(descriptor)


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_version(Hello.of_this_process())
    monkeypatch.setattr(segment_task, "__version__", "99.1")
    with pytest.raises(VsrError, match=r"far:7 runs vsr 0\.1, and this is vsr 99\.1"):
        check_version(Hello("0.1", "far", 7))


@pytest.mark.parametrize(("name", "text"), [("out.y4m", "segments cannot be joined in"), ("out-%d.png", "segments")])
def test_outputs_without_segments_are_refused(
    name: str, text: str, pool: ProcessPool, clip: Path, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=text) as raised:
        enhance_file_on(pool, clip, tmp_path / name, options_of(model, preset=None))
    assert raised.value.option == "workers"
    assert not work_folder(tmp_path / name).exists()
