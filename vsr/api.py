"""The calls of `import vsr`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from vsr.events import Progress
from vsr.jobs.job import enhance_file
from vsr.jobs.options import JobOptions
from vsr.jobs.report import JobReport
from vsr.pipeline.loading import load_model
from vsr.pipeline.upscaler import Upscaler

__all__ = ["enhance", "load_model", "upscale_image"]


def enhance(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    note: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> JobReport:
    """Upscale a video file to a video file, or a picture to a picture, as `vsr enhance` does.

    options: the fields of `vsr.jobs.options.JobOptions`, such as model="fast", size="1080p", crf=16,
        overwrite=True; start_seconds, duration_seconds and framerate may be any number.
    note: called with one line for each thing worth knowing.  on_progress: called after each batch.

    Raises the errors of `vsr.errors`, and TypeError for an option that does not exist.
    """
    for key in ("start_seconds", "duration_seconds", "framerate"):
        if options.get(key) is not None:
            options[key] = Fraction(options[key])
    for key in ("reference", "report"):
        if options.get(key) is not None:
            options[key] = Path(options[key])
    return enhance_file(Path(source), Path(output), JobOptions(**options), note=note, on_progress=on_progress)


@functools.lru_cache(maxsize=2)
def _loaded(model: str) -> Upscaler:
    return load_model(model)


def upscale_image(array: np.ndarray, model: str = "fast") -> np.ndarray:
    """Upscale one picture by the model's own scale, on the best device there is.

    array: (H, W, 3) uint8 RGB, and so the result; also uint16, (H, W, 4) RGBA and (H, W) gray.
    The model stays loaded for the next call. Raises ModelError for an unknown model, ValueError for an
    array of another shape or dtype.
    """
    return _loaded(model).upscale_image(array)
