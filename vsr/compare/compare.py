"""Videos or pictures beside each other in one, every frame at its time, to be looked at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.packet import Packet

from vsr.color.resample import resample
from vsr.color.rgb import planes_of_rgb, rgb_of_batch
from vsr.compare.canvas import Canvas, Layout, Planes
from vsr.errors import OptionError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.jobs.job import Progress
from vsr.jobs.plan import JobOptions, choose_encoding, sample_losses
from vsr.media.av_frames import FORMATS, PixelFormat
from vsr.media.images import is_image, lost_in, read_image, write_image
from vsr.media.read.reader import Chunk, VideoInfo, VideoReader
from vsr.media.write.container_writer import VideoWriter, check_target
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.remuxer import StreamPlan, plan_streams
from vsr.pipeline.threads import Prefetch
from vsr.quality.frames import is_same_moment

__all__ = ["Comparison", "write_comparison"]

Note = Callable[[str], None]
_FINEST_TICK = Fraction(1, 10_000_000)  # seconds; containers hold the denominator in 32 bits
_USUAL_TICK = Fraction(1, 90_000)
_SAME_SHAPE = 0.01  # part of the width by which pictures may differ that lie over each other


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was written; num_frames is 1 for a picture."""

    output: Path
    num_frames: int
    width: int
    height: int


