"""Go on with long jobs that were stopped: decide which can be, and find the place."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from vsr.errors import InputError, OptionError
from vsr.events import Note, NoteCode, OnNote
from vsr.frames import FrameBatch
from vsr.jobs.frames_beside import FramesBeside
from vsr.jobs.job import Job
from vsr.jobs.journal import Done, Journal, work_folder
from vsr.jobs.open_job import OpenVideo
from vsr.jobs.plain import to_plain
from vsr.jobs.plan import VideoPlan
from vsr.jobs.segmented_sink import InPlace, OnSegment, SegmentedSink, finished_segments
from vsr.jobs.source import open_source
from vsr.media.endpoints import Images, Pipe
from vsr.media.formats import find_container
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.segments import check_segment
from vsr.pipeline.color_path import Target
from vsr.pipeline.processor import FrameProcessor, upscale_alone
from vsr.pipeline.stages import Sink
from vsr.pipeline.upscaler import Upscaler

__all__ = [
    "Ends",
    "before_part",
    "frames_beside",
    "make_journal",
    "open_journal",
    "resumed",
    "say_what_is_kept",
    "seconds_per_frame",
    "segment_length",
    "segments_obstacle",
    "target_of",
]

LONG_JOB_SECONDS = 600
_MACS_PER_SEGMENT = 6e12  # about a minute on two cores: what a kill may cost
_FEWEST_FRAMES, _MOST_FRAMES = 48, 240  # of a segment; encoders by themselves set a key frame every 250
_FEWEST_SEGMENTS = 64  # where they do not get shorter by it than the fewest frames: eight for each of eight workers
_MACS_NEVER_LONG = 1e12  # whole jobs, by weights and input pixels; no machine takes ten minutes for less


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a running job: the chunks to upscale, and the sink of the result.

    num_lead_in: frames at the beginning of the chunks that are done already; a network with memory needs them again.
    after: gives frames of the source after the last of the chunks, for a network that sees them.
    """

    chunks: Iterator[Chunk]
    sink: Sink
    num_lead_in: int = 0
    after: Callable[[], FrameBatch | None] = lambda: None


def open_journal(opened: OpenVideo) -> Journal | None:
    """Open the journal of a job that is to be resumable; None for one that is not.

    It is where that was asked for, where an unfinished job lies beside the output, or where the job will be long.
    """
    job, note = opened.job, opened.note
    folder, asked = work_folder(job.target.path), job.policy.resume
    if asked is False:
        if folder.exists():
            note(Note(NoteCode.RESUME, f"the unfinished job in {folder.name} is removed, as asked"))
            shutil.rmtree(folder, ignore_errors=True)
        return None
    obstacle = segments_obstacle(job, opened.plan)
    if obstacle is not None:
        if asked:
            raise OptionError(f"`resume`: {obstacle}")
        return None
    if not (asked or folder.exists() or _is_long(opened)):
        return None
    return make_journal(opened)


def make_journal(opened: OpenVideo) -> Journal:
    """Open the journal of a job that is made in segments; that of an earlier run of it, if there is one."""
    return Journal(opened.job.target.path, _identity(opened), _num_frames_per_segment(opened))


def segments_obstacle(job: Job, plan: VideoPlan) -> str | None:
    """Say why a job cannot be made in segments; None where it can."""
    if isinstance(job.source, Pipe) or isinstance(job.target, Pipe):
        return "what went through a pipe cannot be had again; name a file"
    if job.policy.reference is not None:
        return "does not go with `reference`, which needs all frames in one run"
    if not find_container(plan.container).is_joinable:
        return f"segments cannot be joined in {plan.container}; use .mp4, .mkv, .mov, .webm or .ts"
    return None


