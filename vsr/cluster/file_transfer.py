"""Bring sources to workers on other machines, and segments back: by a shared folder, or in pieces through Ray."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from vsr.cluster.segment_task import SegmentResult, SegmentTask, settings_hash
from vsr.errors import OptionError, OutputError, reason
from vsr.files import naming_output, partial_file
from vsr.jobs.job import Job
from vsr.media.endpoints import File
from vsr.media.write.segments import Segment

__all__ = ["FileTransfer"]

PIECE_BYTES = 4 * 2**20  # in the object store at a time, of each transfer


class FileTransfer:
    """Sends a task with the files that it needs, and fetches its segment.

    With a shared folder, a source outside of it is copied into it once, and segments are written into it. Without one,
    each worker gets the source once, piece by piece: a piece is sent when the one before has been written, so that the
    object store holds few of them however long the video is.
    """

    def __init__(self, ray: Any, storage: Path | None) -> None:
        """storage: a folder that all nodes see under this name, if there is one. Raises OutputError."""
        self._ray = ray
        self._folder: Path | None = None
        self._copied: dict[Path, Path] = {}
        self._turn = threading.Lock()
        if storage is None:
            return
        self._folder = storage.absolute() / f"vsr-{secrets.token_hex(6)}"
        try:
            self._folder.mkdir()
        except OSError as error:
            raise OutputError(f'`storage="{storage}"`: cannot be written to ({reason(error)})') from error

    def close(self) -> None:
        """Remove what lies in the shared folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def sent(self, handle: Any, places: dict[str, str], task: SegmentTask) -> Any:
        """Send a task to an actor, after the files that are not there yet; return what to wait for.

        places: of the files that were brought to the actor before; those that are brought now are added.
        """
        job = Job.from_json(task.job)
        if self._folder is not None:
            return handle.make.remote(self._shared(job, task, self._folder), {}, True)
        if not isinstance(job.source, File):
            raise OptionError(
                "`cluster`: images that make a video have to lie in a folder that is shared, by `storage`"
            )
        for path in {str(job.source.path), job.model.model}:
            if path not in places and Path(path).is_file():
                places[path] = self._bring(handle, Path(path))
        return handle.make.remote(task, dict(places), False)

    def _shared(self, job: Job, task: SegmentTask, folder: Path) -> SegmentTask:
        """Let a task read from and write into the shared folder."""
        source = job.source
        if isinstance(source, File):
            source = File(self._copy_in(source.path.absolute(), folder))
        model = Path(job.model.model)
        name = str(self._copy_in(model.absolute(), folder)) if model.is_file() else job.model.model
        job = replace(job, source=source, model=replace(job.model, model=name))
        return replace(task, job=job.to_json(), settings=settings_hash(job), path=folder / task.path.name)

    def _copy_in(self, path: Path, folder: Path) -> Path:
        """Return a file's place in the shared folder, where it is copied to unless it lies there."""
        if path.resolve().is_relative_to(folder.parent.resolve()):
            return path
        with self._turn:
            if path not in self._copied:
                place = folder / f"{len(self._copied)}-{path.name}"
                with naming_output(place):
                    shutil.copyfile(path, place)
                self._copied[path] = place
            return self._copied[path]

    def _bring(self, handle: Any, path: Path) -> str:
        """Send a file to an actor, piece by piece; return its path there."""
        name = f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]}{path.suffix}"
        place, offset = "", 0
        with path.open("rb") as file:
            while (data := file.read(PIECE_BYTES)) or not place:
                place = self._ray.get(handle.write_piece.remote(name, offset, data))
                offset += len(data)
        return place

    def fetched(self, handle: Any, task: SegmentTask, result: SegmentResult) -> SegmentResult:
        """Fetch a segment that an actor has made to the place that its task names. Raises OutputError."""
        with naming_output(task.path), partial_file(task.path) as partial:
            if self._folder is not None:
                shutil.copyfile(result.segment.path, partial)
                result.segment.path.unlink()
            else:
                self._fetch(handle, result.segment.path, partial)
        segment = result.segment
        return replace(result, segment=Segment(task.path, segment.sha256, segment.pts, segment.durations))

    def _fetch(self, handle: Any, path: Path, partial: Path) -> None:
        with partial.open("wb") as file:
            while data := self._ray.get(handle.read_piece.remote(path, file.tell(), PIECE_BYTES)):
                file.write(data)
            os.fsync(file.fileno())
