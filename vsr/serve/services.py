"""Hold the parts of a running service that its routes share."""

from __future__ import annotations

from dataclasses import dataclass

from vsr.serve.images import ImageService
from vsr.serve.job_service import JobService
from vsr.serve.metrics import Metrics
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns

__all__ = ["Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """Hand the shared parts of a service to its routes.

    turns: of the device that all networks run on; a video job takes one for each batch.
    images: upscaled for many callers at a time.  jobs: on videos.
    """

    settings: Settings
    turns: DeviceTurns
    images: ImageService
    jobs: JobService
    metrics: Metrics
