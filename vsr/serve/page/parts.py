"""Hold the parts of a service that the page uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vsr.serve.errors import TooLargeError
from vsr.serve.image_files import decode_upload, read_size
from vsr.serve.images import ImageService
from vsr.serve.job_service import JobService
from vsr.serve.page.files import PageFiles

__all__ = ["PageParts"]


@dataclass(frozen=True, slots=True)
class PageParts:
    """Hand the page what it works with.

    Args:
        images: Upscales images on the engine that all callers share.
        jobs: The video jobs of the service.
        files: Hands files to the browser.
    """

    images: ImageService
    jobs: JobService
    files: PageFiles

    def decode(self, path: Path) -> np.ndarray:
        """Decode an image's file within the limits of the service, by its header. Raises InputError, TooLargeError."""
        limits = self.jobs.settings.limits
        if path.stat().st_size > limits.image_bytes:
            raise TooLargeError(f"the file is too large; at most {limits.image_bytes:,} bytes are taken for an image")
        with path.open("rb") as file:
            size = read_size(file, limits)
            return decode_upload(file.read(), size)
