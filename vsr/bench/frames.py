"""Frames to be measured, one after the other: from files of pictures and from videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vsr.bench.datasets import Clip
from vsr.errors import InputError
from vsr.frames import Color, FrameBatch
from vsr.media import color as convert
from vsr.media.pictures import read_rgb
from vsr.media.pixels import PixelFormat
from vsr.media.reader import VideoReader
from vsr.metrics import luma_bt601

__all__ = ["Decoded", "Luma", "Picture", "as_measured", "decoded_pictures", "decoded_video", "num_frames", "truths"]

Luma = Literal["native", "bt601"]
Note = Callable[[str], None]
_MATROSKA_TICK = Fraction(1, 1000)  # seconds


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What measures look at.

    luma: (1, 1, H, W) float64, from 0 to `peak`.  rgb: (1, 3, H, W) uint8 or float32, from 0 to 255.
    """

    luma: Tensor
    rgb: Tensor
    peak: float = 255.0

    @classmethod
    def from_rgb(cls, rgb: Tensor) -> Picture:
        """Of (3, H, W) RGB in 0..255; the luma is that of BT.601 in 16..235, as papers measure."""
        return cls(luma_bt601(rgb[None]), rgb[None])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.luma.shape[-1]), int(self.luma.shape[-2])

    def without_edge(self, crop: int) -> Picture:
        height, width = self.luma.shape[-2:]
        inner = (..., slice(crop, height - crop), slice(crop, width - crop))
        return Picture(self.luma[inner], self.rgb[inner], self.peak)


# -- pictures for upscaling --------------------------------------------------------------------------------------


def truths(clip: Clip, note: Note) -> Iterator[tuple[str, Tensor]]:
    """Name and (3, H, W) uint8 RGB of every picture of a clip. note: called with what is odd about a video."""
    if clip.is_video:
        for index, frame in enumerate(decoded_video(clip.paths[0], note)):
            yield str(index), frame.rgb.add(0.5).to(torch.uint8)[0]
    else:
        for path in clip.paths:
            yield path.name, read_rgb(path)


def num_frames(clip: Clip) -> int | None:
    """How many pictures a clip has; of a video what its header says, which may be nothing."""
    if not clip.is_video:
        return len(clip.paths)
    with VideoReader(clip.paths[0]) as reader:
        return reader.info.num_frames_from_header


# -- files to be compared ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A frame as it is in a file.

    seconds: presentation time on a clock of `tick` seconds; both 0 for pictures, which have none.
    luma: (1, 1, H, W) code values of the luma plane; None where the file holds RGB.
    rgb: (1, 3, H, W) float32 or uint8, from 0 to 255.
    """

    name: str
    rgb: Tensor
    luma: Tensor | None = None
    color: Color | None = None
    seconds: Fraction = Fraction(0)
    tick: Fraction = Fraction(0)

    def is_at_the_time_of(self, other: Decoded) -> bool:
        """Up to the rounding of the coarser clock, or of Matroska's, from which a file may have been copied."""
        return abs(self.seconds - other.seconds) <= max(self.tick / 2, other.tick / 2, _MATROSKA_TICK)

    def in_code_values(self, bit_depth: int) -> Picture | None:
        """With the luma plane as it is coded, at a bit depth of at least its own; None where it holds RGB."""
        if self.luma is None or self.color is None:
            return None
        luma = self.luma.to(torch.float64) * 2 ** (bit_depth - self.color.bit_depth)
        return Picture(luma, self.rgb, 2.0**bit_depth - 1)


def decoded_pictures(paths: tuple[Path, ...]) -> Iterator[Decoded]:
    """Files of pictures as 8 bit RGB."""
    for path in paths:
        yield Decoded(path.name, read_rgb(path)[None])


def decoded_video(path: Path, note: Note) -> Iterator[Decoded]:
    """Every frame of a video. Raises InputError where a damaged one would have to be made up.

    note: called with one line for anything else that is out of the ordinary, as a change of size.
    """
    with VideoReader(path, warn=note) as reader:
        for chunk in reader.chunks(1):
            if reader.num_damaged:
                raise InputError(f"{path}: is damaged: not every frame can be decoded")
            if chunk.batch is not None:
                yield _decoded(chunk.batch, reader.info.pixel_format)


def _decoded(batch: FrameBatch, format_: PixelFormat) -> Decoded:
    seconds = batch.pts[0] * batch.time_base
    rgb = _rgb(batch, format_).clamp_(0, 1).mul_(255)
    luma = None if batch.color.is_rgb else batch.planes[0]
    return Decoded(f"{float(seconds):.6f}", rgb, luma, batch.color, seconds, batch.time_base)


def _rgb(batch: FrameBatch, format_: PixelFormat) -> Tensor:
    """(1, 3, H, W) float32, from 0 to 1, by the frame's own matrix, range and chroma location."""
    color = batch.color
    main = convert.dequantize_luma(batch.planes[0], color)
    if color.is_rgb:
        return main
    if format_.kind == "gray":
        return main.repeat(1, 3, 1, 1)
    chroma = convert.dequantize_chroma(batch.planes[1], color)
    chroma = convert.upsample_chroma(chroma, color, format_.chroma_shift, (batch.height, batch.width))
    return convert.ycbcr_to_rgb(main, chroma, color.matrix)


def as_measured(reference: Decoded, distorted: Decoded) -> tuple[Picture, Picture, Luma]:
    """Both as they are measured, and which luma that is.

    Luma planes are compared as they are coded, at the greater of the two bit depths, as ffmpeg's psnr filter does;
    where one holds RGB or they differ in matrix or range, the BT.601 luma of the RGB.
    """
    colors = (reference.color, distorted.color)
    if colors[0] and colors[1] and (colors[0].matrix, colors[0].range) == (colors[1].matrix, colors[1].range):
        depth = max(colors[0].bit_depth, colors[1].bit_depth)
        first, second = reference.in_code_values(depth), distorted.in_code_values(depth)
        if first and second:
            return first, second, "native"
    return Picture.from_rgb(reference.rgb[0]), Picture.from_rgb(distorted.rgb[0]), "bt601"