def write_comparison(
    sources: Sequence[Path],
    output: Path,
    *,
    layout: Layout = "side",
    labels: Sequence[str] = (),
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    encoder_options: dict[str, str] | None = None,
    overwrite: bool = False,
    note: Note = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Comparison:
    """Two or more videos in one, or as many pictures in one.

    Frames belong together by their time in seconds. The output has a frame wherever a source has one; a source
    that has none then shows its last, and before its first nothing. Samples, colour, and sound and other streams
    are those of the first source; what is in its samples already goes through untouched.

    layout: "side", or for two sources "split": the first left of a moving line, the second right of it.
    labels: one for each source, "" for none; the files' names unless given.
    codec, crf, preset, encoder_options: as in `JobOptions`.
    note: called with one line for what is scaled, converted or lost.  on_progress: called after each frame.
    Raises OptionError and InputError for what cannot be compared, OutputError where nothing can be written.
    """
    _check(sources, output, layout, labels, overwrite)
    labels = list(labels) or _names(sources)
    if is_image(output):
        return _write_picture(sources, output, layout, labels, note)
    options = JobOptions(codec=codec, crf=crf, preset=preset, encoder_options=encoder_options or {})
    return _write_video(sources, output, options, layout, labels, note, on_progress)


def _check(sources: Sequence[Path], output: Path, layout: Layout, labels: Sequence[str], overwrite: bool) -> None:
    if len(sources) < 2:
        raise OptionError("name two files or more to compare, and then the output")
    if layout == "split" and len(sources) != 2:
        raise OptionError(f"--layout split: a line parts two files, not {len(sources)}; use --layout side")
    if labels and len(labels) != len(sources):
        raise OptionError(f"--label: give one for each of the {len(sources)} files ('' for none), not {len(labels)}")
    for source in sources:
        if is_image(source) != is_image(output):
            raise OptionError(f"{source} and {output}: compare videos in a video, or pictures in a picture")
        check_target(output, overwrite, source)


def _names(sources: Sequence[Path]) -> list[str]:
    """The files' names, with their folders where those alone tell them apart."""
    names = [source.name for source in sources]
    return names if len(set(names)) == len(names) else [f"{s.absolute().parent.name}/{s.name}" for s in sources]


# -- size and samples --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _View:
    """How the frames of one source are shown.

    quarter_turns: counter-clockwise, that make them upright.  size: (width, height) when they are.
    """

    format_: PixelFormat
    quarter_turns: int
    size: tuple[int, int]

    def fitted(self, batch: FrameBatch, format_: PixelFormat, color: Color) -> Planes:
        """A frame in the samples of the output; its own planes where they are that already."""
        is_whole = self.quarter_turns == 0 and (batch.width, batch.height) == self.size
        if is_whole and _means_the_same(batch.color, color) and _is_stored_alike(self.format_, format_):
            return batch.planes[:2] if format_.kind == "yuv" else batch.planes[:1]
        rgb = torch.rot90(rgb_of_batch(batch, self.format_), self.quarter_turns, (-2, -1))
        return planes_of_rgb(resample(rgb, self.size[::-1]).clamp_(0, 1), format_, color)


def _means_the_same(a: Color, b: Color) -> bool:
    fields = ("matrix", "range", "chroma_location", "bit_depth")
    return all(getattr(a, name) == getattr(b, name) for name in fields)


def _is_stored_alike(a: PixelFormat, b: PixelFormat) -> bool:
    return a.kind == b.kind and a.chroma_shift == b.chroma_shift


def _common_sizes(names: Sequence[Path], shown: Sequence[tuple[float, int]], layout: Layout) -> list[tuple[int, int]]:
    """(width, height) of every picture at the height of the tallest. shown: as they are, upright, of square pixels."""
    tallest = max(height for _, height in shown)
    sizes = [(max(1, round(width * tallest / height)), tallest) for width, height in shown]
    if layout == "side":
        return sizes
    largest = sizes[[height for _, height in shown].index(tallest)]
    for name, size in zip(names, sizes, strict=True):
        if abs(size[0] - largest[0]) > max(2, _SAME_SHAPE * largest[0]):
            raise OptionError(
                f"{name}: is {size[0]}x{size[1]} beside {largest[0]}x{largest[1]}; pictures of different shape "
                "do not lie over each other; use --layout side"
            )
    return [largest] * len(sizes)


def _note_scaling(note: Note, name: Path, size: tuple[int, int], fitted: tuple[int, int]) -> None:
    if size != fitted:
        note(f"{name}: scaled from {size[0]}x{size[1]} to {fitted[0]}x{fitted[1]} (bicubic)")


# -- pictures ----------------------------------------------------------------------------------------------------


def _write_picture(
    sources: Sequence[Path], output: Path, layout: Layout, labels: Sequence[str], note: Note
) -> Comparison:
    images = [read_image(source) for source in sources]
    depth = 16 if any(image.dtype == np.uint16 for image in images) else 8
    format_, color = _rgb_format(depth), _rgb_color(depth)
    sizes = _common_sizes(sources, [(image.shape[1], image.shape[0]) for image in images], layout)
    canvas = Canvas(sizes, labels, layout, format_, color)
    planes: list[Planes] = []
    for source, image, size in zip(sources, images, sizes, strict=True):
        _note_scaling(note, source, (image.shape[1], image.shape[0]), size)
        if image.ndim == 3 and image.shape[2] == 4:
            note(f"{source}: alpha is left out")
        batch = _batch_of_picture(image)
        planes.append(_View(_rgb_format(batch.color.bit_depth), 0, size).fitted(batch, format_, color))
    picture = canvas.compose(planes)[0][0].permute(1, 2, 0).contiguous().numpy()
    for line in lost_in(output, picture):
        note(line)
    write_image(output, picture)
    return Comparison(output, 1, canvas.width, canvas.height)


def _batch_of_picture(image: np.ndarray) -> FrameBatch:
    pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]
    plane = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    return FrameBatch((plane,), (0,), (0,), Fraction(1), _rgb_color(8 if image.dtype == np.uint8 else 16))


def _rgb_format(depth: int) -> PixelFormat:
    return FORMATS["gbrp" if depth == 8 else f"gbrp{depth}le"]


def _rgb_color(depth: int) -> Color:
    return Color(Matrix.RGB, Primaries.BT709, Transfer.SRGB, Range.FULL, ChromaLocation.LEFT, depth)


