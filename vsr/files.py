"""Write files whole or not at all: beside their target, and moved to its place when complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vsr.errors import OutputError, reason

if sys.platform != "win32":  # which removes no file that is open
    import fcntl

__all__ = [
    "check_target",
    "claim",
    "file_state",
    "followed",
    "is_stream",
    "naming_output",
    "partial_file",
    "partial_folder",
    "partial_path",
    "put_all_in_place",
    "put_in_place",
    "remove_left",
    "sha256_of",
    "target_of_partial",
    "write_file",
]

_LONGEST_NAME = 255  # bytes, on nearly all file systems
_TOKEN = r"\d+-[0-9a-f]{8}"  # process id and random digits
_PARTIAL_NAME = re.compile(rf"\.(?P<stem>.+)\.{_TOKEN}\.part(?P<suffix>\.[^.]*)?")


def partial_path(target: Path) -> Path:
    """Return a new name for the incomplete form of a file or folder: hidden, beside the target, of its suffix.

    No two calls give the same name, in whichever process, container or machine: process ids alone repeat among those
    that share a folder.
    """
    return target.with_name(f".{target.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{target.suffix}")


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file in hexadecimal digits, without holding it in memory. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_state(path: Path) -> tuple[int, ...]:
    """Return numbers that differ once a file has another content, without reading it; none where there is no file."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return (state.st_mtime_ns, state.st_size, state.st_ino) if stat.S_ISREG(state.st_mode) else ()


def target_of_partial(path: Path) -> Path | None:
    """Return the target of a name that `partial_path` gave, or None for any other name."""
    match = _PARTIAL_NAME.fullmatch(path.name)
    return path.with_name(match["stem"] + (match["suffix"] or "")) if match else None


def claim(partial: Path) -> Callable[[], None]:
    """Mark a partial file, which is made if need be, or a folder as being written; return what ends that.

    The mark is a lock, which the system takes away when the process is killed: `remove_left` goes by it. Raises OSError
    where the file cannot be made.
    """
    descriptor = os.open(partial, os.O_RDONLY if partial.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a file system without locks, where `remove_left` finds none either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    is_open = [descriptor]

    def release() -> None:
        while is_open:
            os.close(is_open.pop())

    return release


def remove_left(target: Path) -> list[str]:
    """Remove the partial files and folders that killed processes left of a target; return their names.

    Those that another process writes, or may be writing, stay.
    """
    target, removed = followed(target), []
    try:
        beside = [path for path in target.parent.iterdir() if target_of_partial(path) == target]
    except OSError:
        return []
    for partial in beside:
        with contextlib.suppress(OSError):
            if _is_free(partial):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
                removed.append(partial.name)
    return removed


def _is_free(partial: Path) -> bool:
    """Tell whether nobody writes a partial file or folder. Raises OSError where locks are unknown."""
    if sys.platform != "win32":
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True


def followed(path: Path) -> Path:
    """Return the file that a symbolic link leads to, which may not be there yet; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def is_stream(path: Path) -> bool:
    """Tell whether a name is that of a pipe or a device: something to be written to, and never to be replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def put_in_place(partial: Path, target: Path, overwrite: bool = True) -> None:
    """Move a complete file to its target's place, in one step. Raises OutputError.

    overwrite: whether a file is replaced that has appeared there meanwhile.
    """
    try:
        if overwrite:
            partial.replace(target)
        else:
            _move_to_free_name(partial, target)
    except FileExistsError as error:
        raise OutputError(f"{target}: has appeared meanwhile, and is kept; `overwrite=True` overwrites it") from error
    except OSError as error:
        raise OutputError(f"{target}: cannot be put in place ({reason(error)})") from error


def _move_to_free_name(partial: Path, target: Path) -> None:
    """Move a file to a name that nobody has, in one step. Raises FileExistsError where somebody has it."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the name is taken first
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            partial.replace(target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
    else:
        partial.unlink()


def put_all_in_place(partials: Mapping[Path, Path], overwrite: bool = True) -> None:
    """Move complete files to their targets' places in one folder, all of them or none. Raises OutputError.

    Another process that does the same in that folder waits meanwhile, so that two sets of files do not mix.

    Args:
        partials: files by their targets.
        overwrite: whether files are replaced that have appeared there meanwhile.
    """
    placed: list[Path] = []
    with _only_writer_in(next(iter(partials)).parent if partials else None):
        try:
            for target, partial in partials.items():
                put_in_place(partial, target, overwrite)
                placed.append(target)
        except BaseException:
            for target in () if overwrite else placed:  # those that were replaced are gone in any case
                target.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _only_writer_in(folder: Path | None) -> Iterator[None]:
    """Wait until no other process puts files into a folder, and let others wait."""
    if folder is None or sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def partial_file(target: Path, *, sync: bool = False, overwrite: bool = True) -> Iterator[Path]:
    """Give the path to write to; move the file to the target's place when the block ends, remove it on an error.

    Args:
        target: The file to create or to replace.
        sync: Wait until the contents are on the disk before the move: after a power cut, a file that was moved before
            its blocks were written can come back empty.
        overwrite: Whether a file is replaced that is there at the end.

    A symbolic link is followed. Raises OSError.
    """
    target = followed(target)
    partial = partial_path(target)
    release = claim(partial)
    try:
        yield partial
        if sync:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        if overwrite:
            partial.replace(target)
        else:
            _move_to_free_name(partial, target)
    finally:
        partial.unlink(missing_ok=True)
        release()


def write_file(target: Path, data: bytes | str, *, sync: bool = False, overwrite: bool = True) -> None:
    """Write bytes, or text as UTF-8, to a file, whole or not at all; to a pipe or device as it is. Raises OSError.

    Args:
        target: The file to create or to replace.
        data: The whole contents.
        sync, overwrite: See `partial_file`.
    """
    content = data.encode() if isinstance(data, str) else data
    if is_stream(target):
        target.write_bytes(content)
        return
    with partial_file(target, sync=sync, overwrite=overwrite) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; move it to the target's place when the block ends, remove it on an error.

    A folder that is there already is replaced, and is back in its place if that fails. Raises OSError.
    """
    partial, before = partial_path(target), partial_path(target)
    try:
        partial.mkdir()
        yield partial
        if target.exists():
            target.replace(before)
        partial.replace(target)
    except BaseException:
        if before.exists() and not target.exists():
            before.replace(target)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def naming_output(name: Path, errors: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Turn the `errors` that mean a failed write into an OutputError that names the file."""
    try:
        yield
    except errors as error:
        raise OutputError(f"{name}: writing failed ({reason(error)})") from error


def check_target(path: Path, overwrite: bool, source: Path | None = None) -> None:
    """Refuse a target file that cannot or must not be written, before any work is done. Raises OutputError.

    Args:
        path: The file to be written.
        overwrite: Whether a file that is there may be replaced.
        source: The input, which is never replaced.
    """
    _check_length(path)
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f"{path}: is the input itself; give the output another name")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not path.is_file() and not is_stream(path):
        raise OutputError(f"{path}: is no file that could be replaced; name another")
    if path.exists() and not overwrite and not is_stream(path):
        raise OutputError(f"{path}: exists already; `overwrite=True` overwrites it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write in {path.parent}")


def _check_length(path: Path) -> None:
    length = len(path.name.encode())
    room = _LONGEST_NAME - len(partial_path(path).name.encode()) + length
    if length > room:
        raise OutputError(
            f"{path.name[:40]}...: the name is too long; at most {room} bytes leave room for a partial file"
        )
