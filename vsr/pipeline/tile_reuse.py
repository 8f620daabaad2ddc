"""Skip the still parts of frames: run a network only where its input has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.events import Note, NoteCode, OnNote
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import Computed, Network, is_finite

__all__ = ["WINDOW_INTERIOR", "ReusedTiles", "TileReuse"]

Function = Callable[[Tensor], Tensor]
WINDOW_INTERIOR = 128  # input pixels of a side that one window renews
_CELL = 8  # input pixels of a side by which changes are located
_WORTHWHILE = 0.6  # of a frame's pixels; with more to compute, windows gain too little


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of a frame to compute.

    top, left: where it begins, in input pixels.  renewed: (top, bottom, left, right) in the frame of the pixels whose
    output is taken, without the halo.
    """

    top: int
    left: int
    renewed: tuple[int, int, int, int]


class TileReuse:
    """Run a network only where its input differs, within its halo, from that of the frame before.

    All windows of a job have one shape. Before the first is relied upon, a frame is computed both whole and
    from windows alone, and every value compared; if one differs, frames are computed whole from then on.
    num_saved: frames' worth of pixels that were not computed so far.
    Keeps the network's last input and, while changes are small, its last output.
    """

    def __init__(
        self,
        card: ModelCard,
        note: OnNote = lambda line: None,
        window_interior: int = WINDOW_INTERIOR,
    ) -> None:
        self._card, self._note = card, note
        self._cell = math.lcm(_CELL, card.multiple_of)
        self._reach = -(-card.halo // self._cell)  # cells
        self._interior = -(-window_interior // self._cell)  # cells
        self._is_exact: bool | None = None
        self.num_saved = 0.0
        self.forget()

    def forget(self) -> None:
        """Compute the next frame whole."""
        self._x: Tensor | None = None
        self._out: Tensor | None = None

    def __call__(self, x: Tensor, network: Function) -> Tensor:
        """Return the values that `network` gives for (N, C, H, W), N frames in order."""
        if self._is_exact is False or any(side % self._card.multiple_of for side in x.shape[-2:]):
            return network(x)
        before = [self._x, *torch.split(x, 1)[:-1]]
        windows = [self._changed_windows(a, b) for a, b in zip(before, torch.split(x, 1), strict=True)]
        self._x = x[-1:]
        if self._out is None or self._is_exact is None or any(found is None for found in windows):
            return self._whole(x, network, is_calm=windows[-1] is not None)
        outs = []
        for frame, found in zip(torch.split(x, 1), windows, strict=True):
            assert found is not None
            self._renew(self._out, frame, found, network)
            self.num_saved += 1 - self._cost(found, frame)
            outs.append(self._out.clone())  # what follows works in place
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def _whole(self, x: Tensor, network: Function, *, is_calm: bool) -> Tensor:
        """Compute whole frames.

        Args:
            is_calm: whether so little changes that the next frame may well need the output of this one.
        """
        out = network(x)
        self._out = None
        if is_calm and self._is_exact is None:
            self._is_exact = self._gives_the_same(x[-1:], out[-1:], network)
            if not self._is_exact:
                text = "parts of a frame come out otherwise than in the whole: only whole frames are reused"
                self._note(Note(NoteCode.REUSE, text))
                self.forget()
        if is_calm and self._is_exact:
            self._out = out[-1:].clone()
        return out

    def _gives_the_same(self, frame: Tensor, out: Tensor, network: Function) -> bool:
        everything = torch.ones(self._grid(frame), dtype=torch.bool)
        assembled = torch.full_like(out, math.nan)
        self._renew(assembled, frame, list(self._windows(everything, frame)), network)
        return torch.equal(assembled, out)

    def _renew(self, out: Tensor, frame: Tensor, windows: list[_Window], network: Function) -> None:
        """Compute windows of a frame and write them into its output. One at a time: a batch is another shape."""
        scale, (height, width) = self._card.scale, self._window_size(frame)
        for window in windows:
            part = network(frame[..., window.top : window.top + height, window.left : window.left + width])
            top, bottom, left, right = (side * scale for side in window.renewed)
            y, x = window.top * scale, window.left * scale
            out[..., top:bottom, left:right] = part[..., top - y : bottom - y, left - x : right - x]

    def _changed_windows(self, before: Tensor | None, frame: Tensor) -> list[_Window] | None:
        """List the windows that must be computed; None where they are so many that the whole frame is better."""
        if before is None or before.shape != frame.shape:
            return None
        changed = (before != frame).any(1).to(torch.float32)
        cells = F.max_pool2d(changed, self._cell, ceil_mode=True)
        stale = F.max_pool2d(cells, 2 * self._reach + 1, 1, self._reach)[0] > 0
        windows = []
        for window in self._windows(stale, frame):
            windows.append(window)
            if self._cost(windows, frame) > _WORTHWHILE:
                return None
        return windows

    def _windows(self, stale: Tensor, frame: Tensor) -> Iterator[_Window]:
        """Yield windows that renew all stale cells, (rows, columns) of bool, and lie inside the frame."""
        stale, cell, step = stale.clone(), self._cell, self._interior
        (height, width), (window_height, window_width) = frame.shape[-2:], self._window_size(frame)
        while stale.any():
            row = int(stale.any(1).nonzero()[0])
            column = int(stale[row : row + step].any(0).nonzero()[0])
            stale[row : row + step, column : column + step] = False
            top, left = row * cell, column * cell
            renewed = (top, min(height, top + step * cell), left, min(width, left + step * cell))
            margin = self._reach * cell
            yield _Window(
                max(0, min(top - margin, height - window_height)),
                max(0, min(left - margin, width - window_width)),
                renewed,
            )

    def _window_size(self, frame: Tensor) -> tuple[int, int]:
        side = (self._interior + 2 * self._reach) * self._cell
        return min(side, frame.shape[-2]), min(side, frame.shape[-1])

    def _grid(self, frame: Tensor) -> tuple[int, int]:
        return -(-frame.shape[-2] // self._cell), -(-frame.shape[-1] // self._cell)

    def _cost(self, windows: list[_Window], frame: Tensor) -> float:
        """Return the share of the frame's pixels that windows compute, halo included."""
        height, width = self._window_size(frame)
        return len(windows) * height * width / (frame.shape[-2] * frame.shape[-1])


class ReusedTiles:
    """See `Network`: a network that is run through `TileReuse`.

    On a CPU only: elsewhere engines are built for one size, which may take minutes.
    """

    def __init__(self, network: Network, tiles: TileReuse) -> None:
        self._network, self._tiles = network, tiles

    def run(self, *inputs: Tensor) -> Computed:
        (x,) = inputs
        if x.device.type != "cpu":
            return self._network.run(x)
        out = self._tiles(x, lambda part: self._network.run(part).outputs[0])
        return Computed((out,), is_finite((out,)))
