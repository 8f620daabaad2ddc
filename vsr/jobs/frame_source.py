"""Take frames from memory: arrays, tensors and frames, of any iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsr.frames import FrameBatch
from vsr.video import ArrayKind, Frame, Image, rgb_color

__all__ = ["FrameStream", "image_tensor"]


class FrameStream:
    """Frames of an iterable, taken one by one, all of one size and kind.

    first: the first of them.  path: a name for messages.  size: (width, height) in pixels.
    output: whether they are arrays or tensors.  is_float: from 0 to 1.  has_times: whether they have a PTS.
    color: of the frames as they are coded here, in 8 bits or 16.
    """

    def __init__(self, frames: Iterable[Frame | Image]) -> None:
        """Take the first frame. Raises ValueError where there is none, or it is no image."""
        self._frames = iter(frames)
        self._num_frames = 0
        first = next(self._frames, None)
        if first is None:
            raise ValueError("there are no frames")
        self.first = _as_frame(first, 0)
        data = self.first.data
        self.path, self.size = Path("frames"), (self.first.width, self.first.height)
        self.output: ArrayKind = "torch" if isinstance(data, Tensor) else "numpy"
        self.is_float = data.dtype.is_floating_point if isinstance(data, Tensor) else data.dtype.kind == "f"
        depth = 8 if image_tensor(data[:1, :1]).dtype == torch.uint8 else 16
        self.color = replace(rgb_color(self.first.color), bit_depth=depth)
        self.has_times = self.first.pts is not None
        self._last_pts: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        yield self._checked(self.first)
        for item in self._frames:
            yield self._checked(_as_frame(item, self._num_frames))

    def batches(self, num_frames: int) -> Iterator[FrameBatch]:
        """Yield so many frames at a time as planes of RGB; frames without a time are numbered."""
        gathered: list[Frame] = []
        for frame in self:
            gathered.append(frame)
            if len(gathered) == num_frames:
                yield self._batch(gathered)
                gathered = []
        if gathered:
            yield self._batch(gathered)

    def _batch(self, frames: list[Frame]) -> FrameBatch:
        planes = torch.stack([image_tensor(frame.data).permute(2, 0, 1) for frame in frames])
        start = self._num_frames - len(frames)
        pts = tuple(start + i if f.pts is None else f.pts for i, f in enumerate(frames))
        return FrameBatch((planes,), pts, tuple(f.duration for f in frames), self.first.time_base, self.color)

    def _checked(self, frame: Frame) -> Frame:
        """Count a frame. Raises ValueError where it does not go with those before it."""
        number, first = self._num_frames, self.first
        if frame.data.shape != first.data.shape or frame.data.dtype != first.data.dtype:
            was = f"{tuple(first.data.shape)} {first.data.dtype}"
            raise ValueError(f"frame {number} is {tuple(frame.data.shape)} {frame.data.dtype}, and the first {was}")
        if (frame.pts is None) == self.has_times or frame.time_base != first.time_base:
            raise ValueError(
                f"frame {number} has another clock than the first; give all a PTS in one time base, or none"
            )
        if frame.pts is not None and self._last_pts is not None and frame.pts <= self._last_pts:
            raise ValueError(f"frame {number} has the PTS {frame.pts}, which is not after the one before")
        self._num_frames, self._last_pts = number + 1, frame.pts
        return frame


def _as_frame(item: Frame | Image, number: int) -> Frame:
    given: Any = item
    if not isinstance(given, (Frame, np.ndarray, Tensor)) and hasattr(given, "__array_interface__"):
        item = np.asarray(given)  # an image of PIL, for one
    frame = item if isinstance(item, Frame) else Frame(item)
    shape = tuple(getattr(frame.data, "shape", ()))
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"frame {number} is {shape or type(frame.data).__name__}; a frame is (H, W, 3) RGB")
    return frame


def image_tensor(data: Image) -> Tensor:
    """Return an image as uint8 or uint16 on the CPU; floats from 0 to 1 become uint16."""
    if isinstance(data, np.ndarray):
        array = np.ascontiguousarray(data)
        data = torch.from_numpy(array if array.flags.writeable else array.copy())
    data = data.detach().cpu()
    if data.dtype.is_floating_point:
        return data.to(torch.float32).clamp(0, 1).mul(65535).add_(0.5).to(torch.uint16)
    if data.dtype not in (torch.uint8, torch.uint16):
        raise ValueError(f"a frame must be uint8, uint16, or float from 0 to 1, not {data.dtype}")
    return data
