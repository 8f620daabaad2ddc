"""Run a network on images of any size: padded, split into batches and overlapping tiles, never dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import Engine, TooLargeError
from vsr.errors import EngineError
from vsr.events import Note, NoteCode, OnNote
from vsr.models.cards import ModelCard
from vsr.pipeline.memory import is_out_of_memory

__all__ = ["SMALLEST_TILE", "TiledNetwork"]

SMALLEST_TILE = 32  # input pixels

Tensors = tuple[Tensor, ...]


class TiledNetwork:
    """Run an engine on (N, C, H, W) of any N, H and W.

    The inputs of a call share N, H and W; each output has a scale factor of its own, which its size shows. Padding
    and cropping treat all inputs and all outputs alike.

    tile: side of a tile in input pixels, or None for whole frames. Tiles overlap by the network's halo,
        and keep the image's own borders, so that tiled output equals untiled output.
    On running out of memory the batch is halved down to one frame, then frames are tiled, then tiles
    halved down to `SMALLEST_TILE`; the same where a backend cannot count the elements of so large a tensor, but
    that the batch that fits is known at once. The limits that were found hold for later calls.
    """

    def __init__(
        self, engine: Engine, card: ModelCard, tile: int | None = None, note: OnNote = lambda line: None
    ) -> None:
        self.engine, self.card, self.tile, self._note = engine, card, tile, note
        self.max_batch: int | None = None
        self.take_turn: Callable[[], AbstractContextManager[object]] = nullcontext  # held while the engine computes

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Compute the outputs, (N, C, H·factor, W·factor) each, of float32 inputs on the engine's device.

        Raises EngineError where memory does not suffice even for the smallest tile.
        """
        x = inputs[0]
        while True:
            try:
                parts = zip(*(torch.split(tensor, self.max_batch or x.shape[0]) for tensor in inputs), strict=True)
                outs = [self._frames(part) for part in parts]
                return outs[0] if len(outs) == 1 else tuple(torch.cat(pieces) for pieces in zip(*outs, strict=True))
            except TooLargeError as error:
                self._shrink(x, error, f"{error}", error.num_frames)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(x, error, "out of memory")
            if x.device.type == "cuda":
                torch.cuda.empty_cache()

    def _shrink(self, x: Tensor, error: BaseException, why: str, num_frames: int | None = None) -> None:
        """Compute less at a time from now on. num_frames: as many as fit, where that is known."""
        batch, longest = min(self.max_batch or x.shape[0], x.shape[0]), max(x.shape[-2:])
        if batch > 1:
            self.max_batch = max(1, batch // 2 if num_frames is None else min(num_frames, batch - 1))
            self._note(Note(NoteCode.MEMORY, f"{why}: going on with batches of {self.max_batch}"))
        elif (tile := min(self.tile or longest, longest)) > SMALLEST_TILE:
            self.tile = max(SMALLEST_TILE, -(-tile // 2))
            self._note(Note(NoteCode.MEMORY, f"{why}: going on with tiles of {self.tile} pixels"))
        else:
            raise EngineError(
                f"{why} on {x.device} even with tiles of {SMALLEST_TILE} pixels; use a smaller model or `device=cpu`"
            ) from error

    def _frames(self, inputs: Tensors) -> Tensors:
        """Pad frames to the sides that the network takes, compute them whole or in tiles, and crop."""
        height, width = inputs[0].shape[-2:]
        multiple = self.card.multiple_of
        below, right = -height % multiple, -width % multiple
        if below or right:
            inputs = tuple(F.pad(x, (0, right, 0, below), mode="replicate") for x in inputs)
        if self.tile is not None and (self.tile < height or self.tile < width):
            return self._tiles(inputs, self.tile, height, width)
        outs = self._computed(inputs)
        if not (below or right):
            return outs
        return tuple(_cropped(out, _factor(out, inputs[0]), 0, 0, height, width) for out in outs)

    def _computed(self, inputs: Tensors) -> Tensors:
        with self.take_turn():
            return self.engine(*inputs)

    def _tiles(self, inputs: Tensors, tile: int, height: int, width: int) -> Tensors:
        """Compute padded frames in tiles, and stitch their first `height` rows and `width` columns."""
        halo, multiple = self.card.halo, self.card.multiple_of
        outs: Tensors = ()
        for top, bottom, outer_top, outer_bottom in _spans(height, tile, halo, multiple):
            for left, right, outer_left, outer_right in _spans(width, tile, halo, multiple):
                crops = tuple(x[..., outer_top:outer_bottom, outer_left:outer_right] for x in inputs)
                parts = self._computed(crops)
                factors = [_factor(part, crops[0]) for part in parts]
                if not outs:
                    outs = tuple(_empty(p, f, height, width) for p, f in zip(parts, factors, strict=True))
                for out, part, factor in zip(outs, parts, factors, strict=True):
                    inner = _cropped(part, factor, top - outer_top, left - outer_left, bottom - top, right - left)
                    _cropped(out, factor, top, left, bottom - top, right - left).copy_(inner)
        return outs


def _factor(out: Tensor, x: Tensor) -> Fraction:
    """Output pixels per input pixel in each direction."""
    return Fraction(out.shape[-2], x.shape[-2])


def _empty(part: Tensor, factor: Fraction, height: int, width: int) -> Tensor:
    return part.new_empty((*part.shape[:2], int(height * factor), int(width * factor)))


def _cropped(out: Tensor, factor: Fraction, top: int, left: int, height: int, width: int) -> Tensor:
    """A view of an output, by bounds in input pixels."""
    rows = slice(int(top * factor), int((top + height) * factor))
    return out[..., rows, int(left * factor) : int((left + width) * factor)]


def _spans(length: int, tile: int, halo: int, multiple: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, end) of each tile along a side, and (start, end) with the halo, inside the padded image.

    With the halo all are of one length, so that a device sees one shape: tiles at the image's borders,
    which need a halo on one side only, give more of the image. The outer bounds are multiples of the network's
    cell, so that its cells fall as in the whole image.
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
