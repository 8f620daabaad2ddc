"""Skip what has not changed: still frames, and the still parts of frames, take what was computed before.

The result is that of doing the work, bit for bit. Engines choose their kernels by the shape of the input,
and kernels differ in the order of their sums; so whether a frame alone, or a part of it, gives the same
numbers as in the whole is not assumed but shown, on the job's own frames and engine, before it is relied
upon. Where it does not hold, less is reused, and a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.frames import FrameBatch
from vsr.models.cards import ModelCard
from vsr.pipeline.upscaler import Target, Upscaler

__all__ = ["WINDOW_INTERIOR", "FrameReuse", "TileReuse", "can_reuse"]

Planes = tuple[Tensor, ...]
Network = Callable[[Tensor], Tensor]

WINDOW_INTERIOR = 128  # input pixels of a side that one window renews
_CELL = 8  # input pixels of a side by which changes are located
_WORTHWHILE = 0.6  # of a frame's pixels; with more to compute, windows gain too little


def can_reuse(card: ModelCard) -> bool:
    """Whether an output frame depends on nothing but its own input frame."""
    return card.window == 1 and not card.recurrent


class FrameReuse:
    """Stands in for an upscaler's `begin` in a job: frames in presentation order, each batch finished in turn.

    Keeps the last batch's input and output planes and, on a CPU, what `TileReuse` keeps. A batch of n frames
    of which d are new is computed as a batch of d only after both were computed once and were equal.
    note: called with one line where something cannot be reused. Raises what the upscaler raises.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        note: Callable[[str], None] = lambda line: None,
        window_interior: int = WINDOW_INTERIOR,
    ) -> None:
        self._upscaler, self._note, self._window_interior = upscaler, note, window_interior
        self._input: Planes | None = None  # of the last frame that was begun
        self._output: _Output | None = None  # of the last frame that was finished
        self._num_frames, self._num_reused = 0, 0.0
        self._start_anew()

    @property
    def reused_share(self) -> float:
        """The part of all frames' pixels, 0 to 1, that the network did not compute anew."""
        return self._num_reused / self._num_frames if self._num_frames else 0.0

    def _start_anew(self) -> None:
        """Forget what was learnt of the engine, which is another one now."""
        self._way = self._upscaler.way
        self._is_alike: dict[tuple[int, int], bool] = {}  # by (new frames, frames): whether d computes as n
        self._tiles = TileReuse(self._upscaler.card, self._note, self._window_interior)

    @torch.inference_mode()
    def begin(self, batch: FrameBatch, target: Target) -> Callable[[], FrameBatch]:
        """As `Upscaler.begin`."""
        if self._upscaler.way != self._way:
            self._start_anew()
        fresh = _new_frames(self._input, batch.planes)
        self._input = tuple(plane[-1:] for plane in batch.planes)
        num_new, num_frames = len(fresh), batch.num_frames
        if num_new == num_frames:
            return self._begun(batch, batch, fresh, target)
        if num_new and (num_new, num_frames) not in self._is_alike:
            return self._compared(batch, fresh, target)
        if num_new and not self._is_alike[num_new, num_frames]:
            return self._begun(batch, batch, list(range(num_frames)), target)
        return self._begun(batch, _frames(batch, fresh) if num_new else None, fresh, target)

    def _begun(
        self, batch: FrameBatch, part: FrameBatch | None, fresh: Sequence[int], target: Target
    ) -> Callable[[], FrameBatch]:
        """The work on the frames `fresh` of a batch, which make up `part`; the others are still."""
        way, saved_before = self._upscaler.way, self._tiles.num_saved
        finish_part = None if part is None else self._through(self._network, part, target)
        saved_by_tiles = self._tiles.num_saved - saved_before

        def finish() -> FrameBatch:
            new = None if finish_part is None else finish_part()
            is_mixed = self._upscaler.way != way or (self._output is not None and self._output.way != way)
            if len(fresh) == batch.num_frames and saved_by_tiles == 0:
                return self._finished(batch, new, 0)
            if is_mixed:  # what was kept comes of another engine than this batch would have come of
                return self._finished(batch, self._upscaler.upscale(batch, target), 0)
            if len(fresh) < batch.num_frames:
                new = _spread(batch, fresh, new, self._output, target)
            return self._finished(batch, new, batch.num_frames - len(fresh) + saved_by_tiles)

        return finish

    def _compared(self, batch: FrameBatch, fresh: list[int], target: Target) -> Callable[[], FrameBatch]:
        """The work on a whole batch, and once more on its new frames alone: the first of its kind."""
        finish_whole, whole = self._recording(batch, target)
        finish_part, part = self._recording(_frames(batch, fresh), target)
        is_alike = torch.equal(whole[fresh], part)
        way = self._upscaler.way

        def finish() -> FrameBatch:
            out, alone = finish_whole(), finish_part()
            same_planes = all(_equal(a, b) for a, b in zip(_frames(out, fresh).planes, alone.planes, strict=True))
            if self._upscaler.way == way == self._way:
                self._is_alike[len(fresh), batch.num_frames] = is_alike and same_planes
                if not (is_alike and same_planes):
                    self._note(
                        f"{self._upscaler.engine.name} computes a batch of {len(fresh)} otherwise than one of "
                        f"{batch.num_frames}: such batches are computed whole"
                    )
            return self._finished(batch, out, 0)

        return finish

    def _finished(self, batch: FrameBatch, out: FrameBatch | None, num_reused: float) -> FrameBatch:
        assert out is not None
        self._num_frames += batch.num_frames
        self._num_reused += num_reused
        self._output = _Output(tuple(plane[-1:] for plane in out.planes), self._upscaler.way)
        return out

    # -- the network ---------------------------------------------------------------------------------

    def _through(
        self, shortcut: Callable[[Tensor, Network], Tensor], batch: FrameBatch, target: Target
    ) -> Callable[[], FrameBatch]:
        self._upscaler.shortcut = shortcut
        try:
            return self._upscaler.begin(batch, target)
        finally:
            self._upscaler.shortcut = None

    def _network(self, x: Tensor, network: Network) -> Tensor:
        if x.device.type != "cpu":  # engines there are built for one size, maybe for minutes
            return network(x)
        return self._tiles(x, network)

    def _recording(self, batch: FrameBatch, target: Target) -> tuple[Callable[[], FrameBatch], Tensor]:
        """As `begin`, and the network's own output, whose every bit shows how it was computed."""
        recorded: list[Tensor] = []

        def record(x: Tensor, network: Network) -> Tensor:
            out = network(x)
            recorded.append(out.clone())  # what follows works in place
            return out

        self._tiles.forget()
        finish = self._through(record, batch, target)
        return finish, torch.cat(recorded)[-batch.num_frames :]


