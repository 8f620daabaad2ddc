"""What a running job says: notes for people, and its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Note", "Progress"]

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    num_frames_expected: comes from the container's header and may be absent or wrong.
    seconds: since this run began.  num_frames_before: of num_frames, those that an earlier run has done.
    out_seconds: when the last of the frames is shown, in seconds on the output's clock.
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
