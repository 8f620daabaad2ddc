"""Find the frames beside the part of a source that a job reads, which a network with memory sees, too."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

from vsr.errors import InputError
from vsr.frames import FrameBatch
from vsr.jobs.job import Job
from vsr.jobs.source import open_source
from vsr.media.endpoints import Pipe
from vsr.media.read.demuxer import Demuxer
from vsr.media.read.reader import Chunk, VideoReader

__all__ = ["FramesBeside"]


@dataclass(frozen=True, slots=True)
class FramesBeside:
    """Frames of a source before and after the part of it that a job reads.

    reader: of the part.
    num_seen_after: frames after it that the network sees; 0 where it sees none beside the part at all.
    times: of all frames before the part, in ticks of the source's own clock, in order; none where they cannot be
        counted, as of a pipe.
    """

    job: Job
    reader: VideoReader
    num_seen_after: int
    times: array[int]

    @property
    def number(self) -> int:
        """The number of the part's first frame in the source, from 0; 0 where that is not known."""
        return len(self.times)

    def before(self, num_frames: int) -> Iterator[Chunk]:
        """Decode the last frames before the part, on its clock, in batches of the job. num_frames: at most `number`."""
        start = self.job.input.start_seconds
        if num_frames == 0 or start is None:
            return
        tick, shift = self.reader.info.time_base, self.reader.shift_seconds
        seconds = max(Fraction(0), self.times[-num_frames] * tick - shift + start)
        ticks = round(shift / tick) - self.times[-num_frames]
        with _reading(self.job, seconds, start - seconds) as reader:
            for chunk in reader.chunks(self.job.batch):
                if chunk.batch is not None:
                    pts = tuple(time - ticks for time in chunk.batch.pts)
                    yield Chunk((), replace(chunk.batch, pts=pts), is_beside=True)

    def after(self) -> FrameBatch | None:
        """Decode the first frames after the part; None where there are none, or of another size or format."""
        start, duration = self.job.input.start_seconds or Fraction(0), self.job.input.duration_seconds
        if not self.num_seen_after or duration is None or isinstance(self.job.source, Pipe):
            return None
        with suppress(InputError), _reading(self.job, start + duration) as reader:
            if _are_alike(reader, self.reader):
                batches = (chunk.batch for chunk in reader.chunks(self.num_seen_after))
                return next((batch for batch in batches if batch is not None), None)
        return None

    @classmethod
    def of(cls, job: Job, reader: VideoReader, num_seen_after: int) -> FramesBeside:
        """Count the frames before the part that a reader was opened for, by their packets, without decoding."""
        times = array("q")
        start = job.input.start_seconds
        if num_seen_after and start and not isinstance(job.source, Pipe):
            times = _times_before(job, reader)
            if times and not _has_same_frames(job, reader, times):
                times = array("q")
        return cls(job, reader, num_seen_after, times)


def _times_before(job: Job, reader: VideoReader) -> array[int]:
    """List the timestamps of the video's packets before a part; none where one is missing."""
    demuxer = Demuxer(job.source, job.input.format, job.input.maps, lambda line: None)
    found: list[int] = []
    try:
        demuxer.open()
        tick = demuxer.stream.time_base or reader.info.time_base
        end = reader.shift_seconds / tick
        for packet in demuxer.packets():
            if packet.stream.index != demuxer.stream.index or not packet.size:
                continue
            if packet.pts is None or tick != reader.info.time_base:
                return array("q")
            if packet.dts is not None and packet.dts >= end:
                break
            if not packet.is_discard:
                found.append(packet.pts)
    finally:
        demuxer.close()
    found.sort()
    return array("q", found[: bisect_left(found, end)])


def _has_same_frames(job: Job, reader: VideoReader, times: array[int]) -> bool:
    """Tell whether the frame right before a part is of its size and format, and where its packet says."""
    start = job.input.start_seconds or Fraction(0)
    seconds = times[-1] * reader.info.time_base - reader.shift_seconds + start
    if seconds < 0:
        return False
    try:
        with _reading(job, seconds, start - seconds) as last:
            return _are_alike(last, reader)
    except InputError:
        return False


def _are_alike(reader: VideoReader, other: VideoReader) -> bool:
    a, b = reader.info, other.info
    return (a.width, a.height, a.pixel_format, a.color) == (b.width, b.height, b.pixel_format, b.color)


def _reading(job: Job, start: Fraction, duration: Fraction | None = None) -> VideoReader:
    """Open another part of a job's source; its irregularities are for the job's own reader to name."""
    part = replace(job.input, start_seconds=start, duration_seconds=duration)
    return open_source(job.source, part, job.model.place)
