"""Run one video job of a service: from its record to its result, and what became of it back into its record."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from functools import partial

from vsr.errors import InputError, JobCancelledError, VsrError
from vsr.events import Note, OnNote, Progress
from vsr.files import sha256_of
from vsr.jobs.job import Job
from vsr.jobs.model_cache import ModelCache, ModelChoice
from vsr.jobs.plan import VideoPlan
from vsr.jobs.report import JobReport
from vsr.jobs.run import make_job, run_job
from vsr.jobs.segmented_sink import FinishedSegment
from vsr.pipeline.upscaler import Upscaler
from vsr.serve.detailed_moment import most_detailed_moment
from vsr.serve.errors import RefusedError, TooLargeError, code_of, public_text
from vsr.serve.job_events import JobWatch
from vsr.serve.job_files import JobFiles, check_room
from vsr.serve.job_store import EventKind, JobRecord, JobState, JobStore, StoredSegment
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns
from vsr.serve.video_options import job_options, parse_options

__all__ = ["JobRun", "SharedModels"]

LOGGER = logging.getLogger("vsr.serve")
_UPDATE_SECONDS = 0.5  # between two notices of progress
_LARGEST_GROWTH = 16  # pixels of the result for one of the largest source that is taken


class SharedModels(ModelCache):
    """A cache whose networks take turns on the device with those of images."""

    def __init__(self, turns: DeviceTurns) -> None:
        super().__init__()
        self._turns = turns

    def load(self, choice: ModelChoice, num_pixels: float, note: OnNote) -> Upscaler:
        """Load a model as for an endless job, whatever the number of pixels."""
        # The engine must be the same after a restart, whatever ran before, and a service runs long enough for the
        # fastest one to be worth its start.
        upscaler = super().load(choice, math.inf, note)
        upscaler.network.take_turn = partial(self._turns.turn, "video")
        return upscaler


@dataclass
class JobRun:
    """One run of a job, in the thread that calls `run`; `stop` may be called from any other."""

    record: JobRecord
    settings: Settings
    store: JobStore
    watch: JobWatch
    models: SharedModels
    _job: Job | None = field(default=None, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _failure: VsrError | None = field(default=None, init=False)
    _last_update: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.files = JobFiles(self.settings.state, self.record.id)
        self._options = parse_options(self.record.options)
        self.output = self.files.output(self._options.container)

    def stop(self) -> None:
        """End the run soon; the segments that are finished stay."""
        self._is_stopped = True
        if self._job is not None:
            self._job.cancel()

    def run(self) -> None:
        """Run the job to its end, or until it is stopped or out of time, and record how it ended."""
        self._began = time.monotonic()
        alarm = self._set_alarm()
        try:
            self._job = self._decided()
            if self._is_stopped:
                self._job.cancel()
            report = run_job(
                self._job,
                on_progress=self._on_progress,
                on_segment=self._on_segment,
                note=self._on_note,
                models=self.models,
            )
            self._succeed(report)
        except JobCancelledError:
            self._fail(self._failure) if self._failure is not None else self._stop()
        except VsrError as error:
            self._fail(error)
        except Exception as error:
            LOGGER.exception("job %s failed", self.record.id)
            self._fail(error)
        finally:
            alarm.cancel()
            self._update(seconds_at_work=self._seconds_at_work())

    # -- before ------------------------------------------------------------------------------------

    def _decided(self) -> Job:
        """Read the job back as it was decided before, or decide now."""
        if self.record.job is not None:
            try:
                return Job.from_json(self.record.job)
            except InputError:  # by another version
                self.files.remove_work()
        options, preview = self._options, self.record.preview_seconds
        demuxer = str(self.record.video["demuxer"])
        if preview is not None:
            start = options.start_seconds
            if start is None:
                start = float(most_detailed_moment(self.files.source, preview, demuxer))
            options = options.model_copy(update={"start_seconds": start, "duration_seconds": preview})
        job_opts = job_options(options, self.settings, demuxer)
        job = make_job(self.files.source, self.output, job_opts, note=self._on_note, models=self.models)
        assert isinstance(job.plan, VideoPlan)
        width, height = job.plan.settings.width, job.plan.settings.height
        if width * height > _LARGEST_GROWTH * self.settings.limits.video_pixels:
            raise TooLargeError(f"the result would be {width}x{height}; choose a smaller scale or size")
        self._update(job=job.to_json(), num_frames_expected=job.plan.num_frames, width=width, height=height)
        return job

    # -- meanwhile ---------------------------------------------------------------------------------

    def _update(self, **values: object) -> None:
        self.store.update(self.record.id, **values)
        self.watch.notify(self.record.id)

    def _on_note(self, note: Note) -> None:
        self.store.add_event(self.record.id, EventKind.NOTE, {"code": str(note.code), "text": self._public(note)})
        self.watch.notify(self.record.id)

    def _public(self, text: str | BaseException) -> str:
        """Put the names that a client knows in the place of private ones."""
        error = text if isinstance(text, BaseException) else VsrError(str(text))
        name = self.record.name
        return public_text(error, {self.files.source: name, self.output: "the result"}).replace(
            f".{self.output.name}.vsr-unfinished", "its folder"
        )

    def _on_progress(self, progress: Progress) -> None:
        limits, seconds = self.settings.limits, progress.out_seconds or 0.0
        if progress.num_frames > limits.video_frames or seconds > limits.video_seconds:
            self._give_up(
                TooLargeError(
                    f"the video goes on beyond what its header says; at most {limits.video_frames:,} frames and "
                    f"{limits.video_seconds:,} s are taken"
                )
            )
        now = time.monotonic()
        if now - self._last_update < _UPDATE_SECONDS and progress.num_frames != progress.num_frames_expected:
            return
        self._last_update = now
        left = progress.seconds_left
        self._update(
            seconds_at_work=self._seconds_at_work(),
            num_frames=progress.num_frames,
            frames_per_second=round(progress.frames_per_second, 3),
            seconds_left=None if left is None else round(left, 1),
        )

    def _on_segment(self, finished: FinishedSegment) -> None:
        """Record a segment; stop after it where the job is to pause, or where the disk is full."""
        segment = finished.segment
        stored = StoredSegment(finished.number, tuple(segment.pts), tuple(segment.durations), finished.time_base)
        if not self.store.add_segment(self.record.id, stored):
            return
        self.watch.notify(self.record.id)
        try:
            check_room(self.settings.state, 0, self.settings.limits)
        except VsrError as error:
            self._give_up(error)
        record = self.store.find(self.record.id)
        if record is not None and record.state is JobState.PAUSING:
            self.stop()

    def _set_alarm(self) -> threading.Timer:
        """Have the job given up when its time is over; earlier runs count."""
        most = self.settings.limits.job_seconds
        text = (
            f"the job has been at work for {most:,} s, as long as this service allows; send a shorter part, or name a "
            "lighter model"
        )
        error = RefusedError(text, status=413, code="too_slow")
        seconds = most - self.record.seconds_at_work
        if seconds <= 0:
            self._give_up(error)
        alarm = threading.Timer(max(0.0, seconds), self._give_up, [error])
        alarm.daemon = True
        alarm.start()
        return alarm

    def _seconds_at_work(self) -> float:
        return self.record.seconds_at_work + time.monotonic() - self._began

    def _give_up(self, error: VsrError) -> None:
        self._failure = error
        self.stop()

    # -- after -------------------------------------------------------------------------------------

    def _succeed(self, report: JobReport) -> None:
        if self._end_cancelled():
            return
        self.store.change_state(
            self.record.id,
            [JobState.RUNNING, JobState.PAUSING],
            JobState.DONE,
            num_frames=report.num_frames,
            num_frames_expected=report.num_frames,
            seconds_left=0.0,
            model=report.model,
            engine=report.engine,
            width=report.width,
            height=report.height,
            result_bytes=self.output.stat().st_size,
            result_sha256=sha256_of(self.output),
        )

    def _stop(self) -> None:
        """Record that the run was stopped: by a client, or by the end of the service."""
        if self._end_cancelled():
            return
        _ = self._change(JobState.PAUSING, JobState.PAUSED) or self._change(JobState.RUNNING, JobState.QUEUED)

    def _fail(self, error: BaseException) -> None:
        self.models.forget()
        if self._end_cancelled():
            return
        code = code_of(error) if isinstance(error, VsrError) else "internal"
        self.store.change_state(
            self.record.id,
            [JobState.RUNNING, JobState.PAUSING],
            JobState.FAILED,
            error_code=code,
            error=self._public(error),
        )

    def _end_cancelled(self) -> bool:
        """Remove what was done of a job that was cancelled; tell whether it was."""
        record = self.store.find(self.record.id)
        if record is None or record.state is not JobState.CANCELLING:
            return False
        self.files.remove_work()
        return self._change(JobState.CANCELLING, JobState.CANCELLED)

    def _change(self, before: JobState, after: JobState) -> bool:
        return self.store.change_state(self.record.id, [before], after)
