"""Run engines that take images of one size, or cut off borders, on images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import Engine

__all__ = ["ANY_SIDES", "Sides", "WindowedEngine"]

_MOST_WINDOWS = 16  # at a time, which bounds memory


@dataclass(frozen=True, slots=True)
class Sides:
    """Describe the images that a network takes, and what it cuts off.

    Args:
        fixed: height and width in pixels, if there is one size only.
        multiple: input sides must be multiples of it.
        lost: output pixels by which the output is smaller than the input times the scale, in each direction, as by
            convolutions without padding.
    """

    fixed: tuple[int, int] | None = None
    multiple: int = 1
    lost: int = 0


ANY_SIDES = Sides()


class WindowedEngine:
    """See `Engine`: cut images into windows that overlap, and stitch the middles of their outputs.

    Args:
        engine: takes (N, C, H, W) of the sides that are described.
        halo: distance in input pixels within which an output pixel depends on the input; windows overlap by twice
            that, or by half of their side where that is less.
    """

    def __init__(self, engine: Engine, sides: Sides, scale: int, halo: int) -> None:
        self._engine, self._sides, self._scale, self._halo = engine, sides, scale, halo
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype
        self._border = -(-sides.lost // (2 * scale))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        height, width = x.shape[-2:]
        border = self._border
        fixed = self._sides.fixed or (0, 0)
        below, right = (max(0, need - side - 2 * border) for need, side in zip(fixed, (height, width), strict=True))
        padded = F.pad(x, (border, border + right, border, border + below), mode="replicate")
        out = self._engine(padded)[0] if self._sides.fixed is None else self._stitched(padded, self._sides.fixed)
        start = border * self._scale - self._sides.lost // 2
        return (out[..., start : start + height * self._scale, start : start + width * self._scale],)

    def _stitched(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute images that are at least one window high and wide."""
        batch, _, height, width = x.shape
        scale, lost = self._scale, self._sides.lost
        rows, columns = (list(self._spans(length, side)) for length, side in zip((height, width), size, strict=True))
        spans = [(row, column) for row in rows for column in columns]
        out = x.new_empty(0)
        for first in range(0, len(spans), _MOST_WINDOWS):
            part = spans[first : first + _MOST_WINDOWS]
            windows = [x[..., y : y + size[0], left : left + size[1]] for (y, _, _), (left, _, _) in part]
            outs = torch.split(self._engine(torch.cat(windows))[0], batch)
            if not out.numel():
                out = x.new_empty(batch, outs[0].shape[1], height * scale - lost, width * scale - lost)
            for ((y, top, bottom), (left, begin, end)), piece in zip(part, outs, strict=True):
                inner = piece[..., top - y * scale : bottom - y * scale, begin - left * scale : end - left * scale]
                out[..., top:bottom, begin:end] = inner
        return out

    def _spans(self, length: int, side: int) -> Iterator[tuple[int, int, int]]:
        """Yield the start of each window along a side, in input pixels, and the bounds of what is taken of its output.

        The bounds count output pixels of the whole image; they lie in the middle between neighbouring windows.
        """
        margin = min(max(self._halo, self._border), side // 4)
        step = side - 2 * margin
        starts = [*range(0, length - side, step), length - side] if length > side else [0]
        scale, lost = self._scale, self._sides.lost
        cuts = [(start + before + side) * scale // 2 - lost // 2 for before, start in pairwise(starts)]
        for start, (top, bottom) in zip(starts, pairwise([0, *cuts, length * scale - lost]), strict=True):
            yield start, top, bottom
