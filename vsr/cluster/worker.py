"""Make single segments of jobs, keeping the loaded model from one to the next."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from vsr.backends.engine import own_stream
from vsr.cluster.segment_task import MisplacedFramesError, SegmentResult, SegmentTask, settings_hash
from vsr.errors import VsrError
from vsr.events import Note, NoteCode
from vsr.frames import FrameBatch
from vsr.jobs.frames_beside import FramesBeside
from vsr.jobs.job import Job
from vsr.jobs.model_cache import ModelCache, ModelSource
from vsr.jobs.plan import VideoPlan
from vsr.jobs.resume import before_part, target_of
from vsr.jobs.source import open_source
from vsr.media.endpoints import Source
from vsr.media.read.reader import Chunk, FramePosition, VideoReader
from vsr.media.write.segments import Segment, SegmentWriter
from vsr.pipeline.processor import make_processor
from vsr.pipeline.stages import NetworkStage, run_stages

__all__ = ["SegmentMaker"]

OnFrames = Callable[[int], None]  # called with the number of frames that are done


class SegmentMaker:
    """Makes segments, one at a time."""

    def __init__(self, models: ModelSource | None = None) -> None:
        """models: keeps the model between segments; a cache of one unless given."""
        self._models = models or ModelCache()

    def make(
        self, task: SegmentTask, on_frames: OnFrames = lambda num_frames: None, source: Source | None = None
    ) -> SegmentResult:
        """Decode, upscale and encode a segment; it is in its place and checked when this returns.

        source: to read the job's source by, where that does not lie here.

        Raises the errors of `vsr.errors`, and MisplacedFramesError where the source's packets promise other frames.
        """
        job = Job.from_json(task.job)
        if settings_hash(job) != task.settings:
            raise VsrError(f"{job.source}: this vsr reads other settings in the job than were written")
        if source is not None:
            job = replace(job, source=source)
        if task.range.after is None:
            return self._made(job, task, on_frames, search=False)
        with contextlib.suppress(MisplacedFramesError):  # the search may have ended where times are unknown
            result = self._made(job, task, on_frames, search=True)
            if not result.num_damaged:
                return result
        # Frames near damage depend on where decoding began: at the source's own beginning, in an unbroken job.
        task.path.unlink(missing_ok=True)
        return self._made(job, task, on_frames, search=False)

    def _made(self, job: Job, task: SegmentTask, on_frames: OnFrames, *, search: bool) -> SegmentResult:
        notes: list[Note] = []
        if not search and task.range.after is not None:
            text = f"{job.source}: no exact search ends in its middle, so that all before a segment is decoded for it"
            notes.append(Note(NoteCode.CLUSTER, text))
        assert isinstance(job.plan, VideoPlan)
        with ExitStack() as stack:
            stack.enter_context(own_stream(job.model.place.device))
            reader, found = _reader_at(job, task, search)
            stack.enter_context(reader)
            upscaler = self._models.load(job.model, task.num_pixels, notes.append)
            upscaler.network.use_precision(upscaler.precision)  # which was checked when the job was divided
            started = time.perf_counter()
            processor = make_processor(upscaler, target_of(job.plan), reuse=job.reuse, note=notes.append)
            beside = FramesBeside.of(job, reader, upscaler.card.num_seen_after)
            begin = task.range.first_frame - task.range.num_lead_in
            before = before_part(beside, processor, begin)
            part = _Part(reader, found, task, job.batch, upscaler.card.num_seen_after)
            after = beside.after if task.range.is_last else part.take_following
            network = NetworkStage(processor, reader.path, task.range.num_lead_in, after)
            sink = _SegmentSink(task, job.plan, reader)
            stack.callback(sink.abort)

            def report() -> None:
                on_frames(network.num_frames)

            run_stages(_chained(before, part.chunks()), network, sink, None, report, reader.interrupt)
            segment, last = sink.segment, part.last
            assert segment is not None and last is not None
            _check_times(job, task, segment)
            seconds, num_damaged = time.perf_counter() - started, reader.num_damaged
            number, attempt, precision = task.range.number, task.attempt, upscaler.precision
        return SegmentResult(number, attempt, segment, part.before, last, num_damaged, precision, seconds, tuple(notes))


def _chained(before: Iterator[Chunk], chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    yield from before
    yield from chunks


def _reader_at(job: Job, task: SegmentTask, search: bool) -> tuple[VideoReader, FramePosition | None]:
    """Open the source where the segment's frames, and those that the network sees before them, begin.

    Returns the position of the frame before those, too, where there is one. Irregularities of the source are for the
    process that divides it to name: here, only some of them are met.
    """
    after = task.range.after
    reader = open_source(job.source, job.input, job.model.place)
    if after is None:
        return reader, None
    found = reader.skip_to(after, search=True) if search else None
    if found is None or found.pts != after:
        reader.close()
        reader = open_source(job.source, job.input, job.model.place)
        found = reader.skip_to(after, search=False)
    if found is None or found.pts != after:
        reader.close()
        raise MisplacedFramesError(f"{job.source}: has no frame at the PTS {after}")
    return reader, found


def _check_times(job: Job, task: SegmentTask, segment: Segment) -> None:
    """Raise MisplacedFramesError where the segment has other frames than it was to have."""
    range_ = task.range
    if segment.num_frames != range_.num_frames or (min(segment.pts), max(segment.pts)) != (range_.first, range_.last):
        task.path.unlink(missing_ok=True)
        raise MisplacedFramesError(
            f"{job.source}: {range_.num_frames} frames were expected from the PTS {range_.first} to {range_.last}, and "
            f"{segment.num_frames} came out"
        )


class _Part:
    """Reads the frames of a segment, and those around it that the network sees.

    before, last: positions of the last frame before the segment, if it was read, and of its own last frame.
    """

    def __init__(
        self, reader: VideoReader, found: FramePosition | None, task: SegmentTask, batch: int, num_seen_after: int
    ) -> None:
        """found: the frame before those that are read.  num_seen_after: frames after them that the network sees."""
        self._reader, self._range, self._batch = reader, task.range, batch
        self._num_seen_after = num_seen_after
        self._following: list[FrameBatch] = []
        self.before = None if task.range.num_lead_in else found
        self.last: FramePosition | None = None

    def take_following(self) -> FrameBatch | None:
        """Return the frames after the segment that the network sees, once all chunks are read."""
        return FrameBatch.joined(self._following) if self._following else None

    def chunks(self) -> Iterator[Chunk]:
        """Read the frames in batches, without the packets of the other streams."""
        num_read, num_before = 0, self._range.num_lead_in
        for chunk in self._reader.chunks(self._batch):
            if chunk.batch is None:
                continue
            num_left = self._range.num_read - num_read
            if num_left <= 0 and not self._range.is_last:
                self._following.append(chunk.batch)
                if sum(each.num_frames for each in self._following) >= self._num_seen_after:
                    return
                continue
            # Behind the last segment no frame is expected; the check of its times would say so.
            yield Chunk((), chunk.batch)
            num_read += chunk.batch.num_frames
            if num_read == num_before:
                self.before = FramePosition.of_last(chunk.batch)
            if num_read >= self._range.num_read:
                self.last = FramePosition.of_last(chunk.batch)
                if not self._num_seen_after and not self._range.is_last:
                    return


class _SegmentSink:
    """See `Sink`: the file of one segment, which `finish` puts in its place."""

    omissions: Sequence[str] = ()

    def __init__(self, task: SegmentTask, plan: VideoPlan, reader: VideoReader) -> None:
        self._writer = SegmentWriter(task.path, plan.settings, reader.info, task.encoder_threads, reader.captions)
        self._reader = reader
        self.segment: Segment | None = None

    @property
    def num_frames(self) -> int:
        return self._writer.num_frames

    @property
    def num_damaged(self) -> int:
        return self._reader.num_damaged

    def write(self, chunk: Chunk) -> None:
        """Encode a chunk's frames."""
        if chunk.batch is not None:
            self._writer.encode(chunk.batch)

    def finish(self) -> None:
        """Complete the file, check it, and put it in its place."""
        self.segment = self._writer.finish()

    def verify(self) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None:
        """Remove the file, unless it is complete."""
        if self.segment is None:
            self._writer.abort()
