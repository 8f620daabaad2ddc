"""stdin and stdout as file objects for FFmpeg, which never hold up a job that is to stop."""

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

from vsr.errors import InputError, OutputError

__all__ = ["PIPE", "PipeReader", "PipeWriter", "apart", "is_pipe", "standard_output"]

PIPE = Path("-")  # stdin as an input, stdout as an output; a file of that name needs its folder, as in /tmp/-

T = TypeVar("T")


def is_pipe(path: Path) -> bool:
    """Whether a name stands for stdin or stdout."""
    return path == PIPE


def apart(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Run what reads or writes a pipe in a thread of its own, and wait for it.

    A signal's handler raises in the main thread, and would do so inside FFmpeg's call of a file object, from
    where no exception of its kind comes out. interrupt: called where the waiting ends before the work.
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
    """What comes from stdin, as PyAV reads it. Raises InputError where stdin is a terminal or not there.

    num_bytes: read so far, in a pipe; where stdin is a file it can be searched, and they mean nothing.
    """

    name = "stdin"

    def __init__(self, descriptor: int = 0) -> None:
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
        """At most `size` bytes, as soon as there are some; none at the end, or where it was interrupted."""
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
        """Let go of it, once no thread reads any more. stdin itself stays open."""
        self._close()


class PipeWriter(_Descriptor):
    """What goes to a pipe, as PyAV and others write it.

    Raises BrokenPipeError where nobody reads any more. What is written after an interrupt is dropped.
    """

    name = "stdout"

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, select.POLLOUT if os.name != "nt" else 0)
        # A pipe that is ready takes this much without blocking; a file takes all.
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._most = 2**24 if is_file or os.name == "nt" else select.PIPE_BUF
        self.is_reader_gone = False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: bytes | memoryview) -> int:
        """All of `data`, however long the reader takes."""
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
def standard_output(descriptor: int = 1) -> Iterator[PipeWriter]:
    """stdout for one writer alone: what others print there meanwhile, libraries too, goes to stderr.

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
