"""Encode a video in segments, each to a file of its own that starts with a key frame, and join them."""

from __future__ import annotations

import contextlib
import itertools
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vsr.errors import InputError, OutputError, reason
from vsr.files import naming_output, partial_path, put_in_place, sha256_of
from vsr.frames import FrameBatch
from vsr.media.captions import Captions
from vsr.media.formats import MATROSKA, find_container, find_encoder
from vsr.media.read.opening import DEFAULT_FRAMERATE, open_input
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.container_writer import OutputFile, OutputSpec
from vsr.media.write.encoder import VideoEncoder, VideoSettings, scaled_matrix

__all__ = [
    "JoinedWriter",
    "Segment",
    "SegmentWriter",
    "check_segment",
    "decode_times",
    "reordering_depth",
]


@dataclass(frozen=True, slots=True)
class Segment:
    """A Matroska file with some frames of the video, the first of them a key frame.

    Args:
        path: The file.
        sha256: Of the file, in hexadecimal digits.
        pts: Of its packets, in the order of decoding, in ticks of the source's time base; Matroska's own ticks of
            1 ms are too long for them.
        durations: Of its packets, likewise; 0 where unknown.
    """

    path: Path
    sha256: str
    pts: Sequence[int]
    durations: Sequence[int]

    def __post_init__(self) -> None:
        """Keep times in 8 bytes each: those of all segments stay in memory until they are joined."""
        object.__setattr__(self, "pts", array("q", self.pts))
        object.__setattr__(self, "durations", array("q", self.durations))

    @property
    def num_frames(self) -> int:
        return len(self.pts)


