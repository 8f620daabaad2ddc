"""Give the segments of several jobs to the workers of a pool, until all are done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from vsr.cluster.divided_job import Attempt, DividedJob
from vsr.cluster.pool import Answer, Pool, Worker
from vsr.cluster.segment_task import Failure, FramesDone, SegmentResult
from vsr.errors import VsrError

__all__ = ["ScheduledJob", "Scheduler"]

_MOST_FAILURES = 3  # of a worker in a row, before another takes its place
_SECONDS_BETWEEN_LOOKS = 0.5  # for deadlines, and for jobs that are cancelled


class ScheduledJob(Protocol):
    """A job whose segments are given out.

    divided: its segments.  is_joined: whether all are done, and in one file.
    can_divide_anew: whether they were found without decoding.
    """

    divided: DividedJob

    @property
    def is_joined(self) -> bool: ...
    @property
    def can_divide_anew(self) -> bool: ...

    def look(self) -> None:
        """Act on what has happened: join, report progress. Raises what ends the job."""
        ...

    def divide_anew(self) -> None:
        """Find the frames by decoding, as the packets did not tell. Raises what ends the job."""
        ...

    def finish(self) -> None:
        """Put the output in its place, all segments being done. Raises what ends the job."""
        ...

    def end(self, error: VsrError) -> None:
        """Give the job up, and keep what is of use to a later run."""
        ...


class Scheduler:
    """Gives segments to idle workers, of each job in turn; opens the next job where a worker has nothing to do."""

    def __init__(self, pool: Pool, coming: Iterator[ScheduledJob]) -> None:
        """coming: jobs to be opened, one by one."""
        self._pool, self._coming = pool, coming
        self._open: deque[ScheduledJob] = deque()

    def run(self) -> None:
        """Return when all jobs have ended; their errors are theirs."""
        while self._feed():
            answers = self._pool.wait(_SECONDS_BETWEEN_LOOKS)
            for answer in answers:
                self._take(answer)
            for job in list(self._open):
                self._guarded(job, lambda job=job: self._look(job))  # type: ignore[misc]

    def _feed(self) -> bool:
        """Give all idle workers something to do, as far as there is something; tell whether jobs are open."""
        for worker in self._pool.idle():
            while not self._feed_one(worker) and self._open_next():
                pass
        return bool(self._open) or self._open_next()

    def _open_next(self) -> bool:
        """Open the next job, if there is one."""
        job = next(self._coming, None)
        if job is not None:
            self._open.append(job)
        return job is not None

    def _feed_one(self, worker: Worker) -> bool:
        """Give a worker a segment of the job whose turn it is."""
        others = self._pool.ready()
        for _ in range(len(self._open)):
            job = self._open[0]
            self._open.rotate(-1)
            if job.divided.has_waiting and job.divided.start_one(worker, self._pool.start, others):
                return True
        return False

    def _take(self, answer: Answer) -> None:
        for job in list(self._open):
            attempt = job.divided.attempt_of(answer.worker)
            if attempt is not None:
                self._guarded(job, lambda job=job, attempt=attempt: _take(job, attempt, answer))  # type: ignore[misc]
        if answer.worker.num_failures >= _MOST_FAILURES and answer.worker in self._pool.ready():
            self._pool.discard(answer.worker)

    def _look(self, job: ScheduledJob) -> None:
        for attempt in job.divided.overdue().values():
            self._pool.discard(attempt.worker)
            seconds = time.monotonic() - attempt.deadline
            job.divided.fail(attempt, Failure("EngineError", f"no answer, {seconds:.0f} s past the deadline", True))
        job.look()
        if job.is_joined:
            job.finish()
            self._open.remove(job)

    def _guarded(self, job: ScheduledJob, act: Callable[[], None]) -> None:
        """Do something for a job; an error ends that job alone, and the workers that are at it."""
        try:
            act()
        except VsrError as error:
            self._open.remove(job)
            for attempt in job.divided.running.values():
                self._pool.discard(attempt.worker)
            job.end(error)


def _take(job: ScheduledJob, attempt: Attempt, answer: Answer) -> None:
    """Act on an event of a worker that is at a segment of a job."""
    event = answer.event
    if isinstance(event, FramesDone):
        attempt.num_frames = event.num_frames
    elif isinstance(event, SegmentResult):
        job.divided.accept(attempt, event)
    elif event.kind == "MisplacedFramesError" and job.can_divide_anew:
        job.divide_anew()
    else:
        job.divided.fail(attempt, event)
