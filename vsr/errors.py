"""Every error that `vsr` raises on purpose, and the exit code the command line gives it.

    VsrError                     1   anything else below it
    ├── InputError               2   the input cannot be used (missing, empty, not a video, damaged)
    ├── OutputError              3   the output cannot be written (exists, no folder, disk full, refused codec)
    ├── OptionError              4   an option is wrong or does not fit this job
    ├── ModelError               5   an unknown model, or weights that do not fit or fail their checksum
    ├── EngineError              6   the network failed (out of memory at the smallest tile, NaN at every precision)
    ├── VerificationError        7   the finished output does not match the input
    ├── StrictError              8   `--strict`: something would have been lost with a warning
    └── MissingExtraError        9   an optional part is not installed; the text names the extra

Click's own usage errors keep exit code 2; an interrupt (Ctrl-C) ends with 130, SIGTERM with 143. Where whoever reads
stdout goes away, Python's own BrokenPipeError comes out, and the command line ends quietly with 141, which is what
a shell makes of SIGPIPE. Of several inputs, the code is that of the first that failed.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "EngineError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "OptionError",
    "OutputError",
    "StrictError",
    "VerificationError",
    "VsrError",
    "reason",
]


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
    """Under `--strict`, something would have been lost that otherwise is only a warning."""

    exit_code = 8


class MissingExtraError(VsrError):
    """A feature needs an optional part that is not installed."""

    exit_code = 9

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: pip install 'vsr[{extra}]'")
        self.extra = extra


def reason(error: BaseException) -> str:
    """What FFmpeg or the system said, without the numbers and names around it."""
    return str(getattr(error, "strerror", None) or error)
