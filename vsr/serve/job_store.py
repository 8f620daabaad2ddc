"""Keep video jobs, their events and their finished segments in SQLite, so that a restart finds them."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

__all__ = ["ACTIVE", "ENDED", "EventKind", "JobEvent", "JobRecord", "JobState", "JobStore", "StoredSegment"]

MOST_NOTES = 500  # of a job; a file that is damaged all over may give one for every packet


class JobState(StrEnum):
    """The state of a video job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"  # runs to the end of the segment that it is at
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"


ENDED = frozenset({JobState.CANCELLED, JobState.DONE, JobState.FAILED})
ACTIVE = frozenset(JobState) - ENDED


class EventKind(StrEnum):
    """The subject of an event of a job."""

    STATE = "state"
    NOTE = "note"
    SEGMENT = "segment"
    PROGRESS = "progress"  # is not kept


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Describe a job as it stands.

    Args:
        id: Letters and digits, which cannot be guessed.
        state: See `JobState`.
        name: Name of the client's file, for people; not of any file here.
        options: The options it was asked for with, by their names in `VideoOptions`.
        preview_seconds: Length of the part to upscale, for a preview; None for the whole video.
        video: The source, as `SourceVideo` describes it.
        created, changed: When, in seconds since 1970.
        job: The `jobs.Job` as JSON, once it is decided.
        num_frames, num_frames_expected: Upscaled so far, and in all; None where the file does not say.
        frames_per_second, seconds_left: Of this run; None where not known.
        model, engine, width, height: Of the result, once it is there; width and height in pixels.
        error_code, error: Why it failed, for programs and for people.
        result_bytes, result_sha256: Of the result, once it is there.
        num_starts: Runs since the last segment was finished, this one included.
        seconds_at_work: Of all its runs so far.
        is_deleted: Whether it is to be forgotten as soon as it has stopped.
    """

    id: str
    state: JobState
    name: str
    options: dict[str, Any]
    preview_seconds: float | None
    video: dict[str, Any]
    created: float
    changed: float
    job: str | None = None
    num_frames: int = 0
    num_frames_expected: int | None = None
    frames_per_second: float | None = None
    seconds_left: float | None = None
    model: str | None = None
    engine: str | None = None
    width: int | None = None
    height: int | None = None
    error_code: str | None = None
    error: str | None = None
    result_bytes: int | None = None
    result_sha256: str | None = None
    num_starts: int = 0
    seconds_at_work: float = 0.0
    is_deleted: bool = False

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more comes of it by itself."""
        return self.state in ENDED

    @classmethod
    def of_row(cls, row: sqlite3.Row) -> Self:
        """Make the record of a row in the table."""
        values = dict(row)
        values |= {name: json.loads(values[name]) for name in _AS_JSON}
        return cls(**values | {"state": JobState(values["state"]), "is_deleted": bool(values["is_deleted"])})


_AS_JSON = ("options", "video")
_COLUMNS = tuple(each.name for each in fields(JobRecord))


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Args:
        number: Rises by time, over all jobs; 0 of progress, which is not kept.
        kind: See `EventKind`.
        data: JSON values: {"state"}, {"code", "text"}, {"number"} or {"frames", ...}.
        time: When, in seconds since 1970.
    """

    number: int
    kind: EventKind
    data: dict[str, Any]
    time: float


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A finished segment of a job.

    Args:
        number: Counted from 0.
        pts, durations: Of its packets in the order of decoding, in ticks.
        time_base: Seconds per tick.
    """

    number: int
    pts: tuple[int, ...]
    durations: tuple[int, ...]
    time_base: Fraction

    @property
    def start_seconds(self) -> float:
        return float(min(self.pts) * self.time_base)


