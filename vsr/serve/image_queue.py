"""Batch the images of many callers: those of one size and model go through the network together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from vsr.errors import VsrError
from vsr.serve.errors import BusyError, RefusedError
from vsr.serve.image_models import ImageModels, LoadedModels
from vsr.serve.metrics import Metrics
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns

__all__ = ["TILE", "ImageQueue", "ImageTask"]

_LOGGER = logging.getLogger("vsr.serve")
TILE = 384  # input pixels; a tile takes a turn, so that others wait no longer than for one


@dataclass(frozen=True, slots=True, eq=False)  # two tasks with one image are two tasks
class ImageTask:
    """An image that waits for the network.

    model: its own name.  size: (width, height) of the result in pixels; None for the network's scale.
    """

    image: np.ndarray
    model: str
    size: tuple[int, int] | None
    deadline: float
    result: Future[np.ndarray] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[object, ...]:
        """All that images in one batch must share."""
        return self.model, self.image.shape[:2], self.size

    @property
    def num_pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


class ImageQueue:
    """Compute images in two threads: small ones in batches, large ones alone and in tiles.

    Batches hold images of one size and model, in the order of their arrival. The first waits a few milliseconds for
    others. Each batch, and each tile, takes a turn on the device, so that small images, large ones and videos
    go on beside each other. The results are those of `Upscaler.upscale_image`, bit for bit.
    """

    def __init__(self, settings: Settings, models: ImageModels, turns: DeviceTurns, metrics: Metrics) -> None:
        limits = settings.limits
        self._limits, self._seconds = limits, limits.request_seconds
        self._together = _Lane(LoadedModels(models, settings, None), settings, turns, metrics)
        self._alone = _Lane(LoadedModels(models, settings, TILE), settings, turns, metrics)
        self._default = models.default

    @property
    def is_ready(self) -> bool:
        """Tell whether the service's own model is loaded."""
        return self._together.is_ready.is_set()

    @property
    def num_waiting(self) -> int:
        """Images that no thread has taken yet."""
        return self._together.num_waiting + self._alone.num_waiting

    def start(self) -> None:
        """Start the threads; the service's own model is loaded at once."""
        self._together.start("vsr-images", self._default)
        self._alone.start("vsr-large-images")

    def close(self) -> None:
        """End the threads after what they compute now; images that wait are answered as if the queue were full."""
        for lane in (self._together, self._alone):
            lane.close()

    def submit(self, image: np.ndarray, model: str, size: tuple[int, int] | None = None) -> Future[np.ndarray]:
        """Queue an image; see `ImageTask`. The result raises BusyError and RefusedError where time runs out."""
        task = ImageTask(image, model, size, time.monotonic() + self._seconds)
        lane = self._together if task.num_pixels <= self._limits.batch_pixels else self._alone
        lane.put(task)
        return task.result


class _Lane:
    """One thread, the images that wait for it, and the models that it has loaded."""

    def __init__(self, loaded: LoadedModels, settings: Settings, turns: DeviceTurns, metrics: Metrics) -> None:
        self._loaded, self._turns, self._metrics = loaded, turns, metrics
        self._limits = settings.limits
        self._tasks: deque[ImageTask] = deque()
        self._condition = threading.Condition()
        self._is_closed = False
        self.is_ready = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._tasks)

    def start(self, name: str, model: str | None = None) -> None:
        self._thread = threading.Thread(target=self._run, args=(model,), name=name, daemon=True)
        self._thread.start()

    def put(self, task: ImageTask) -> None:
        with self._condition:
            if self._is_closed:
                raise BusyError("the service is stopping", 10)
            self._tasks.append(task)
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self, model: str | None) -> None:
        if model is not None:
            try:
                self._loaded.get(model)
            except VsrError as error:
                _LOGGER.error("the model cannot be loaded: %s", error)
            else:
                self.is_ready.set()
        while batch := self._next_batch():
            self._compute(batch)
        for task in self._tasks:
            task.result.set_exception(BusyError("the service is stopping", 10))

    def _next_batch(self) -> list[ImageTask]:
        """Wait for the next images to compute together; none when the queue is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._tasks or self._is_closed)
            if self._is_closed:
                return []
            first = self._tasks[0]
            most = max(1, min(self._limits.batch_images, self._limits.batch_pixels // first.num_pixels))
            until = first.arrived + self._limits.batch_wait_ms / 1000
            while len(batch := [task for task in self._tasks if task.key == first.key][:most]) < most:
                left = until - time.monotonic()
                if left <= 0 or self._is_closed or not self._condition.wait(left):
                    break
            for task in batch:
                self._tasks.remove(task)
        return batch

    def _compute(self, batch: list[ImageTask]) -> None:
        batch = [task for task in batch if _is_wanted(task)]
        if not batch:
            return
        self._metrics.batch_images.observe(len(batch))
        try:
            upscaler = self._loaded.get(batch[0].model)
            upscaler.network.take_turn = partial(self._turn, max(task.deadline for task in batch))
            results = upscaler.upscale_images([task.image for task in batch], batch[0].size)
        except BaseException as error:  # whatever it is, those who wait must hear of it
            self._metrics.failures.labels(type(error).__name__).inc()
            if not isinstance(error, RefusedError):
                _LOGGER.exception("a batch of %d images failed", len(batch))
                self._loaded.forget(batch[0].model)
            for task in batch:
                task.result.set_exception(error)
            return
        self._metrics.images.inc(len(batch))
        for task, result in zip(batch, results, strict=True):
            task.result.set_result(result)

    @contextmanager
    def _turn(self, deadline: float) -> Iterator[None]:
        """Take a turn on the device for a batch or a tile, if there is time left for it."""
        with self._turns.turn("image"):
            if time.monotonic() > deadline:
                text = f"the image takes longer than {self._limits.request_seconds} s; send a smaller one"
                raise RefusedError(f"{text}, or name a lighter model", status=413, code="too_slow")
            yield


def _is_wanted(task: ImageTask) -> bool:
    """Tell whether an image is still to be computed; answer it where it has waited for too long."""
    if time.monotonic() > task.deadline:
        if task.result.set_running_or_notify_cancel():
            task.result.set_exception(BusyError("the image waited for too long", 10))
        return False
    return task.result.set_running_or_notify_cancel()
