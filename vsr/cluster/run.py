"""Run jobs whose segments are made by the workers of a pool."""

from __future__ import annotations

import shutil
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vsr.backends.engine import Precision
from vsr.backends.installed import Backend
from vsr.cluster.divided_job import DividedJob, SegmentSettings
from vsr.cluster.division import SegmentRange, decoded_times, divide, packet_times
from vsr.cluster.joining import Joining
from vsr.cluster.patience import Patience
from vsr.cluster.pool import Pool
from vsr.cluster.scheduler import Scheduler
from vsr.errors import JobCancelledError, OptionError, VsrError
from vsr.events import Note, NoteCode, OnNote, Progress, counted
from vsr.jobs.job import Job
from vsr.jobs.journal import Journal, work_folder
from vsr.jobs.model_cache import ModelCache, ModelSource
from vsr.jobs.omissions import name_or_refuse
from vsr.jobs.open_job import OpenVideo, decide
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import VideoPlan
from vsr.jobs.report import JobReport, reported
from vsr.jobs.resume import frames_beside, make_journal, say_what_is_kept, segments_obstacle, target_of
from vsr.jobs.run import announce, enhance_file
from vsr.jobs.sinks import clear_left
from vsr.jobs.source import open_source
from vsr.media.read.reader import Chunk
from vsr.media.write.encoder import encoder_threads
from vsr.pipeline.processor import make_processor
from vsr.pipeline.stages import NetworkStage
from vsr.pipeline.upscaler import Upscaler

__all__ = ["DividedRun", "enhance_file_on", "run_all"]

OnProgress = Callable[[Progress], None]
_BACKENDS: dict[str, Backend] = {name: name for name in ("pytorch", "openvino", "tensorrt")}


def enhance_file_on(
    pool: Pool,
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    note: OnNote = lambda line: None,
    on_progress: OnProgress = lambda progress: None,
    models: ModelSource | None = None,
) -> JobReport:
    """Make a job and run it as `vsr.jobs.run.enhance_file` does, its segments on the workers of a pool.

    An image is upscaled here. What is done is kept where the job is stopped, and the next run goes on with it, on
    workers or without, unless `resume=False`. Raises the errors of `vsr.errors`, and leaves the pool to the caller.
    """
    models = models or ModelCache()
    run = DividedRun.begun(source, output, options, pool.patience, note, on_progress, models)
    if isinstance(run, JobReport):
        return run
    run_all(pool, iter([run]))
    return run.result()


def run_all(pool: Pool, coming: Iterator[DividedRun]) -> None:
    """Run jobs to their ends, side by side; each keeps its own result. The pool is closed where this is stopped.

    coming: jobs to be begun, one by one.
    """
    begun: list[DividedRun] = []

    def noted() -> Iterator[DividedRun]:
        for run in coming:
            begun.append(run)
            yield run

    try:
        Scheduler(pool, noted()).run()
    except BaseException:
        pool.close()  # before the files of its workers are removed
        raise
    finally:
        for run in begun:
            run.close()


