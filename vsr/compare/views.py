"""Fit videos and images to each other: one size, one clock, one kind of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch

from vsr.color.pixel_formats import PixelFormat
from vsr.color.resample import resample
from vsr.color.rgb import planes_of_rgb, rgb_of_batch
from vsr.compare.canvas import Layout, Planes
from vsr.errors import OptionError
from vsr.events import Note, NoteCode, OnNote
from vsr.frames import Color, FrameBatch
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo

__all__ = ["Comparison", "View", "common_sizes", "info_of_output", "note_scaling", "views_of"]

_FINEST_TICK = Fraction(1, 10_000_000)  # seconds; containers hold the denominator in 32 bits
_USUAL_TICK = Fraction(1, 90_000)
_SAME_SHAPE = 0.01  # part of the width by which images may differ that lie over each other


@dataclass(frozen=True, slots=True)
class Comparison:
    """Describe the file that was written; num_frames is 1 for an image."""

    output: Path
    num_frames: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class View:
    """Describe the form in which the frames of one source are shown.

    Args:
        format_: pixel format of the source.
        quarter_turns: counter-clockwise turns that make the frames upright.
        size: (width, height) in pixels when upright.
    """

    format_: PixelFormat
    quarter_turns: int
    size: tuple[int, int]

    def fitted(self, batch: FrameBatch, format_: PixelFormat, color: Color) -> Planes:
        """Convert a frame to the samples of the output; return its own planes where they fit already."""
        is_whole = self.quarter_turns == 0 and (batch.width, batch.height) == self.size
        if is_whole and _means_the_same(batch.color, color) and _is_stored_alike(self.format_, format_):
            return batch.planes[:2] if format_.kind == "yuv" else batch.planes[:1]
        rgb = torch.rot90(rgb_of_batch(batch, self.format_), self.quarter_turns, (-2, -1))
        return planes_of_rgb(resample(rgb, self.size[::-1]), format_, color)


def _means_the_same(a: Color, b: Color) -> bool:
    fields = ("matrix", "range", "chroma_location", "bit_depth")
    return all(getattr(a, name) == getattr(b, name) for name in fields)


def _is_stored_alike(a: PixelFormat, b: PixelFormat) -> bool:
    return a.kind == b.kind and a.chroma_shift == b.chroma_shift


def common_sizes(names: Sequence[Path], shown: Sequence[tuple[float, int]], layout: Layout) -> list[tuple[int, int]]:
    """Compute (width, height) of every image at the height of the tallest.

    Args:
        names: files, for messages.
        shown: (width, height) of each, upright, of square pixels.
        layout: "side" or "split".
    """
    tallest = max(height for _, height in shown)
    sizes = [(max(1, round(width * tallest / height)), tallest) for width, height in shown]
    if layout == "side":
        return sizes
    largest = sizes[[height for _, height in shown].index(tallest)]
    for name, size in zip(names, sizes, strict=True):
        if abs(size[0] - largest[0]) > max(2, _SAME_SHAPE * largest[0]):
            raise OptionError(
                f"{name}: is {size[0]}x{size[1]} beside {largest[0]}x{largest[1]}; images of different shape "
                'do not lie over each other; use `layout="side"`'
            )
    return [largest] * len(sizes)


def views_of(readers: Sequence[VideoReader], layout: Layout, note: OnNote) -> list[View]:
    turns, shown = [], []
    for reader in readers:
        info = reader.info
        if info.rotation_degrees % 90:
            note(Note(NoteCode.OMISSION, f"{reader.path}: its rotation by {info.rotation_degrees} degrees is left out"))
        turns.append(info.rotation_degrees // 90 % 4 if info.rotation_degrees % 90 == 0 else 0)
        width, height = info.width * float(info.sample_aspect_ratio or 1), float(info.height)
        if turns[-1] % 2:  # the stored lines stand upright, so their spacing is that of the columns
            width, height = info.height * float(1 / (info.sample_aspect_ratio or 1)), float(info.width)
        shown.append((width, round(height)))
    sizes = common_sizes([reader.path for reader in readers], shown, layout)
    for reader, (width, height), size in zip(readers, shown, sizes, strict=True):
        note_scaling(note, reader.path, (round(width), height), size)
    return [View(r.info.pixel_format, t, size) for r, t, size in zip(readers, turns, sizes, strict=True)]


def info_of_output(infos: Sequence[VideoInfo], sizes: Sequence[tuple[int, int]]) -> VideoInfo:
    """Describe the frames to be written: the first source's, upright, opaque, on a clock that suits all.

    A gray first source must not take the colour from the others: samples are then those of the first with colour.
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
    """Return the longest tick in seconds of which all are multiples; a fine one where that would be too short."""
    common = Fraction(math.gcd(*(t.numerator for t in ticks)), math.lcm(*(t.denominator for t in ticks)))
    return common if common >= _FINEST_TICK else _USUAL_TICK


def note_scaling(note: OnNote, name: Path, size: tuple[int, int], fitted: tuple[int, int]) -> None:
    if size != fitted:
        note(Note(NoteCode.OUTPUT, f"{name}: scaled from {size[0]}x{size[1]} to {fitted[0]}x{fitted[1]} (bicubic)"))