# -- videos ------------------------------------------------------------------------------------------------------


class _Source:
    """One of the videos: the frame that it shows, and the one to come."""

    def __init__(self, reader: VideoReader, view: _View, format_: PixelFormat, color: Color) -> None:
        self.reader, self._view, self._format, self._color = reader, view, format_, color
        self.shown: Planes | None = None
        self.shown_seconds = Fraction(0)  # how long the frame lasts by itself; 0 where it does not say
        self._packets: list[Packet[Any]] = []
        self._chunks = reader.chunks(1)
        self._pull()

    @property
    def upcoming_seconds(self) -> Fraction | None:
        """When its next frame is to be shown; None after the last."""
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
        chunk = next(self._chunks, None)
        self._upcoming = None if chunk is None else chunk.batch
        self._packets += () if chunk is None else chunk.packets
        if chunk is not None and chunk.batch is None:  # to its end, where it says what was odd
            next(self._chunks, None)


def _write_video(
    paths: Sequence[Path],
    output: Path,
    options: JobOptions,
    layout: Layout,
    labels: Sequence[str],
    note: Note,
    on_progress: Callable[[Progress], None],
) -> Comparison:
    begun = time.perf_counter()
    with ExitStack() as stack:
        readers = [stack.enter_context(VideoReader(path, warn=note)) for path in paths]
        views = _views(readers, layout, note)
        info = _info_of_output([reader.info for reader in readers], [view.size for view in views])
        encoding = choose_encoding(info, output, options, min(info.width, info.height))
        _note_conversions(note, readers, encoding.pixel_format, encoding.color, encoding.codec)
        canvas = Canvas([view.size for view in views], labels, layout, encoding.pixel_format, encoding.color)
        settings = VideoSettings(
            encoding.codec,
            encoding.pixel_format,
            canvas.width,
            canvas.height,
            encoding.color,
            options=encoding.options,
        )
        sources = [
            _Source(reader, view, encoding.pixel_format, encoding.color)
            for reader, view in zip(readers, views, strict=True)
        ]
        _note_starts(note, sources)
        plans = _plan_streams(readers[0], encoding.container, note)
        writer = stack.enter_context(_partial_file(output, readers[0], settings, plans, info))
        pts = _encode(writer, _composed(sources, canvas, info.time_base), readers, on_progress, begun)
        if writer.num_lost_chapters:
            note(f"{writer.num_lost_chapters} chapters: {encoding.container} holds none")
        writer.check(pts, info.time_base, readers[0])
        writer.commit()
    return Comparison(output, len(pts), canvas.width, canvas.height)


