"""Run a network on pictures of any size: padded, split into batches and overlapping tiles, never dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import Engine
from vsr.errors import EngineError
from vsr.models.cards import ModelCard

__all__ = ["SMALLEST_TILE", "TiledNetwork", "is_out_of_memory"]

SMALLEST_TILE = 32  # input pixels


class TiledNetwork:
    """An engine that takes (N, C, H, W) of any N, H and W.

    tile: side of a tile in input pixels, or None for whole frames. Tiles overlap by the network's halo,
        and keep the picture's own borders, so that tiled output equals untiled output.
    On running out of memory the batch is halved down to one frame, then frames are tiled, then tiles
    halved down to `SMALLEST_TILE`; what was learnt holds for the calls that follow.
    """

    def __init__(
        self, engine: Engine, card: ModelCard, tile: int | None = None, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self.engine, self.card, self.tile, self._note = engine, card, tile, note
        self.max_batch: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) on the engine's device to (N, C, H·scale, W·scale).

        Raises EngineError where memory does not suffice even for the smallest tile.
        """
        while True:
            try:
                parts = torch.split(x, self.max_batch or x.shape[0])
                outs = [self._frames(part) for part in parts]
                return outs[0] if len(outs) == 1 else torch.cat(outs)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(x, error)
            if x.device.type == "cuda":
                torch.cuda.empty_cache()

    def _shrink(self, x: Tensor, error: BaseException) -> None:
        batch, longest = self.max_batch or x.shape[0], max(x.shape[-2:])
        if batch > 1:
            self.max_batch = batch // 2
            self._note(f"out of memory: going on with batches of {self.max_batch}")
        elif (tile := min(self.tile or longest, longest)) > SMALLEST_TILE:
            self.tile = max(SMALLEST_TILE, -(-tile // 2))
            self._note(f"out of memory: going on with tiles of {self.tile} pixels")
        else:
            raise EngineError(
                f"out of memory on {x.device} even with tiles of {SMALLEST_TILE} pixels; "
                "use a smaller model or --device cpu"
            ) from error

    def _frames(self, x: Tensor) -> Tensor:
        """Frames padded to what the network needs, whole or in tiles, and cropped back."""
        height, width = x.shape[-2:]
        scale, multiple = self.card.scale, self.card.multiple_of
        below, right = -height % multiple, -width % multiple
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        if self.tile is None or (self.tile >= height and self.tile >= width):
            (out,) = self.engine(x)
            return out[..., : height * scale, : width * scale]
        out = x.new_empty((x.shape[0], x.shape[1], height * scale, width * scale))
        for top, bottom, outer_top, outer_bottom in _spans(height, self.tile, self.card.halo, multiple):
            for left, right, outer_left, outer_right in _spans(width, self.tile, self.card.halo, multiple):
                (part,) = self.engine(x[..., outer_top:outer_bottom, outer_left:outer_right])
                y, z = (top - outer_top) * scale, (left - outer_left) * scale
                inner = part[..., y : y + (bottom - top) * scale, z : z + (right - left) * scale]
                out[..., top * scale : bottom * scale, left * scale : right * scale] = inner
        return out


def _spans(length: int, tile: int, halo: int, multiple: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """(start, end) of each tile along a side, and (start, end) with the halo, inside the padded picture.

    With the halo all are of one length, so that a device sees one shape: tiles at the picture's borders,
    which need a halo on one side only, give more of the picture. The outer bounds are multiples of what
    the network needs, so that its cells fall as in the whole picture.
    """
    padded, margin = _rounded_up(length, multiple), _rounded_up(halo, multiple)
    count = -(-length // tile)
    outer = _rounded_up(-(-(padded + 2 * margin * (count - 1)) // count), multiple)
    if outer >= padded:
        yield 0, length, 0, padded
        return
    step = outer - 2 * margin
    starts = [*range(0, padded - outer, step), padded - outer]  # the last one is moved inward
    bounds = [0, *(start + margin for start in starts[1:]), length]
    for (start, end), outer_start in zip(pairwise(bounds), starts, strict=True):
        yield start, end, outer_start, outer_start + outer


def _rounded_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller piece of work might do where this error came up."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()  # the CPU allocator and MPS raise plain RuntimeErrors
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
