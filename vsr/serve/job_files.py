"""Lay out the private folder of a service: a folder a job, its own copy of the source, and no more than allowed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from vsr.errors import InputError, reason
from vsr.serve.errors import RefusedError, TooLargeError
from vsr.serve.settings import Limits

__all__ = ["JobFiles", "check_room", "clean_name", "filling_disk", "open_in_roots", "stored_bytes"]

_FREE_BYTES = 256 * 2**20  # of the disk, that are left to others
_COPY_BYTES = 2**20
_MOST_NAME = 120  # characters


class JobFiles:
    """The files of one job, in a folder that only this user may read."""

    def __init__(self, state: Path, job_id: str) -> None:
        self._state, self.folder = state, state / "jobs" / job_id

    @property
    def source(self) -> Path:
        """The job's own copy of the source; without a suffix, as its name must say nothing about its kind."""
        return self.folder / "source"

    def output(self, container: str) -> Path:
        """The result, in a container's suffix."""
        return self.folder / f"result.{container}"

    def remove(self) -> None:
        """Remove all files of the job."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_work(self) -> None:
        """Remove all but the source, as of a job that was cancelled."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path != self.source:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def take(self, source: Path | IO[bytes], limits: Limits) -> None:
        """Make the job's own copy of a source: another name of the same file where the disk allows it.

        Raises InputError for what is no file, TooLargeError for a file that is too large, RefusedError without room.
        """
        self.folder.mkdir(mode=0o700, parents=True)
        if not isinstance(source, Path):
            self._take(source.fileno(), limits)
            return
        try:
            # A pipe would wait for whoever writes to it.
            descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({reason(error)})") from error
        try:
            self._take(descriptor, limits)
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, limits: Limits) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("the source is no file")
        if status.st_size > limits.upload_bytes:
            raise TooLargeError(f"the file has {status.st_size:,} bytes; at most {limits.upload_bytes:,} are taken")
        try:
            # By its descriptor, so that it is the very file that was checked.
            os.link(f"/proc/self/fd/{descriptor}", self.source, follow_symlinks=True)
        except OSError:  # another disk, another system, or a file of somebody else
            check_room(self._state, status.st_size, limits)
            with filling_disk(), open(descriptor, "rb", closefd=False) as file, self.source.open("xb") as copy:
                file.seek(0)
                shutil.copyfileobj(file, copy, _COPY_BYTES)


def clean_name(name: str) -> str:
    """Return the name of a client's file as it may be shown: its last part, of printable characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = "".join(char for char in last if char.isprintable() and char not in '"<>|:*?')
    return shown[:_MOST_NAME].strip(". ") or "video"


# -- roots ---------------------------------------------------------------------------------------------


@contextmanager
def open_in_roots(name: str, roots: Sequence[Path]) -> Iterator[IO[bytes]]:
    """Open a file under one of the folders that jobs may read: by its path in one of them, or its absolute path.

    Neither ".." nor any symbolic link is followed, so that nothing outside can be had.
    Raises RefusedError: 403 for what is not under a root, whether it exists or not, 404 for what is not there.
    """
    for root in roots:
        parts = _parts_under(name, root)
        if parts is None:
            continue
        descriptor = _open_parts(root, parts)
        if descriptor is not None:
            with os.fdopen(descriptor, "rb") as file:
                yield file
            return
    if any(_parts_under(name, root) is not None for root in roots):
        raise RefusedError("there is no such file under the folders of this service", status=404, code="not_found")
    raise RefusedError("the path is not under a folder of this service", status=403, code="path")


def _parts_under(name: str, root: Path) -> tuple[str, ...] | None:
    """Split a path under a root into its parts; None where it is not under it."""
    path = PurePosixPath(name)
    if path.is_absolute():
        if not path.is_relative_to(root):
            return None
        path = path.relative_to(root)
    if not path.parts or ".." in path.parts or "\0" in name:
        return None
    return path.parts


def _open_parts(root: Path, parts: tuple[str, ...]) -> int | None:
    """Open a file folder by folder, without following links; None where it cannot be opened so."""
    no_links = getattr(os, "O_NOFOLLOW", 0)
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | no_links, dir_fd=folder)
                os.close(folder)
                folder = inner
            found = os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | no_links, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        return None
    return found


# -- room on the disk ----------------------------------------------------------------------------------


def stored_bytes(state: Path) -> int:
    """Return the bytes that a service's files take on the disk; a file of several names counts once."""
    files: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(state):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            except OSError:  # gone meanwhile
                continue
            files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


def check_room(state: Path, num_bytes: int, limits: Limits) -> None:
    """Refuse a file for which there is no room. Raises RefusedError (413), to be tried again."""
    used = stored_bytes(state)
    if used + num_bytes > limits.stored_bytes or shutil.disk_usage(state).free < num_bytes + _FREE_BYTES:
        raise _no_room()


@contextmanager
def filling_disk() -> Iterator[None]:
    """Refuse, as `check_room` does, what turns out to have no room while it is written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room() from error
        raise


def _no_room() -> RefusedError:
    text = "there is no room for more files; remove finished jobs, or try again later"
    return RefusedError(text, status=413, code="no_room", headers={"Retry-After": "600"})
