"""A picture file for every frame: gathered in a hidden folder, and moved to their place when all are there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from array import array
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vsr.errors import OutputError, VerificationError, reason
from vsr.files import naming_output, partial_path
from vsr.frames import FrameBatch
from vsr.media.image_sequence import PictureSequence, is_numbered
from vsr.media.images import encode_image
from vsr.media.pipe import is_pipe
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.encoder import VideoSettings

__all__ = ["PictureTarget", "PictureWriter", "check_pictures", "is_right_angled", "picture_target"]

FIRST_NUMBER = 1
WAITING_PER_THREAD = 2  # pictures that are waiting to be encoded; more take memory and nothing else


@dataclass(frozen=True, slots=True)
class PictureTarget:
    """Which files the pictures become: numbered by a pattern (%06d.png), or called as those of the input."""

    folder: Path
    pattern: str | None
    names: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        return Path(self.pattern or self.names[0]).suffix

    def path(self, position: int, index: int) -> Path:
        """position: of the frame in the output.  index: of its picture among those of the input; both from 0."""
        if self.pattern is None:
            return self.folder / self.names[index]
        return self.numbered(position + FIRST_NUMBER)

    def numbered(self, number: int) -> Path:
        """The file of a number, for a pattern."""
        assert self.pattern is not None
        name = re.sub(r"%%|%(\d*)d", lambda m: "%" if m[0] == "%%" else f"{number:0{int(m[1] or 0)}d}", self.pattern)
        return self.folder / name

    def existing(self) -> list[Path]:
        """Files that are there already and have the name of a picture to come, or one that might."""
        if not self.folder.is_dir():
            return []
        if self.pattern is None:
            return [path for path in (self.folder / name for name in self.names) if path.exists()]
        parts = re.split(r"(%%|%\d*d)", self.pattern)
        pattern = "".join("%" if p == "%%" else r"\d+" if re.fullmatch(r"%\d*d", p) else re.escape(p) for p in parts)
        return sorted(path for path in self.folder.iterdir() if re.fullmatch(pattern, path.name))


def picture_target(output: Path, source: PictureSequence | None) -> PictureTarget | None:
    """The pictures that an output's name stands for, or None where it is a file.

    source: the pictures of the input, if it is pictures; then a folder, or a name without a suffix, is for
    pictures of the same names.
    """
    if is_numbered(output):
        if len(re.findall(r"%\d*d", output.name.replace("%%", ""))) != 1:
            raise OutputError(f"{output}: one %d is for the number; write %% for a percent sign")
        return PictureTarget(output.parent, output.name)
    if source is not None and not is_pipe(output) and (output.is_dir() or not (output.suffix or output.exists())):
        return PictureTarget(output, None, tuple(file.name for file in source.files))
    return None


def check_pictures(target: PictureTarget, overwrite: bool, source: PictureSequence | None) -> None:
    """Refuse pictures that cannot or must not be written, before any work is done."""
    folder, parent = target.folder, target.folder.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is no folder")
    if not folder.exists() and not parent.is_dir():
        raise OutputError(f"{folder}: the folder {parent} does not exist; make it first")
    if not os.access(folder if folder.exists() else parent, os.W_OK):
        raise OutputError(f"{folder}: no permission to write in it")
    existing = target.existing()
    sources = {file.resolve() for file in source.files} if source is not None else set()
    for path in existing:
        if path.resolve() in sources:
            raise OutputError(f"{path}: is part of the input itself; name another folder or pattern")
    if existing and not overwrite:
        raise OutputError(f"{existing[0]}: exists already; -y overwrites it")


class PictureWriter:
    """Encode frames as pictures, several at a time, in the order in which they come.

    Display rotation is applied, as pictures are shown as they are stored.
    """

    num_damaged_audio = num_lost_chapters = 0  # there is no place for either, which the plan says

    def __init__(self, target: PictureTarget, reader: VideoReader, settings: VideoSettings) -> None:
        self.path, self.settings = target.folder, settings
        self._target, self._reader = target, reader
        self._matrix = reader.info.display_matrix
        self._first_index = round(reader.shift_seconds / reader.info.time_base)
        self._indices = array("q")  # of the pictures among those of the input
        self._sizes = array("q")  # of the files, in bytes
        self._waiting: deque[Future[int]] = deque()
        num_threads = os.cpu_count() or 1
        self._most_waiting = WAITING_PER_THREAD * num_threads
        self._is_new = not target.folder.exists()
        self._partial = partial_path(target.folder / "images")
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{target.folder}: cannot be written to ({reason(error)})") from error
        self._threads = ThreadPoolExecutor(num_threads, "vsr-picture")

    @property
    def num_frames(self) -> int:
        return len(self._indices)

    @property
    def num_damaged(self) -> int:
        """Packets of the source's video that could not be decoded."""
        return self._reader.num_damaged

    def write(self, chunk: Chunk) -> None:
        """Encode a chunk's frames; packets have no place."""
        if chunk.batch is None:
            return
        for position in range(chunk.batch.num_frames):
            self._indices.append(chunk.batch.pts[position] + self._first_index)
            path = self._path(len(self._indices) - 1)
            self._waiting.append(self._threads.submit(self._encode, chunk.batch, position, path))
            while len(self._waiting) > self._most_waiting:
                self._sizes.append(self._waiting.popleft().result())

    def _path(self, position: int) -> Path:
        return self._target.path(position, self._indices[position])

    def _encode(self, batch: FrameBatch, position: int, path: Path) -> int:
        data = encode_image(_upright(_pixels(batch, position), self._matrix), path)
        with naming_output(path):
            (self._partial / path.name).write_bytes(data)
        return len(data)

    def finish(self) -> None:
        """Wait until all pictures are written."""
        while self._waiting:
            self._sizes.append(self._waiting.popleft().result())

    def verify(self) -> None:
        """There must be a file for every frame that the reader handed out, as long as it was when it was written."""
        expected = len(self._reader.pts)
        if self.num_frames != expected:
            raise VerificationError(f"{self.path}: {expected} frames went in and {self.num_frames} came out")
        for position, size in enumerate(self._sizes):
            path = self._path(position)
            partial = self._partial / path.name
            found = partial.stat().st_size if partial.exists() else 0
            if found != size:
                raise VerificationError(f"{path}: {size} bytes were written and {found} are there; all was removed")

    @property
    def older(self) -> list[Path]:
        """Pictures that are there already, have a name of the pattern, and will not be replaced."""
        written = {self._path(position) for position in range(self.num_frames)}
        return [path for path in self._target.existing() if path not in written]

    def commit(self) -> None:
        """Put the pictures in their place, one after the other."""
        try:
            for position in range(self.num_frames):
                path = self._path(position)
                (self._partial / path.name).replace(path)
            self._partial.rmdir()
        except OSError as error:
            raise OutputError(f"{self.path}: pictures cannot be put in place ({reason(error)})") from error
        self._is_new = False

    def abort(self) -> None:
        """Remove what is not in its place."""
        self._threads.shutdown(cancel_futures=True)
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._is_new:
            with contextlib.suppress(OSError):  # where something else was put into it meanwhile
                self.path.rmdir()


def _pixels(batch: FrameBatch, position: int) -> np.ndarray:
    """A frame as `write_image` takes it: gray, RGB, or RGBA."""
    planes = [plane[position].numpy() for plane in batch.planes]
    if len(planes) == 1 and planes[0].shape[0] == 1:
        return np.asarray(planes[0][0])
    return np.concatenate(planes).transpose(1, 2, 0)


def is_right_angled(matrix: tuple[int, ...]) -> bool:
    """Whether a display matrix only turns by quarters and mirrors."""
    return (matrix[0] == matrix[4] == 0) or (matrix[1] == matrix[3] == 0)


def _upright(image: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """A picture as its display matrix (see `VideoInfo`) shows it, by quarter turns and mirroring."""
    if matrix is not None and is_right_angled(matrix):
        # A point goes from (x, y) to (x·m0 + y·m3, x·m1 + y·m4); of a turned picture the sides swap.
        is_turned = matrix[0] == matrix[4] == 0
        if is_turned:
            image = image.swapaxes(0, 1)
        if (matrix[3] if is_turned else matrix[0]) < 0:
            image = image[:, ::-1]
        if (matrix[1] if is_turned else matrix[4]) < 0:
            image = image[::-1]
    return np.ascontiguousarray(image)
