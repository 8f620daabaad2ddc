"""Follow the memory of a job's driver, and of Ray's object store, along a source of two hours.

    python benchmarks/cluster_memory.py [--hours 2] [--rate 25] [--samples 40]

The source is synthetic: 64×48 pixels, 25 frames a second, a shade of grey that changes every second with a line that
moves in it, beside sound of 16 kHz. Frames that are like the one before go around the network. Two workers, on a node
of one CPU each of a Ray cluster on this machine, share no folder with the driver, so that the source and the segments
go through object stores of 100 MB, of which the source alone is more than two.
Goal: neither the driver's memory nor the store's grows along the job.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import av
import numpy as np
from machine import describe_run
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster

from vsr.cluster.piece_sender import IN_FLIGHT_BYTES
from vsr.cluster.ray_pool import TRANSFERS_AT_ONCE, RayPool
from vsr.cluster.remote_file import PIECE_BYTES
from vsr.cluster.run import enhance_file_on
from vsr.events import Progress
from vsr.jobs.options import JobOptions

RESULT = Path(__file__).with_name("cluster_memory.json")
WIDTH, HEIGHT, SOUND_RATE = 64, 48, 16_000
STORE_BYTES = 100 * 2**20
MIB = 2**20


def make_clip(path: Path, num_frames: int, rate: int) -> None:
    """Write frames that change once a second, and silence. rate: frames a second."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "g": str(2 * rate)})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound: Any = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout="mono")
        silence = np.zeros((1, SOUND_RATE // rate), np.int16)
        for index in range(num_frames):
            second = index // rate
            image = np.full((HEIGHT, WIDTH, 3), 20 + second * 37 % 200, np.uint8)
            image[:, second % WIDTH] = 255
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(silence, "s16", "mono")
            samples.rate, samples.pts = SOUND_RATE, index * silence.shape[1]
            samples.time_base = Fraction(1, SOUND_RATE)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))


def resident_mib() -> float:
    """Return the memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def store_mib(nodes: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the MiB that the fullest object store has to keep, and those that all have spilled so far."""
    alive = [node for node in nodes if node["Alive"]]
    stats = [node_stats(n["NodeManagerAddress"], n["NodeManagerPort"], False).store_stats for n in alive]
    kept = max(each.object_store_bytes_primary_copy for each in stats)
    return kept / MIB, sum(each.spilled_bytes_total for each in stats) / MIB


class Sampler:
    """Looks at memory about once a second, and makes a row of it as often as a share of the frames is done.

    rows: by frames, the driver's memory, the most that a store had to keep since the row before, and what has spilled.
    """

    def __init__(self, pool: RayPool, num_frames: int, num_samples: int) -> None:
        self._pool, self._frames_between = pool, num_frames / num_samples
        self._looked, self._kept, self._spilled = 0.0, 0.0, 0.0
        self.rows: list[dict[str, float]] = []

    def update(self, progress: Progress) -> None:
        """Look at the stores, and add a row where one is due."""
        if time.monotonic() - self._looked >= 1:
            self._look()
        if progress.num_frames >= len(self.rows) * self._frames_between:
            self.add(progress.num_frames)

    def _look(self) -> None:
        kept, self._spilled = store_mib(self._pool._ray.nodes())
        self._looked, self._kept = time.monotonic(), max(self._kept, kept)

    def add(self, num_frames: int) -> None:
        """Add a row."""
        self._look()
        row = {
            "frames": num_frames,
            "driver_mib": resident_mib(),
            "store_mib": self._kept,
            "spilled_mib": self._spilled,
        }
        self.rows.append({name: round(value, 1) for name, value in row.items()})
        self._kept = 0.0
        print(self.rows[-1], flush=True)


def start_cluster() -> Any:
    """Start a head without CPUs, and two nodes of one."""
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=False, object_store_memory=STORE_BYTES)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    return cluster


def measure(cluster: Any, hours: float, rate: int, num_samples: int) -> dict[str, Any]:
    """Run the job, and sample along it and at its end."""
    num_frames = round(hours * 3600 * rate)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.mkv", Path(folder) / "out.mkv"
        make_clip(source, num_frames, rate)
        options = JobOptions.of(model="nano", device="cpu", backend="pytorch", precision="fp32", preset="ultrafast")
        with RayPool(cluster.address) as pool:
            sampler = Sampler(pool, num_frames, num_samples)
            report = enhance_file_on(pool, source, output, options, on_progress=sampler.update)
            sampler.add(report.num_frames)
            assert pool._transfer.pieces is not None
            sent = pool._transfer.pieces.num_bytes
        rows = sampler.rows
        return {
            "frames": report.num_frames,
            "clip_seconds": num_frames / rate,
            "source_mib": round(source.stat().st_size / MIB, 1),
            "sent_mib": round(sent / MIB, 1),
            "seconds": round(report.seconds),
            "most_store_mib": max(row["store_mib"] for row in rows),
            "store_bound_mib": (IN_FLIGHT_BYTES + TRANSFERS_AT_ONCE * PIECE_BYTES) / MIB,
            "spilled_mib": rows[-1]["spilled_mib"],
            **compared(rows),
            "samples": rows,
        }


def compared(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Compare the driver's memory in the last quarter of the job with that in the second; the first fills caches."""
    quarter = len(rows) // 4
    second = statistics.mean(row["driver_mib"] for row in rows[quarter : 2 * quarter])
    last = statistics.mean(row["driver_mib"] for row in rows[-quarter:])
    return {"driver_growth_mib": round(last - second, 1), "last_quarter_over_second": round(last / second, 4)}


def main() -> None:
    """Start a cluster, measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rate", type=int, default=25, help="frames a second")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    cluster = start_cluster()
    try:
        result = measure(cluster, arguments.hours, arguments.rate, arguments.samples)
    finally:
        cluster.shutdown()
    arguments.out.write_text(json.dumps({**describe_run(), **result}, indent=1) + "\n", "utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}, indent=1))


if __name__ == "__main__":
    main()
