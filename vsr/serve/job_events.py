"""Tell those who watch a job that something has changed: threads, and coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from vsr.serve.job_store import EventKind, JobEvent, JobRecord, JobStore

__all__ = ["JobWatch"]

Wake = Callable[[], None]


class JobWatch:
    """Follow the events of jobs as they come; used from any thread."""

    def __init__(self, store: JobStore) -> None:
        self._store, self._lock = store, threading.Lock()
        self._wakes: dict[str, list[Wake]] = {}
        self.is_closed = False

    def notify(self, job_id: str) -> None:
        """Wake all who watch a job."""
        with self._lock:
            wakes = list(self._wakes.get(job_id, ()))
        for wake in wakes:
            wake()

    def close(self) -> None:
        """End all watching."""
        self.is_closed = True
        with self._lock:
            names = list(self._wakes)
        for name in names:
            self.notify(name)

    @contextmanager
    def _watching(self, job_id: str, wake: Wake) -> Iterator[None]:
        with self._lock:
            self._wakes.setdefault(job_id, []).append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakes[job_id].remove(wake)
                if not self._wakes[job_id]:
                    del self._wakes[job_id]

    def follow(self, job_id: str, after: int = 0) -> Iterator[JobEvent]:
        """Yield a job's events with higher numbers than `after`, and its progress, until it has ended or is removed.

        A consumer that is slow gets the latest progress, not all of it.
        """
        woken, cursor = threading.Event(), _Cursor(self._store, job_id, after)
        with self._watching(job_id, woken.set):
            while not self.is_closed:
                woken.clear()
                yield from cursor.read()
                if cursor.is_at_end:
                    return
                woken.wait()

    async def follow_async(
        self, job_id: str, after: int = 0, beat_seconds: float = 15
    ) -> AsyncIterator[JobEvent | None]:
        """Yield what `follow` does, and None when nothing has happened for `beat_seconds`."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        cursor = _Cursor(self._store, job_id, after)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(woken.set)

        with self._watching(job_id, wake):
            while not self.is_closed:
                woken.clear()
                for event in cursor.read():
                    yield event
                if cursor.is_at_end:
                    return
                try:
                    await asyncio.wait_for(woken.wait(), beat_seconds)
                except TimeoutError:
                    yield None


class _Cursor:
    """Remembers how much of a job's events has been handed out."""

    def __init__(self, store: JobStore, job_id: str, after: int) -> None:
        self._store, self._job_id, self._after = store, job_id, after
        self._shown: object = None
        self.is_at_end = False

    def read(self) -> list[JobEvent]:
        """Return what is new."""
        record = self._store.find(self._job_id)  # before its events: none of them can be missed at the end
        events = self._store.events(self._job_id, self._after)
        if events:
            self._after = events[-1].number
        self.is_at_end = record is None or record.has_ended
        if record is not None:
            progress = _progress(record)
            if progress.data != self._shown:
                self._shown = progress.data
                events.append(progress)
        return events


def _progress(record: JobRecord) -> JobEvent:
    data = {
        "state": record.state,
        "frames": record.num_frames,
        "frames_expected": record.num_frames_expected,
        "fps": record.frames_per_second,
        "seconds_left": record.seconds_left,
    }
    return JobEvent(0, EventKind.PROGRESS, data, record.changed)