def _identity(opened: OpenVideo) -> dict[str, Any]:
    """Collect all that the frames depend on, by names that a message can use."""
    job, settings = opened.job, to_plain(opened.plan.settings)
    files = job.source.files if isinstance(job.source, Images) else [job.source.path]
    statuses = [file.stat() for file in files]
    source = job.input
    return {
        "input": [
            *(str(job.source.path.absolute()), to_plain(source.format), list(source.maps), len(statuses)),
            *(sum(s.st_size for s in statuses), max(s.st_mtime_ns for s in statuses)),
        ],
        "model": [job.model.title, job.model.sha256],
        "backend": job.model.backend,
        "device": str(opened.upscaler.device),
        "precision": job.model.precision,
        "batch": [job.batch, job.model.tile],
        "part": to_plain([source.start_seconds, source.duration_seconds]),
        "deinterlacing": source.deinterlace,
        "encoder": [settings[name] for name in ("codec", "options", "pixel_format", "color")],
        "size": [settings[name] for name in ("width", "height", "sample_aspect_ratio")],
        "streams": [f"{stream.title}: {stream.action}" for stream in opened.plan.streams],
    }


def _num_frames_per_segment(opened: OpenVideo) -> int:
    """Choose whole batches, and the same number in every run, or segments would be cut elsewhere."""
    info, batch = opened.reader.info, opened.job.batch
    card = opened.upscaler.card
    # A segment that begins where the network does anew needs the fewest frames before it.
    step = math.lcm(batch, card.restart_interval or 1) if card.recurrent else batch
    step = step if step <= _MOST_FRAMES else batch
    return segment_length(card.num_parameters * info.width * info.height, opened.plan.num_frames, step)


def segment_length(macs_per_frame: float, num_frames: int | None, step: int = 1) -> int:
    """Choose the number of frames of a job's segments, by the job alone: any number of workers cuts it alike.

    Segments take about a minute, and a video has enough of them that workers end at about the same time.

    Args:
        macs_per_frame: Multiply-accumulates of the network, about.
        num_frames: Of the job; None where that is not known.
        step: The length is a multiple of it.
    """
    frames = _MACS_PER_SEGMENT / max(1.0, macs_per_frame)
    if num_frames is not None:
        frames = min(frames, num_frames / _FEWEST_SEGMENTS)
    frames = min(max(frames, _FEWEST_FRAMES), _MOST_FRAMES)
    return max(1, round(frames / step)) * step


def _is_long(opened: OpenVideo) -> bool:
    """Predict whether the job takes more than ten minutes, by a trial of the network on the first frame."""
    num_frames, info, upscaler = opened.plan.num_frames, opened.reader.info, opened.upscaler
    if num_frames is None:
        return False
    if num_frames * upscaler.card.num_parameters * info.width * info.height < _MACS_NEVER_LONG:
        return False
    batch = opened.reader.first_batch(opened.job.batch)
    seconds = num_frames * seconds_per_frame(upscaler, batch, target_of(opened.plan))
    if seconds <= LONG_JOB_SECONDS:
        return False
    text = (
        f"this will take about {seconds / 60:.0f} minutes; if it is stopped, the same command goes on where it was "
        "(`resume=False`: it does not)"
    )
    opened.note(Note(NoteCode.RESUME, text))
    return True


def target_of(plan: VideoPlan) -> Target:
    """Return the size, samples and colour that the upscaler is to make."""
    settings = plan.settings
    return Target(settings.width, settings.height, settings.pixel_format, settings.color)


@contextmanager
def resumed(journal: Journal, opened: OpenVideo, processor: FrameProcessor, on_segment: OnSegment) -> Iterator[Ends]:
    """Open both ends of a job that can be stopped: the chunks that are not done yet, and the sink of the rest.

    opened: its reader has read nothing yet.  processor: told at which frame it goes on.
    on_segment: called with each finished segment, those of earlier runs first.
    """
    with ExitStack() as stack:
        stack.enter_context(journal)
        for finished in finished_segments(journal, opened.reader.info.time_base):
            on_segment(finished)
        if journal.is_in_place:
            opened.note(Note(NoteCode.RESUME, "the output was complete already"))
            yield Ends(iter(()), InPlace(journal))
            return
        stack.callback(say_what_is_kept, journal, opened.note)
        beside = frames_beside(opened)
        num_seen = processor.lead_in_frames(beside.number + journal.num_frames)
        kept = _segments_before(journal, num_seen)
        num_lead_in = sum(done.segment.num_frames for done in journal.done[len(kept) :])
        before = before_part(beside, processor, journal.num_frames - num_lead_in)
        opened = replace(opened, reader=stack.enter_context(_going_on(journal, kept, opened)))
        sink = SegmentedSink(journal, opened, on_segment, num_lead_in)
        stack.enter_context(_keeping(sink))
        chunks = chain(before, sink.marked(opened.reader.chunks(opened.job.batch)))
        yield Ends(chunks, sink, num_lead_in, beside.after)


