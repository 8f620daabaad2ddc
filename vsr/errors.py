"""Every error that `vsr` raises on purpose, and the exit code the command line gives it.

    VsrError                     1   anything else below it
    ├── InputError               2   the input cannot be used (missing, empty, not a video, damaged)
    ├── OutputError              3   the output cannot be written (exists, no folder, disk full, refused codec)
    ├── OptionError              4   an option is wrong or does not fit this job
    ├── ModelError               5   an unknown model, or weights that do not fit or fail their checksum
    ├── EngineError              6   the network failed (out of memory at the smallest tile, NaN at every precision)
    ├── VerificationError        7   the finished output does not match the input
    ├── StrictError              8   `strict=True`: something would have been left out with a warning
    ├── MissingExtraError        9   an optional part is not installed; the text names the extra
    │   └── BrokenExtraError     9   it is installed and does not load
    └── JobCancelledError       10   `Job.cancel()` was called

Click's own usage errors keep exit code 2; an interrupt (Ctrl-C) ends with 130, SIGTERM with 143. Where the program
that reads stdout ends early, Python's own BrokenPipeError comes out, and the command line ends quietly with 141, as a
shell reports SIGPIPE. Of several inputs, the code is that of the first that failed.

A text names an option as a keyword of `vsr.enhance`, in backticks: "`scale=40`: must lie between 1 and 16". The
command line finds these by `OPTION` and puts its own spelling there (--scale 40), a service that of its requests.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "OPTION",
    "BrokenExtraError",
    "EngineError",
    "InputError",
    "JobCancelledError",
    "MissingExtraError",
    "ModelError",
    "OptionError",
    "OutputError",
    "StrictError",
    "VerificationError",
    "VsrError",
    "install_hint",
    "is_disk_full",
    "reason",
]

OPTION = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")  # an option in a text: its name, and its value if given


def install_hint(extra: str) -> str:
    """Return how to install an extra, from an index and from a checkout.

    Args:
        extra: one of [project.optional-dependencies] in pyproject.toml.
    """
    return f"pip install 'vsr-enhance[{extra}]' (in a checkout: pip install '.[{extra}]')"


class VsrError(Exception):
    """Base of the tree. The text is one line that names the file and the remedy."""

    exit_code: ClassVar[int] = 1


class InputError(VsrError):
    """The input cannot be used."""

    exit_code = 2


class OutputError(VsrError):
    """The output cannot be written."""

    exit_code = 3


class OptionError(VsrError):
    """An option has a wrong value, or does not fit the job."""

    exit_code = 4

    @property
    def option(self) -> str | None:
        """The name of the option at fault: the first in the text; None where the text names none."""
        found = OPTION.search(str(self))
        return found[1] if found else None


class ModelError(VsrError):
    """An unknown model, or weights that do not fit it."""

    exit_code = 5


class EngineError(VsrError):
    """The network could not be run."""

    exit_code = 6


class VerificationError(VsrError):
    """The output that was written does not match the input."""

    exit_code = 7


class StrictError(VsrError):
    """Under `strict=True`, something would have been left out that otherwise is only a warning."""

    exit_code = 8


class MissingExtraError(VsrError):
    """A feature needs an optional part that is not installed."""

    exit_code = 9

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: {install_hint(extra)}")
        self.extra = extra


class BrokenExtraError(MissingExtraError):
    """An optional part is installed and does not load, such as one that was built for another PyTorch."""

    def __init__(self, feature: str, extra: str, packages: Sequence[str], error: BaseException) -> None:
        """packages: that were imported.  error: that the import raised."""
        why = " ".join(f"{type(error).__name__} {error}".split())[:120]
        VsrError.__init__(
            self,
            f"{feature} needs {', '.join(packages)}: installed, but not to be loaded ({why}); install anew the "
            "versions that go with the Python and PyTorch that are here",
        )
        self.extra = extra


class JobCancelledError(VsrError):
    """The job was ended by `Job.cancel()`, as Ctrl-C would have ended it."""

    exit_code = 10


def reason(error: BaseException) -> str:
    """Return the message of FFmpeg or the system, without numbers and names around it; of a full disk, the remedy."""
    text = str(getattr(error, "strerror", None) or error)
    return f"{text}; make room there, or write to another disk" if is_disk_full(error) else text


def is_disk_full(error: BaseException) -> bool:
    """Tell whether FFmpeg or the system had no room for what was to be written."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
