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


def write_noise(path: Path, num_frames: int) -> Path:
    """Write frames of noise, 96×80, about 10 KB each."""
    noise = np.random.default_rng(3)
    with av.open(str(path), "w") as container:
        codec = "mpeg2video" if path.suffix == ".mpg" else "libx264"
        stream: Any = container.add_stream(codec, rate=25, options={"qp": "10", "g": "6", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 80, "yuv420p", 10**7
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (80, 96, 3), np.uint8), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_large_clip(path: Path, num_frames: int) -> Path:
    """Write frames of 64×48, two and a half a second, beside sound of 5 MB a frame."""
    rate, step = 192_000, Fraction(2, 5)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=1 / step, options={"g": "1"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream("pcm_f64le", rate=rate, layout="7.1")
        silence = np.zeros((1, 8 * int(rate * step)), np.float64)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + 4 * index, np.uint8), "rgb24")
            frame.pts, frame.time_base = index, step
            container.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(silence, "dbl", "7.1")
            samples.rate, samples.pts, samples.time_base = rate, index * int(rate * step), Fraction(1, rate)
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def packets_of(path: Path) -> Packets:
    """Read the video packets of a file: PTS, DTS and bytes."""
    with av.open(str(path)) as container:
        return [(packet.pts, packet.dts, bytes(packet)) for packet in container.demux(video=0) if packet.size]


def options_of(model: Path, **more: Any) -> JobOptions:
    """Make options of a job on a small network."""
    return JobOptions.of(**{"model": str(model), "batch": 2, "preset": "veryfast", "backend": "pytorch", **more})
