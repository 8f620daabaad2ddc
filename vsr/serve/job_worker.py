"""Run the video jobs of a service one after the other, beside its images."""

from __future__ import annotations

import logging
import threading

from vsr.serve.job_events import JobWatch
from vsr.serve.job_keeping import remove_job
from vsr.serve.job_run import JobRun, SharedModels
from vsr.serve.job_store import JobRecord, JobState, JobStore
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns

__all__ = ["JobWorker"]

LOGGER = logging.getLogger("vsr.serve")
_MOST_STARTS = 20  # without a finished segment: then it is the job that ends the service


class JobWorker:
    """Works through the jobs that wait, in a thread of its own, on one device."""

    def __init__(self, settings: Settings, store: JobStore, watch: JobWatch, turns: DeviceTurns) -> None:
        self._settings, self._store, self._watch, self._turns = settings, store, watch, turns
        self._wake, self._lock = threading.Event(), threading.Lock()
        self._run: JobRun | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="vsr-jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the job that runs, which goes on another time, and end the thread."""
        with self._lock:
            self._is_closing = True
            if self._run is not None:
                self._run.stop()
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Look for a job that waits."""
        self._wake.set()

    def stop(self, job_id: str) -> bool:
        """Stop a job if it is the one that runs; tell whether it is."""
        with self._lock:
            is_at_work = self._run is not None and self._run.record.id == job_id
            if self._run is not None and is_at_work:
                self._run.stop()
        return is_at_work

    def _work(self) -> None:
        models = SharedModels(self._turns)
        while True:
            self._wake.clear()
            with self._lock:
                if self._is_closing:
                    return
                record = self._store.take_next()
                self._run = None if record is None else self._new_run(record, models)
            if record is None:
                self._wake.wait()
            elif self._run is not None:
                self._run_one(self._run)

    def _new_run(self, record: JobRecord, models: SharedModels) -> JobRun | None:
        """Make the run of a job; None for one that fails by itself, as it has ended the service again and again."""
        if record.num_starts <= _MOST_STARTS:
            return JobRun(record, self._settings, self._store, self._watch, models)
        text = f"the service has stopped {_MOST_STARTS} times while it was at this job"
        failure = {"error_code": "internal", "error": text}
        self._store.change_state(record.id, [JobState.RUNNING], JobState.FAILED, **failure)
        self._watch.notify(record.id)
        return None

    def _run_one(self, run: JobRun) -> None:
        self._watch.notify(run.record.id)
        try:
            run.run()
        except Exception:  # of the store, as when the disk is full: other jobs may still be run
            LOGGER.exception("job %s could not be recorded", run.record.id)
        self._finish(run.record.id)

    def _finish(self, job_id: str) -> None:
        with self._lock:
            self._run = None
            record = self._store.find(job_id)
        if record is not None and record.is_deleted:
            remove_job(job_id, self._settings.state, self._store, self._watch)
