"""Small videos for the tests of the service, what is read back of them, and a gate that holds jobs."""

from __future__ import annotations

import hashlib
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from waiting import PATIENCE_SECONDS


def write_video(
    path: Path,
    num_frames: int = 20,
    size: tuple[int, int] = (32, 24),
    *,
    last_seconds: float | None = None,
    sound: str | None = None,
) -> Path:
    """Write a moving pattern in H.264, 25 frames a second.

    Args:
        path: the file.
        num_frames: how many.
        size: (width, height) in pixels.
        last_seconds: time of the last frame; None for where it belongs.
        sound: encoder of a tone beside it; None for none.
    """
    width, height = size
    noise = np.random.default_rng(1).integers(0, 255, (height, width + num_frames, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if sound is not None:
            _add_tone(container, sound, num_frames / 25)
        for number in range(num_frames):
            pixels = np.ascontiguousarray(noise[:, number : number + width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            if last_seconds is not None and number == num_frames - 1:
                frame.pts = round(last_seconds * 25)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _add_tone(container: Any, encoder: str, seconds: float) -> None:
    stream = container.add_stream(encoder, rate=48000)
    stream.layout = "mono"
    for number in range(round(seconds * 48000 / 1024)):
        times = np.arange(number * 1024, (number + 1) * 1024) / 48000
        samples = (np.sin(times * 2764) * 0.3).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, number * 1024, Fraction(1, 48000)
        for packet in stream.encode(frame):
            container.mux(packet)
    for packet in stream.encode():
        container.mux(packet)


def sound_of(path: Path | str) -> list[tuple[float, bytes]]:
    """Return the time of each packet of sound in seconds, and its bytes."""
    with av.open(str(path)) as container:
        packets = container.demux(audio=0) if container.streams.audio else ()
        return [(round(float(p.pts * p.time_base), 3), bytes(p)) for p in packets if p.size and p.pts is not None]


def frames_of(path: Path | str) -> list[tuple[float, str]]:
    """Return the time of each frame in seconds, and a checksum of its samples."""
    with av.open(str(path)) as container:
        return [
            (round(float(frame.time or 0), 3), hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest())
            for frame in container.decode(video=0)
        ]


class Gate:
    """Holds jobs at a number of frames until it is opened."""

    def __init__(self) -> None:
        self.num_frames, self._reached, self._opened = 10**9, threading.Event(), threading.Event()

    def arrive(self, num_frames: int) -> None:
        """Called by the job after each batch."""
        if num_frames >= self.num_frames:
            self._reached.set()
            assert self._opened.wait(PATIENCE_SECONDS)

    def wait(self) -> None:
        """Wait until a job is held."""
        assert self._reached.wait(PATIENCE_SECONDS)

    def open(self) -> None:
        """Let all jobs go on."""
        self._opened.set()
