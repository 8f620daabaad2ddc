"""Copy the sound of a job's source into the fragments of its HLS stream."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from vsr.errors import InputError
from vsr.jobs.job import Job
from vsr.jobs.plan import VideoPlan
from vsr.media.read.opening import InputFormat, open_input
from vsr.media.read.trim import TrimRange
from vsr.media.write.stream_plan import add_copy

__all__ = ["SourceSound"]

_CODECS = frozenset({"aac", "mp3", "mp3float", "opus", "libopus", "flac", "alac"})  # that players of HLS take
_NEED_HEADER = _CODECS - {"mp3", "mp3float"}
_SEEK_SECONDS = 1  # before a time: containers may seek to a packet a little after it


@dataclass(frozen=True, slots=True)
class SourceSound:
    """Describe the sound of a job's source, which is there from the first segment on.

    path, format_: of the source.  index: of the stream.  start, duration: of the part that the job is of, in seconds.
    """

    path: Path
    format_: InputFormat
    index: int
    start: Fraction | None
    duration: Fraction | None

    @classmethod
    def of(cls, job: str, path: Path) -> Self | None:
        """Return the first sound that a job copies; None without one of a codec that players of HLS take.

        job: as JSON.  path: of its source.
        """
        try:
            found = Job.from_json(job)
        except InputError:  # by another version
            return None
        plans = found.plan.streams if isinstance(found.plan, VideoPlan) else ()
        copied = (plan for plan in plans if plan.kind == "audio" and plan.action == "copy")
        index = next((plan.index for plan in copied if plan.codec in _CODECS), None)
        if index is None:
            return None
        return cls(path, found.input.format, index, found.input.start_seconds, found.input.duration_seconds)

    @contextmanager
    def added(self, out: OutputContainer) -> Iterator[OpenSound | None]:
        """Open the source, and add a stream for its sound to an output.

        Gives None where the source keeps the header of its sound in the packets, as MPEG-TS does.
        """
        with open_input(self.path, format_=self.format_) as container:
            stream = container.streams[self.index]
            assert isinstance(stream, AudioStream)
            has_header = bool(stream.codec_context.extradata)
            if stream.codec_context.name in _NEED_HEADER and not has_header:
                yield None
                return
            trim = TrimRange(container, self.start, self.duration)
            yield OpenSound(container, stream, trim, out, add_copy(out, stream))


@dataclass(frozen=True, slots=True)
class OpenSound:
    """The sound of an open source, and the stream that it goes to."""

    container: InputContainer
    stream: AudioStream
    trim: TrimRange
    out: OutputContainer
    target: Stream

    def mux(self, first: Fraction, end: Fraction, origin: Fraction) -> None:
        """Mux the packets of a time. first, end, origin: in seconds of the job's result; the last becomes zero."""
        for packet in self._packets(first, end):
            assert packet.pts is not None
            packet.dts = packet.pts = packet.pts - round(origin / packet.time_base)
            packet.stream = self.target
            self.out.mux(packet)

    def _packets(self, first: Fraction, end: Fraction) -> Iterator[Packet[Any]]:
        assert self.stream.time_base is not None
        before = self.trim.shift_seconds + first - _SEEK_SECONDS
        self.container.seek(math.floor(before / self.stream.time_base), stream=self.stream)
        for packet in self.container.demux(self.stream):
            if packet.pts is None or not packet.size or not self.trim.contains(packet):
                continue
            self.trim.shift(packet)
            seconds = packet.pts * packet.time_base
            if seconds >= end:
                return
            if seconds >= first:
                yield packet
