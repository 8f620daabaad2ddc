"""Keep the video jobs of a service: take them on, run them one after the other, and go on with them after a restart."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import IO, Self

from filelock import FileLock, Timeout

from vsr.errors import OptionError, OutputError, reason
from vsr.jobs.journal import work_folder
from vsr.jobs.plan import choose_size
from vsr.pipeline.loading import ModelOptions
from vsr.serve.errors import BusyError, RefusedError
from vsr.serve.hls import SegmentFiles
from vsr.serve.hls_sound import SourceSound
from vsr.serve.job_events import JobWatch
from vsr.serve.job_files import JobFiles, check_room, clean_name
from vsr.serve.job_keeping import Sweeper, remove_job, take_up
from vsr.serve.job_store import ACTIVE, EventKind, JobEvent, JobRecord, JobState, JobStore, StoredSegment
from vsr.serve.job_worker import JobWorker
from vsr.serve.media_check import SourceVideo, check_video
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns
from vsr.serve.uploads import UploadStore
from vsr.serve.video_options import VideoOptions, job_options, parse_options

__all__ = ["JobService"]

_MOST_PREVIEW_SECONDS = 60.0
_LARGEST_GROWTH = 16  # pixels of the result for one of the largest source that is taken


class JobService:
    """The video jobs of a service. Use as a context manager, or call `start` and `close`; from any thread.

    Jobs are known by their id. Methods that are given an unknown id raise RefusedError (404), those that do not fit
    a job's state RefusedError (409).

    uploads: files that are being sent, or were sent and may become jobs.
    incoming: folder of files that come in one request, for its length; emptied when the service starts.
    """

    def __init__(self, settings: Settings, turns: DeviceTurns) -> None:
        """Take settings and the turns on the device; nothing is opened before `start`."""
        self.settings, self._turns = settings, turns
        self.incoming = settings.state / "incoming"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Open the state folder, take up the jobs that are in it, and begin to work.

        Raises OutputError where the folder cannot be used, or another service uses it.
        """
        state = self.settings.state
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file_lock = FileLock(state / "lock", timeout=0)
            self._file_lock.acquire()
        except Timeout as error:
            raise OutputError(f"{state}: another service is at work there; give this one another `state`") from error
        except OSError as error:
            raise OutputError(f"{state}: cannot be used ({reason(error)})") from error
        self._store = JobStore(state / "jobs.sqlite3")
        self._watch = JobWatch(self._store)
        self.uploads = UploadStore(state / "uploads", self.settings)
        take_up(state, self._store)
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir(mode=0o700)
        self._sweeper = Sweeper(self.settings, self._store, self._watch, self.uploads)
        self._worker = JobWorker(self.settings, self._store, self._watch, self._turns)

    def close(self) -> None:
        """Stop; the job that runs goes on after its last finished segment when a service is started again."""
        self._watch.close()
        self._worker.close()
        self._sweeper.close()
        self._store.close()
        self._file_lock.release()

    # -- jobs --------------------------------------------------------------------------------------

    def submit(
        self,
        source: Path | IO[bytes],
        options: VideoOptions | Mapping[str, object] | None = None,
        *,
        name: str | None = None,
        preview_seconds: float | None = None,
    ) -> str:
        """Take on a job, which waits for its turn; return its id.

        Raises OptionError and ModelError for options that do not fit, InputError for what is no file, and RefusedError
        for what is no video (415), is beyond a limit or does not fit on the disk (413), and while too many wait (503).

        Args:
            source: A video's file; the job makes a copy of its own, or another name for the file where it can.
            options: By their names in `VideoOptions`.
            name: Of the file, to show; by default that of the source.
            preview_seconds: Upscale so much of it alone, from `start_seconds` or else its most detailed moment on.
        """
        given = options if isinstance(options, VideoOptions) else parse_options(options or {})
        if preview_seconds is not None and not 0 < preview_seconds <= _MOST_PREVIEW_SECONDS:
            raise OptionError(f"`preview_seconds={preview_seconds:g}`: must lie between 0 and 60")
        if len([r for r in self._store.all() if r.state in ACTIVE]) >= self.settings.limits.jobs:
            raise BusyError("as many jobs wait as this service takes on", retry_seconds=60)
        shown = clean_name(name or (source.name if isinstance(source, Path) else "video"))
        job_id = secrets.token_urlsafe(12).replace("-", "x").replace("_", "y")
        files = JobFiles(self.settings.state, job_id)
        try:
            files.take(source, self.settings.limits)
            check_room(self.settings.state, 0, self.settings.limits)
            video = check_video(files.source, self.settings.limits)
            _check_options(given, video, self.settings)
            now = time.time()
            values = given.model_dump(exclude_defaults=True)
            self._store.add(
                JobRecord(job_id, JobState.QUEUED, shown, values, preview_seconds, video.as_json(), now, now)
            )
        except BaseException:
            files.remove()
            raise
        self._worker.wake()
        return job_id

    def get(self, job_id: str) -> JobRecord:
        """Return a job as it stands."""
        record = self._store.find(job_id)
        if record is None or record.is_deleted:
            raise RefusedError("there is no such job", status=404, code="no_job")
        return record

    def jobs(self) -> list[JobRecord]:
        """Return all jobs, the newest first."""
        return [record for record in self._store.all() if not record.is_deleted]

    def notes(self, job_id: str) -> list[JobEvent]:
        """Return a job's notes so far: events with the data {"code", "text"}."""
        return self._store.events(self.get(job_id).id, kind=EventKind.NOTE)

    def events(self, job_id: str, after: int = 0) -> Iterator[JobEvent]:
        """Yield a job's events with higher numbers than `after`, and its progress, as they come, until it has ended.

        The iterator waits; it ends with the service, too.
        """
        return self._watch.follow(self.get(job_id).id, after)

    def events_async(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent | None]:
        """Yield what `events` does, for a coroutine; None now and then while nothing happens."""
        return self._watch.follow_async(self.get(job_id).id, after)

    def segments(self, job_id: str) -> list[StoredSegment]:
        """Return a job's finished segments, in the order of time."""
        return self._store.segments(self.get(job_id).id)

    def segment_files(self, job_id: str) -> SegmentFiles:
        """Return the finished segments as fragments for HLS. Raises RefusedError (409) where there is none yet."""
        record, segments = self.get(job_id), self.segments(job_id)
        output = _output_of(record, self.settings.state)
        if not segments or record.state is JobState.CANCELLED:
            text, headers = "no segment of the job is there", {"Retry-After": "2"}
            raise RefusedError(text, status=409, code="no_segment", headers=headers)
        sound = None if record.job is None else SourceSound.of(record.job, self.source(job_id))
        return SegmentFiles(segments, work_folder(output), output, sound)

    # -- what a client may do to them --------------------------------------------------------------

    def pause(self, job_id: str) -> JobRecord:
        """Stop a job after the segment that it is at; one that waits stops at once."""
        self._change(job_id, {JobState.QUEUED: JobState.PAUSED, JobState.RUNNING: JobState.PAUSING}, "paused")
        return self.get(job_id)

    def resume(self, job_id: str) -> JobRecord:
        """Go on with a job that was paused, or try one that has failed again, after its last finished segment."""
        steps = {
            JobState.PAUSED: JobState.QUEUED,
            JobState.PAUSING: JobState.RUNNING,
            JobState.FAILED: JobState.QUEUED,
        }
        self._change(job_id, steps, "resumed", num_starts=0, error=None, error_code=None)
        self._worker.wake()
        return self.get(job_id)

    def cancel(self, job_id: str) -> JobRecord:
        """End a job for good; what was done of it is removed."""
        steps = {
            JobState.QUEUED: JobState.CANCELLED,
            JobState.PAUSED: JobState.CANCELLED,
            JobState.RUNNING: JobState.CANCELLING,
            JobState.PAUSING: JobState.CANCELLING,
        }
        self._change(job_id, steps, "cancelled")
        record = self.get(job_id)
        if record.state is JobState.CANCELLED:
            JobFiles(self.settings.state, job_id).remove_work()
        self._worker.stop(job_id)
        return self.get(job_id)

    def delete(self, job_id: str) -> None:
        """Forget a job, and remove its files; one that runs is cancelled first."""
        self.get(job_id)
        self._store.update(job_id, is_deleted=True)
        self._store.change_state(job_id, [JobState.RUNNING, JobState.PAUSING], JobState.CANCELLING)
        if not self._worker.stop(job_id):
            remove_job(job_id, self.settings.state, self._store, self._watch)

    def result(self, job_id: str) -> Path:
        """Return the file of a finished job's result. Raises RefusedError (409) while there is none."""
        record = self.get(job_id)
        if record.state is not JobState.DONE:
            raise RefusedError(f"the job has no result: it is {record.state}", status=409, code="no_result")
        return _output_of(record, self.settings.state)

    def source(self, job_id: str) -> Path:
        """Return the job's own copy of its source."""
        return JobFiles(self.settings.state, self.get(job_id).id).source

    def _change(self, job_id: str, steps: Mapping[JobState, JobState], done: str, **values: object) -> None:
        """Take the step that a job's state allows; a job that is there already stays."""
        record = self.get(job_id)
        for before, after in steps.items():
            if self._store.change_state(job_id, [before], after, **values):
                self._watch.notify(job_id)
                return
        record = self.get(job_id)
        if record.state not in steps.values():
            raise RefusedError(f"a job that is {record.state} cannot be {done}", status=409, code="state")


def _output_of(record: JobRecord, state: Path) -> Path:
    return JobFiles(state, record.id).output(parse_options(record.options).container)


def _check_options(given: VideoOptions, video: SourceVideo, settings: Settings) -> None:
    """Refuse options that no job can have, and sizes that are too large, before the job waits."""
    options = job_options(given, settings, video.demuxer).model
    size = ModelOptions(scale=options.scale, size=options.size)
    width, height = choose_size(size, 1, video.width, video.height, (False, False))
    if width * height > _LARGEST_GROWTH * settings.limits.video_pixels:
        raise OptionError(f"`scale`: the result would be {width}x{height}; choose a smaller scale or size")