@contextmanager
def _keeping(sink: SegmentedSink) -> Iterator[None]:
    """Complete the segment that is being written where a job is stopped by Ctrl-C; remove it where the job fails."""
    try:
        yield
    except Exception:  # it was cancelled from another thread, too: then segments end where an unbroken job has them
        raise
    except BaseException:  # Ctrl-C and the like
        sink.keep()
        raise
    finally:
        sink.abort()


def frames_beside(opened: OpenVideo) -> FramesBeside:
    """Find the frames beside the part of its source that a job reads, where its network sees them."""
    return FramesBeside.of(opened.job, opened.reader, opened.upscaler.card.num_seen_after)


def before_part(beside: FramesBeside, processor: FrameProcessor, first_frame: int = 0) -> Iterator[Chunk]:
    """Make a processor ready for a frame of a job, and return the frames before the job's part that it needs first.

    first_frame: the frame of the part that is read first.
    """
    number = beside.number + first_frame
    num_frames = 0 if first_frame else processor.lead_in_frames(number)
    processor.reset(number - num_frames)
    return beside.before(num_frames)


def _segments_before(journal: Journal, num_lead_in: int) -> list[Done]:
    """Return the finished segments that need not be read again, where so many frames before the next one must be.

    Reading begins at the end of a segment, which is where frames can be found again and batches begin.
    """
    kept, num_after = list(journal.done), 0
    while kept and num_after < num_lead_in:
        num_after += kept.pop().segment.num_frames
    return kept


def say_what_is_kept(journal: Journal, note: OnNote) -> None:
    """Say how many frames a job that ends before its time has done, for the next run to go on with."""
    if journal.num_frames_kept and not journal.is_over:
        text = f"{journal.num_frames_kept} frames are done and kept; the same command goes on from there"
        note(Note(NoteCode.RESUME, text))


def _going_on(journal: Journal, kept: list[Done], opened: OpenVideo) -> VideoReader:
    """Return a reader of the frames after the segments `kept`: the one that is open or, where it cannot, another.

    Raises InputError where the last frame that is done is not found again.
    """
    job, note = opened.job, opened.note
    if not journal.done:
        return opened.reader
    for done in journal.done:
        check_segment(done.segment)
    note(Note(NoteCode.RESUME, f"going on after {journal.num_frames} frames that are done"))
    if not kept:
        return opened.reader
    last = kept[-1]
    if not last.num_damaged and opened.reader.skip_through(last.last, search=True):
        return opened.reader
    note(Note(NoteCode.RESUME, "the place cannot be searched for: decoding from the start"))
    again = open_source(job.source, job.input, job.model.place)
    if again.skip_through(last.last, search=False):
        return again
    again.close()
    raise InputError(
        f"{job.source}: does not have the frames that the unfinished job began with; `resume=False` starts anew"
    )


def seconds_per_frame(upscaler: Upscaler, batch: FrameBatch, target: Target) -> float:
    """Seconds that the network takes for a frame of a job, measured on a batch of it.

    The batch goes through twice, and the second time counts: the first brings what happens once, such as building an
    engine and checking its precision. That of a network with memory is checked again in the job, along more frames.
    """
    upscale_alone(upscaler, batch, target)
    begun = time.perf_counter()
    upscale_alone(upscaler, batch, target)
    seconds = (time.perf_counter() - begun) / (1 + len(upscaler.others))
    if upscaler.card.recurrent:
        upscaler.network.check_again()
    return seconds / batch.num_frames
