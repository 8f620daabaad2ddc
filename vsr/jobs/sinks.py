"""Where a job's frames go: a file, stdout, or pictures. What is allowed, what is planned, and what writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsr.errors import OptionError, OutputError
from vsr.files import check_target
from vsr.jobs.image_plan import plan_pictures
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import VideoPlan, plan_video
from vsr.media.formats import Y4M
from vsr.media.image_sequence import is_image
from vsr.media.pipe import PipeWriter, is_pipe
from vsr.media.read.reader import VideoReader
from vsr.media.write.container_writer import VideoWriter
from vsr.media.write.image_writer import PictureWriter, check_pictures, picture_target
from vsr.media.write.pipe_writer import PipeVideoWriter
from vsr.media.write.y4m_writer import Y4mWriter
from vsr.models.cards import ModelCard
from vsr.pipeline.stages import Sink

__all__ = ["check_output", "open_sink", "plan_output"]


def check_output(output: Path, overwrite: bool, source: Path, reader: VideoReader) -> None:
    """Refuse an output that cannot or must not be written, before any work is done."""
    if is_pipe(output):
        return
    pictures = picture_target(output, reader.sequence)
    if pictures is not None:
        check_pictures(pictures, overwrite, reader.sequence)
    elif is_image(output):
        what = "a video goes in" if reader.sequence is None else "several pictures go in"
        raise OptionError(
            f"{output}: {what}; name a video to come out (.mp4, .mkv, .mov, .webm), or pictures (%06d.png)"
        )
    elif output.is_dir():
        raise OutputError(f"{output}: is a folder; name a file in it, or pictures ({output / '%06d.png'})")
    else:
        check_target(output, overwrite, source)


def plan_output(reader: VideoReader, output: Path, options: JobOptions, card: ModelCard) -> VideoPlan:
    """Decide what becomes of a video, or of the pictures that are read as one."""
    pictures = picture_target(output, reader.sequence)
    if pictures is not None:
        return plan_pictures(reader, pictures, options, card)
    return plan_video(reader, output, options, card)


@contextmanager
def open_sink(output: Path, pipe: PipeWriter | None, reader: VideoReader, plan: VideoPlan) -> Iterator[Sink]:
    """What takes the frames; what it has not put in place is gone when the block is left. pipe: stdout, if it is."""
    sink = _sink(output, pipe, reader, plan)
    try:
        yield sink
    finally:
        sink.abort()


def _sink(output: Path, pipe: PipeWriter | None, reader: VideoReader, plan: VideoPlan) -> Sink:
    pictures = picture_target(output, reader.sequence)
    if pictures is not None:
        return PictureWriter(pictures, reader, plan.settings)
    if plan.container == Y4M:
        return Y4mWriter(output if pipe is None else Path(pipe.name), reader, plan.settings, pipe)
    if pipe is not None:
        return PipeVideoWriter(pipe, reader, plan.settings, plan.streams, plan.container)
    return VideoWriter(output, reader, plan.settings, plan.streams, container=plan.container)
