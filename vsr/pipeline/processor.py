"""Frame processors: the seam between reader and writer, for networks with memory and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from vsr.backends.engine import Engine
from vsr.events import Note, NoteCode, OnNote
from vsr.frames import FrameBatch
from vsr.pipeline.color_path import Target
from vsr.pipeline.in_turn import InTurn
from vsr.pipeline.reuse import FrameReuse, can_reuse
from vsr.pipeline.temporal import TemporalProcessor
from vsr.pipeline.upscaler import Upscaler

__all__ = ["FrameProcessor", "FrameWise", "Result", "make_processor", "upscale_alone"]

Result = Callable[[], FrameBatch]


class FrameProcessor(Protocol):
    """Make larger frames of the frames of one video, pushed in presentation order.

    A result is a call that waits for the device and gives a batch of upscaled frames on the CPU, with the PTS and
    durations of their sources. The caller asks for each result once, in the order in which they were returned, in the
    thread that pushes. A push may return none, as a processor may hold frames back, and several; every frame that was
    pushed comes out once. A result may hold frames of several pushes.

    engine: runs the network now; for messages.
    num_in_flight: results whose device works on while others are waited for; a caller that holds back so many
        before it asks for the first keeps the device busy.
    reused_share: the part of all pixels, 0 to 1, that was not computed anew; None for a processor that reuses none.
    """

    @property
    def engine(self) -> Engine: ...
    @property
    def num_in_flight(self) -> int: ...
    @property
    def reused_share(self) -> float | None: ...

    def push(self, batch: FrameBatch) -> Sequence[Result]:
        """Take the next frames. Their planes must not be changed until all results are in."""
        ...

    def flush(self, after: FrameBatch | None = None) -> Sequence[Result]:
        """Return the results of all frames that are still held back: the video ends here.

        after: frames that follow in the source, where the video is a part of it; seen, and not upscaled.
        """
        ...

    def reset(self, next_frame: int = 0) -> None:
        """Forget all frames and state: the next push begins with frame number `next_frame` of the source."""
        ...

    def lead_in_frames(self, first_frame: int) -> int:
        """Return how many frames before frame number `first_frame` of the source must be pushed for its result.

        After `reset(first_frame - n)`, n at least that number, and pushes from frame `first_frame - n` on, results
        from `first_frame` on are those of an unbroken run; the n results before them are to be dropped. At most
        `first_frame`; 0 where a frame's result depends on that frame alone.
        """
        ...


class FrameWise:
    """See `FrameProcessor`: upscale each batch by itself, and return its result at once."""

    def __init__(self, upscaler: Upscaler | InTurn, target: Target, reuse: FrameReuse | None = None) -> None:
        """reuse: computes in place of the upscaler where frames repeat."""
        self._upscaler, self._target, self._reuse = upscaler, target, reuse

    @property
    def engine(self) -> Engine:
        return self._upscaler.engine

    @property
    def num_in_flight(self) -> int:
        return self._upscaler.num_in_flight

    @property
    def reused_share(self) -> float | None:
        return None if self._reuse is None else self._reuse.reused_share

    def push(self, batch: FrameBatch) -> Sequence[Result]:
        return [(self._reuse or self._upscaler).submit(batch, self._target)]

    def flush(self, after: FrameBatch | None = None) -> Sequence[Result]:
        return []

    def reset(self, next_frame: int = 0) -> None:
        if self._reuse is not None:
            self._reuse.reset()
        if isinstance(self._upscaler, InTurn):
            self._upscaler.reset()

    def lead_in_frames(self, first_frame: int) -> int:
        return 0


def make_processor(
    upscaler: Upscaler, target: Target, *, reuse: bool = False, note: OnNote = lambda line: None
) -> FrameProcessor:
    """Make the processor that suits a model.

    Args:
        reuse: take over the parts of a frame that equal the frame before, where the model allows it.
        note: called with one line where something cannot be reused.
    """
    if upscaler.card.recurrent:
        return TemporalProcessor(upscaler.network, target)
    if upscaler.others:
        if reuse:
            note(Note(NoteCode.REUSE, "frames that repeat are computed anew: they may fall to another device"))
        return FrameWise(InTurn([upscaler, *upscaler.others]), target)
    use = reuse and can_reuse(upscaler.card)
    return FrameWise(upscaler, target, FrameReuse(upscaler, note) if use else None)


def upscale_alone(upscaler: Upscaler, batch: FrameBatch, target: Target) -> FrameBatch:
    """Upscale a batch as if it were a whole video, whatever its model; for trials."""
    processor = make_processor(upscaler, target)
    (done,) = [result() for result in (*processor.push(batch), *processor.flush())]
    return done
