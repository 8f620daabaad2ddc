"""Read all of a file that an upscaled copy has to keep."""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream

from vsr.color.pixel_formats import PixelFormat
from vsr.color.rgb import rgb_of_batch
from vsr.errors import InputError
from vsr.frames import FrameBatch
from vsr.media.formats import Container, find_containers_of_demuxer
from vsr.media.packet_checksum import StreamChecksum, is_counted
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.remuxer import carried_tags, trimmed_chapters
from vsr.media.write.stream_plan import codec_name

__all__ = ["ChapterMark", "FileContents", "StreamContents", "Times", "read_contents"]


_OF_OTHER_KINDS = {"language", "alpha_mode"}  # tags for what is compared by itself
_ZERO_FRACTION = re.compile(r"(\.0+)?Z?$")
_LANGUAGE = re.compile(r"-[a-z]{3}$")


@dataclass
class Times:
    """Hold the times at which frames or packets are shown.

    pts, durations: in ticks of `time_base` (seconds); a duration of 0 is unknown.
    num_untimed: those without a PTS, which are not listed.
    """

    time_base: Fraction
    pts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    num_untimed: int = 0

    def add(self, pts: int | None, duration: int | None) -> None:
        """Take the next frame or packet into account."""
        if pts is None:
            self.num_untimed += 1
            return
        self.pts.append(pts)
        self.durations.append(duration or 0)

    @property
    def seconds(self) -> np.ndarray:
        """(N,) float64: the PTS in seconds, in ascending order."""
        return np.sort(np.asarray(self.pts, np.int64)) * float(self.time_base)

    @property
    def end_seconds(self) -> float | None:
        """The end of what is shown last; None where its duration is unknown."""
        if not self.pts:
            return None
        last = int(np.argmax(np.asarray(self.pts)))
        return float((self.pts[last] + self.durations[last]) * self.time_base) if self.durations[last] else None


@dataclass
class StreamContents:
    """One of the streams beside the main video.

    kind: "audio", "subtitle", "video", "data", or "attachment", which covers are, too.
    sha256: of all its packets' data.
    """

    index: int
    kind: str
    codec: str
    language: str | None
    flags: frozenset[str]
    tags: Mapping[str, str]
    times: Times
    num_packets: int = 0
    sha256: bytes = b""

    @property
    def title(self) -> str:
        language = f", {self.language}" if self.language else ""
        return f"{self.kind} stream {self.index} ({self.codec}{language})"


@dataclass(frozen=True)
class ChapterMark:
    """The start of a chapter, in seconds, and its title."""

    start_seconds: float
    title: str


@dataclass(frozen=True)
class FileContents:
    """All of a file that an upscaled copy has to keep.

    times: of the frames, all of which were decoded.  video_tags: of the main video stream.  streams: all others.
    num_damaged: parts of the video that could not be decoded.
    mean_rgb: red, green and blue of the first frame, from 0 to 1, the mean of what is not transparent.
    num_captioned: frames with closed captions.  is_part: whether only a part of the file was read.
    """

    path: Path
    info: VideoInfo
    containers: tuple[Container, ...]
    times: Times
    video_tags: Mapping[str, str]
    video_flags: frozenset[str]
    streams: tuple[StreamContents, ...]
    chapters: tuple[ChapterMark, ...]
    tags: Mapping[str, str]
    num_damaged: int
    mean_rgb: tuple[float, ...]
    num_captioned: int
    is_part: bool


def read_contents(path: Path, options: InputOptions, warn: Callable[[str], None]) -> FileContents:
    """Decode a file to its end. Raises InputError.

    options: the part to read.  warn: called with one line for anything out of the ordinary.
    """
    with VideoReader(path, options, warn=warn) as reader:
        times = Times(reader.info.time_base)
        packet_times: dict[int, Times] = {}
        mean_rgb = _mean_rgb(reader.first_batch(1), reader.info.pixel_format)
        for chunk in reader.chunks(1):
            for packet in chunk.packets:
                _add_packet(packet_times, packet)
            if chunk.batch is not None:
                times.add(chunk.batch.pts[0], chunk.batch.durations[0])
        streams = [
            _stream_contents(stream, reader.checksums.get(stream.index), packet_times.get(stream.index))
            for stream in reader.other_streams
            if stream.index in reader.chosen_streams and not _is_rebuilt(stream, reader)
        ]
        return FileContents(
            path=path,
            info=reader.info,
            containers=tuple(find_containers_of_demuxer(reader.container.format.name)),
            times=times,
            video_tags=_stream_tags(reader.stream),
            video_flags=_flags(reader.stream),
            streams=tuple(streams),
            chapters=_chapters(reader),
            tags=_tags(reader.container.metadata),
            num_damaged=reader.num_damaged,
            mean_rgb=mean_rgb,
            num_captioned=reader.captions.num_seen,
            is_part=options.start_seconds is not None or options.duration_seconds is not None,
        )


