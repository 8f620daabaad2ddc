"""Encode the frames of a long job to segments, and join them when all are done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from vsr.errors import OutputError
from vsr.jobs.job import Job
from vsr.jobs.journal import Done, Journal
from vsr.jobs.open_job import OpenVideo
from vsr.jobs.plan import VideoPlan
from vsr.jobs.source import open_source
from vsr.media.captions import carries_captions
from vsr.media.read.reader import Chunk, FramePosition, VideoReader
from vsr.media.write.container_writer import OutputSpec
from vsr.media.write.segments import JoinedWriter, Segment, SegmentWriter

__all__ = ["FinishedSegment", "InPlace", "OnSegment", "SegmentedSink", "finished_segments", "joined_writer"]

_FIRST_SEGMENT_SECONDS = 20  # of work: what a kill soon after the start may cost
_LARGEST_SHARE = 0.5  # of the work before it that a segment may take; few segments come of that, and few key frames


@dataclass(frozen=True, slots=True)
class FinishedSegment:
    """A segment of a running job that is safe on the disk; its file stays until the output is in its place.

    number: counted from 0, in the order of time.  time_base: seconds per tick of the segment's times.
    """

    number: int
    segment: Segment
    time_base: Fraction


OnSegment = Callable[[FinishedSegment], None]  # called with each segment, from the thread that encodes


def finished_segments(journal: Journal, time_base: Fraction) -> Iterator[FinishedSegment]:
    """Yield the segments that earlier runs of a job have finished. time_base: of its source."""
    for number, done in enumerate(journal.done):
        yield FinishedSegment(number, done.segment, time_base)


def joined_writer(
    journal: Journal,
    job: Job,
    plan: VideoPlan,
    reader: VideoReader,
    segments: Iterable[Segment],
    depth: int | None = None,
) -> JoinedWriter:
    """Open the file that all segments of a job are joined in, with the other streams of its source.

    reader: of the source, freshly opened.  segments, depth: as `JoinedWriter` takes them.
    """
    output = journal.output
    spec = OutputSpec(plan.settings, plan.streams, plan.container, None, job.policy.overwrite, plan.audio_bitrate)
    partial = journal.folder / f"joined{output.suffix}"
    return JoinedWriter(output, reader, spec, segments, partial, depth=depth)


class InPlace:
    """The sink of a job that is complete but for clearing up."""

    num_damaged = 0
    omissions: Sequence[str] = ()

    def __init__(self, journal: Journal) -> None:
        self._journal, self.num_frames = journal, journal.num_frames

    def write(self, chunk: Chunk) -> None:
        raise AssertionError("there is nothing to write")

    def finish(self) -> None: ...

    def verify(self) -> None: ...

    def commit(self) -> None:
        self._journal.forget()

    def abort(self) -> None: ...


class SegmentedSink:
    """Encodes frames to segments, records them, and joins them with the other streams of the source."""

    def __init__(self, journal: Journal, opened: OpenVideo, on_segment: OnSegment, num_lead_in: int = 0) -> None:
        """opened: its reader stands after the frames that are done, but for the last `num_lead_in` of these."""
        self._on_segment = on_segment
        self._journal, self._job, self._plan = journal, opened.job, opened.plan
        self._reader, self._upscaler = opened.reader, opened.upscaler
        begin = journal.num_frames - num_lead_in  # the frame at which this run begins to read
        ends = accumulate(done.segment.num_frames for done in journal.done)
        read_before = [done.num_damaged for done, end in zip(journal.done, ends, strict=True) if end <= begin]
        self._num_damaged_before = read_before[-1] if read_before else 0
        self._num_lead_in = num_lead_in
        self._reader.captions.is_wanted = carries_captions(self._plan.settings.codec)  # before the first is read
        self._pts_before = sorted(pts for done in journal.done for pts in done.segment.pts)
        self._marks: dict[int, tuple[FramePosition, int]] = {}  # by the number of frames up to there
        self._mark: tuple[FramePosition, int] | None = None  # of the last frame that is written, if a batch ends there
        self._begun = self._segment_begun = time.monotonic()
        self._segment: SegmentWriter | None = None
        self._joined: JoinedWriter | None = None
        self._joining: VideoReader | None = None
        if journal.done:
            self._upscaler.network.use_precision(journal.done[-1].precision, journal.done[-1].backend)

    @property
    def num_frames(self) -> int:
        return self._journal.num_frames + (self._segment.num_frames if self._segment else 0)

    @property
    def num_damaged(self) -> int:
        """Damaged packets of the source, in all runs."""
        return self._num_damaged_before + self._reader.num_damaged

    @property
    def omissions(self) -> Sequence[str]:
        return self._joined.omissions if self._joined else ()

    def marked(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Pass the chunks on as they are, and note how the last frame of each batch can be found again."""
        done = self._journal.num_frames
        num_frames = done - self._num_lead_in
        for chunk in chunks:
            if chunk.batch is not None:
                num_frames += chunk.batch.num_frames
                if num_frames > done:
                    self._marks[num_frames] = (FramePosition.of_last(chunk.batch), self.num_damaged)
            yield chunk

    def write(self, chunk: Chunk) -> None:
        """Encode a chunk's frames; its packets wait for the last pass."""
        if chunk.batch is None:
            return
        if self._segment is None:
            reader = self._reader
            self._segment = SegmentWriter(
                self._journal.next_path, self._plan.settings, reader.info, captions=reader.captions
            )
        self._segment.encode(chunk.batch)
        self._mark = self._marks.pop(self.num_frames, None)
        if self._mark is not None and self._is_long_enough():
            self._on_segment(self._finished_segment(self._segment, *self._mark))

    def _is_long_enough(self) -> bool:
        """Tell whether a segment ends here: at a multiple of frames, and earlier where it holds much of the work."""
        if self.num_frames % self._journal.num_frames_per_segment == 0:
            return True
        now, seconds_before = time.monotonic(), self._segment_begun - self._begun
        return now - self._segment_begun >= max(_FIRST_SEGMENT_SECONDS, _LARGEST_SHARE * seconds_before)

    def _finished_segment(self, writer: SegmentWriter, last: FramePosition, num_damaged: int) -> FinishedSegment:
        segment = writer.finish()
        self._segment, self._segment_begun = None, time.monotonic()
        network = self._upscaler.network
        self._journal.add(Done(segment, last, num_damaged, network.precision, backend=network.backend))
        return FinishedSegment(len(self._journal.done) - 1, segment, self._reader.info.time_base)

    def finish(self) -> None:
        """Finish the last segment; join all, in a pass over the source for the packets of its other streams."""
        if self._segment is not None:
            assert self._mark is not None  # the end of the last batch
            last, _ = self._mark
            self._on_segment(self._finished_segment(self._segment, last, self.num_damaged))
        self._joining = reader = open_source(self._job.source, self._job.input, self._job.model.place)
        segments = [done.segment for done in self._journal.done]
        self._joined = joined_writer(self._journal, self._job, self._plan, reader, segments)
        self._joined.write_all(reader)

    def verify(self) -> None:
        """Read the joined file back, against the frames that were handed out in all runs, and the source's packets."""
        assert self._joined is not None and self._joining is not None
        pts = [*self._pts_before, *self._reader.pts[self._num_lead_in :]]
        self._joined.check(pts, self._reader.info.time_base, self._joining)

    def commit(self) -> None:
        """Put the joined file in its place. Killed on the way, the job is found complete by the next run."""
        assert self._joined is not None
        self._journal.add_joined(self._joined.partial)
        self._joined.commit()
        self._journal.forget()

    def keep(self) -> None:
        """Complete the segment that is being written, for a job that is stopped and may go on.

        No other thread writes any more. Where a result ends within a batch of the source, or the disk is full, the
        segment is not kept.
        """
        if self._segment is not None and self._mark is not None:
            with contextlib.suppress(OutputError):
                self._finished_segment(self._segment, *self._mark)

    def abort(self) -> None:
        """Remove what is not complete; the segments that are stay."""
        if self._segment is not None:
            self._segment.abort()
        if self._joined is not None:
            self._joined.abort()
        if self._joining is not None:
            self._joining.close()
