"""Share one device between images and videos: one computes at a time, and neither starves the other."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

__all__ = ["DeviceTurns", "TurnKind"]

TurnKind = Literal["image", "video"]


class DeviceTurns:
    """Hand out turns on a device, each for one batch.

    Images go first, as somebody waits for them; but after `image_seconds` of images in a row a video that waits gets
    its turn. Turns of one kind are taken in the order in which they were asked for. Used from any thread.
    """

    def __init__(self, image_seconds: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._waiting: dict[TurnKind, deque[object]] = {"image": deque(), "video": deque()}
        self._is_taken = False
        self._image_seconds, self._since_video = image_seconds, 0.0

    @contextmanager
    def turn(self, kind: TurnKind) -> Iterator[None]:
        """Wait for the device; hold it for the length of a block."""
        ticket = object()
        with self._condition:
            self._waiting[kind].append(ticket)
            try:
                self._condition.wait_for(lambda: not self._is_taken and self._next() is ticket)
            finally:
                self._waiting[kind].remove(ticket)
            self._is_taken = True
        began = self._clock()
        try:
            yield
        finally:
            with self._condition:
                self._is_taken = False
                self._since_video = 0.0 if kind == "video" else self._since_video + self._clock() - began
                self._condition.notify_all()

    def num_waiting(self, kind: TurnKind) -> int:
        """Return the number of those who wait for a turn."""
        with self._condition:
            return len(self._waiting[kind])

    def _next(self) -> object | None:
        images, videos = self._waiting["image"], self._waiting["video"]
        if videos and (not images or self._since_video >= self._image_seconds):
            return videos[0]
        return images[0] if images else None
