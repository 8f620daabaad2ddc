"""Notes and progress of a running job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

__all__ = ["Canceller", "Note", "NoteCode", "OnNote", "Progress", "Waking", "counted"]


def counted(number: int, thing: str) -> str:
    """Return "1 frame" or "2 frames", for a thing that takes an s."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class NoteCode(StrEnum):
    """The subject of a note, for programs; its text may change, its code does not."""

    MODEL = "model"  # which model runs, and why
    ENGINE = "engine"  # an engine is built, compiled, loaded or ready
    FALLBACK = "fallback"  # another precision or backend than the first choice goes on
    MEMORY = "memory"  # out of memory: smaller batches or tiles go on
    REUSE = "reuse"  # how much of a frame is taken over from the one before
    INPUT = "input"  # how the input is read: an assumed frame rate or colour, deinterlacing, decoding on the CPU
    DAMAGE = "damage"  # parts of the input that are missing or cannot be decoded
    TIMESTAMPS = "timestamps"  # timestamps that were moved on
    OMISSION = "omission"  # a part of the input that the output cannot hold; `strict=True` makes it an error
    STREAM = "stream"  # another stream that is transcoded, or left out as asked
    OUTPUT = "output"  # how the output is written, and what lies beside it
    REFERENCE = "reference"  # how the reference is compared
    RESUME = "resume"  # a job that goes on, or could go on, after it was stopped
    CLUSTER = "cluster"  # workers, and segments that were made again
    FILES = "files"  # progress through several inputs: begun, skipped, all done


class Note(str):
    """A line for people, with a code for programs; it is a string, so that `note=print` works.

    code: its subject.
    """

    __slots__ = ("code",)
    code: NoteCode

    def __new__(cls, code: NoteCode, text: str) -> Self:
        note = super().__new__(cls, text)
        note.code = code
        return note

    def __getnewargs__(self) -> tuple[NoteCode, str]:  # type: ignore[override]
        return self.code, str(self)


OnNote = Callable[[Note], None]  # called with each note of a job


class Canceller:
    """Asks a job to end, from another thread: the job looks here between its steps, and is woken where it waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_cancelled = False
        self._wake_ups: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """End the job. It may be called from any thread, before the job starts too, and more than once."""
        with self._lock:
            self.is_cancelled = True
            wake_ups = list(self._wake_ups)
        for wake_up in wake_ups:
            wake_up()

    @contextmanager
    def waking(self, wake_up: Callable[[], None]) -> Iterator[None]:
        """Have `cancel` call a function, in its own thread, for the length of a block; at once if it was called."""
        with self._lock:
            self._wake_ups.append(wake_up)
        if self.is_cancelled:
            wake_up()
        try:
            yield
        finally:
            with self._lock:
                self._wake_ups.remove(wake_up)


# Has a function called, for the length of a block, when a job is to end; as `Canceller.waking`.
Waking = Callable[[Callable[[], None]], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running job.

    num_frames: upscaled so far.  num_frames_expected: by the container's header; None where it does not say, and
        it may be wrong.  seconds: since this run began.  num_frames_before: of `num_frames`, those of an earlier run.
    out_seconds: the time of the last upscaled frame, in seconds on the output's clock.
    """

    num_frames: int
    num_frames_expected: int | None
    seconds: float
    num_frames_before: int = 0
    out_seconds: float | None = None

    @property
    def frames_per_second(self) -> float:
        return (self.num_frames - self.num_frames_before) / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        if not self.num_frames_expected or not self.frames_per_second:
            return None
        return max(0, self.num_frames_expected - self.num_frames) / self.frames_per_second
