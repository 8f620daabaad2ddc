"""Skip what has not changed: still frames, and the still parts of frames, take what was computed before.

The result is that of doing the work, bit for bit. Engines choose their kernels by the shape of the input,
and kernels differ in the order of their sums; so whether a frame alone, or a part of it, gives the same
numbers as in the whole is not assumed but shown, on the job's own frames and engine, before it is relied
upon. Where it does not hold, less is reused, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vsr.frames import FrameBatch
from vsr.models.cards import ModelCard
from vsr.pipeline.color_path import Target
from vsr.pipeline.tile_reuse import WINDOW_INTERIOR, Network, Planes, TileReuse
from vsr.pipeline.upscaler import Upscaler

__all__ = ["FrameReuse", "can_reuse"]


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
