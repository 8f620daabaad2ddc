"""Decide on a job, and open what it needs: its source and its model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vsr.backends.engine import own_stream
from vsr.backends.select import Place, choose_place
from vsr.errors import OptionError
from vsr.events import OnNote
from vsr.jobs.compression import compression_of
from vsr.jobs.encoding import beside_network
from vsr.jobs.image_plan import plan_images
from vsr.jobs.job import Job
from vsr.jobs.journal import is_in_place, kept_batch
from vsr.jobs.model_cache import ModelSource
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import Footage, ImagePlan, VideoPlan, choose_batch, choose_size, plan_video
from vsr.jobs.report import check_report
from vsr.jobs.sinks import check_output
from vsr.jobs.source import expected_frames, open_source
from vsr.media.endpoints import File, Images, Pipe, Source, Target, parse_source, parse_target
from vsr.media.images import lost_in, read_image, read_piped_image
from vsr.media.read.reader import VideoReader
from vsr.pipeline.upscaler import Upscaler

__all__ = ["OpenImage", "OpenVideo", "decide", "open_again"]


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """A job on a video, its source opened, its model loaded. note: called with what is worth knowing."""

    job: Job
    plan: VideoPlan
    reader: VideoReader
    upscaler: Upscaler
    note: OnNote


@dataclass(frozen=True, slots=True)
class OpenImage:
    """A job on one image, which is read, its model loaded.

    image: (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) gray, uint8 or uint16.
    """

    job: Job
    plan: ImagePlan
    image: np.ndarray
    upscaler: Upscaler


@contextmanager
def decide(
    source: Path, output: Path, options: JobOptions, note: OnNote, models: ModelSource, *, is_dry: bool = False
) -> Iterator[OpenVideo | OpenImage]:
    """Make all decisions of a job and hold what it needs open for the length of a block.

    is_dry: whether nothing will be written; then the output's folder need not be there yet.
    Raises the errors of `vsr.errors` for ends and options that do not fit. Omissions are named in the plan alone.
    """
    begin = parse_source(source)
    end = parse_target(output, begin)
    if _is_of_image(begin, end):
        yield _decided_image(begin, end, options, note, models, is_dry)
        return
    place = choose_place(options.model.device, options.model.backend, takes_several=True)
    with own_stream(place.device), open_source(begin, options.input, place, note) as reader:
        _check_ends(begin, end, options, is_dry)
        yield _decided_video(reader, begin, end, options, place, note, models)


@contextmanager
def open_again(job: Job, note: OnNote, models: ModelSource) -> Iterator[OpenVideo | OpenImage]:
    """Open what a job needs that was decided before, here or elsewhere."""
    if isinstance(job.plan, ImagePlan):
        image = _read(job.source)
        _check_output(job.source, job.target, job.policy.overwrite, False)
        upscaler = models.load(job.model, image.shape[0] * image.shape[1], note)
        yield OpenImage(job, job.plan, image, upscaler)
        return
    place = job.model.place
    with own_stream(place.device), open_source(job.source, job.input, place, note, job.canceller.waking) as reader:
        resumes = job.policy.resume is not False and is_in_place(job.target)
        _check_output(job.source, job.target, job.policy.overwrite or resumes, False)
        upscaler = models.load(job.model, _num_pixels(reader), note)
        yield OpenVideo(job, job.plan, reader, upscaler, note)


def _is_of_image(source: Source, target: Target) -> bool:
    """Tell whether a job upscales one image: stdin is one where an image is to come out."""
    end = target if isinstance(source, Pipe) else source
    return isinstance(end, File) and end.is_image


def _read(source: Source) -> np.ndarray:
    return read_piped_image() if isinstance(source, Pipe) else read_image(source.path)


def _decided_image(
    source: Source, target: Target, options: JobOptions, note: OnNote, models: ModelSource, is_dry: bool
) -> OpenImage:
    if not (isinstance(target, File) and target.is_image):
        raise OptionError(f"{target}: a picture goes in, so name a picture to come out (.png, .jpg, .webp, .tif)")
    image = _read(source)
    _check_ends(source, target, options, is_dry)
    omissions = tuple(lost_in(target.path, image))
    height, width = image.shape[:2]
    place = choose_place(options.model.device, options.model.backend, takes_several=True)
    place = replace(place, others=())  # there is one batch
    choice = models.choose(options.model, place, Footage(width, height, is_image=True), note)
    plan = ImagePlan(*choose_size(options.model, choice.scale, width, height, (False, False)), omissions)
    upscaler = models.load(choice, width * height, note)
    job = Job(source, target, options.input, choice, 1, False, plan, options.policy)
    return OpenImage(job, plan, image, upscaler)


def _decided_video(
    reader: VideoReader,
    source: Source,
    target: Target,
    options: JobOptions,
    place: Place,
    note: OnNote,
    models: ModelSource,
) -> OpenVideo:
    info, model = reader.info, options.model
    footage = Footage(info.width, info.height, compression=compression_of(reader))
    choice = models.choose(model, place, footage, note)
    upscaler = models.load(choice, _num_pixels(reader), note)
    if isinstance(target, Images):
        plan = plan_images(reader, target, options, choice.scale)
    else:
        encoding = beside_network(options.encoding, upscaler.device)
        plan = plan_video(reader, target, replace(options, encoding=encoding), choice.scale)
    # What another program holds of the memory now must not keep a job from going on where it stopped.
    asked = model.batch or (None if options.policy.resume is False else kept_batch(target))
    fitting = None if asked else upscaler.frames_that_fit(info.width, info.height)
    batch = choose_batch(asked, info.width, info.height, upscaler.device, fitting)
    job = Job(source, target, options.input, choice, batch, model.reuse, plan, options.policy)
    return OpenVideo(job, plan, reader, upscaler, note)


def _num_pixels(reader: VideoReader) -> float:
    """Return the input pixels of all frames; infinite where their number is not known."""
    num_frames = expected_frames(reader)
    return math.inf if num_frames is None else num_frames * reader.info.width * reader.info.height


def _check_ends(source: Source, target: Target, options: JobOptions, is_dry: bool) -> None:
    """Refuse an output or a report that cannot or must not be written, before any work is done."""
    policy = options.policy
    _check_output(source, target, policy.overwrite or (policy.resume is not False and is_in_place(target)), is_dry)
    if not is_dry:
        check_report(policy, source, target)


def _check_output(source: Source, target: Target, overwrite: bool, is_dry: bool) -> None:
    if not is_dry or target.path.parent.exists():
        check_output(target, overwrite, source)
