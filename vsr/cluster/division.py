"""Divide a job's video into segments that are made apart from one another, by the timestamps of its frames."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vsr.events import OnNote
from vsr.jobs.job import Job
from vsr.jobs.source import open_source
from vsr.media.read.demuxer import Demuxer
from vsr.media.read.reader import VideoReader

__all__ = ["SegmentRange", "decoded_times", "divide", "packet_times"]


@dataclass(frozen=True, slots=True)
class SegmentRange:
    """The frames of a segment, and where decoding begins for it.

    Times are PTS in ticks on the output's clock.
    number: of the segment, from 0.  first_frame: the number of its first frame in the job, from 0.
    first, last: times of its first and last frame.  num_frames: from one to the other, both counted.
    after: time of the frame after which reading begins; None for the beginning of the job's part of the source.
    num_lead_in: frames read before the first one, which a network with memory sees again.
    is_last: whether the video ends with it.
    """

    number: int
    first_frame: int
    first: int
    last: int
    num_frames: int
    after: int | None
    num_lead_in: int
    is_last: bool

    @property
    def num_read(self) -> int:
        """The number of frames that go through the network."""
        return self.num_lead_in + self.num_frames


def divide(
    times: array[int],
    num_frames_per_segment: int,
    batch: int,
    lead_in: Callable[[int], int],
    before: Sequence[int] = (),
) -> list[SegmentRange]:
    """Cut a video where a job in one process cuts it.

    Args:
        times: Of all frames, in order.
        num_frames_per_segment: Whole batches.
        batch: Frames in a batch; reading begins where one begins.
        lead_in: Gives, for the number of a frame, how many frames before it the network must see; more than there are
            in the job's part of the source where it sees frames before that, too.
        before: Frames of each segment that is there already, from the first on; these may have been cut elsewhere.
    """
    ends = list(accumulate(before, initial=0))
    grid = range(ends[-1] // num_frames_per_segment + 1, len(times) // num_frames_per_segment + 1)
    cuts = sorted({*ends, *(number * num_frames_per_segment for number in grid), len(times)})
    ranges = []
    for number, (start, stop) in enumerate(pairwise(cuts)):
        begin = max(0, start - lead_in(start)) // batch * batch
        after = times[begin - 1] if begin else None
        is_last = stop == len(times)
        ranges.append(
            SegmentRange(number, start, times[start], times[stop - 1], stop - start, after, start - begin, is_last)
        )
    return ranges


def packet_times(job: Job, reader: VideoReader) -> array[int] | None:
    """List the times of all frames by the packets of the video, without decoding; None where packets do not tell.

    reader: of the job's source.
    """
    demuxer = Demuxer(job.source, job.input.format, job.input.maps, lambda line: None)
    try:
        demuxer.open()
        if demuxer.stream.time_base != reader.info.time_base:
            return None
        found = array("q")
        for pts in _packet_pts(demuxer):
            if pts is None:
                return None
            found.append(pts)
        if demuxer.damage is not None:
            return None
    finally:
        demuxer.close()
    return _in_part(array("q", sorted(found)), reader)


def _packet_pts(demuxer: Demuxer) -> Iterator[int | None]:
    """Yield the PTS of each packet that gives a frame to be shown."""
    for packet in demuxer.packets():
        if packet.stream.index == demuxer.stream.index and packet.size and not packet.is_discard:
            yield packet.pts


def _in_part(times: array[int], reader: VideoReader) -> array[int] | None:
    """Keep the times in the part of the source that is read, and move them to the output's clock."""
    if not times or any(a == b for a, b in pairwise(times)):
        return None
    tick, shift = reader.info.time_base, reader.shift_seconds
    if shift:
        del times[: bisect_left(times, shift / tick)]
    if reader.duration_limit_seconds is not None:
        del times[bisect_left(times, (shift + reader.duration_limit_seconds) / tick) :]
    ticks = round(shift / tick)
    return array("q", (time - ticks for time in times)) if times else None


def decoded_times(job: Job, note: OnNote) -> array[int]:
    """List the times of all frames by decoding the source. Raises InputError where that cannot be done."""
    with open_source(job.source, job.input, job.model.place, note) as reader:
        for _ in reader.chunks(job.batch):
            pass
        return reader.pts