def _mean_rgb(batch: FrameBatch, format_: PixelFormat) -> tuple[float, ...]:
    """Return red, green and blue of a frame, from 0 to 1, the mean of what is not transparent.

    NaN where its matrix cannot be converted.
    """
    try:
        rgb = rgb_of_batch(batch, format_)[0].float().clamp(0, 1)  # as it is shown
    except InputError:
        return (math.nan,) * 3
    if not format_.alpha:
        return tuple(rgb.mean((1, 2)).tolist())
    alpha = batch.planes[-1][0].float()
    return tuple(((rgb * alpha).sum((1, 2)) / alpha.sum().clamp(min=1)).tolist())


def _add_packet(times: dict[int, Times], packet: Packet[Any]) -> None:
    if is_counted(packet):
        stream_times = times.setdefault(packet.stream.index, Times(packet.time_base))
        stream_times.add(packet.pts if packet.pts is not None else packet.dts, packet.duration)


def _is_rebuilt(stream: Stream, reader: VideoReader) -> bool:
    """Tell whether a muxer makes a stream anew of chapters or of a timecode, which are compared themselves."""
    is_chapters = codec_name(stream) == "bin_data" and bool(reader.container.chapters())
    return stream.type == "data" and (is_chapters or "timecode" in stream.metadata)


def _stream_contents(stream: Stream, checksum: StreamChecksum | None, times: Times | None) -> StreamContents:
    is_attached = isinstance(stream, AttachmentStream) or Disposition.attached_pic in stream.disposition
    checksum = checksum or StreamChecksum()
    digest, num_packets = checksum.digest, checksum.num_packets
    if isinstance(stream, AttachmentStream):
        digest, num_packets = hashlib.sha256(stream.data or b"").digest(), 1
    return StreamContents(
        index=stream.index,
        kind="attachment" if is_attached else stream.type,
        codec=codec_name(stream) or "unknown codec",
        language=stream.language,
        flags=_flags(stream),
        tags=_stream_tags(stream),
        times=times or Times(stream.time_base or Fraction(1, 1000)),
        num_packets=num_packets,
        sha256=digest,
    )


def _flags(stream: Stream) -> frozenset[str]:
    return frozenset(str(flag.name) for flag in Disposition if flag in stream.disposition)


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    """Take the tags that hold of a copy too, under the names that all containers share.

    QuickTime has some twice, the second time with a language ("title-eng"); Matroska writes names in capitals; AVI's
    muxer signs as software. Times are written with and without zeros.
    """
    named = {key.lower(): value.strip() for key, value in carried_tags(metadata).items()}
    known = {key.lower() for key in metadata}
    tags = {k: v for k, v in named.items() if k not in _OF_OTHER_KINDS and _LANGUAGE.sub("", k) not in known - {k}}
    if tags.get("software", "").startswith("Lavf"):
        del tags["software"]
    if "creation_time" in tags:
        tags["creation_time"] = _ZERO_FRACTION.sub("", tags["creation_time"].replace(" ", "T"))
    return tags


def _stream_tags(stream: Stream) -> dict[str, str]:
    """Take the tags of a stream, but for when it was made, which is the file's in most containers."""
    tags = _tags(stream.metadata)
    tags.pop("creation_time", None)
    if "name" in tags:  # which FFmpeg reads of ISO files, and writes as a title
        tags.setdefault("title", tags.pop("name"))
    return tags


def _chapters(reader: VideoReader) -> tuple[ChapterMark, ...]:
    found = trimmed_chapters(reader.container, reader.shift_seconds, reader.duration_limit_seconds)
    return tuple(
        ChapterMark(float(c["start"] * (c["time_base"] or Fraction(1, 1000))), c["metadata"].get("title", ""))
        for c in found
    )
