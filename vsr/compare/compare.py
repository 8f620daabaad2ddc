"""Show videos or images beside each other in one file, every frame at its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.packet import Packet

from vsr.color.pixel_formats import PixelFormat
from vsr.compare.canvas import Canvas, Layout, Planes
from vsr.compare.images import write_images
from vsr.compare.views import Comparison, View, info_of_output, views_of
from vsr.errors import OptionError
from vsr.events import Note, NoteCode, OnNote, Progress
from vsr.files import check_target
from vsr.frames import Color, FrameBatch
from vsr.jobs.encoding import choose_encoding
from vsr.jobs.omissions import sample_omissions
from vsr.media.endpoints import File
from vsr.media.image_sequence import is_image
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.container_writer import OutputSpec, VideoWriter
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.options import EncodingOptions
from vsr.media.write.stream_plan import StreamPlan, plan_streams
from vsr.pipeline.threads import Producer
from vsr.quality.frames import is_same_moment

__all__ = ["write_comparison"]


def write_comparison(
    sources: Sequence[Path],
    output: Path,
    *,
    layout: Layout = "side",
    labels: Sequence[str] = (),
    encoding: EncodingOptions | None = None,
    overwrite: bool = False,
    note: OnNote = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Comparison:
    """Write two or more videos into one, or as many images into one.

    Frames belong together by their time in seconds. The output has a frame wherever a source has one; a source that has
    none then shows its last, and black before its first. Samples, colour, and sound and other streams are those of the
    first source; frames already in its samples go through untouched.

    Args:
        sources: the files to show.
        output: the file to write.
        layout: "side", or for two sources "split": the first left of a moving line, the second right of it.
        labels: one for each source, "" for none; the files' names unless given.
        encoding: options of the encoder; its container and audio are those of the output's name and of `sources[0]`.
        overwrite: replaces the output where it exists.
        note: called with one line for everything that is scaled, converted or left out.
        on_progress: called after each frame.

    Raises OptionError and InputError for sources that cannot be compared, OutputError where nothing can be written.
    """
    _check(sources, output, layout, labels, overwrite)
    labels = list(labels) or _names(sources)
    if is_image(output):
        return write_images(sources, output, layout, labels, note)
    return _write_video(sources, output, encoding or EncodingOptions(), layout, labels, note, on_progress)


def _check(sources: Sequence[Path], output: Path, layout: Layout, labels: Sequence[str], overwrite: bool) -> None:
    if len(sources) < 2:
        raise OptionError("name two files or more to compare, and then the output")
    if layout == "split" and len(sources) != 2:
        raise OptionError(f'`layout="split"`: a line parts two files, not {len(sources)}; use `layout="side"`')
    if labels and len(labels) != len(sources):
        raise OptionError(f"`labels`: give one for each of the {len(sources)} files ('' for none), not {len(labels)}")
    for source in sources:
        if is_image(source) != is_image(output):
            raise OptionError(f"{source} and {output}: compare videos in a video, or images in an image")
        check_target(output, overwrite, source)


def _names(sources: Sequence[Path]) -> list[str]:
    """Return the files' names, with their folders where only these tell them apart."""
    names = [source.name for source in sources]
    return names if len(set(names)) == len(names) else [f"{s.absolute().parent.name}/{s.name}" for s in sources]


# -- videos --------------------------------------------------------------------------------------------------------


class _Source:
    """Follow one of the videos: the frame it shows, and the next one."""

    def __init__(self, reader: VideoReader, view: View, format_: PixelFormat, color: Color) -> None:
        self.reader, self._view, self._format, self._color = reader, view, format_, color
        self.shown: Planes | None = None
        self.shown_seconds = Fraction(0)  # how long the frame lasts by itself; 0 where it does not say
        self._packets: list[Packet[Any]] = []
        self._chunks = reader.chunks(1)
        self._pull()

    @property
    def upcoming_seconds(self) -> Fraction | None:
        """Return the time of its next frame; None after the last."""
        return None if self._upcoming is None else self._upcoming.pts[0] * self._upcoming.time_base

    def advance(self) -> None:
        """Show the next frame."""
        assert self._upcoming is not None
        self.shown = self._view.fitted(self._upcoming, self._format, self._color)
        self.shown_seconds = self._upcoming.durations[0] * self._upcoming.time_base
        self._pull()

    def take_packets(self) -> tuple[Packet[Any], ...]:
        packets, self._packets = tuple(self._packets), []
        return packets

    def _pull(self) -> None:
        self._upcoming = None
        for chunk in self._chunks:
            self._packets += chunk.packets
            if chunk.batch is not None:
                self._upcoming = chunk.batch
                return