class DividedRun:
    """One run of a job on a video: see `ScheduledJob`.

    divided: its segments.  can_divide_anew: whether they were found without decoding.
    """

    @classmethod
    def begun(
        cls,
        source: Path,
        output: Path,
        options: JobOptions,
        patience: Patience,
        note: OnNote,
        on_progress: OnProgress,
        models: ModelSource,
    ) -> DividedRun | JobReport:
        """Decide on a job and divide it. An image, which has no parts, is upscaled at once."""
        started = time.perf_counter()
        with decide(source, output, options, note, models) as opened:
            if isinstance(opened, OpenVideo):
                announce(opened, note)
                return cls(opened, patience, started, on_progress)
        return enhance_file(source, output, options, note=note, models=models)

    def __init__(self, opened: OpenVideo, patience: Patience, started: float, on_progress: OnProgress) -> None:
        """Divide a job, or find it divided by an earlier run. Raises OptionError where its output has no segments."""
        self._decided, self._plan, self._note = opened.job, opened.plan, opened.note
        self._on_progress, self._started = on_progress, started
        self._last_progress, self._is_closed = -1, False
        self.can_divide_anew = True
        self._report: JobReport | None = None
        self._error: VsrError | None = None
        self._joining: Joining | None = None
        obstacle = segments_obstacle(opened.job, opened.plan)
        if obstacle is not None:
            raise OptionError(f"`workers`: {obstacle}")
        clear_left(opened.job.target, opened.note)
        if opened.job.policy.resume is False:
            shutil.rmtree(work_folder(opened.job.target.path), ignore_errors=True)
        with ExitStack() as stack:
            self._journal = stack.enter_context(make_journal(opened))
            self._set_up(opened, patience)
            self._held = stack.pop_all()

    def _set_up(self, opened: OpenVideo, patience: Patience) -> None:
        journal, upscaler = self._journal, opened.upscaler
        if journal.num_frames_kept:
            self._note(Note(NoteCode.RESUME, f"{counted(journal.num_frames_kept, 'frame')} done by an earlier run"))
        if journal.done:
            upscaler.network.use_precision(journal.done[-1].precision, journal.done[-1].backend)
        self._job = _pinned(opened.job, upscaler, _checked_precision(opened))
        beside = frames_beside(opened)
        processor = make_processor(upscaler, target_of(opened.plan))
        self._lead_in = lambda frame: processor.lead_in_frames(beside.number + frame)
        self._model, self._engine = upscaler.card.name, upscaler.engine.name
        expected, info = opened.plan.num_frames, opened.reader.info
        num_pixels = float("inf") if expected is None else float(expected) * info.width * info.height
        settings = SegmentSettings(
            num_pixels,
            encoder_threads(opened.plan.settings.codec),
            upscaler.card.num_parameters * info.width * info.height,
        )
        times = packet_times(opened.job, opened.reader)
        ranges = None if times is None else self._ranges(times)
        if ranges is None or not _fit(journal, ranges):
            ranges = self._decoded_ranges()
        self.divided = DividedJob(self._job, settings, journal, ranges, patience, self._note)
        self._start_joining()

    def _start_joining(self) -> None:
        assert isinstance(self._job.plan, VideoPlan)
        if not self._journal.is_in_place:
            self._joining = Joining(self._journal, self._job, self._job.plan, len(self.divided.ranges))

    def _ranges(self, times: array[int]) -> list[SegmentRange]:
        before = [done.segment.num_frames for done in self._journal.done]
        return divide(times, self._journal.num_frames_per_segment, self._job.batch, self._lead_in, before)

    def _decoded_ranges(self) -> list[SegmentRange]:
        """Divide by the frames that decoding gives; forget segments of other frames."""
        self.can_divide_anew = False
        text = f"{self._decided.source}: its packets do not tell its frames, so that all are decoded once to divide it"
        self._note(Note(NoteCode.INPUT, text))
        times = decoded_times(self._decided, self._note)
        ranges = self._ranges(times)
        if not _fit(self._journal, ranges):
            self._journal.take_back()
            ranges = self._ranges(times)
        return ranges

    # -- see `ScheduledJob` ------------------------------------------------------------------------

    @property
    def is_joined(self) -> bool:
        """See `ScheduledJob`."""
        return self._joining is None or self._joining.is_finished

    def look(self) -> None:
        """See `ScheduledJob`."""
        if self._decided.canceller.is_cancelled:
            raise JobCancelledError(f"{self._decided.source}: the job was cancelled")
        if self._joining is not None:
            self._joining.raise_error()
            self._joining.look_again()
        num_frames = self.divided.num_frames
        if num_frames != self._last_progress:
            self._last_progress = num_frames
            seconds, expected = time.perf_counter() - self._started, sum(r.num_frames for r in self.divided.ranges)
            self._on_progress(Progress(num_frames, expected, seconds, self.divided.num_before))

    def divide_anew(self) -> None:
        """See `ScheduledJob`."""
        if self._joining is not None:
            self._joining.stop()
        self.divided.divide(self._decoded_ranges())
        self._start_joining()

    def finish(self) -> None:
        """See `ScheduledJob`."""
        job, journal = self._decided, self._journal
        if self._joining is not None:
            writer = self._joining.finish()
            num_damaged = journal.done[-1].num_damaged
            damage = [f"{num_damaged} damaged packets"] if num_damaged else []
            name_or_refuse(job.policy.strict, job.source.path, [*damage, *writer.omissions], self._note)
            journal.add_joined(writer.partial)
            writer.commit()
        journal.forget()
        self._report = self._reported()
        self.close()

    def _reported(self) -> JobReport:
        job, settings = self._decided, self._plan.settings
        join_seconds = 0.0 if self._joining is None else self._joining.seconds
        report = JobReport(
            job.target.path,
            self._model,
            self._engine,
            self._journal.num_frames,
            settings.width,
            settings.height,
            time.perf_counter() - self._started,
            {"segments": self.divided.busy_seconds, "join": join_seconds},
            num_frames_before=self.divided.num_before,
            retried=tuple(self.divided.retried),
        )
        return reported(report, None, job.source, job.policy.report)

    def end(self, error: VsrError) -> None:
        """See `ScheduledJob`."""
        self._error = error
        self.close()

    @property
    def is_over(self) -> bool:
        """Tell whether the job has ended, well or not."""
        return self._error is not None or self._report is not None

    def result(self) -> JobReport:
        """Return the report, or raise the error that has ended the job."""
        if self._error is not None:
            raise self._error
        assert self._report is not None
        return self._report

    def close(self) -> None:
        """Remove what is not of use to a later run. No worker is at the job any more."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._joining is not None:
            self._joining.stop()
        if self._decided.policy.resume is False:
            self._journal.forget()
        elif not self._journal.is_over:
            self._journal.remove_strays()
            say_what_is_kept(self._journal, self._note)
        self._held.close()


def _fit(journal: Journal, ranges: Sequence[SegmentRange]) -> bool:
    """Tell whether all segments that are done have the frames of their ranges."""
    done = {**dict(enumerate(journal.done)), **journal.ahead}
    if any(number >= len(ranges) for number in done):
        return False
    spans = {number: (min(each.segment.pts), max(each.segment.pts)) for number, each in done.items()}
    return all(spans[number] == (ranges[number].first, ranges[number].last) for number in done)


def _pinned(job: Job, upscaler: Upscaler, precision: Precision) -> Job:
    """Name in a job what "auto" has chosen here, so that all workers take the same or refuse."""
    backend = _BACKENDS.get(upscaler.network.backend, job.model.backend)
    return replace(job, model=replace(job.model, precision=precision, backend=backend))


def _checked_precision(opened: OpenVideo) -> Precision:
    """Find the precision that passes on the first frames of a job, as an unbroken run does."""
    job, upscaler = opened.job, opened.upscaler
    if not upscaler.network.is_checked:
        num_frames = max(1, upscaler.card.warm_up) + job.batch if upscaler.card.recurrent else 1
        processor = make_processor(upscaler, target_of(opened.plan))
        with open_source(job.source, job.input, job.model.place) as reader:
            network = NetworkStage(processor, reader.path)
            for _ in network.upscaled(_until(reader.chunks(job.batch), num_frames)):
                pass
    return upscaler.precision


def _until(chunks: Iterator[Chunk], num_frames: int) -> Iterator[Chunk]:
    """Yield chunks until they hold so many frames."""
    for chunk in chunks:
        yield chunk
        num_frames -= 0 if chunk.batch is None else chunk.batch.num_frames
        if num_frames <= 0:
            return
