"""Go on with long jobs that were stopped: decide which are resumable, and find the place."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vsr.errors import InputError, OptionError
from vsr.events import OnNote
from vsr.files import check_target
from vsr.frames import FrameBatch
from vsr.jobs.journal import Journal, work_folder
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import VideoPlan
from vsr.jobs.segmented_sink import InPlace, SegmentedSink
from vsr.jobs.source import expected_frames, open_source
from vsr.media.formats import find_container
from vsr.media.pipe import is_pipe
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.segments import check_segment
from vsr.pipeline.color_path import Target
from vsr.pipeline.stages import Sink
from vsr.pipeline.upscaler import Upscaler

__all__ = ["open_journal", "resumed", "seconds_per_frame", "target_of"]

LONG_JOB_SECONDS = 600
_MACS_PER_SEGMENT = 6e12  # about a minute on two cores: what a kill may cost
_FEWEST_FRAMES, _MOST_FRAMES = 48, 240  # of a segment; encoders by themselves set a key frame every 250
_MACS_NEVER_LONG = 1e12  # whole jobs, by weights and input pixels; no machine takes ten minutes for less


def open_journal(
    source: Path,
    output: Path,
    options: JobOptions,
    reader: VideoReader,
    upscaler: Upscaler,
    plan: VideoPlan,
    batch_size: int,
    note: OnNote,
) -> Journal | None:
    """The journal of a job that is to be resumable; None for one that is not.

    It is where that was asked for, where an unfinished job lies beside the output, or where the job will be long.
    """
    folder = work_folder(output)
    if options.resume is False:
        if folder.exists():
            note(f"the unfinished job in {folder.name} is removed, as asked")
            shutil.rmtree(folder, ignore_errors=True)
        return None
    obstacle = _obstacle(output, options, reader, plan)
    if obstacle is not None:
        if options.resume:
            raise OptionError(f"--resume: {obstacle}")
        return None
    if not (options.resume or folder.exists() or _is_long(options, reader, upscaler, plan, batch_size, note)):
        return None
    job = _identity(source, reader, options, upscaler, plan, batch_size)
    return Journal(output, job, _num_frames_per_segment(reader, upscaler, batch_size))


def _obstacle(output: Path, options: JobOptions, reader: VideoReader, plan: VideoPlan) -> str | None:
    if reader.pipe is not None or is_pipe(output):
        return "what went through a pipe cannot be had again; name a file"
    if options.reference is not None:
        return "does not go with --reference, which needs all frames in one run"
    if not find_container(plan.container).is_joinable:
        return f"segments cannot be joined in {plan.container}; use .mp4, .mkv, .mov, .webm or .ts"
    return None


def _identity(
    source: Path, reader: VideoReader, options: JobOptions, upscaler: Upscaler, plan: VideoPlan, batch_size: int
) -> dict[str, Any]:
    """All that the frames depend on, by names that a message can use."""
    card, settings = upscaler.card, plan.settings
    statuses = [file.stat() for file in ([source] if reader.sequence is None else reader.sequence.files)]
    return {
        "input": [
            *(str(source.absolute()), repr(options.source_format), len(statuses)),
            *(sum(s.st_size for s in statuses), max(s.st_mtime_ns for s in statuses)),
        ],
        "model": [card.name, card.sha256, *_file_facts(options.model)],
        "backend": options.backend,
        "device": str(upscaler.device),
        "precision": options.precision,
        "batch": [batch_size, options.tile],
        "part": [str(options.start_seconds), str(options.duration_seconds)],
        "deinterlacing": options.deinterlace,
        "encoder": [settings.codec, settings.options, settings.pixel_format.name, repr(settings.color)],
        "size": [settings.width, settings.height, str(settings.sample_aspect_ratio)],
        "streams": [f"{stream.title}: {stream.action}" for stream in plan.streams],
    }


def _file_facts(model: str) -> list[int]:
    path = Path(model)
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


def _num_frames_per_segment(reader: VideoReader, upscaler: Upscaler, batch_size: int) -> int:
    """Whole batches, and the same number in every run, or segments would be cut elsewhere."""
    macs = max(1.0, upscaler.card.num_parameters * reader.info.width * reader.info.height)
    frames = min(max(_MACS_PER_SEGMENT / macs, _FEWEST_FRAMES), _MOST_FRAMES)
    return max(1, round(frames / batch_size)) * batch_size


def _is_long(
    options: JobOptions, reader: VideoReader, upscaler: Upscaler, plan: VideoPlan, batch_size: int, note: OnNote
) -> bool:
    """Whether the job is predicted to take more than ten minutes, by a trial of the network on the first frame."""
    num_frames, info = expected_frames(reader), reader.info
    if num_frames is None:
        return False
    if num_frames * upscaler.card.num_parameters * info.width * info.height < _MACS_NEVER_LONG:
        return False
    seconds = num_frames * seconds_per_frame(upscaler, reader.first_batch(batch_size), target_of(plan))
    if seconds <= LONG_JOB_SECONDS:
        return False
    note(
        f"this will take about {seconds / 60:.0f} minutes; if it is stopped, the same command goes on where it was "
        "(--no-resume: it does not)"
    )
    return True


def target_of(plan: VideoPlan) -> Target:
    """What the upscaler is to make of the frames."""
    settings = plan.settings
    return Target(settings.width, settings.height, settings.pixel_format, settings.color)


@contextmanager
def resumed(
    journal: Journal,
    source: Path,
    options: JobOptions,
    reader: VideoReader,
    upscaler: Upscaler,
    batch_size: int,
    note: OnNote,
) -> Iterator[tuple[Iterator[Chunk], Sink]]:
    """Both ends of a job that can be stopped: the chunks that are not done yet, and where they go.

    reader: of the source, of which nothing was read yet.
    """
    with ExitStack() as stack:
        stack.enter_context(journal)
        if journal.is_in_place:
            note("the output was complete already")
            yield iter(()), InPlace(journal)
            return
        check_target(journal.output, options.overwrite, source)
        stack.callback(_say_what_is_kept, journal, note)
        reader = stack.enter_context(_going_on(reader, journal, source, options, note))
        sink = SegmentedSink(journal, source, options, reader, upscaler)
        stack.callback(sink.abort)
        yield sink.marked(reader.chunks(batch_size)), sink


def _say_what_is_kept(journal: Journal, note: OnNote) -> None:
    if journal.done and not journal.is_over:
        note(f"{journal.num_frames} frames are done and kept; the same command goes on from there")


def _going_on(reader: VideoReader, journal: Journal, source: Path, options: JobOptions, note: OnNote) -> VideoReader:
    """A reader that hands out the frames after those that are done: `reader`, or where it cannot, another.

    Raises InputError where the last frame that is done is not found again.
    """
    if not journal.done:
        return reader
    for done in journal.done:
        check_segment(done.segment)
    last = journal.done[-1]
    note(f"going on after {journal.num_frames} frames that are done")
    if not last.num_damaged and reader.skip_through(last.last, search=True):
        return reader
    note("the place cannot be searched for: decoding from the start")
    again = open_source(source, options)
    if again.skip_through(last.last, search=False):
        return again
    again.close()
    raise InputError(f"{source}: does not have the frames that the unfinished job began with; --no-resume starts anew")


def seconds_per_frame(upscaler: Upscaler, batch: FrameBatch, target: Target) -> float:
    """Seconds that the network takes for a frame of a job, measured on a batch of it.

    The batch goes through twice, and the second time counts: the first brings what happens once, such as building an
    engine and checking its precision.
    """
    upscaler.upscale(batch, target)
    begun = time.perf_counter()
    upscaler.upscale(batch, target)
    return (time.perf_counter() - begun) / batch.num_frames
