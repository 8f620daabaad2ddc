"""Decide how long a segment may take, and how often it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Patience", "predicted_seconds"]

_SLOWEST_MACS_PER_SECOND = 20e9  # of an old core, in fp32


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds on the work on one segment.

    num_attempts: on a segment, each on another worker where there is one.
    factor: by which a segment may take longer than was predicted, before its worker counts as hung.
    least_seconds: for any segment.  loading_seconds: more for the first one of a worker, which loads its model.
    """

    num_attempts: int = 3
    factor: float = 8.0
    least_seconds: float = 120.0
    loading_seconds: float = 900.0

    def deadline_seconds(self, predicted: float, *, is_first: bool) -> float:
        """Return how long a worker is waited for. predicted: seconds that the segment should take."""
        return self.least_seconds + self.factor * predicted + (self.loading_seconds if is_first else 0.0)


def predicted_seconds(num_frames: int, macs_per_frame: float, measured: Sequence[float]) -> float:
    """Predict the seconds that frames take: by those measured, or else by the network's size, for a slow core.

    macs_per_frame: multiply-accumulates.  measured: seconds a frame of segments that are done.
    """
    per_frame = median(measured) if measured else macs_per_frame / _SLOWEST_MACS_PER_SECOND
    return num_frames * per_frame
