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

from vsr.cluster.piece_sender import PieceSender
from vsr.cluster.ray_worker import FilesOfDriver
from vsr.cluster.remote_file import PIECE_BYTES
from vsr.cluster.segment_task import SegmentResult, SegmentTask, settings_hash
from vsr.errors import InputError, OptionError, OutputError, reason
from vsr.files import file_state, naming_output, partial_file
from vsr.jobs.job import Job
from vsr.media.endpoints import File
from vsr.media.write.segments import Segment

__all__ = ["FileTransfer"]


class FileTransfer:
    """Sends a task with the files that it needs, and fetches its segment.

    With a shared folder, a source outside of it is copied into it once, and segments are written into it. Without one,
    workers ask for the pieces of the source that they read, and segments are fetched, piece by piece: the next one when
    the one before has been written.

    pieces: sends those of sources; None with a shared folder.
    """

    def __init__(self, ray: Any, storage: Path | None) -> None:
        """storage: a folder that all nodes see under this name, if there is one. Raises OutputError."""
        self._ray = ray
        self._folder: Path | None = None
        self._copied: dict[tuple[Path, tuple[int, ...]], Path] = {}
        self._turn = threading.Lock()
        self.pieces: PieceSender | None = None
        if storage is None:
            self.pieces = PieceSender(ray)
            return
        self._folder = storage.absolute() / f"vsr-{secrets.token_hex(6)}"
        try:
            self._folder.mkdir()
        except OSError as error:
            raise OutputError(f'`storage="{storage}"`: cannot be written to ({reason(error)})') from error

    def close(self) -> None:
        """Send no more, and remove what lies in the shared folder."""
        if self.pieces is not None:
            self.pieces.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def sent(self, handle: Any, models: dict[str, str], task: SegmentTask) -> Any:
        """Send a task to an actor; return what to wait for.

        models: places of model files that were brought to the actor before; one that is brought now is added.
        """
        job = Job.from_json(task.job)
        if self._folder is not None:
            return handle.make.remote(self._shared(job, task, self._folder), None)
        assert self.pieces is not None
        if not isinstance(job.source, File):
            raise OptionError(
                "`cluster`: images that make a video have to lie in a folder that is shared, by `storage`"
            )
        source, model = job.source.path, Path(job.model.model)
        try:
            num_bytes = source.stat().st_size
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({reason(error)})") from error
        name = _name_of(source)
        self.pieces.offer(name, source)
        place = None
        if model.is_file():
            key = _name_of(model)
            place = models.get(key) or self._bring(handle, model, key)
            models[key] = place
        return handle.make.remote(task, FilesOfDriver(name, num_bytes, place))

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
            state = path, file_state(path)  # a file that was changed is another one
            if state not in self._copied:
                place = folder / f"{len(self._copied)}-{path.name}"
                with naming_output(place):
                    shutil.copyfile(path, place)
                self._copied[state] = place
            return self._copied[state]

    def _bring(self, handle: Any, path: Path, name: str) -> str:
        """Send a file to an actor, piece by piece, under a name; return its path there."""
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


def _name_of(path: Path) -> str:
    """Name a file for other machines: once it was changed, it is another one. The suffix is a hint at its format."""
    content = f"{path.absolute()} {file_state(path)}"
    return f"{hashlib.sha256(content.encode()).hexdigest()[:16]}{path.suffix}"
