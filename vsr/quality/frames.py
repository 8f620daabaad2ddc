"""Prepare frames for measures, and decide which luma of two frames is compared."""

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
    "Image",
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
class Image:
    """Hold the luma and RGB of an image that is measured.

    Args:
        luma: (1, 1, H, W) float64, from 0 to `peak`.
        rgb: (1, 3, H, W) uint8 or float32, from 0 to 255.
        peak: largest value of the luma.
    """

    luma: Tensor
    rgb: Tensor
    peak: float = 255.0

    @classmethod
    def from_rgb(cls, rgb: Tensor) -> Image:
        """Take (3, H, W) RGB in 0..255; the luma is BT.601 in 16..235, as in papers."""
        return cls(luma_bt601(rgb[None]), rgb[None])

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        return int(self.luma.shape[-1]), int(self.luma.shape[-2])

    def without_edge(self, crop: int) -> Image:
        height, width = self.luma.shape[-2:]
        inner = (..., slice(crop, height - crop), slice(crop, width - crop))
        return Image(self.luma[inner], self.rgb[inner], self.peak)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Hold a frame as it is decoded from a file.

    Args:
        name: the frame's time or file name, for messages.
        rgb: (1, 3, H, W) float32 or uint8, from 0 to 255.
        luma: (1, 1, H, W) code values of the luma plane; None where the file holds RGB.
        color: meaning of the code values.
        seconds: presentation time; 0 for images, which have none.
        tick: seconds per tick of its clock; 0 for images.
    """

    name: str
    rgb: Tensor
    luma: Tensor | None = None
    color: Color | None = None
    seconds: Fraction = Fraction(0)
    tick: Fraction = Fraction(0)

    @classmethod
    def from_batch(cls, batch: FrameBatch, format_: PixelFormat) -> Decoded:
        """Convert a batch of one frame."""
        seconds = batch.pts[0] * batch.time_base
        rgb = rgb_of_batch(batch, format_).clamp_(0, 1).mul_(255)
        luma = None if batch.color.is_rgb else batch.planes[0]
        return cls(f"{float(seconds):.6f}", rgb, luma, batch.color, seconds, batch.time_base)

    def is_at_the_time_of(self, other: Decoded) -> bool:
        """Return True if both frames are of one time, as `is_same_moment` tells."""
        return is_same_moment(self.seconds, other.seconds, max(self.tick, other.tick))

    def in_code_values(self, bit_depth: int) -> Image:
        """Keep the luma plane as it is coded, at a bit depth of at least its own; not for RGB files."""
        assert self.luma is not None and self.color is not None
        return Image(_code_values(self.luma, self.color, bit_depth), self.rgb, 2.0**bit_depth - 1)


def decoded_video(path: Path, note: OnNote) -> Iterator[Decoded]:
    """Yield every frame of a video.

    Args:
        path: the video.
        note: called with one line for any other irregularity, such as a change of size.

    Raises InputError where a damaged frame would have to be made up.
    """
    with VideoReader(path, warn=note) as reader:
        for batch in undamaged_frames(reader):
            yield Decoded.from_batch(batch, reader.info.pixel_format)


def undamaged_frames(reader: VideoReader) -> Iterator[FrameBatch]:
    """Yield the frames of an open video one by one. Raises InputError where one would have to be made up."""
    for chunk in reader.chunks(1):
        if reader.num_damaged:
            raise InputError(f"{reader.path}: is damaged: not every frame can be decoded")
        if chunk.batch is not None:
            yield chunk.batch


def is_same_moment(a: Fraction, b: Fraction, tick: Fraction) -> bool:
    """Return True if two times in seconds are equal up to the rounding of the coarser clock.

    Args:
        a, b: times in seconds.
        tick: seconds per tick of the coarser clock; half of it is allowed, or half of Matroska's, from which a file may
            have been copied.
    """
    return abs(a - b) <= max(tick / 2, _MATROSKA_TICK)


def as_measured(reference: Decoded, distorted: Decoded) -> tuple[Image, Image, Luma]:
    """Convert two frames to the form in which they are compared; tell which luma that is.

    Luma planes are compared as they are coded, at the greater of the two bit depths, as ffmpeg's psnr filter does.
    Where one file holds RGB, or they differ in matrix or range, the BT.601 luma of the RGB is compared.
    """
    depth = _common_depth(reference.color, distorted.color)
    if depth is None:
        return Image.from_rgb(reference.rgb[0]), Image.from_rgb(distorted.rgb[0]), "bt601"
    return reference.in_code_values(depth), distorted.in_code_values(depth), "native"


def batch_luma_psnr_db(
    reference: tuple[FrameBatch, PixelFormat], distorted: tuple[FrameBatch, PixelFormat]
) -> tuple[float, Luma]:
    """Compute the luma PSNR in dB of two batches of one frame and one size, and tell which luma, as `as_measured` does.

    RGB is made only where it is needed.
    """
    (truth, _), (output, _) = reference, distorted
    depth = _common_depth(truth.color, output.color)
    if depth is None:
        images = [Image.from_rgb(Decoded.from_batch(*frame).rgb[0]) for frame in (reference, distorted)]
        return psnr_db(images[1].luma, images[0].luma), "bt601"
    first, second = (_code_values(batch.planes[0], batch.color, depth) for batch in (output, truth))
    return psnr_db(first, second, peak=2.0**depth - 1), "native"


def _common_depth(first: Color | None, second: Color | None) -> int | None:
    """Return the bit depth at which two luma planes can be compared as coded; None where their meanings differ."""
    if first is None or second is None or first.is_rgb:
        return None
    if (first.matrix, first.range) != (second.matrix, second.range):
        return None
    return max(first.bit_depth, second.bit_depth)


def _code_values(luma: Tensor, color: Color, bit_depth: int) -> Tensor:
    """Convert a luma plane to float64 code values of a bit depth of at least its own."""
    return luma.to(torch.float64) * 2.0 ** (bit_depth - color.bit_depth)
