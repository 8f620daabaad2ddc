"""Open the writer of a job's output: a file, stdout, or image files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsr.errors import OptionError, OutputError
from vsr.events import Note, NoteCode, OnNote
from vsr.files import check_target, remove_left
from vsr.jobs.plan import VideoPlan
from vsr.media.endpoints import File, Images, Pipe, Source, Target
from vsr.media.formats import Y4M
from vsr.media.pipe import PipeWriter
from vsr.media.read.reader import VideoReader
from vsr.media.write.container_writer import OutputSpec, VideoWriter
from vsr.media.write.image_writer import ImageWriter, check_images, partial_target
from vsr.media.write.pipe_writer import PipeVideoWriter
from vsr.media.write.y4m_writer import Y4mWriter
from vsr.pipeline.stages import Sink

__all__ = ["check_output", "clear_left", "open_sink"]


def check_output(target: Target, overwrite: bool, source: Source) -> None:
    """Refuse an output that cannot or must not be written, before any work is done."""
    if isinstance(target, Pipe):
        return
    path = target.path
    if isinstance(target, Images):
        check_images(target, overwrite, source)
        return
    is_of_image = isinstance(source, Pipe) or (isinstance(source, File) and source.is_image)
    if target.is_image and not is_of_image:
        what = "several pictures go in" if isinstance(source, Images) else "a video goes in"
        raise OptionError(f"{path}: {what}; name a video to come out (.mp4, .mkv, .mov, .webm), or pictures (%06d.png)")
    if path.is_dir() and not target.is_image:
        raise OutputError(f"{path}: is a folder; name a file in it, or pictures ({path / '%06d.png'})")
    check_target(path, overwrite, source.path)


def clear_left(target: Target, note: OnNote) -> None:
    """Remove the partial files that killed runs left of an output, and name them."""
    if isinstance(target, Pipe):
        return
    for name in remove_left(partial_target(target) if isinstance(target, Images) else target.path):
        note(Note(NoteCode.OUTPUT, f"{name} was left by a run that was killed; it is removed"))


@contextmanager
def open_sink(
    target: Target, pipe: PipeWriter | None, reader: VideoReader, plan: VideoPlan, overwrite: bool
) -> Iterator[Sink]:
    """Open the writer that takes the frames; unless it has put them in place, nothing is left after the block.

    Args:
        target: Where to write.
        pipe: stdout or a named pipe, if it is the target.
        reader: The source.
        plan: The decisions on the video.
        overwrite: Whether a file is replaced that has appeared in the target's place meanwhile.
    """
    sink = _sink(target, pipe, reader, plan, overwrite)
    try:
        yield sink
    finally:
        sink.abort()


def _sink(target: Target, pipe: PipeWriter | None, reader: VideoReader, plan: VideoPlan, overwrite: bool) -> Sink:
    if isinstance(target, Images):
        return ImageWriter(target, reader, plan.settings, overwrite)
    if plan.container == Y4M:
        return Y4mWriter(target.path if pipe is None else Path(pipe.name), reader, plan.settings, pipe, overwrite)
    spec = OutputSpec(plan.settings, plan.streams, plan.container, None, overwrite, plan.audio_bitrate)
    if pipe is not None:
        return PipeVideoWriter(pipe, reader, spec)
    return VideoWriter(target.path, reader, spec)
