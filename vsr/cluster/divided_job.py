"""Keep account of the segments of one job: those to be made, being made, and done."""

from __future__ import annotations

import heapq
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vsr.cluster.division import SegmentRange
from vsr.cluster.patience import Patience, predicted_seconds
from vsr.cluster.pool import Worker
from vsr.cluster.segment_task import Failure, SegmentResult, SegmentTask, settings_hash
from vsr.errors import OutputError, VsrError
from vsr.events import Note, NoteCode, OnNote
from vsr.jobs.job import Job
from vsr.jobs.journal import Done, Journal
from vsr.jobs.report import RetriedSegment
from vsr.media.write.segments import check_segment

__all__ = ["Attempt", "DividedJob", "SegmentSettings"]


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """Say what the segments of a job have in common, beside the job; as `SegmentTask` has it.

    macs_per_frame: multiply-accumulates of the network, about.
    """

    num_pixels: float
    encoder_threads: int
    macs_per_frame: float


@dataclass(slots=True)
class Attempt:
    """A task that a worker is at.

    deadline: by `time.monotonic`.  num_frames: that are done.
    """

    task: SegmentTask
    worker: Worker
    deadline: float
    num_frames: int = field(default=0, init=False)


class DividedJob:
    """The segments of a job.

    retried: attempts that failed, with their reasons.  num_before: frames that an earlier run has done.
    """

    def __init__(
        self,
        job: Job,
        settings: SegmentSettings,
        journal: Journal,
        ranges: Sequence[SegmentRange],
        patience: Patience,
        note: OnNote,
    ) -> None:
        self._job, self.settings, self._journal, self._patience, self._note = job, settings, journal, patience, note
        self._text, self._hash = job.to_json(), settings_hash(job)
        self._measured: list[float] = []  # seconds a frame
        self._failed_on: defaultdict[int, list[str]] = defaultdict(list)  # hosts and workers, by number
        self._said: set[str] = set()
        self.retried: list[RetriedSegment] = []
        self.busy_seconds = 0.0
        self.divide(ranges)
        self.num_before = self.num_frames

    def divide(self, ranges: Sequence[SegmentRange]) -> None:
        """Take up the ranges of all segments, of which those in the journal are done."""
        self.ranges = ranges
        self.running: dict[int, Attempt] = {}
        there = {*range(len(self._journal.done)), *self._journal.ahead}
        self._waiting = [each.number for each in ranges if each.number not in there]  # a heap

    @property
    def num_frames(self) -> int:
        """Frames that are done, those of segments that are being made among them."""
        return self._journal.num_frames_kept + sum(each.num_frames for each in self.running.values())

    @property
    def is_complete(self) -> bool:
        """Tell whether all segments are done."""
        return len(self._journal.done) == len(self.ranges)

    @property
    def has_waiting(self) -> bool:
        """Tell whether there is a segment that nobody is at."""
        return bool(self._waiting)

    def start_one(self, worker: Worker, start: Callable[[Worker, SegmentTask], None], others: Sequence[Worker]) -> bool:
        """Give a worker the first segment that waits and that it may take; False where there is none.

        others: all workers that are ready; one of them takes a segment that has failed on this one before.
        """
        for number in sorted(self._waiting):
            if self._is_spoilt(number, worker) and not all(self._is_spoilt(number, other) for other in others):
                continue
            self._waiting.remove(number)
            heapq.heapify(self._waiting)
            task = self._task(number)
            predicted = predicted_seconds(task.range.num_read, self.settings.macs_per_frame, self._measured)
            seconds = self._patience.deadline_seconds(predicted, is_first=not worker.num_answers)
            self.running[number] = Attempt(task, worker, time.monotonic() + seconds)
            start(worker, task)
            return True
        return False

    def _is_spoilt(self, number: int, worker: Worker) -> bool:
        """Tell whether a segment has failed on a worker before."""
        return worker.name in self._failed_on[number]

    def _task(self, number: int) -> SegmentTask:
        settings, attempt = self.settings, len(self._failed_on[number])
        path = self._journal.folder / f"{number:06}-{secrets.token_hex(4)}.mkv"
        return SegmentTask(
            self._text,
            self._hash,
            self.ranges[number],
            attempt,
            path,
            settings.num_pixels,
            settings.encoder_threads,
        )

    def attempt_of(self, worker: Worker) -> Attempt | None:
        """Return the segment of this job that a worker is at."""
        return next((each for each in self.running.values() if each.worker is worker), None)

    def accept(self, attempt: Attempt, result: SegmentResult) -> None:
        """Check a segment that was made, and record it. Raises as `fail` where it is damaged."""
        number = attempt.task.range.number
        try:
            check_segment(result.segment)
        except OutputError as error:
            result.segment.path.unlink(missing_ok=True)
            self.fail(attempt, Failure.of(error))
            return
        del self.running[number]
        attempt.worker.num_failures = 0
        self.busy_seconds += result.seconds
        self._measured.append(result.seconds / attempt.task.range.num_read)
        self._say(result.notes)
        backend = self._job.model.backend
        done = Done(result.segment, result.last, result.num_damaged, result.precision, result.before, backend)
        for again in self._journal.add_out_of_order(number, done):
            self._count_failure(
                again, attempt.worker, Failure("InputError", "its frames do not follow on those before")
            )

    def fail(self, attempt: Attempt, failure: Failure) -> None:
        """Have a segment made again. Raises its error where it has failed too often."""
        number = attempt.task.range.number
        del self.running[number]
        self._count_failure(number, attempt.worker, failure)

    def _count_failure(self, number: int, worker: Worker, failure: Failure) -> None:
        worker.num_failures += 1
        self._failed_on[number].append(worker.name)
        reason = f"segment {number + 1} of {len(self.ranges)} failed on {worker.name}: {failure.text}"
        self.retried.append(RetriedSegment(number + 1, worker.name, failure.text))
        if len(self._failed_on[number]) >= self._patience.num_attempts:
            raise _named(failure.as_error(), self._job, len(self._failed_on[number]))
        self._note(Note(NoteCode.CLUSTER, f"{reason}; it is made again"))
        heapq.heappush(self._waiting, number)

    def _say(self, notes: Sequence[Note]) -> None:
        """Pass on notes of workers, each once."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                self._note(note)

    def overdue(self) -> Mapping[int, Attempt]:
        """Return the segments whose workers have taken too long."""
        now = time.monotonic()
        return {number: attempt for number, attempt in self.running.items() if now > attempt.deadline}


def _named(error: VsrError, job: Job, num_attempts: int) -> VsrError:
    """Say in an error how often it was tried otherwise."""
    text = str(error) if str(job.source) in str(error) else f"{job.source}: {error}"
    error.args = (f"{text} (tried {num_attempts} times)",)
    return error
