"""A worker as a Ray actor: makes segments on its node, and passes files on in pieces."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vsr.cluster.segment_task import Failure, Hello, SegmentResult, SegmentTask, settings_hash
from vsr.cluster.worker import SegmentMaker
from vsr.errors import VsrError
from vsr.jobs.job import Job
from vsr.media.endpoints import File

__all__ = ["RayWorker", "job_on_node"]

_PREFIX = "vsr-worker-"  # of each worker's folder, before the number of its process


def job_on_node(text: str, places: Mapping[str, str]) -> Job:
    """Read a job, and put the files that were brought to this node in the place of those that it names.

    places: paths here, by the job's own paths of its source and of its model's file.
    """
    job = Job.from_json(text)
    source, model = places.get(str(job.source.path)), places.get(job.model.model)
    if source is not None:
        job = replace(job, source=File(Path(source)))
    return job if model is None else replace(job, model=replace(job.model, model=model))


class RayWorker:
    """The body of an actor: one thread makes segments, others read and write pieces of files meanwhile."""

    def __init__(self) -> None:
        self._maker = SegmentMaker()
        _remove_left()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._num_frames = 0

    def hello(self) -> Hello:
        """Say which version this is, and where."""
        return Hello.of_this_process()

    def frames(self) -> int:
        """Return how many frames of the segment at work are done."""
        return self._num_frames

    def make(self, task: SegmentTask, places: Mapping[str, str], is_shared: bool) -> SegmentResult | Failure:
        """Make a segment; see `SegmentMaker.make`.

        places: as `job_on_node` takes them.  is_shared: whether the task's path can be written from here; else the
        segment stays in a folder of this worker, to be fetched.
        """
        self._num_frames = 0
        try:
            job = Job.from_json(task.job)
            if settings_hash(job) != task.settings:
                raise VsrError(f"{job.source}: this vsr reads other settings in the job than were written")
            job = job_on_node(task.job, places)
            path = task.path if is_shared else self._folder / task.path.name
            task = replace(task, job=job.to_json(), settings=settings_hash(job), path=path)
            return self._maker.make(task, self._count)
        except Exception as error:
            return Failure.of(error)

    def _count(self, num_frames: int) -> None:
        self._num_frames = num_frames

    def write_piece(self, name: str, offset: int, data: bytes) -> str:
        """Write a piece of a file in this worker's folder; return the file's path."""
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
