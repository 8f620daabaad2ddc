"""The messages between the process that divides a job and the workers that make its segments."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import vsr.errors
from vsr.backends.engine import Precision
from vsr.cluster.division import SegmentRange
from vsr.errors import VsrError
from vsr.events import Note
from vsr.jobs.job import Job
from vsr.media.read.reader import FramePosition
from vsr.media.write.segments import Segment
from vsr.version import __version__

__all__ = [
    "Failure",
    "FramesDone",
    "Hello",
    "MisplacedFramesError",
    "SegmentResult",
    "SegmentTask",
    "check_version",
    "settings_hash",
]


class MisplacedFramesError(VsrError):
    """The decoder gives other frames than the packets of the source promise."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """A segment to be made.

    job: as `Job.to_json` writes it.  settings: its hash.  range: the frames.
    attempt: counts from 0.  path: the file to write, of a name that no other attempt has.
    num_pixels: as `ModelSource.load` takes it.
    encoder_threads: of the video encoder, on whose number its output may depend.
    """

    job: str
    settings: str
    range: SegmentRange
    attempt: int
    path: Path
    num_pixels: float
    encoder_threads: int


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """A segment that is made and in its place, with its checksum.

    before, last: the last frame before the segment, None at the beginning of the source, and its own last one.
    num_damaged: packets of the source that could not be decoded, from where decoding began.
    seconds: that it took, without loading the model.  notes: worth knowing.
    """

    number: int
    attempt: int
    segment: Segment
    before: FramePosition | None
    last: FramePosition
    num_damaged: int
    precision: Precision
    seconds: float
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A segment that could not be made.

    kind: the name of the error's class.  text: of the error, or why there is no answer.
    is_gone: whether the worker has gone with it.
    """

    kind: str
    text: str
    is_gone: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error, so that it can be sent."""
        text = str(error).strip() or type(error).__name__
        return cls(type(error).__name__, text if isinstance(error, VsrError) else text.splitlines()[0])

    def as_error(self) -> VsrError:
        """Return the error of `vsr.errors` that it was, or else an EngineError."""
        kind = MisplacedFramesError if self.kind == "MisplacedFramesError" else getattr(vsr.errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, VsrError)):
            kind = vsr.errors.EngineError
        error = kind.__new__(kind, self.text)  # not by __init__, which of some takes more than a text
        error.args = (self.text,)
        return error


@dataclass(frozen=True, slots=True)
class FramesDone:
    """Progress of a segment: so many frames have gone through the network."""

    num_frames: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The first words of a worker: what it is, and where."""

    version: str
    host: str
    process: int

    @classmethod
    def of_this_process(cls) -> Hello:
        """Describe the running process."""
        return cls(__version__, socket.gethostname(), os.getpid())

    @property
    def name(self) -> str:
        """The worker's name in messages."""
        return f"{self.host}:{self.process}"


def check_version(hello: Hello) -> None:
    """Refuse a worker of another version, whose segments may differ. Raises VsrError."""
    if hello.version != __version__:
        raise VsrError(
            f"the worker {hello.name} runs vsr {hello.version}, and this is vsr {__version__}; install the same on all "
            "machines"
        )


def settings_hash(job: Job) -> str:
    """Compute a checksum of all decisions on a job, in hexadecimal digits."""
    return hashlib.sha256(job.to_json().encode()).hexdigest()
