"""Upscale the batches of a video on several devices in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vsr.backends.engine import Engine, Precision
from vsr.frames import FrameBatch
from vsr.pipeline.color_path import Target
from vsr.pipeline.upscaler import Upscaler

__all__ = ["InTurn"]

_SAFEST_LAST: tuple[Precision, ...] = ("int8", "fp16", "bf16", "fp32")


class InTurn:
    """Upscalers of one network on devices of one kind, each of which takes the next batch in its turn.

    Where one of them has to fall back to a safer precision or to PyTorch, the others follow: a frame must not depend
    on the device that it falls to.
    """

    def __init__(self, upscalers: Sequence[Upscaler]) -> None:
        self._upscalers = list(upscalers)
        self._last = self._upscalers[-1]

    @property
    def engine(self) -> Engine:
        """The engine that was at work last."""
        return self._last.engine

    @property
    def num_in_flight(self) -> int:
        """Batches to submit before the result of the first of them is asked for, so that no device is idle."""
        return sum(upscaler.num_in_flight + 1 for upscaler in self._upscalers) - 1

    def reset(self) -> None:
        """Give the next batch to the first device."""
        self._last = self._upscalers[-1]

    def submit(self, batch: FrameBatch, target: Target) -> Callable[[], FrameBatch]:
        """See `Upscaler.submit`."""
        self._level()
        position = self._upscalers.index(self._last) + 1
        self._last = upscaler = self._upscalers[position % len(self._upscalers)]
        fetch = upscaler.submit(batch, target)

        def result() -> FrameBatch:
            before, self._last = self._last, upscaler  # for the message, where it fails
            done = fetch()
            self._last = before
            return done

        return result

    def _level(self) -> None:
        """Bring all devices to the precision and the backend of the one that has fallen back furthest."""
        safest = max(self._upscalers, key=_safety)
        for upscaler in self._upscalers:
            if _safety(upscaler) < _safety(safest):
                upscaler.network.use_precision(safest.precision, safest.network.backend)


def _safety(upscaler: Upscaler) -> tuple[int, bool]:
    return _SAFEST_LAST.index(upscaler.precision), upscaler.network.backend == "pytorch"
