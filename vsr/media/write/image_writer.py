"""Write an image file for every frame: to a hidden folder, and moved to their place when all are complete."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from array import array
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vsr.errors import OutputError, VerificationError, reason
from vsr.files import claim, naming_output, partial_path, put_all_in_place
from vsr.frames import FrameBatch
from vsr.media.endpoints import Images, Source
from vsr.media.images import encode_image
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.encoder import VideoSettings

__all__ = ["ImageWriter", "check_images", "is_right_angled", "partial_target"]

FIRST_NUMBER = 1
WAITING_PER_THREAD = 2  # images that wait to be encoded; more take memory and save no time


def _numbered(target: Images, number: int) -> Path:
    """Return the path of the image of a number, for a numbered target."""
    name = re.sub(r"%%|%(\d*)d", lambda m: "%" if m[0] == "%%" else f"{number:0{int(m[1] or 0)}d}", target.path.name)
    return target.folder / name


def _existing(target: Images) -> list[Path]:
    """Return the files that exist already and have the name of an image to come, or a name of the pattern."""
    if not target.folder.is_dir():
        return []
    if target.kind == "folder":
        return [path for path in target.files if path.exists()]
    parts = re.split(r"(%%|%\d*d)", target.path.name)
    pattern = "".join("%" if p == "%%" else r"\d+" if re.fullmatch(r"%\d*d", p) else re.escape(p) for p in parts)
    return sorted(path for path in target.folder.iterdir() if re.fullmatch(pattern, path.name))


def check_images(target: Images, overwrite: bool, source: Source) -> None:
    """Refuse images that cannot or must not be written, before any work is done. Raises OutputError.

    Args:
        target: The images.
        overwrite: Whether files that are there may be replaced.
        source: The input, whose files are never replaced.
    """
    folder, parent = target.folder, target.folder.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is no folder")
    if not folder.exists() and not parent.is_dir():
        raise OutputError(f"{folder}: the folder {parent} does not exist; make it first")
    if not os.access(folder if folder.exists() else parent, os.W_OK):
        raise OutputError(f"{folder}: no permission to write in it")
    existing = _existing(target)
    sources = {file.resolve() for file in source.files} if isinstance(source, Images) else set()
    for path in existing:
        if path.resolve() in sources:
            raise OutputError(f"{path}: is part of the input itself; name another folder or pattern")
    if existing and not overwrite:
        raise OutputError(f"{existing[0]}: exists already; `overwrite=True` overwrites it")


def partial_target(target: Images) -> Path:
    """Return the name that incomplete images of a target gather under, as `partial_path` takes it."""
    return target.folder / "images"


class ImageWriter:
    """Encode frames as images, several at a time, numbered in the order in which they come.

    Display rotation is applied, as image files are shown as they are stored.
    """

    omissions: Sequence[str] = ()  # the plan names them all

    def __init__(self, target: Images, reader: VideoReader, settings: VideoSettings, overwrite: bool = True) -> None:
        """overwrite: whether images are replaced that have appeared in their places meanwhile."""
        self.path, self.settings = target.folder, settings
        self._target, self._reader, self._overwrite = target, reader, overwrite
        self._matrix = reader.info.display_matrix
        self._first_index = round(reader.shift_seconds / reader.info.time_base)
        self._indices = array("q")  # of the images among those of the input
        self._sizes = array("q")  # of the files, in bytes
        self._waiting: deque[Future[int]] = deque()
        num_threads = os.cpu_count() or 1
        self._most_waiting = WAITING_PER_THREAD * num_threads
        self._is_new = not target.folder.exists()
        self._partial = partial_path(partial_target(target))
        try:
            self._partial.mkdir(parents=True)
            self._release = claim(self._partial)
        except OSError as error:
            raise OutputError(f"{target.folder}: cannot be written to ({reason(error)})") from error
        self._threads = ThreadPoolExecutor(num_threads, "vsr-image")

    @property
    def num_frames(self) -> int:
        return len(self._indices)

    @property
    def num_damaged(self) -> int:
        """Count the packets of the source's video that could not be decoded."""
        return self._reader.num_damaged

    def write(self, chunk: Chunk) -> None:
        """Encode a chunk's frames, and drop its packets."""
        if chunk.batch is None:
            return
        for position in range(chunk.batch.num_frames):
            self._indices.append(chunk.batch.pts[position] + self._first_index)
            path = self._path(len(self._indices) - 1)
            self._waiting.append(self._threads.submit(self._encode, chunk.batch, position, path))
            while len(self._waiting) > self._most_waiting:
                self._sizes.append(self._waiting.popleft().result())

    def _path(self, position: int) -> Path:
        """position: of the frame in the output, from 0."""
        if self._target.kind == "folder":
            return self._target.files[self._indices[position]]
        return _numbered(self._target, position + FIRST_NUMBER)

    def _encode(self, batch: FrameBatch, position: int, path: Path) -> int:
        data = encode_image(_upright(_pixels(batch, position), self._matrix), path)
        with naming_output(path):
            (self._partial / path.name).write_bytes(data)
        return len(data)

    def finish(self) -> None:
        """Wait until all images are written."""
        while self._waiting:
            self._sizes.append(self._waiting.popleft().result())

    def verify(self) -> None:
        """Check that every frame that the reader gave has a file of the length written. Raises VerificationError."""
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
        """Return the images that exist already, have a name of the pattern, and will not be replaced."""
        written = {self._path(position) for position in range(self.num_frames)}
        return [path for path in _existing(self._target) if path not in written]

    def commit(self) -> None:
        """Put the images in their place, all of them or none."""
        paths = [self._path(position) for position in range(self.num_frames)]
        put_all_in_place({path: self._partial / path.name for path in paths}, self._overwrite)
        try:
            self._partial.rmdir()
        except OSError as error:
            raise OutputError(f"{self.path}: images cannot be put in place ({reason(error)})") from error
        self._is_new = False

    def abort(self) -> None:
        """Remove the images that are not in their place."""
        self._threads.shutdown(cancel_futures=True)
        shutil.rmtree(self._partial, ignore_errors=True)
        self._release()
        if self._is_new:
            with contextlib.suppress(OSError):  # where something else was put into it meanwhile
                self.path.rmdir()


def _pixels(batch: FrameBatch, position: int) -> np.ndarray:
    """Return a frame as `encode_image` takes it: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA."""
    planes = [plane[position].numpy() for plane in batch.planes]
    if len(planes) == 1 and planes[0].shape[0] == 1:
        return np.asarray(planes[0][0])
    return np.concatenate(planes).transpose(1, 2, 0)


def is_right_angled(matrix: tuple[int, ...]) -> bool:
    """Tell whether a display matrix only turns by quarters and mirrors."""
    return (matrix[0] == matrix[4] == 0) or (matrix[1] == matrix[3] == 0)


def _upright(image: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """Return an image as its display matrix (see `VideoInfo`) shows it, by quarter turns and mirroring."""
    if matrix is not None and is_right_angled(matrix):
        # A point goes from (x, y) to (x·m0 + y·m3, x·m1 + y·m4); of a turned image the sides swap.
        is_turned = matrix[0] == matrix[4] == 0
        if is_turned:
            image = image.swapaxes(0, 1)
        if (matrix[3] if is_turned else matrix[0]) < 0:
            image = image[:, ::-1]
        if (matrix[1] if is_turned else matrix[4]) < 0:
            image = image[::-1]
    return np.ascontiguousarray(image)