@dataclass(frozen=True, slots=True)
class _Output:
    """A frame's output planes, N = 1, and the way they came about (`Upscaler.way`)."""

    planes: Planes
    way: tuple[object, ...]


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.dtype == torch.uint16:  # torch compares few things of this type
        a, b = a.view(torch.int16), b.view(torch.int16)
    return torch.equal(a, b)


def _new_frames(before: Planes | None, planes: Planes) -> list[int]:
    """Positions of the frames that differ from the one before them, in any plane."""
    new = []
    for position in range(planes[0].shape[0]):
        here = tuple(plane[position : position + 1] for plane in planes)
        if before is None or not all(_equal(a, b) for a, b in zip(before, here, strict=True)):
            new.append(position)
        before = here
    return new


def _frames(batch: FrameBatch, positions: Sequence[int]) -> FrameBatch:
    planes = tuple(torch.cat([plane[i : i + 1] for i in positions]) for plane in batch.planes)
    pts, durations = (tuple(ticks[i] for i in positions) for ticks in (batch.pts, batch.durations))
    return FrameBatch(planes, pts, durations, batch.time_base, batch.color)


def _spread(
    batch: FrameBatch, fresh: Sequence[int], new: FrameBatch | None, last: _Output | None, target: Target
) -> FrameBatch:
    """The output of a whole batch: still frames repeat what is before them, at last the batch before."""
    sources = [last.planes] if last is not None else []
    if new is not None:
        sources += [tuple(plane[i : i + 1] for plane in new.planes) for i in range(new.num_frames)]
    if len(sources) == 1:
        planes = tuple(plane.expand(batch.num_frames, -1, -1, -1) for plane in sources[0])
    else:
        first = 0 if last is None else 1
        chosen = [sources[sum(f <= i for f in fresh) - 1 + first] for i in range(batch.num_frames)]
        planes = tuple(torch.cat(frames) for frames in zip(*chosen, strict=True))
    return FrameBatch(planes, batch.pts, batch.durations, batch.time_base, target.color)


