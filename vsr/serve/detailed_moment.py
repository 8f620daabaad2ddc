"""Find the moment of a video that shows most detail, for a preview that tells something."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer

from vsr.media.read.opening import InputFormat, open_input

__all__ = ["most_detailed_moment"]

_MOST_LOOKS = 24  # frames that are decoded; each is the key frame at or before a moment
_SIDE = 480  # pixels, of a frame as it is judged


def most_detailed_moment(path: Path, length_seconds: float, demuxer: str | None = None) -> Fraction:
    """Return the start, in seconds from the start of the video, of the part with the most detailed frame in it.

    The part begins with that frame or, near the end, as late as there is room for it. 0 where the video cannot be
    searched.

    Args:
        path: The video.
        length_seconds: Of the part.
        demuxer: FFmpeg's name of the format; None to recognise it.
    """
    with open_input(path, format_=InputFormat(demuxer)) as container:
        duration = (container.duration or 0) / av.time_base
        room = duration - length_seconds
        if room <= 0:
            return Fraction(0)
        found = max(_looks(container, room), default=(0.0, 0.0))
    return Fraction(round(1000 * min(max(found[1], 0.0), room)), 1000)


def _looks(container: InputContainer, room: float) -> Iterator[tuple[float, float]]:
    """Yield detail and time, in seconds from the start, of key frames all over the video."""
    stream = container.streams.video[0]
    stream.codec_context.skip_frame = "NONKEY"
    start = (container.start_time or 0) / av.time_base
    for number in range(_MOST_LOOKS):
        try:
            container.seek(round((start + room * number / (_MOST_LOOKS - 1)) * av.time_base))
            frame = next(container.decode(stream), None)
        except av.FFmpegError:
            continue
        if frame is not None and frame.time is not None:
            yield _detail(frame), frame.time - start


def _detail(frame: av.VideoFrame) -> float:
    """Return the mean absolute Laplacian of a frame's luma, 0 to 255 per pixel."""
    scale = min(1.0, _SIDE / max(frame.width, frame.height))
    size = max(16, round(frame.width * scale)), max(16, round(frame.height * scale))
    luma = frame.reformat(*size, format="gray").to_ndarray()
    return float(np.abs(cv2.Laplacian(luma, cv2.CV_16S)).mean())
