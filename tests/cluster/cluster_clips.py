"""Make and read the videos of the cluster's tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vsr.jobs.options import JobOptions

Packets = list[tuple[int | None, int | None, bytes]]


def write_clip(path: Path, num_frames: int, step: int) -> Path:
    """Write frames of 64×48 with B-frames, each by `step` brighter than the one before; a white line moves along."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "bf": "2", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(num_frames):
            picture = np.full((48, 64, 3), 40 + step * index, np.uint8)
            picture[:, index % 64] = 255
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets_of(path: Path) -> Packets:
    """Read the video packets of a file: PTS, DTS and bytes."""
    with av.open(str(path)) as container:
        return [(packet.pts, packet.dts, bytes(packet)) for packet in container.demux(video=0) if packet.size]


def options_of(model: Path, **more: Any) -> JobOptions:
    """Make options of a job on a small network."""
    return JobOptions.of(**{"model": str(model), "batch": 2, "preset": "veryfast", "backend": "pytorch", **more})
