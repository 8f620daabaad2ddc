"""How fast whole jobs run here, from file to file, with a network that is loaded."""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from vsr.jobs.job import enhance_video
from vsr.jobs.plan import JobOptions
from vsr.pipeline.upscaler import Upscaler

__all__ = ["job_fps", "make_clip"]

FEWEST_BATCHES = 8  # of a job; fewer would measure how it starts and ends
_RATE = 30
_BLUR_SIGMA, _CONTRAST = 1.5, 40.0  # of the picture that moves, in pixels and code values


def make_clip(path: Path, width: int, height: int, num_frames: int) -> None:
    """A clip in H.264: soft noise that glides by a pixel a frame, which no frame repeats. Of even or odd size."""
    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.standard_normal((height, width + num_frames)), (0, 0), _BLUR_SIGMA)
    plane = np.clip(128 + noise * (_CONTRAST / noise.std()), 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"preset": "veryfast", "crf": "23"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        for index in range(num_frames):
            view = np.ascontiguousarray(plane[:, index : index + width])
            frame = av.VideoFrame.from_ndarray(view, "gray").reformat(format=stream.pix_fmt, threads=1)
            frame.pts, frame.time_base = index, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def job_fps(upscaler: Upscaler, width: int, height: int, batch: int, network_fps: float, seconds: float) -> float:
    """Frames per second of a job: decoding, network, x264 as by default, and the check of the output.

    width, height: of the input.  seconds: that it is to take, about, at the pace of the network alone.
    """
    num_frames = max(FEWEST_BATCHES * batch, math.ceil(network_fps * seconds))
    with tempfile.TemporaryDirectory() as name:
        clip, output = Path(name, "in.mp4"), Path(name, "out.mp4")
        make_clip(clip, width, height, num_frames)
        report = enhance_video(clip, output, JobOptions(batch=batch, resume=False), upscaler=upscaler)
    return report.num_frames / report.seconds
