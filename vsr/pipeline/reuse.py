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

from vsr.backends.transfers import Planes
from vsr.events import Note, NoteCode, OnNote
from vsr.frames import FrameBatch
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import Computed, Network
from vsr.pipeline.color_path import Target
from vsr.pipeline.tile_reuse import WINDOW_INTERIOR, ReusedTiles, TileReuse
from vsr.pipeline.upscaler import Upscaler

__all__ = ["FrameReuse", "can_reuse"]


def can_reuse(card: ModelCard) -> bool:
    """Tell whether an output frame depends on nothing but its own input frame."""
    return card.window == 1 and not card.recurrent


class FrameReuse:
    """Upscale the frames of a job in presentation order, and compute only what is new in them.

    Keeps the last batch's input and output planes and, on a CPU, what `TileReuse` keeps. A batch of n frames
    of which d are new is computed as a batch of d only after both were computed once and were equal.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        note: OnNote = lambda line: None,
        window_interior: int = WINDOW_INTERIOR,
    ) -> None:
        """note: called with one line where something cannot be reused."""
        self._upscaler, self._note, self._window_interior = upscaler, note, window_interior
        self._num_frames, self._num_reused = 0, 0.0
        self.reset()

    @property
    def reused_share(self) -> float:
        """The part of all frames' pixels, 0 to 1, that the network did not compute anew."""
        return self._num_reused / self._num_frames if self._num_frames else 0.0

    def reset(self) -> None:
        """Forget all frames: the next one is computed whole."""
        self._input: Planes | None = None  # of the last frame that was submitted
        self._output: _Output | None = None  # of the last frame that was finished
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget what was found out about the engine, which is another one now."""
        self._numerics_key = self._upscaler.numerics_key
        self._is_alike: dict[tuple[int, int], bool] = {}  # by (new frames, frames): whether d computes as n
        self._tiles = TileReuse(self._upscaler.card, self._note, self._window_interior)

    @torch.inference_mode()
    def submit(self, batch: FrameBatch, target: Target) -> Callable[[], FrameBatch]:
        """See `Upscaler.submit`; results are asked for in the order of their batches."""
        if self._upscaler.numerics_key != self._numerics_key:
            self._start_anew()
        fresh = _new_frames(self._input, batch.planes)
        self._input = tuple(plane[-1:] for plane in batch.planes)
        num_new, num_frames = len(fresh), batch.num_frames
        if num_new == num_frames:
            return self._submitted(batch, batch, fresh, target)
        if num_new and (num_new, num_frames) not in self._is_alike:
            return self._compared(batch, fresh, target)
        if num_new and not self._is_alike[num_new, num_frames]:
            return self._submitted(batch, batch, list(range(num_frames)), target)
        return self._submitted(batch, _frames(batch, fresh) if num_new else None, fresh, target)

    def _submitted(
        self, batch: FrameBatch, part: FrameBatch | None, fresh: Sequence[int], target: Target
    ) -> Callable[[], FrameBatch]:
        """Queue the work on the frames `fresh` of a batch, which make up `part`; the others are still."""
        key, saved_before = self._upscaler.numerics_key, self._tiles.num_saved
        network = ReusedTiles(self._upscaler.network, self._tiles)
        part_result = None if part is None else self._upscaler.submit(part, target, network)
        saved_by_tiles = self._tiles.num_saved - saved_before

        def result() -> FrameBatch:
            new = None if part_result is None else part_result()
            is_mixed = self._upscaler.numerics_key != key or (
                self._output is not None and self._output.numerics_key != key
            )
            if len(fresh) == batch.num_frames and saved_by_tiles == 0:
                return self._finished(batch, new, 0)
            if is_mixed:  # the frames kept are of another engine than the one this batch would have come from
                return self._finished(batch, self._upscaler.upscale(batch, target), 0)
            if len(fresh) < batch.num_frames:
                new = _spread(batch, fresh, new, self._output, target)
            return self._finished(batch, new, batch.num_frames - len(fresh) + saved_by_tiles)

        return result

    def _compared(self, batch: FrameBatch, fresh: list[int], target: Target) -> Callable[[], FrameBatch]:
        """Queue the work on a whole batch, and once more on its new frames alone: the first of its kind."""
        self._tiles.forget()
        whole, alone = _Recorder(self._upscaler.network), _Recorder(self._upscaler.network)
        whole_result = self._upscaler.submit(batch, target, whole)
        alone_result = self._upscaler.submit(_frames(batch, fresh), target, alone)
        is_alike = torch.equal(whole.last(batch.num_frames)[fresh], alone.last(len(fresh)))
        key = self._upscaler.numerics_key

        def result() -> FrameBatch:
            out, part = whole_result(), alone_result()
            same_planes = all(_equal(a, b) for a, b in zip(_frames(out, fresh).planes, part.planes, strict=True))
            if self._upscaler.numerics_key == key == self._numerics_key:
                self._is_alike[len(fresh), batch.num_frames] = is_alike and same_planes
                if not (is_alike and same_planes):
                    text = f"{self._upscaler.engine.name} computes a batch of {len(fresh)} otherwise than one of "
                    self._note(Note(NoteCode.REUSE, f"{text}{batch.num_frames}: such batches are computed whole"))
            return self._finished(batch, out, 0)

        return result

    def _finished(self, batch: FrameBatch, out: FrameBatch | None, num_reused: float) -> FrameBatch:
        assert out is not None
        self._num_frames += batch.num_frames
        self._num_reused += num_reused
        self._output = _Output(tuple(plane[-1:] for plane in out.planes), self._upscaler.numerics_key)
        return out


class _Recorder:
    """See `Network`: keeps a copy of the network's own output, whose every bit shows how it was computed."""

    def __init__(self, network: Network) -> None:
        self._network, self._outputs = network, list[Tensor]()

    def run(self, *inputs: Tensor) -> Computed:
        computed = self._network.run(*inputs)
        self._outputs.append(computed.outputs[0].clone())  # what follows works in place
        return computed

    def last(self, num_frames: int) -> Tensor:
        """Return the outputs of the last frames; before them may come calls that ran out of memory."""
        return torch.cat(self._outputs)[-num_frames:]


@dataclass(frozen=True, slots=True)
class _Output:
    """A frame's output planes, N = 1, and the `Upscaler.numerics_key` they were computed under."""

    planes: Planes
    numerics_key: tuple[object, ...]


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.dtype == torch.uint16:  # torch compares few things of this type
        a, b = a.view(torch.int16), b.view(torch.int16)
    return torch.equal(a, b)


def _new_frames(before: Planes | None, planes: Planes) -> list[int]:
    """Return the positions of frames that differ from the one before them, in any plane."""
    new = []
    for position in range(planes[0].shape[0]):
        here = tuple(plane[position : position + 1] for plane in planes)
        if before is None or not all(_equal(a, b) for a, b in zip(before, here, strict=True)):
            new.append(position)
        before = here
    return new


def _frames(batch: FrameBatch, positions: Sequence[int]) -> FrameBatch:
    planes = tuple(torch.cat([plane[i : i + 1] for i in positions]) for plane in batch.planes)
    pts, durations = (tuple(times[i] for i in positions) for times in (batch.pts, batch.durations))
    return FrameBatch(planes, pts, durations, batch.time_base, batch.color)


def _spread(
    batch: FrameBatch, fresh: Sequence[int], new: FrameBatch | None, last: _Output | None, target: Target
) -> FrameBatch:
    """Put a whole batch together: still frames repeat the frame before them, at last that of the batch before."""
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