def _views(readers: Sequence[VideoReader], layout: Layout, note: Note) -> list[_View]:
    turns, shown = [], []
    for reader in readers:
        info = reader.info
        if info.rotation_degrees % 90:
            note(f"{reader.path}: its rotation by {info.rotation_degrees} degrees is left out")
        turns.append(info.rotation_degrees // 90 % 4 if info.rotation_degrees % 90 == 0 else 0)
        width, height = info.width * float(info.sample_aspect_ratio or 1), float(info.height)
        if turns[-1] % 2:  # the stored lines stand upright, so their spacing is that of the columns
            width, height = info.height * float(1 / (info.sample_aspect_ratio or 1)), float(info.width)
        shown.append((width, round(height)))
    sizes = _common_sizes([reader.path for reader in readers], shown, layout)
    for reader, (width, height), size in zip(readers, shown, sizes, strict=True):
        _note_scaling(note, reader.path, (round(width), height), size)
    return [_View(r.info.pixel_format, t, size) for r, t, size in zip(readers, turns, sizes, strict=True)]


def _info_of_output(infos: Sequence[VideoInfo], sizes: Sequence[tuple[int, int]]) -> VideoInfo:
    """The first source's, as it holds of the frames to be written: upright, opaque, on a clock that suits all.

    A gray one must not take the colour from the others: samples are then those of the first that has colour.
    """
    rates = [info.average_rate for info in infos if info.average_rate]
    formats = [info.pixel_format for info in infos]
    format_ = next((f for f in formats if f.kind != "gray"), formats[0])
    return replace(
        infos[0],
        width=sum(width for width, _ in sizes),
        height=sizes[0][1],
        pixel_format=replace(format_, alpha=False),
        time_base=_common_tick([info.time_base for info in infos]),
        average_rate=max(rates) if rates else None,
        sample_aspect_ratio=None,
        display_matrix=None,
        rotation_degrees=0,
    )


def _common_tick(ticks: Sequence[Fraction]) -> Fraction:
    """Seconds of the longest tick of which all are multiples; a fine one where that would be too short."""
    common = Fraction(math.gcd(*(t.numerator for t in ticks)), math.lcm(*(t.denominator for t in ticks)))
    return common if common >= _FINEST_TICK else _USUAL_TICK


def _composed(sources: Sequence[_Source], canvas: Canvas, tick: Fraction) -> Iterator[Chunk]:
    """The frames of the output, each with the first source's packets up to it."""
    moments = _moments(sources)
    start = seconds = next(moments)
    pts: int | None = None
    while True:
        planes = canvas.compose([source.shown for source in sources], float(seconds - start))
        packets = sources[0].take_packets()
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
    """Times in seconds at which any source has a frame; when one is given, all show what they should then."""
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
    """Write all chunks, the next one composed meanwhile. Returns the PTS of the frames, in ticks of the output."""
    counts = [reader.info.num_frames_from_header for reader in readers]
    expected = max((count for count in counts if count), default=None)
    pts: list[int] = []
    prefetch = Prefetch(chunks, "vsr-compose")
    try:
        for chunk in prefetch:
            writer.write(chunk)
            pts += chunk.batch.pts if chunk.batch else ()
            on_progress(Progress(len(pts), expected, time.perf_counter() - begun))
        writer.finish()
    finally:
        prefetch.close()
    return pts


@contextmanager
def _partial_file(
    output: Path, reader: VideoReader, settings: VideoSettings, plans: Sequence[StreamPlan], info: VideoInfo
) -> Iterator[VideoWriter]:
    """A writer whose partial file is gone when the block is left, unless it was put in place."""
    writer = VideoWriter(output, reader, settings, plans, info)
    try:
        yield writer
    finally:
        writer.abort()


def _plan_streams(reader: VideoReader, container: str, note: Note) -> list[StreamPlan]:
    plans = plan_streams(reader.other_streams, container, "copy", bool(reader.container.chapters()))
    for plan in plans:
        if plan.note:
            note(f"{reader.path}: {plan.title}: {plan.note}")
    return plans


# -- what is worth knowing ---------------------------------------------------------------------------------------


def _note_conversions(
    note: Note, readers: Sequence[VideoReader], format_: PixelFormat, color: Color, codec: str
) -> None:
    for reader in readers:
        own_format = reader.info.pixel_format
        if own_format.alpha:
            note(f"{reader.path}: alpha is left out")
        for line in sample_losses(replace(own_format, alpha=False), format_, codec):
            note(f"{reader.path}: {line}")
        own = reader.info.color
        if own.transfer is not color.transfer or own.primaries is not color.primaries:
            note(
                f"{reader.path}: is {own.primaries.name}/{own.transfer.name} and is shown as "
                f"{color.primaries.name}/{color.transfer.name}: matrix and range are converted, light is not"
            )


def _note_starts(note: Note, sources: Sequence[_Source]) -> None:
    starts = [source.upcoming_seconds or Fraction(0) for source in sources]
    for source, start in zip(sources, starts, strict=True):
        if not is_same_moment(start, min(starts), Fraction(0)):
            note(f"{source.reader.path}: starts {float(start - min(starts)):.3f} s later; black until then")
