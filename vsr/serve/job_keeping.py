"""Keep the state folder of a service in order: after a restart, and when the time of files is over."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

from vsr.serve.job_events import JobWatch
from vsr.serve.job_files import JobFiles
from vsr.serve.job_store import JobState, JobStore
from vsr.serve.settings import Settings
from vsr.serve.uploads import UploadStore

__all__ = ["Sweeper", "remove_job", "take_up"]

_SWEEP_SECONDS = 30.0
_AFTER_RESTART = {
    JobState.RUNNING: JobState.QUEUED,
    JobState.PAUSING: JobState.PAUSED,
    JobState.CANCELLING: JobState.CANCELLED,
}


def take_up(state: Path, store: JobStore) -> None:
    """Bring jobs that were at work when a service ended to a state from which they go on; remove strays.

    state: the folder.
    """
    for record in store.all():
        if record.is_deleted:
            JobFiles(state, record.id).remove()
            store.remove(record.id)
            continue
        if record.state is JobState.CANCELLING:
            JobFiles(state, record.id).remove_work()
        if record.state in _AFTER_RESTART:
            store.change_state(record.id, [record.state], _AFTER_RESTART[record.state])
    known = {record.id for record in store.all()}
    folder = state / "jobs"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in known:
            shutil.rmtree(path, ignore_errors=True)


def remove_job(job_id: str, state: Path, store: JobStore, watch: JobWatch) -> None:
    """Forget a job that is not at work, and remove its files."""
    JobFiles(state, job_id).remove()
    store.remove(job_id)
    watch.notify(job_id)


class Sweeper:
    """Removes uploads, and jobs that have ended or pause, when their time is over, in a thread of its own."""

    def __init__(self, settings: Settings, store: JobStore, watch: JobWatch, uploads: UploadStore) -> None:
        self._settings, self._store, self._watch, self._uploads = settings, store, watch, uploads
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vsr-sweep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join()

    def sweep(self, now: float) -> None:
        """Remove everything whose time is over. now: seconds since 1970."""
        self._uploads.remove_expired(now)
        for record in self._store.all():
            is_over = record.has_ended or record.state is JobState.PAUSED
            if is_over and record.changed + self._settings.retention_seconds <= now:
                remove_job(record.id, self._settings.state, self._store, self._watch)

    def _run(self) -> None:
        while not self._end.wait(min(_SWEEP_SECONDS, self._settings.retention_seconds / 4)):
            self.sweep(time.time())
