"""Cost of jobs on many workers: measured on processes of this machine, then replayed for 1 to 10,000 workers.

    python benchmarks/scale.py --frames 1500 --workers 1 2 4   measure, simulate, and write benchmarks/scale.json
    python benchmarks/scale.py --simulate                      simulate again, by the figures that were measured

Every figure stands under "measured" or under "simulated". The measurement runs one job on each number of workers of one
thread, in turn, and takes its ratios from the same run, as other work on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import av
from machine import describe_run

from vsr.cluster.pool import Worker
from vsr.cluster.processes import ProcessPool
from vsr.cluster.run import enhance_file_on
from vsr.cluster.segment_task import SegmentTask
from vsr.jobs import resume
from vsr.jobs.options import JobOptions

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "scale.json"
WORKERS = (1, 2, 4, 10, 100, 1000, 10_000)
FRAMES_PER_SEGMENT = (24, 48, 120, 240, 480)
FILM_FRAMES = 2 * 3600 * 24
CLIP_SECONDS, CLIP_WORKERS = (60, 300, 1800), (2, 4, 8, 16)
LIBRARY, LIBRARY_FRAMES = 1_000_000, 4 * 60 * 25  # videos, and frames of each
TASK_SECONDS = 0.01  # of the driver, for a segment, an assumption
NETWORK_BYTES_PER_SECOND = 1.25e9  # of the machine that joins: 10 gigabits a second, an assumption
DOLLARS_PER_WORKER_HOUR = 0.04  # of a core, an assumption


@dataclass(frozen=True)
class Costs:
    """Seconds of each part, and bytes.

    frame: of a worker, for a frame of a segment.  segment: of a worker, for a segment, beside its frames: opening,
    search and what is decoded before it.  start: of a worker, until it is ready.
    task: of the driver, for a segment: handing it out, checking it, and its line in the journal.
    join: of the driver, for a frame: its packets, and reading them back.  plan: of the driver, for a job.
    frame_bytes: of an encoded frame and its part of the source, through the driver's network.
    """

    frame: float
    segment: float
    start: float
    task: float
    join: float
    plan: float
    frame_bytes: float


def film_seconds(
    costs: Costs, num_workers: int, num_frames: int, per_segment: int, num_cores: float = math.inf
) -> dict[str, float]:
    """Replay one long job: workers take the next segment when they are free; the driver hands out and joins in turn.

    num_cores: on which all workers run, one thread each; more workers than cores share them.
    """
    sharing = max(1.0, num_workers / num_cores)
    lengths = [min(per_segment, num_frames - first) for first in range(0, num_frames, per_segment)]
    free = [costs.plan + costs.start] * min(num_workers, len(lengths))
    driver, joined, busy = costs.plan, costs.plan, 0.0
    for length in lengths:  # of one length, they end in the order in which they begin
        driver = max(driver, free[0]) + costs.task
        seconds = sharing * (costs.segment + length * costs.frame)
        end = driver + seconds
        heapq.heapreplace(free, end)
        busy += seconds
        joined = max(joined, end) + length * max(costs.join, costs.frame_bytes / NETWORK_BYTES_PER_SECOND)
    alone = costs.plan + costs.start + len(lengths) * (costs.task + costs.segment) + num_frames * costs.frame
    return {"seconds": joined, "speed": alone / joined, "busy": busy / (joined * num_workers)}


def own_length(num_frames: int) -> int:
    """Return how many frames a segment has where vsr chooses, for a network as cheap as the one that is measured."""
    return resume.segment_length(1.0, num_frames)


def clip_speeds(costs: Costs) -> dict[str, Any]:
    """Replay short videos as vsr cuts them, and in segments that have no regard for their length."""
    found = {}
    for seconds in CLIP_SECONDS:
        frames = 25 * seconds
        own = own_length(frames)
        rows = {
            f"{workers} workers": {
                "as vsr cuts it": film_seconds(costs, workers, frames, own)["speed"],
                "240 frames a segment": film_seconds(costs, workers, frames, 240)["speed"],
            }
            for workers in CLIP_WORKERS
        }
        found[f"{seconds} seconds"] = {"frames_a_segment": own, **rows}
    return found


def library_hours(costs: Costs, num_workers: int, per_segment: int) -> dict[str, Any]:
    """Replay many short jobs by their steady state: the slowest of workers, driver and network sets the rate."""
    segments = -(-LIBRARY_FRAMES // per_segment)
    needs = {
        "workers": (segments * costs.segment + LIBRARY_FRAMES * costs.frame) / num_workers,
        "driver": costs.plan + segments * costs.task,
        "join": LIBRARY_FRAMES * costs.join,
        "network": LIBRARY_FRAMES * costs.frame_bytes / NETWORK_BYTES_PER_SECOND,
    }
    needs["driver and join"] = needs.pop("driver") + needs.pop("join")  # one process does both
    limit = max(needs, key=lambda name: needs[name])
    return {"hours": LIBRARY * needs[limit] / 3600, "limit": limit, "seconds_a_video": needs}


def simulate(costs: Costs) -> dict[str, Any]:
    """Replay a film and a library for all numbers of workers and lengths of segments."""
    film = {
        f"{workers} workers": {
            f"{length} frames a segment": film_seconds(costs, workers, FILM_FRAMES, length)
            for length in FRAMES_PER_SEGMENT
        }
        for workers in WORKERS
    }
    best = {name: max(rows, key=lambda length: rows[length]["speed"]) for name, rows in film.items()}
    per_segment = own_length(LIBRARY_FRAMES)
    library = {f"{workers} workers": library_hours(costs, workers, per_segment) for workers in WORKERS}
    core_hours = 3600 * 24 * costs.frame / 3600
    return {
        "film_of_two_hours": film,
        "best_segment": best,
        "frames_a_segment_as_vsr_cuts": {"film": own_length(FILM_FRAMES), "library": per_segment},
        "clips": clip_speeds(costs),
        "library_of_a_million_videos_of_four_minutes": library,
        "dollars_for_an_hour_of_video": core_hours * DOLLARS_PER_WORKER_HOUR,
        "assumed": {
            "network_bytes_per_second": NETWORK_BYTES_PER_SECOND,
            "dollars_per_worker_hour": DOLLARS_PER_WORKER_HOUR,
            "driver_seconds_per_segment": TASK_SECONDS,
        },
    }


class _TimedPool(ProcessPool):
    """Has workers of one thread, each on one core; notes when they got ready, and what they were given and answered."""

    def __init__(self, num_workers: int) -> None:
        self.begun, self.ready_at, self.first_task_at = time.perf_counter(), 0.0, 0.0
        self.results: list[tuple[int, float]] = []
        self._lengths: dict[int, int] = {}
        super().__init__(num_workers)
        while len(self.ready()) < num_workers:
            self.wait(1)
        self.ready_at = time.perf_counter()

    def _environment(self, place: int) -> Mapping[str, str]:
        return {**super()._environment(place), "OMP_NUM_THREADS": "1"}

    def _add(self, place: int) -> None:
        super()._add(place)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._members[-1].process_id, {cores[place % len(cores)]})

    def start(self, worker: Worker, task: SegmentTask) -> None:
        self.first_task_at = self.first_task_at or time.perf_counter()
        self._lengths[task.range.number] = task.range.num_frames
        super().start(worker, task)

    def wait(self, seconds: float) -> Any:
        answers = super().wait(seconds)
        for answer in answers:
            if hasattr(answer.event, "segment"):
                self.results.append((self._lengths[answer.event.number], answer.event.seconds))
        return answers


def make_clip(path: Path, num_frames: int, width: int) -> None:
    """Write the sample over and over, up to so many frames, at a width in pixels."""
    frames: list[av.VideoFrame] = []
    with av.open(str(ROOT / "samples" / "sample.mp4")) as source:
        frames = list(source.decode(video=0))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20", "g": "50"})
        height = round(width * frames[0].height / frames[0].width / 2) * 2
        frames = [frame.reformat(width, height) for frame in frames]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in zip(range(num_frames), itertools.cycle(frames), strict=False):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            frame.pict_type = 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(numbers: Sequence[int], num_frames: int, width: int, rounds: int, model: str) -> dict[str, Any]:
    """Run one job on each number of workers, in turn and back."""
    rows: dict[int, list[dict[str, Any]]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        make_clip(source, num_frames, width)
        options = JobOptions.of(model=model, backend="pytorch", precision="fp32", reuse=False, overwrite=True)
        for number in [*numbers, *reversed(numbers)] * rounds:
            with _TimedPool(number) as pool:
                report = enhance_file_on(pool, source, output, options)
                rows[number].append(
                    {
                        "seconds": report.seconds,
                        "start_seconds": pool.ready_at - pool.begun,
                        "plan_seconds": pool.first_task_at - pool.ready_at,
                        "segment_seconds": pool.results,
                        "join_seconds": report.stage_seconds["join"],
                    }
                )
            print(number, rows[number][-1], flush=True)
        num_bytes = source.stat().st_size + output.stat().st_size
    first = numbers[0]
    seconds = {number: statistics.median(row["seconds"] for row in rows[number]) for number in numbers}
    return {
        "frames": num_frames,
        "clip_seconds": num_frames / 25,
        "width": width,
        "model": model,
        "load_average_at_the_end": os.getloadavg()[0],
        "runs": {str(number): rows[number] for number in numbers},
        "speed_by_workers": {str(number): seconds[first] / seconds[number] for number in numbers},
        "join_share": statistics.median(row["join_seconds"] / row["seconds"] for row in rows[first]),
        "bytes_a_frame": num_bytes / num_frames,
    }


def costs_of(measured: dict[str, Any]) -> Costs:
    """Take the costs from the runs on one worker."""
    runs = measured["runs"]["1"]
    results = [tuple(each) for run in runs for each in run["segment_seconds"]]
    per_frame = statistics.median(seconds / length for length, seconds in results)
    plan = statistics.median(run["plan_seconds"] for run in runs)
    idle = [run["seconds"] - plan - sum(seconds for _, seconds in run["segment_seconds"]) for run in runs]
    per_segment = statistics.median(idle) / len(runs[0]["segment_seconds"])
    return Costs(
        frame=per_frame,
        segment=max(0.0, per_segment),
        start=statistics.median(run["start_seconds"] for run in runs),
        task=TASK_SECONDS,
        join=statistics.median(run["join_seconds"] for run in runs) / measured["frames"],
        plan=plan,
        frame_bytes=measured["bytes_a_frame"],
    )


def main() -> None:
    """Measure unless told not to, simulate, and write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--segment-frames", type=int, help="cut so often, instead of as vsr does")
    parser.add_argument("--simulate", action="store_true")
    arguments = parser.parse_args()
    if arguments.segment_frames:
        resume._FEWEST_FRAMES = resume._MOST_FRAMES = arguments.segment_frames
    before = json.loads(RESULT.read_text("utf-8")) if arguments.simulate else describe_run()
    measured = (
        before["measured"]
        if arguments.simulate
        else measure(arguments.workers, arguments.frames, arguments.width, arguments.rounds, arguments.model)
    )
    costs = costs_of(measured)
    lengths = [length for length, _ in measured["runs"]["1"][0]["segment_seconds"]]
    running = replace(costs, start=0.0)  # the measured jobs began when all workers were ready
    check = {
        number: film_seconds(running, int(number), measured["frames"], max(lengths), before["cores"])["speed"]
        for number in measured["speed_by_workers"]
    }
    result = {
        **before,
        "measured": measured,
        "simulated": {"costs": asdict(costs), "speed_of_the_measured_job": check, **simulate(costs)},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps({"measured": measured["speed_by_workers"], "simulated": check}, indent=1))


if __name__ == "__main__":
    main()