_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs ({", ".join(_COLUMNS)}, PRIMARY KEY (id));
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL, time REAL
);
CREATE INDEX IF NOT EXISTS events_of_job ON events (job, number);
CREATE TABLE IF NOT EXISTS segments (
    job TEXT NOT NULL, number INTEGER NOT NULL, pts TEXT NOT NULL, durations TEXT NOT NULL, time_base TEXT NOT NULL,
    PRIMARY KEY (job, number)
);
"""
_VERSION = 2  # of the tables


class JobStore:
    """Read and write the jobs of a service; used from any thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it; its tables are made anew where another version of them is found."""
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        # What was written stays after a kill; a power cut may take the last moments, which the journals have.
        self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=5000")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            tables = "".join(f"DROP TABLE IF EXISTS {name};" for name in ("jobs", "events", "segments"))
            self._database.executescript(tables)
        self._database.executescript(f"{_SCHEMA} PRAGMA user_version={_VERSION}")

    def close(self) -> None:
        """Close the file; nothing can be read or written after."""
        with self._lock:
            self._database.close()

    # -- jobs --------------------------------------------------------------------------------------

    def add(self, record: JobRecord) -> None:
        """Add a job."""
        values = {name: getattr(record, name) for name in _COLUMNS}
        values |= {name: json.dumps(values[name]) for name in _AS_JSON}
        self._execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(_COLUMNS))})", values.values())
        self.add_event(record.id, EventKind.STATE, {"state": record.state})

    def find(self, job_id: str) -> JobRecord | None:
        """Return a job, or None where there is none of that id."""
        rows = self._execute("SELECT * FROM jobs WHERE id = ?", [job_id])
        return JobRecord.of_row(rows[0]) if rows else None

    def all(self) -> list[JobRecord]:
        """Return all jobs, the newest first."""
        return [JobRecord.of_row(row) for row in self._execute("SELECT * FROM jobs ORDER BY created DESC, rowid DESC")]

    def take_next(self) -> JobRecord | None:
        """Set the next job that waits to running, and return it: previews first, then the oldest."""
        with self._lock:
            rows = self._execute(
                "SELECT * FROM jobs WHERE state = ? AND NOT is_deleted "
                "ORDER BY preview_seconds IS NULL, created, rowid LIMIT 1",
                [JobState.QUEUED],
            )
            if not rows:
                return None
            record = JobRecord.of_row(rows[0])
            self.change_state(record.id, [JobState.QUEUED], JobState.RUNNING, num_starts=record.num_starts + 1)
            return self.find(record.id)

    def update(self, job_id: str, **values: object) -> None:
        """Set columns of a job."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._execute(f"UPDATE jobs SET {names} WHERE id = ?", [*values.values(), job_id])

    def change_state(self, job_id: str, before: Iterable[JobState], after: JobState, **values: object) -> bool:
        """Move a job from one of several states to another, in one step; tell whether it was in one of them.

        values: columns to set beside the state.
        """
        wanted = list(before)
        names = "".join(f", {name} = ?" for name in values)
        with self._lock:
            rows = self._execute(
                f"UPDATE jobs SET state = ?, changed = ?{names} WHERE id = ? "
                f"AND state IN ({', '.join('?' * len(wanted))}) RETURNING id",
                [after, time.time(), *values.values(), job_id, *wanted],
            )
            if rows:
                self.add_event(job_id, EventKind.STATE, {"state": after})
        return bool(rows)

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        with self._lock:
            for table in ("events", "segments"):
                self._execute(f"DELETE FROM {table} WHERE job = ?", [job_id])
            self._execute("DELETE FROM jobs WHERE id = ?", [job_id])

    # -- events and segments -----------------------------------------------------------------------

    def add_event(self, job_id: str, kind: EventKind, data: dict[str, Any]) -> None:
        """Record an event; of many notes, the first ones are kept."""
        with self._lock:
            if kind is EventKind.NOTE and self._num_notes(job_id) >= MOST_NOTES:
                return
            values = [job_id, kind, json.dumps(data), time.time()]
            self._execute("INSERT INTO events (job, kind, data, time) VALUES (?, ?, ?, ?)", values)

    def _num_notes(self, job_id: str) -> int:
        query = "SELECT COUNT(*) FROM events WHERE job = ? AND kind = ?"
        return int(self._execute(query, [job_id, EventKind.NOTE])[0][0])

    def events(self, job_id: str, after: int = 0, kind: EventKind | None = None) -> list[JobEvent]:
        """Return a job's events with higher numbers than `after`, or those of one kind."""
        rows = self._execute(
            "SELECT * FROM events WHERE job = ? AND number > ? AND (? IS NULL OR kind = ?) ORDER BY number",
            [job_id, after, kind, kind],
        )
        return [JobEvent(r["number"], EventKind(r["kind"]), json.loads(r["data"]), r["time"]) for r in rows]

    def add_segment(self, job_id: str, segment: StoredSegment) -> bool:
        """Record a finished segment, unless it is known; tell whether it is new."""
        values = [json.dumps(segment.pts), json.dumps(segment.durations), str(segment.time_base)]
        with self._lock:
            rows = self._execute(
                "INSERT OR IGNORE INTO segments VALUES (?, ?, ?, ?, ?) RETURNING number",
                [job_id, segment.number, *values],
            )
            if rows:
                self.update(job_id, num_starts=1)
                self.add_event(job_id, EventKind.SEGMENT, {"number": segment.number})
        return bool(rows)

    def segments(self, job_id: str) -> list[StoredSegment]:
        """Return the finished segments of a job, in the order of time."""
        rows = self._execute("SELECT * FROM segments WHERE job = ? ORDER BY number", [job_id])
        return [
            StoredSegment(
                r["number"],
                tuple(json.loads(r["pts"])),
                tuple(json.loads(r["durations"])),
                Fraction(r["time_base"]),
            )
            for r in rows
        ]

    def _execute(self, query: str, values: Iterable[object] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, tuple(values)).fetchall()
