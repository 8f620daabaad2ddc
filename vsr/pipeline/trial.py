"""How long the network takes here, tried out before a job."""

from __future__ import annotations

import time

from vsr.frames import FrameBatch
from vsr.pipeline.upscaler import Target, Upscaler

__all__ = ["seconds_per_frame"]


def seconds_per_frame(upscaler: Upscaler, batch: FrameBatch, target: Target) -> float:
    """Seconds that the network takes for a frame of a job, measured on a batch of it.

    The batch goes through twice, and the second time counts: the first brings what happens once, such as building an
    engine and checking its precision.
    """
    upscaler.upscale(batch, target)
    begun = time.perf_counter()
    upscaler.upscale(batch, target)
    return (time.perf_counter() - begun) / batch.num_frames