class SegmentWriter:
    """Encode a segment to a file, which is in place and checked when `finish` returns."""

    def __init__(
        self,
        path: Path,
        settings: VideoSettings,
        info: VideoInfo,
        threads: int | None = None,
        captions: Captions | None = None,
    ) -> None:
        """Create the file and open the encoder. Raises OutputError, also where Matroska does not hold the codec.

        threads, captions: as `VideoEncoder` takes them.
        """
        self._path, self._partial = path, partial_path(path)
        self._pts: list[int] = []
        self._durations: list[int] = []
        try:
            self._container = av.open(f"file:{self._partial}", "w", format=MATROSKA)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be created ({reason(error)})") from error
        try:
            self._encoder = VideoEncoder(self._container, path, settings, info, threads, captions)
            self._encoder.open()
            with self._writing():
                self._container.start_encoding()
        except BaseException:
            self.abort()
            raise

    @property
    def num_frames(self) -> int:
        return self._encoder.num_frames

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with naming_output(self._path, (OSError, ValueError, av.FFmpegError)):
            yield

    def encode(self, batch: FrameBatch) -> None:
        """Encode the frames of a batch."""
        with self._writing():
            self._mux(self._encoder.encode(batch))

    def _mux(self, packets: Iterator[Packet[Any]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            self._pts.append(packet.pts)
            self._durations.append(packet.duration or 0)
            self._container.mux(packet)

    def finish(self) -> Segment:
        """Drain the encoder, complete the file, check it and put it in place."""
        with self._writing():
            self._mux(self._encoder.flush())
            self._container.close()
        segment = Segment(self._partial, sha256_of(self._partial), self._pts, self._durations)
        check_segment(segment)
        put_in_place(self._partial, self._path)
        return Segment(self._path, segment.sha256, segment.pts, segment.durations)

    def abort(self) -> None:
        """Close without completing, and remove the file."""
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        self._partial.unlink(missing_ok=True)


def check_segment(segment: Segment) -> None:
    """Check a segment against its file. Raises OutputError where it is damaged or starts with no key frame."""
    try:
        if sha256_of(segment.path) != segment.sha256:
            raise OutputError(f"{segment.path}: is damaged")
        with open_input(segment.path) as container:
            packets = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    except (OSError, InputError, av.FFmpegError) as error:
        raise OutputError(f"{segment.path}: cannot be read back ({reason(error)})") from error
    if len(packets) != segment.num_frames:
        raise OutputError(f"{segment.path}: {segment.num_frames} frames went in and {len(packets)} came out")
    if not packets[0]:
        raise OutputError(f"{segment.path}: does not begin with a key frame")


class JoinedWriter(OutputFile):
    """Put segments in one file, packet by packet, beside the other streams of the source."""

    def __init__(
        self,
        path: Path,
        reader: VideoReader,
        spec: OutputSpec,
        segments: Iterable[Segment],
        partial: Path,
        *,
        depth: int | None = None,
    ) -> None:
        """Create the file and write its header.

        Args:
            path: The target.
            reader: The source, freshly opened.
            spec: What the file is to hold.
            segments: At least one, in the order of time. They are asked for one by one, so that they can be waited
                for, where `depth` is given.
            partial: The path to write to until the file is complete.
            depth: The `reordering_depth` of all segments; counted here unless given.
        """
        if depth is None:
            segments = list(segments)
            depth = max(reordering_depth(segment.pts) for segment in segments)
        self._depth, coming = depth, iter(segments)
        first = next(coming)
        self._segments = itertools.chain([first], coming)
        super().__init__(path, reader, spec, partial)
        try:
            with open_input(first.path) as self._first:
                self._add_streams(reader)
                self._write_header()
        except BaseException:
            self.abort()
            raise

    def _add_video(self) -> Stream:
        template = self._first.streams.video[0]
        stream: VideoStream = self.container.add_stream_from_template(template, opaque=True)  # needs no encoder
        tag = find_encoder(self.spec.settings.codec).tag
        if tag and find_container(self.container.format.name).takes_timescale:
            stream.codec_context.codec_tag = tag
        stream.time_base = self.info.time_base
        stream.codec_context.framerate = self.info.average_rate or DEFAULT_FRAMERATE
        if self.info.display_matrix:
            stretch = self.spec.settings.width / self.info.width
            stream.set_display_matrix(scaled_matrix(self.info.display_matrix, stretch))
        self._stream = stream
        return stream

    def write_all(self, reader: VideoReader) -> None:
        """Interleave the segments with the packets of the source's other streams, and complete the partial file."""
        with self._writing():
            video = self._video_packets()
            upcoming = next(video, None)
            for packet in reader.other_packets():
                time = packet.dts if packet.dts is not None else packet.pts
                while upcoming is not None and time is not None and _seconds(upcoming) <= time * packet.time_base:
                    self.container.mux(upcoming)
                    upcoming = next(video, None)
                self._remuxer.mux(packet)
            while upcoming is not None:
                self.container.mux(upcoming)
                upcoming = next(video, None)
            self._complete()

    def _video_packets(self) -> Iterator[Packet[Any]]:
        dts: deque[int] = deque()
        for segment in self._segments:
            if not dts:
                dts.extend(_first_decode_times(segment.pts, self._depth))
            dts.extend(sorted(segment.pts))
            with open_input(segment.path) as container:
                packets = (packet for packet in container.demux(video=0) if packet.size)
                for packet, pts_ticks, duration in zip(packets, segment.pts, segment.durations, strict=True):
                    packet.time_base = self.info.time_base
                    packet.pts, packet.dts, packet.duration = pts_ticks, dts.popleft(), duration
                    packet.stream = self._stream
                    yield packet


def _seconds(packet: Packet[Any]) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def reordering_depth(pts: Sequence[int]) -> int:
    """Count the packets by which DTS must lag behind the sorted PTS, so that no packet's DTS is after its PTS.

    pts: of the packets, in the order of decoding, in ticks; no value may occur twice.
    """
    shown = sorted(pts)
    # A packet that n others precede in decoding must not wait for a PTS later than its own.
    return max((index - (bisect_right(shown, value) - 1) for index, value in enumerate(pts)), default=0)


def decode_times(pts: Sequence[int]) -> list[int]:
    """Return a DTS for each packet: strictly increasing, and never after the packet's PTS.

    They are the sorted PTS, delayed by as many packets as the deepest reordering needs; those before the first PTS
    are spaced by the mean distance of the first frames.

    Args:
        pts: Of the packets, in the order of decoding, in ticks; no value may occur twice.
    """
    times = [*_first_decode_times(pts, reordering_depth(pts)), *sorted(pts)]
    return times[: len(pts)]


def _first_decode_times(pts: Sequence[int], depth: int) -> list[int]:
    """Return the DTS before the first PTS, as many as the depth of reordering. pts: of the first segment."""
    shown = sorted(pts)
    if not depth or not shown:
        return []
    step = max(1, (shown[min(depth, len(shown) - 1)] - shown[0]) // depth)
    return [shown[0] - step * (depth - index) for index in range(depth)]
