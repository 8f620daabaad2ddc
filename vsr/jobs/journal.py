"""Keep the finished segments of a long job, and a journal of them, in a folder beside its output."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from vsr.backends.engine import Precision
from vsr.errors import OutputError, reason
from vsr.media.endpoints import File, Target
from vsr.media.read.reader import FramePosition
from vsr.media.write.segments import Segment

__all__ = ["Done", "Journal", "is_in_place", "kept_batch", "work_folder"]

_JOURNAL, _LOCK = "journal.jsonl", "lock"
_FORMAT = 3
_READABLE = (2, _FORMAT)  # segments of format 2 have no number, as they were finished in order


@dataclass(frozen=True, slots=True)
class Done:
    """A finished segment, and where the job stood at its end.

    last: the last frame of the source that is in it.  num_damaged: of the source's packets so far.
    precision, backend: what the network ran in and on; the backend is "" where an earlier version wrote the journal.
    before: the last frame before the segment, as the process that made it has decoded it; None where that went on
        decoding after the segment before, or began with the source.
    """

    segment: Segment
    last: FramePosition
    num_damaged: int
    precision: Precision
    before: FramePosition | None = None
    backend: str = ""


def work_folder(output: Path) -> Path:
    """Return the folder in which the segments of an output gather: hidden, beside it."""
    return output.with_name(f".{output.name}.vsr-unfinished")


def is_in_place(target: Target) -> bool:
    """Tell whether an output was put in its place by a job that was stopped before it could clear up."""
    if not isinstance(target, File) or not target.path.exists():
        return False
    try:
        lines = (work_folder(target.path) / _JOURNAL).read_text("utf-8").splitlines()
        joined = [json.loads(line).get("inode") for line in lines if '"inode"' in line]
    except (OSError, ValueError, AttributeError):
        return False
    return target.path.stat().st_ino in joined


def kept_batch(target: Target) -> int | None:
    """Return the frames per batch of an unfinished job on an output; None where there is none that says so."""
    if not isinstance(target, File):
        return None
    try:
        with (work_folder(target.path) / _JOURNAL).open(encoding="utf-8") as file:
            return int(json.loads(file.readline())["job"]["batch"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


class Journal:
    """The folder of an unfinished job, held by one process at a time. Use as a context manager.

    The journal has a JSON object a line: first what the job is, then its finished segments; a line is written when
    the file that it speaks of is safe on the disk. A line that was cut short, by what ended the process, counts for
    nothing, and of two lines on one segment the later one holds.
    `num_frames_per_segment` is the journal's, as the cuts must fall where an unbroken job has them.
    done: the finished segments from the first on without a gap.  ahead: those behind a gap, by their number.
    """

    def __init__(self, output: Path, job: Mapping[str, Any], num_frames_per_segment: int) -> None:
        """Open the folder, or make it.

        job: all that the frames depend on, as JSON has it.
        Raises OutputError where another process holds the folder, or where it belongs to another job.
        """
        self.output, self.folder = output, work_folder(output)
        self.done: list[Done] = []
        self.ahead: dict[int, Done] = {}
        self.num_frames_per_segment = num_frames_per_segment
        self._job = json.loads(json.dumps(job))
        self._inode: int | None = None  # of the joined file
        self.is_over = False
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = FileLock(self.folder / _LOCK, timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise OutputError(f"{output}: another process is at work on it") from error
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made ({reason(error)})") from error
        try:
            self._read()
            self.remove_strays()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leaves the folder where it is of use to a later run."""
        if self.is_over or not (self.done or self.ahead):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    @property
    def num_frames(self) -> int:
        return sum(done.segment.num_frames for done in self.done)

    @property
    def num_frames_kept(self) -> int:
        """The number of frames that are done, those behind a gap, too."""
        return self.num_frames + sum(done.segment.num_frames for done in self.ahead.values())

    @property
    def next_path(self) -> Path:
        """The file of the next segment."""
        return self.folder / f"{len(self.done):06}.mkv"

    def add(self, done: Done) -> None:
        """Record the next segment, which is in its place."""
        self._record(len(self.done), done)
        self.done.append(done)

    def add_out_of_order(self, number: int, done: Done) -> list[int]:
        """Record a segment by its number, whichever came before it.

        Returns the numbers of segments that are taken back, as they do not follow on the one before them.
        """
        self._record(number, done)
        self.ahead[number] = done
        return self._close_gap()

    def take_back(self) -> None:
        """Forget all segments, which are of other frames than they should be."""
        self.done, self.ahead = [], {}
        self.remove_strays()

    def _close_gap(self) -> list[int]:
        """Move segments from `ahead` to `done` where the one before them is there; leave out those that do not fit."""
        while (following := self.ahead.pop(len(self.done), None)) is not None:
            if self.done:
                if following.before is not None and following.before != self.done[-1].last:
                    return [len(self.done)]
                num_damaged = max(self.done[-1].num_damaged, following.num_damaged)
                following = replace(following, num_damaged=num_damaged)
            self.done.append(following)
        return []

    def _record(self, number: int, done: Done) -> None:
        segment = done.segment
        line = {
            "number": number,
            "segment": segment.path.name,
            "sha256": segment.sha256,
            "pts": list(segment.pts),
            "durations": list(segment.durations),
            "last_pts": done.last.pts,
            "last_sha256": done.last.sha256,
            "num_damaged": done.num_damaged,
            "precision": done.precision,
            "backend": done.backend,
            "before": None if done.before is None else [done.before.pts, done.before.sha256],
        }
        try:
            _sync(segment.path)
            if not (self.done or self.ahead):
                self._begin()
            self._append(line)
        except OSError as error:
            raise OutputError(f"{self.folder}: writing failed ({reason(error)})") from error

    def add_joined(self, path: Path) -> None:
        """Record the complete output, before it is moved to its place."""
        try:
            self._append({"inode": path.stat().st_ino})
        except OSError as error:
            raise OutputError(f"{self.folder}: writing failed ({reason(error)})") from error

    @property
    def is_in_place(self) -> bool:
        """Tell whether the output is there, made of these segments."""
        return self._inode is not None and self.output.exists() and self.output.stat().st_ino == self._inode

    def forget(self) -> None:
        """The output is in its place: the folder is of no more use, and goes."""
        self.is_over = True

    # -- the file ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        (self.folder / _JOURNAL).unlink(missing_ok=True)
        head = {"format": _FORMAT, "num_frames_per_segment": self.num_frames_per_segment, "job": self._job}
        self._append(head)

    def _append(self, line: Mapping[str, Any]) -> None:
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync(self.folder)

    def _read(self) -> None:
        """Take over what an earlier run of the same job has finished."""
        try:
            text = (self.folder / _JOURNAL).read_text("utf-8")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.folder / _JOURNAL}: cannot be read ({reason(error)})") from error
        whole, _, torn = text.rpartition("\n")
        if torn:
            (self.folder / _JOURNAL).write_text(whole + "\n" if whole else "", "utf-8")
        if not whole:
            return
        try:
            head, *lines = (json.loads(line) for line in whole.splitlines())
            self._check_job(head)
            self.num_frames_per_segment = head["num_frames_per_segment"]
            self._inode = next((line["inode"] for line in lines if "inode" in line), None)
            finished = [line for line in lines if "segment" in line]
            self.ahead = {line.get("number", index): self._done(line) for index, line in enumerate(finished)}
            self._close_gap()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OutputError(f"{self.folder / _JOURNAL}: is damaged; `resume=False` starts anew") from error

    def _check_job(self, head: Mapping[str, Any]) -> None:
        before = head["job"] if head.get("format") in _READABLE else {"version": "another"}
        names = sorted(name for name in before.keys() | self._job.keys() if before.get(name) != self._job.get(name))
        if names:
            raise OutputError(
                f"{self.output}: an unfinished job lies in {self.folder.name}, with another {', '.join(names)}; "
                "give what it was begun with to go on, or `resume=False` to start anew"
            )

    def _done(self, line: Mapping[str, Any]) -> Done:
        path = self.folder / line["segment"]
        segment = Segment(path, line["sha256"], line["pts"], line["durations"])
        last, before = FramePosition(line["last_pts"], line["last_sha256"]), line.get("before")
        position = None if before is None else FramePosition(*before)
        return Done(segment, last, line["num_damaged"], line["precision"], position, line.get("backend", ""))

    def remove_strays(self) -> None:
        """Remove files that were being written when a process was killed, and segments that count no more."""
        known = {_JOURNAL, _LOCK} | {done.segment.path.name for done in (*self.done, *self.ahead.values())}
        for path in self.folder.iterdir():
            if path.name not in known:
                path.unlink()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
