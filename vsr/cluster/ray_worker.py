"""A worker as a Ray actor: makes segments on its node, and passes files on in pieces."""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from vsr.cluster.remote_file import ArrivingFile, Wanted
from vsr.cluster.segment_task import Failure, Hello, SegmentResult, SegmentTask, settings_hash
from vsr.cluster.worker import SegmentMaker
from vsr.errors import VsrError
from vsr.jobs.job import Job
from vsr.media.endpoints import RemoteFile, Source

__all__ = ["FilesOfDriver", "RayWorker"]

_PREFIX = "vsr-worker-"  # of each worker's folder, before the number of its process
_MOST_SOURCES = 4  # whose pieces are kept: those of the jobs whose segments come in turn, not of a whole library


@dataclass(frozen=True, slots=True)
class FilesOfDriver:
    """Say how a worker comes by files that lie where the job was divided.

    source: the name by which pieces of the job's source are asked for.  num_bytes: its size.
    model: the place in the worker's folder of the model's file, which was brought there; None for a model by name.
    """

    source: str
    num_bytes: int
    model: str | None


class RayWorker:
    """The body of an actor: one thread makes segments, others read and write pieces of files meanwhile."""

    def __init__(self) -> None:
        self._maker = SegmentMaker()
        _remove_left()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._num_frames = 0
        self._arriving: dict[str, ArrivingFile] = {}  # the one that was used last comes last
        self._num_arriving = 0
        self._wanted: queue.SimpleQueue[Wanted] = queue.SimpleQueue()

    def hello(self) -> Hello:
        """Say which version this is, and where."""
        return Hello.of_this_process()

    def frames(self) -> int:
        """Return how many frames of the segment at work are done."""
        return self._num_frames

    def make(self, task: SegmentTask, files: FilesOfDriver | None) -> SegmentResult | Failure:
        """Make a segment; see `SegmentMaker.make`.

        files: of the machine where the job was divided; the segment then stays in a folder of this worker, to be
        fetched. None where all that the job names is seen from here, and its segment written to its place.
        """
        self._num_frames = 0
        try:
            if files is None:
                return self._maker.make(task, self._count)
            job = Job.from_json(task.job)
            if settings_hash(job) != task.settings:
                raise VsrError(f"{job.source}: this vsr reads other settings in the job than were written")
            if files.model is not None:
                job = replace(job, model=replace(job.model, model=files.model))
            path = self._folder / task.path.name
            task = replace(task, job=job.to_json(), settings=settings_hash(job), path=path)
            return self._maker.make(task, self._count, self._source(job.source.path, files))
        except Exception as error:
            return Failure.of(error)

    def _source(self, path: Path, files: FilesOfDriver) -> Source:
        """Return a job's source as one that is read piece by piece, with the pieces that are here already.

        path: of the source where the job was divided.
        """
        arriving = self._arriving.pop(files.source, None)
        if arriving is None:
            self._num_arriving += 1
            place = self._folder / f"{self._num_arriving}.parts"
            arriving = ArrivingFile(files.source, files.num_bytes, place, self._wanted.put)
        self._arriving[files.source] = arriving
        while len(self._arriving) > _MOST_SOURCES:
            self._arriving.pop(next(iter(self._arriving))).remove()
        return RemoteFile(path, opened=arriving.opened)

    def wanted(self) -> Wanted:
        """Wait until a piece of a source is needed."""
        return self._wanted.get()

    def put_piece(self, name: str, offset: int, data: bytes) -> None:
        """Put a piece of a source in its place, unless that was given up meanwhile."""
        if name in self._arriving:
            self._arriving[name].put(offset, data)

    def refuse(self, name: str, reason: str) -> None:
        """End the reading of a source, which cannot be sent."""
        if name in self._arriving:
            self._arriving[name].refuse(reason)

    def _count(self, num_frames: int) -> None:
        self._num_frames = num_frames

    def write_piece(self, name: str, offset: int, data: bytes) -> str:
        """Write a piece of a file into this worker's folder; return the file's path."""
        path = self._folder / name
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
        return str(path)

    def read_piece(self, path: Path, offset: int, num_bytes: int) -> bytes:
        """Read a piece of a segment that was made here; empty at its end, where the file is removed, too."""
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(num_bytes)
        if not data:
            path.unlink()
        return data

    def leave(self) -> None:
        """Remove what this worker has written; it is ended from outside then."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _remove_left() -> None:
    """Remove the folders of workers that were killed on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, ValueError):
            continue
