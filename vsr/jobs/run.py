"""Run jobs. This module owns every stage of a job: what it starts, it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import chain
from pathlib import Path

from vsr.errors import JobCancelledError, VsrError
from vsr.events import Note, NoteCode, OnNote, Progress
from vsr.files import is_stream
from vsr.jobs.job import Job
from vsr.jobs.model_cache import GivenModel, ModelCache, ModelSource
from vsr.jobs.omissions import name_or_refuse
from vsr.jobs.open_job import OpenImage, OpenVideo, decide, open_again
from vsr.jobs.options import JobOptions
from vsr.jobs.report import JobReport, reported
from vsr.jobs.resume import Ends, before_part, frames_beside, open_journal, resumed, target_of
from vsr.jobs.segmented_sink import OnSegment
from vsr.jobs.sinks import clear_left, open_sink
from vsr.media.images import write_image
from vsr.media.pipe import PipeWriter, is_pipe, opened_for_writing
from vsr.media.read.reader import Chunk
from vsr.media.write.image_writer import ImageWriter
from vsr.pipeline.processor import FrameProcessor, make_processor
from vsr.pipeline.stages import NetworkStage, Sink, failure_named, run_stages
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.reference import FrameQuality, ReferenceMeter, image_quality, read_reference

__all__ = ["announce", "enhance_file", "make_job", "run_job"]

OnProgress = Callable[[Progress], None]


def _ignore(event: object) -> None:
    """Take a note or a progress that nobody asked for."""


def make_job(
    source: Path, output: Path, options: JobOptions, *, note: OnNote = _ignore, models: ModelSource | None = None
) -> Job:
    """Make all decisions of a job, without running it; source, output and models as in `enhance_file`.

    Its source is read up to the first frame, so a pipe is of no more use. Raises StrictError where the job would.
    """
    with decide(source, output, options, note, models or ModelCache()) as opened:
        announce(opened, note)
        return opened.job


def run_job(
    job: Job,
    *,
    on_progress: OnProgress = _ignore,
    on_segment: OnSegment = _ignore,
    note: OnNote = _ignore,
    models: ModelSource | None = None,
) -> JobReport:
    """Run a job that was decided before, here or elsewhere. Raises the errors of `vsr.errors`.

    on_segment: called with each finished segment of a job that can be resumed, those of earlier runs first.
    models: keeps loaded models from job to job.
    """
    started = time.perf_counter()
    _check_cancelled(job)
    try:
        with _pipe_for(job.target.path) as pipe, open_again(job, note, models or ModelCache()) as opened:
            return _run(opened, pipe, started, on_progress, on_segment)
    except VsrError:
        _check_cancelled(job)  # the error may be of what was woken for that
        raise


def enhance_file(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    upscaler: Upscaler | None = None,
    note: OnNote = _ignore,
    on_progress: OnProgress = _ignore,
    models: ModelSource | None = None,
) -> JobReport:
    """Make a job and run it: upscale a video to a video, or an image to an image. Raises the errors of `vsr.errors`.

    source, output: "-" is stdin and stdout; a pattern or a folder stands for images that make a video.
    upscaler: one that is loaded already, instead of the model of the options.
    models: keeps loaded models from job to job.
    """
    started = time.perf_counter()
    models = GivenModel(upscaler) if upscaler is not None else models or ModelCache()
    with _pipe_for(output) as pipe, decide(source, output, options, note, models) as opened:
        announce(opened, note)
        return _run(opened, pipe, started, on_progress)


@contextmanager
def _pipe_for(output: Path) -> Iterator[PipeWriter | None]:
    """Hold stdout, or a named pipe, for the job alone, if it is the target."""
    is_target = is_pipe(output) or is_stream(output)
    with opened_for_writing(output) if is_target else nullcontext() as pipe:
        yield pipe


def announce(opened: OpenVideo | OpenImage, note: OnNote) -> None:
    """Note what the plan leaves out and what is worth knowing; refuse omissions under `strict=True`."""
    job, plan = opened.job, opened.plan
    if isinstance(opened, OpenVideo):
        for line in opened.plan.notes:
            note(line)
    name = opened.reader.path if isinstance(opened, OpenVideo) else job.source.path
    name_or_refuse(job.policy.strict, name, plan.omissions, note)


def _run(
    opened: OpenVideo | OpenImage,
    pipe: PipeWriter | None,
    started: float,
    on_progress: OnProgress,
    on_segment: OnSegment = _ignore,
) -> JobReport:
    """Run a job that is open. pipe: stdout, if it is the target.  started: when, by `time.perf_counter`."""
    if isinstance(opened, OpenImage):
        return _run_image(opened, started)
    return _VideoRun(opened, pipe, started, on_progress, on_segment).run()


def _check_cancelled(job: Job) -> None:
    if job.canceller.is_cancelled:
        raise JobCancelledError(f"{job.source}: the job was cancelled") from None


def _run_image(opened: OpenImage, started: float) -> JobReport:
    job, plan, upscaler = opened.job, opened.plan, opened.upscaler
    size, reference = (plan.width, plan.height), job.policy.reference
    truth = None if reference is None else read_reference(reference, size)
    _check_cancelled(job)
    with failure_named(str(job.source), upscaler):
        upscaled = upscaler.upscale_image(opened.image, size)
    quality = None
    if reference is not None and truth is not None:
        quality = image_quality(reference, truth, upscaled)
    _check_cancelled(job)
    write_image(job.target.path, upscaled, job.policy.overwrite)
    seconds = time.perf_counter() - started
    report = JobReport(job.target.path, upscaler.card.name, upscaler.engine.name, 1, *size, seconds)
    return reported(report, quality, job.source, job.policy.report)


class _VideoRun:
    """One run of a job on a video."""

    def __init__(
        self,
        opened: OpenVideo,
        pipe: PipeWriter | None,
        started: float,
        on_progress: OnProgress,
        on_segment: OnSegment,
    ) -> None:
        self._opened, self._job, self._plan = opened, opened.job, opened.plan
        self._pipe, self._started = pipe, started
        self._on_progress, self._on_segment = on_progress, on_segment

    def run(self) -> JobReport:
        """Run the stages side by side, check the output, put it in its place, and report."""
        job, upscaler, note = self._job, self._opened.upscaler, self._opened.note
        with ExitStack() as stack:
            processor = make_processor(upscaler, target_of(self._plan), reuse=job.reuse, note=note)
            ends = stack.enter_context(self._ends(processor))
            chunks, sink = ends.chunks, ends.sink
            meter = stack.enter_context(self._meter())
            network = NetworkStage(processor, self._opened.reader.path, ends.num_lead_in, ends.after)
            num_before = sink.num_frames

            def on_frames() -> None:
                _check_cancelled(job)
                seconds, num_frames = time.perf_counter() - self._started, num_before + network.num_frames
                expected = self._plan.num_frames
                self._on_progress(Progress(num_frames, expected, seconds, num_before, network.out_seconds))

            stack.enter_context(job.canceller.waking(self._interrupt))
            stage_seconds = run_stages(self._until_cancelled(chunks), network, sink, meter, on_frames, self._interrupt)
            self._check(sink)
            _check_cancelled(job)
            sink.commit()
        report = JobReport(
            job.target.path if self._pipe is None else Path(self._pipe.name),
            upscaler.card.name,
            upscaler.engine.name,
            sink.num_frames,
            self._plan.settings.width,
            self._plan.settings.height,
            time.perf_counter() - self._started,
            stage_seconds,
            reused_share=processor.reused_share,
            num_frames_before=num_before,
        )
        quality: FrameQuality | None = None if meter is None else meter.quality
        return reported(report, quality, job.source, job.policy.report)

    @contextmanager
    def _ends(self, processor: FrameProcessor) -> Iterator[Ends]:
        """Open both ends: the chunks to upscale, and their sink. Unless it is committed, nothing is left of it."""
        clear_left(self._job.target, self._opened.note)
        journal = open_journal(self._opened)
        if journal is not None:
            with resumed(journal, self._opened, processor, self._on_segment) as ends:
                yield ends
            return
        reader = self._opened.reader
        with open_sink(self._job.target, self._pipe, reader, self._plan, self._job.policy.overwrite) as sink:
            beside = frames_beside(self._opened)
            chunks = chain(before_part(beside, processor), reader.chunks(self._job.batch))
            yield Ends(chunks, sink, after=beside.after)

    @contextmanager
    def _meter(self) -> Iterator[ReferenceMeter | None]:
        """Open the meter that compares the frames with the reference, where there is one."""
        job, reference = self._job, self._job.policy.reference
        if reference is None:
            yield None
            return
        with ReferenceMeter(
            reference,
            self._opened.reader,
            self._plan.settings,
            self._opened.note,
            start_seconds=job.input.start_seconds,
            duration_seconds=job.input.duration_seconds,
        ) as meter:
            yield meter

    def _interrupt(self) -> None:
        """End all waiting for a pipe."""
        self._opened.reader.interrupt()
        if self._pipe is not None:
            self._pipe.interrupt()

    def _until_cancelled(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            _check_cancelled(self._job)
            yield chunk
        _check_cancelled(self._job)  # which may have ended the source

    def _check(self, sink: Sink) -> None:
        """Name what was lost on the way, or refuse it under `strict=True`; then read back what was written."""
        is_strict, note, name = self._job.policy.strict, self._opened.note, self._opened.reader.path
        if sink.num_damaged:  # the reader has said so
            name_or_refuse(is_strict, name, [f"{sink.num_damaged} damaged packets"], _ignore)
        name_or_refuse(is_strict, name, sink.omissions, note)
        if isinstance(sink, ImageWriter) and sink.older:
            text = f"{sink.older[0]} and after it: {len(sink.older)} older pictures are still there"
            note(Note(NoteCode.OUTPUT, text))
        if self._job.policy.verify:
            sink.verify()