@dataclass(frozen=True, slots=True)
class _Window:
    """Input pixels: (top, left) of what is computed, and the (top, bottom, left, right) of it that is renewed."""

    top: int
    left: int
    renewed: tuple[int, int, int, int]


class TileReuse:
    """Runs a network only where its input differs, within its halo, from that of the frame before.

    All windows of a job have one shape. Before the first is relied upon, a frame is computed both whole and
    from windows alone, and every value compared; if one differs, frames are computed whole from then on.
    num_saved: frames' worth of pixels that were not computed so far.
    Keeps the network's last input and, while changes are small, its last output.
    """

    def __init__(
        self,
        card: ModelCard,
        note: Callable[[str], None] = lambda line: None,
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

    def __call__(self, x: Tensor, network: Network) -> Tensor:
        """(N, C, H, W), N frames in order, to what `network` gives for them."""
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

    def _whole(self, x: Tensor, network: Network, *, is_calm: bool) -> Tensor:
        """is_calm: whether so little changes that the next frame may well need the output of this one."""
        out = network(x)
        self._out = None
        if is_calm and self._is_exact is None:
            self._is_exact = self._gives_the_same(x[-1:], out[-1:], network)
            if not self._is_exact:
                self._note("parts of a frame come out otherwise than in the whole: only whole frames are reused")
                self.forget()
        if is_calm and self._is_exact:
            self._out = out[-1:].clone()
        return out

    def _gives_the_same(self, frame: Tensor, out: Tensor, network: Network) -> bool:
        everything = torch.ones(self._grid(frame), dtype=torch.bool)
        assembled = torch.full_like(out, math.nan)
        self._renew(assembled, frame, list(self._windows(everything, frame)), network)
        return torch.equal(assembled, out)

    def _renew(self, out: Tensor, frame: Tensor, windows: list[_Window], network: Network) -> None:
        """Compute windows of a frame and write them into its output. One at a time: a batch is another shape."""
        scale, (height, width) = self._card.scale, self._window_size(frame)
        for window in windows:
            part = network(frame[..., window.top : window.top + height, window.left : window.left + width])
            top, bottom, left, right = (side * scale for side in window.renewed)
            y, x = window.top * scale, window.left * scale
            out[..., top:bottom, left:right] = part[..., top - y : bottom - y, left - x : right - x]

    # -- what to compute -----------------------------------------------------------------------------

    def _changed_windows(self, before: Tensor | None, frame: Tensor) -> list[_Window] | None:
        """What has to be computed; None where it is so much that the whole frame is better."""
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
        """Windows that renew all stale cells, (rows, columns) of bool, and lie inside the frame."""
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
        """Pixels to compute, halo included, as a part of the frame's."""
        height, width = self._window_size(frame)
        return len(windows) * height * width / (frame.shape[-2] * frame.shape[-1])
