"""Read stdin and write stdout as file objects for FFmpeg that never hold up a job that is to stop."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from vsr.errors import InputError, OutputError, reason

if sys.platform != "win32":
    import fcntl

__all__ = ["PIPE", "PipeReader", "PipeWriter", "is_pipe", "opened_for_writing", "run_in_thread", "standard_output"]

PIPE = Path("-")  # stdin as an input, stdout as an output; a file of that name needs its folder, as in /tmp/-

T = TypeVar("T")


def is_pipe(path: Path) -> bool:
    """Say whether a name stands for stdin or stdout."""
    return path == PIPE


def run_in_thread(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Run a function that reads or writes a pipe in a thread of its own, and wait for it.

    A signal's handler raises in the main thread. Inside FFmpeg's call of a file object PyAV would swallow that
    exception, so that Ctrl-C would be lost.

    interrupt: called where the waiting ends before the work, to end the work.
    """
    with ThreadPoolExecutor(1, "vsr-pipe") as executor:
        try:
            return executor.submit(work).result()
        except BaseException:
            interrupt()
            raise


class _Descriptor:
    """A file descriptor that can be waited for, and a way to end the waiting from another thread."""

    def __init__(self, descriptor: int, event: int) -> None:
        self._descriptor, self._event = descriptor, event
        self._woken, self._wake = os.pipe()
        self.is_interrupted = False

    def interrupt(self) -> None:
        """End a blocked call at once, and every later one. May be called from any thread, and more than once."""
        if not self.is_interrupted:
            self.is_interrupted = True
            os.write(self._wake, b"\0")

    def _wait(self) -> bool:
        """Wait until the descriptor is ready; False where the waiting was interrupted."""
        if os.name == "nt":  # whose pipes cannot be waited for: there a blocked call ends when the other side moves
            return not self.is_interrupted
        poll = select.poll()
        poll.register(self._descriptor, self._event)
        poll.register(self._woken, select.POLLIN)
        poll.poll()
        return not self.is_interrupted

    def _close(self) -> None:
        os.close(self._woken)
        os.close(self._wake)


class PipeReader(_Descriptor):
    """Read stdin or a named pipe, as a file object for PyAV.

    name: of it, in messages.
    num_bytes: read so far from a pipe; meaningless where stdin is a file, which can be searched.
    """

    def __init__(self, path: Path = PIPE) -> None:
        """Open the pipe. Raises InputError where stdin is a terminal or not there, or the pipe cannot be read."""
        self._is_own = not is_pipe(path)
        self.name = str(path) if self._is_own else "stdin"
        try:
            descriptor = os.open(path, os.O_RDONLY) if self._is_own else 0
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({reason(error)})") from error
        try:
            self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if os.isatty(descriptor):
                raise InputError("stdin is a terminal: pipe a video into vsr, or name a file instead of '-'")
        except OSError as error:
            raise InputError("stdin is closed: pipe a video into vsr, or name a file instead of '-'") from error
        super().__init__(descriptor, select.POLLIN if os.name != "nt" else 0)
        self.num_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._is_file

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, as soon as there are some; none at the end, or where it was interrupted."""
        if not self._wait():
            return b""
        data = os.read(self._descriptor, size)
        self.num_bytes += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Free the means of interrupting, once no thread reads any more. stdin itself stays open."""
        self._close()
        if self._is_own:
            os.close(self._descriptor)


class PipeWriter(_Descriptor):
    """Write to a pipe, as a file object for PyAV and others.

    Raises BrokenPipeError where nobody reads any more. Data written after an interrupt are dropped.
    """

    def __init__(self, descriptor: int, name: str = "stdout") -> None:
        """Prepare a descriptor for writing. name: of it, in messages."""
        super().__init__(descriptor, select.POLLOUT if os.name != "nt" else 0)
        self.name = name
        # A pipe that is ready takes this much without blocking; a file or device takes all.
        mode = os.fstat(descriptor).st_mode
        takes_all = stat.S_ISREG(mode) or stat.S_ISCHR(mode) or os.name == "nt"
        self._most = 2**24 if takes_all else select.PIPE_BUF
        self.is_reader_gone = False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`, however long the reader takes. Returns its length."""
        view = memoryview(data)
        rest = view
        while rest and self._wait():
            try:
                rest = rest[os.write(self._descriptor, rest[: self._most]) :]
            except BlockingIOError:  # where others have set it to that: it is ready and then is not
                continue
            except BrokenPipeError:
                self.is_reader_gone = True
                raise BrokenPipeError(f"{self.name}: nobody reads it any more") from None
        return len(view)


@contextmanager
def opened_for_writing(path: Path) -> Iterator[PipeWriter]:
    """Open stdout, or a named pipe or device, for one writer alone. Raises OutputError."""
    if is_pipe(path):
        with standard_output() as writer:
            yield writer
        return
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written to ({reason(error)})") from error
    writer = PipeWriter(descriptor, str(path))
    try:
        _take_pipe(descriptor, path)
        yield writer
    finally:
        os.close(descriptor)
        writer._close()


def _take_pipe(descriptor: int, path: Path) -> None:
    """Refuse a named pipe that another job writes to: its reader would get a mixture. Raises OutputError."""
    if sys.platform == "win32" or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which the system takes away with the process
    except BlockingIOError as error:
        raise OutputError(f"{path}: another process of vsr writes to this pipe; wait for its end") from error
    except OSError:  # a system without locks of pipes
        return


@contextmanager
def standard_output(descriptor: int = 1) -> Iterator[PipeWriter]:
    """Open stdout for one writer alone; other output, also of libraries, goes to stderr meanwhile.

    Raises OutputError where stdout is a terminal or not there.
    """
    try:
        if os.isatty(descriptor):
            raise OutputError("stdout is a terminal: pipe it into a program, or name a file instead of '-'")
        own = os.dup(descriptor)
    except OSError as error:
        raise OutputError("stdout is closed: pipe it into a program, or name a file instead of '-'") from error
    sys.stdout.flush()
    os.dup2(2, descriptor)
    writer = PipeWriter(own)
    try:
        yield writer
    finally:
        sys.stdout.flush()
        os.dup2(own, descriptor)
        os.close(own)
        writer._close()
