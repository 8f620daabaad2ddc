"""Find out how much work fits in memory, by running out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch

from vsr.errors import EngineError
from vsr.events import Note, NoteCode, OnNote

__all__ = ["BatchLimit", "Splittable", "is_out_of_memory"]


class Splittable(Protocol):
    """Work on a number of frames, such as a `FrameBatch`, that can be done in parts."""

    @property
    def num_frames(self) -> int: ...
    def split(self, num_frames: int) -> list[Self]: ...


T = TypeVar("T")
W = TypeVar("W", bound=Splittable)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a smaller piece of work might succeed where this error came up."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()  # the CPU allocator and MPS raise plain RuntimeErrors
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text


class BatchLimit:
    """Cut batches to the number of frames for which memory suffices beside the network.

    Planes and floats around the network take memory that tiles do not save.
    num_frames: the most frames of a batch; None as long as memory has not run out.
    """

    def __init__(
        self, device: torch.device, note: OnNote = lambda line: None, on_halved: Callable[[], None] = lambda: None
    ) -> None:
        """Begin without a limit.

        Args:
            note: called with one line when the limit becomes smaller.
            on_halved: called then, to let go of memory that only larger batches need.
        """
        self._device, self._note, self._on_halved = device, note, on_halved
        self.num_frames: int | None = None

    def run(self, batch: W, work: Callable[[W], T]) -> list[T]:
        """Call `work` on a batch, or on parts of it in order; return the results.

        A call that ran out of memory is made again with half of the frames, so it must not have changed anything.
        Raises EngineError where memory does not suffice for one frame.
        """
        parts = batch.split(self.num_frames or batch.num_frames)
        return [result for part in parts for result in self._tried(part, work)]

    def _tried(self, batch: W, work: Callable[[W], T]) -> list[T]:
        try:
            return [work(batch)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(batch.num_frames, error)
        # Past the handler, as the error holds on to what was computed.
        self._on_halved()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self.run(batch, work)

    def _halve(self, num_frames: int, error: BaseException) -> None:
        if num_frames == 1:
            raise EngineError(
                f"out of memory on {self._device} even for one frame; use a smaller `scale` or `device=cpu`"
            ) from error
        self.num_frames = num_frames // 2
        self._note(Note(NoteCode.MEMORY, f"out of memory: going on with batches of {self.num_frames}"))
