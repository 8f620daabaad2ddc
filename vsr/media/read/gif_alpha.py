"""Find out whether a GIF has transparent pixels; its decoder gives alpha in any case."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

__all__ = ["is_opaque_gif"]


def is_opaque_gif(path: Path) -> bool:
    """Decode a GIF to its first transparent pixel, or to its end; False where it is damaged.

    Its header does not tell: a frame may leave out the pixels that are those of the frame before.
    """
    try:
        with av.open(path) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                if frame.format.name != "bgra" or _alpha(frame).min() < 255:
                    return False
    except av.FFmpegError:
        return False
    return True


def _alpha(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    rows: np.ndarray = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    return rows[: frame.height, 3 : 4 * frame.width : 4]
