"""Frames as measures look at them, and which luma of two of them is compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vsr.color.pixel_formats import PixelFormat
from vsr.color.rgb import rgb_of_batch
from vsr.errors import InputError
from vsr.events import OnNote
from vsr.frames import Color, FrameBatch
from vsr.media.read.reader import VideoReader
from vsr.quality.metrics import luma_bt601, psnr_db

__all__ = [
    "LUMA",
    "Decoded",
    "Luma",
    "Picture",
    "as_measured",
    "batch_luma_psnr_db",
    "decoded_video",
    "is_same_moment",
    "undamaged_frames",
]

Luma = Literal["native", "bt601"]
LUMA: dict[Luma, str] = {
    "native": "the luma planes as they are coded",
    "bt601": "BT.601 of the RGB, 16 to 235, unrounded",
}
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

    @classmethod
    def from_batch(cls, batch: FrameBatch, format_: PixelFormat) -> Decoded:
        """Of a batch of one frame."""
        seconds = batch.pts[0] * batch.time_base
        rgb = rgb_of_batch(batch, format_).clamp_(0, 1).mul_(255)
        luma = None if batch.color.is_rgb else batch.planes[0]
        return cls(f"{float(seconds):.6f}", rgb, luma, batch.color, seconds, batch.time_base)

    def is_at_the_time_of(self, other: Decoded) -> bool:
        """As `is_same_moment`."""
        return is_same_moment(self.seconds, other.seconds, max(self.tick, other.tick))

    def in_code_values(self, bit_depth: int) -> Picture:
        """With the luma plane as it is coded, at a bit depth of at least its own; not for what holds RGB."""
        assert self.luma is not None and self.color is not None
        return Picture(_code_values(self.luma, self.color, bit_depth), self.rgb, 2.0**bit_depth - 1)


def decoded_video(path: Path, note: OnNote) -> Iterator[Decoded]:
    """Every frame of a video. Raises InputError where a damaged one would have to be made up.

    note: called with one line for anything else that is out of the ordinary, as a change of size.
    """
    with VideoReader(path, warn=note) as reader:
        for batch in undamaged_frames(reader):
            yield Decoded.from_batch(batch, reader.info.pixel_format)


def undamaged_frames(reader: VideoReader) -> Iterator[FrameBatch]:
    """Every frame of an open video, one by one. Raises InputError where a damaged one would have to be made up."""
    for chunk in reader.chunks(1):
        if reader.num_damaged:
            raise InputError(f"{reader.path}: is damaged: not every frame can be decoded")
        if chunk.batch is not None:
            yield chunk.batch


def is_same_moment(a: Fraction, b: Fraction, tick: Fraction) -> bool:
    """Whether two times in seconds are one, up to the rounding of the coarser clock of the two.

    tick: of that clock, in seconds; at least half of it, and Matroska's, from which a file may have been copied.
    """
    return abs(a - b) <= max(tick / 2, _MATROSKA_TICK)


def as_measured(reference: Decoded, distorted: Decoded) -> tuple[Picture, Picture, Luma]:
    """Both as they are measured, and which luma that is.

    Luma planes are compared as they are coded, at the greater of the two bit depths, as ffmpeg's psnr filter does;
    where one holds RGB or they differ in matrix or range, the BT.601 luma of the RGB.
    """
    depth = _common_depth(reference.color, distorted.color)
    if depth is None:
        return Picture.from_rgb(reference.rgb[0]), Picture.from_rgb(distorted.rgb[0]), "bt601"
    return reference.in_code_values(depth), distorted.in_code_values(depth), "native"


def batch_luma_psnr_db(
    reference: tuple[FrameBatch, PixelFormat], distorted: tuple[FrameBatch, PixelFormat]
) -> tuple[float, Luma]:
    """PSNR in dB of the luma that `as_measured` gives, which it is; of batches of one frame and one size.

    RGB is made only where it is needed.
    """
    (truth, _), (output, _) = reference, distorted
    depth = _common_depth(truth.color, output.color)
    if depth is None:
        pictures = [Picture.from_rgb(Decoded.from_batch(*frame).rgb[0]) for frame in (reference, distorted)]
        return psnr_db(pictures[1].luma, pictures[0].luma), "bt601"
    first, second = (_code_values(batch.planes[0], batch.color, depth) for batch in (output, truth))
    return psnr_db(first, second, peak=2.0**depth - 1), "native"


def _common_depth(first: Color | None, second: Color | None) -> int | None:
    """Bits at which two luma planes can be compared as they are coded; None where they mean different things."""
    if first is None or second is None or first.is_rgb:
        return None
    if (first.matrix, first.range) != (second.matrix, second.range):
        return None
    return max(first.bit_depth, second.bit_depth)


def _code_values(luma: Tensor, color: Color, bit_depth: int) -> Tensor:
    """A luma plane as float64 code values of a bit depth of at least its own."""
    return luma.to(torch.float64) * 2.0 ** (bit_depth - color.bit_depth)
