"""Keep a log of runs in a file: versions, command, notes, progress now and then, and errors with their origin."""

from __future__ import annotations

import platform
import shlex
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from vsr.errors import OutputError, reason
from vsr.version import __version__

__all__ = ["LogFile", "describe_versions"]

_PROGRESS_SECONDS = 10.0
_PACKAGES = ("torch", "av", "opencv-python-headless", "openvino", "tensorrt")


def describe_versions() -> str:
    """Name the versions of vsr, Python and the libraries that a job uses, in a line."""
    found = [f"vsr {__version__}", f"Python {platform.python_version()}", platform.platform()]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


class LogFile:
    """Append lines with their time to a file. Use it as a context manager, which also logs the error that ends it.

    Raises OutputError where the file cannot be opened. Where it cannot be written later, as on a full disk, that is
    said on stderr, and the job goes on without it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Unbuffered: else what could not be written would be tried again when the file is closed.
            self._file: FileIO | None = FileIO(path, "a")
        except OSError as error:
            raise OutputError(f"{path}: the log cannot be written ({reason(error)})") from error
        self._last_progress = 0.0
        self.write(f"begun: {shlex.join(sys.argv)}")
        self.write(describe_versions())

    def write(self, line: str) -> None:
        """Write a line."""
        if self._file is None:
            return
        try:
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n".encode(errors="replace"))
        except OSError as error:
            self._file.close()
            self._file = None
            click.echo(f"vsr: {self._path}: the log ends here ({reason(error)})", err=True)

    def write_progress(self, line: str) -> None:
        """Write a line of progress, if some seconds have passed since the last."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            self.write(f"ended by {type(value).__name__}: {value}")
            for line in "".join(traceback.format_tb(trace)).splitlines():
                self.write(f"    {line}")
        if self._file is not None:
            self._file.close()
