"""Upscale the images of clients: bounded in number and size, from a file to PNG or from pixels to pixels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, TypeVar

import anyio
import numpy as np
from anyio import to_thread

from vsr.errors import OptionError
from vsr.serve.errors import BusyError, TooLargeError
from vsr.serve.image_files import decode_upload, encode_png, read_size
from vsr.serve.image_models import ImageModels
from vsr.serve.image_queue import ImageQueue
from vsr.serve.metrics import Metrics
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns

__all__ = ["ImageService"]

Result = TypeVar("Result")


class ImageService:
    """Upscale images for many callers at a time; see `ImageQueue`.

    models: by the names that clients may use.
    """

    def __init__(self, settings: Settings, turns: DeviceTurns, metrics: Metrics) -> None:
        self.models = ImageModels(settings)
        self._limits = settings.limits
        self._queue = ImageQueue(settings, self.models, turns, metrics)
        self._lock = threading.Lock()
        self._num_images = self._num_pixels = 0
        self._decoders: anyio.CapacityLimiter | None = None
        metrics.waiting_images.set_function(lambda: self._queue.num_waiting)

    @property
    def is_ready(self) -> bool:
        """Tell whether the service's own model is loaded."""
        return self._queue.is_ready

    @property
    def num_under_way(self) -> int:
        """Images from before they are decoded until their answer is sent."""
        return self._num_images

    def start(self) -> None:
        """Start to compute; the service's own model is loaded in the background."""
        self._queue.start()

    def close(self) -> None:
        """Stop after what is computed now."""
        self._queue.close()

    async def upscale_file(
        self,
        file: BinaryIO,
        held: ExitStack,
        model: str | None = None,
        scale: float | None = None,
        convert: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    ) -> bytes:
        """Upscale an image file to PNG.

        Raises InputError where it is no image, TooLargeError, ModelError, OptionError, and BusyError.

        Args:
            file: at its start, open for reading.
            held: closed once the answer is sent; until then the image counts as under way.
            model: a name that clients may use; None for the service's own.
            scale: output pixels per input pixel, 1 to 16; None for the network's.
            convert: called with the decoded image, in a thread.
        """
        width, height = read_size(file, self._limits)
        held.enter_context(self._admitted(width * height))
        image = await self.in_thread(lambda: convert(decode_upload(file.read(), (width, height))))
        name, size = self._choice(image, model, scale)
        result = await asyncio.wrap_future(self._queue.submit(image, name, size))
        return await self.in_thread(lambda: encode_png(result))

    async def upscale_pixels(
        self, images: list[np.ndarray], held: ExitStack, model: str | None = None
    ) -> list[np.ndarray]:
        """Upscale arrays as `Upscaler.upscale_image` takes them. Raises TooLargeError, ModelError and BusyError.

        held: closed once the answer is sent; until then the images count as under way.
        """
        self._check_pixels(images)
        held.enter_context(self._admitted(sum(image.shape[0] * image.shape[1] for image in images), len(images)))
        choices = [self._choice(image, model, None) for image in images]
        results = [self._queue.submit(image, *choice) for image, choice in zip(images, choices, strict=True)]
        return list(await asyncio.gather(*map(asyncio.wrap_future, results)))

    def upscale(self, image: np.ndarray, model: str | None = None, scale: float | None = None) -> np.ndarray:
        """Upscale one array and wait for it, from any thread but the server's own; see `upscale_file`."""
        self._check_pixels([image])
        with self._admitted(image.shape[0] * image.shape[1]):
            return self._queue.submit(image, *self._choice(image, model, scale)).result()

    def _check_pixels(self, images: list[np.ndarray]) -> None:
        most = self._limits.image_pixels
        if any(image.shape[0] * image.shape[1] > most for image in images):
            raise TooLargeError(f"at most {most:,} pixels are taken in an image")

    def _choice(self, image: np.ndarray, model: str | None, scale: float | None) -> tuple[str, tuple[int, int] | None]:
        """Return a model's own name, and (width, height) of the result where that is not the network's."""
        name, card = self.models.find(model)
        factor = card.scale if scale is None else scale
        if not 1 <= factor <= 16:
            raise OptionError(f"`scale={factor:g}`: must lie between 1 and 16")
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        if width * height > self._limits.output_pixels:
            raise TooLargeError(f"the result would be {width}×{height}; at most {self._limits.output_pixels:,} pixels")
        return name, None if scale is None or scale == card.scale else (width, height)

    @contextmanager
    def _admitted(self, num_pixels: int, num_images: int = 1) -> Iterator[None]:
        """Count images from before they are decoded until their answer is sent. Raises BusyError beyond the bounds."""
        with self._lock:
            most, most_pixels = self._limits.queued_images, self._limits.queued_pixels
            is_full = self._num_images + num_images > most or self._num_pixels + num_pixels > most_pixels
            if is_full and self._num_images:  # one that is larger than the bound may come alone
                raise BusyError(f"{self._num_images} images are under way already; try again in a moment")
            if num_images > most:
                raise TooLargeError(f"at most {most} images are taken at a time")
            self._num_images += num_images
            self._num_pixels += num_pixels
        try:
            yield
        finally:
            with self._lock:
                self._num_images -= num_images
                self._num_pixels -= num_pixels

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Decode, encode, parse or write beside other requests, a few at a time."""
        if self._decoders is None:
            self._decoders = anyio.CapacityLimiter(self._limits.decoders)
        return await to_thread.run_sync(work, limiter=self._decoders)