def _write_video(
    paths: Sequence[Path],
    output: Path,
    options: EncodingOptions,
    layout: Layout,
    labels: Sequence[str],
    note: OnNote,
    on_progress: Callable[[Progress], None],
) -> Comparison:
    begun = time.perf_counter()
    with ExitStack() as stack:
        readers = [stack.enter_context(VideoReader(path, warn=note)) for path in paths]
        views = views_of(readers, layout, note)
        info = info_of_output([reader.info for reader in readers], [view.size for view in views])
        encoding = choose_encoding(info, File(output), options, min(info.width, info.height))
        _note_conversions(note, readers, encoding.pixel_format, encoding.color, encoding.codec)
        canvas = Canvas([view.size for view in views], labels, layout, encoding.pixel_format, encoding.color)
        settings = VideoSettings(
            encoding.codec,
            encoding.pixel_format,
            canvas.width,
            canvas.height,
            encoding.color,
            options=encoding.options,
            stored_as=encoding.stored_as,
        )
        sources = [
            _Source(reader, view, encoding.pixel_format, encoding.color)
            for reader, view in zip(readers, views, strict=True)
        ]
        _note_starts(note, sources)
        plans = _plan_streams(readers[0], encoding.container, note)
        writer = stack.enter_context(_partial_file(output, readers[0], OutputSpec(settings, plans, info=info)))
        pts = _encode(writer, _composed(sources, canvas, info.time_base), readers, on_progress, begun)
        for line in writer.omissions:
            note(Note(NoteCode.OMISSION, line))
        writer.check(pts, info.time_base, readers[0])
        writer.commit()
    return Comparison(output, len(pts), canvas.width, canvas.height)


def _composed(sources: Sequence[_Source], canvas: Canvas, tick: Fraction) -> Iterator[Chunk]:
    """Yield the frames of the output, each with the first source's packets up to it."""
    moments = _moments(sources)
    start = seconds = next(moments)
    pts: int | None = None
    while True:
        planes = canvas.compose([source.shown for source in sources], float(seconds - start))
        packets, *_ = [source.take_packets() for source in sources]  # those of the others go nowhere
        following = next(moments, None)
        length = max(source.shown_seconds for source in sources) if following is None else following - seconds
        # Of two times that fall on one tick, the later moves on.
        pts = round(seconds / tick) if pts is None else max(pts + 1, round(seconds / tick))
        yield Chunk(packets, FrameBatch(planes, (pts,), (round(length / tick),), tick, canvas.color))
        if following is None:
            break
        seconds = following
    yield Chunk(sources[0].take_packets(), None)


def _moments(sources: Sequence[_Source]) -> Iterator[Fraction]:
    """Yield the times in seconds at which any source has a frame, after all have moved to their frames of that time."""
    while True:
        times = [source.upcoming_seconds for source in sources]
        first = min((seconds for seconds in times if seconds is not None), default=None)
        if first is None:
            return
        # Clocks round: frames up to a millisecond apart are of one time, that of the source named first.
        due = [
            (source, seconds)
            for source, seconds in zip(sources, times, strict=True)
            if seconds is not None and is_same_moment(first, seconds, Fraction(0))
        ]
        for source, _ in due:
            source.advance()
        yield due[0][1]


def _encode(
    writer: VideoWriter,
    chunks: Iterator[Chunk],
    readers: Sequence[VideoReader],
    on_progress: Callable[[Progress], None],
    begun: float,
) -> list[int]:
    """Write all chunks while a thread composes the next. Returns the PTS of the frames, in ticks of the output."""
    counts = [reader.info.num_frames_from_header for reader in readers]
    expected = max((count for count in counts if count), default=None)
    pts: list[int] = []
    producer = Producer(chunks, "vsr-compose")
    try:
        for chunk in producer:
            writer.write(chunk)
            pts += chunk.batch.pts if chunk.batch else ()
            on_progress(Progress(len(pts), expected, time.perf_counter() - begun))
        writer.finish()
    finally:
        producer.close()
    return pts


@contextmanager
def _partial_file(output: Path, reader: VideoReader, spec: OutputSpec) -> Iterator[VideoWriter]:
    """Open a writer; its partial file is removed at the end of the block, unless it was put in place."""
    writer = VideoWriter(output, reader, spec)
    try:
        yield writer
    finally:
        writer.abort()


def _plan_streams(reader: VideoReader, container: str, note: OnNote) -> list[StreamPlan]:
    plans = plan_streams(reader.other_streams, container, "copy", bool(reader.container.chapters()))
    for plan in plans:
        if plan.note:
            note(Note(NoteCode.STREAM, f"{reader.path}: {plan.title}: {plan.note}"))
    return plans


# -- what is worth knowing ---------------------------------------------------------------------------------------


def _note_conversions(
    note: OnNote, readers: Sequence[VideoReader], format_: PixelFormat, color: Color, codec: str
) -> None:
    for reader in readers:
        own_format = reader.info.pixel_format
        if own_format.alpha:
            note(Note(NoteCode.OMISSION, f"{reader.path}: alpha is left out"))
        for line in sample_omissions(replace(own_format, alpha=False), format_, codec):
            note(Note(NoteCode.OMISSION, f"{reader.path}: {line}"))
        own = reader.info.color
        if own.transfer is not color.transfer or own.primaries is not color.primaries:
            note(
                Note(
                    NoteCode.INPUT,
                    f"{reader.path}: is {own.primaries.name}/{own.transfer.name} and is shown as "
                    f"{color.primaries.name}/{color.transfer.name}: matrix and range are converted, light is not",
                )
            )


def _note_starts(note: OnNote, sources: Sequence[_Source]) -> None:
    starts = [source.upcoming_seconds or Fraction(0) for source in sources]
    for source, start in zip(sources, starts, strict=True):
        if not is_same_moment(start, min(starts), Fraction(0)):
            note(
                Note(
                    NoteCode.TIMESTAMPS,
                    f"{source.reader.path}: starts {float(start - min(starts)):.3f} s later; black until then",
                )
            )
