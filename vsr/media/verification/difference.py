"""Name what differs between a source and an output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Difference", "DifferenceCode"]


class DifferenceCode(StrEnum):
    """The kind of a difference, for programs; texts may change, codes do not."""

    UNREADABLE = "unreadable"  # the output cannot be read as a video
    DAMAGE = "damage"  # parts of the output cannot be decoded
    FRAMES = "frames"  # frames that are missing, or that the source does not have
    START = "start"  # everything is shown earlier or later, by the same time
    TIMESTAMPS = "timestamps"  # frames that are shown at another time
    DURATION = "duration"  # the last frame ends at another time
    SIZE = "size"  # the image is smaller than the source's
    ASPECT = "aspect"  # the image is shown wider or narrower
    ROTATION = "rotation"  # the image is shown turned or mirrored otherwise
    COLOR = "color"  # colour tags
    SAMPLES = "samples"  # fewer bits, chroma samples, or no alpha
    HDR = "hdr"  # HDR10 metadata
    CAPTIONS = "captions"  # closed captions, which lie in the frames
    STREAM_MISSING = "stream-missing"
    STREAM_ADDED = "stream-added"
    STREAM_CODEC = "stream-codec"  # a stream that was transcoded
    STREAM_PACKETS = "stream-packets"  # packets that are missing, or that the source does not have
    STREAM_BYTES = "stream-bytes"  # packets of the same codec with other data
    STREAM_TIMES = "stream-times"  # a stream that is shown or heard at another time
    LANGUAGE = "language"
    DISPOSITION = "disposition"  # flags of a stream, such as default and forced
    CHAPTERS = "chapters"
    METADATA = "metadata"  # tags of the file, and of its streams


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between a source and an output.

    code: its kind.  text: for people, in one line.
    stream: index in the source of the stream it is about; in the output for one that was added; None for the file.
    """

    code: DifferenceCode
    text: str
    stream: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"
