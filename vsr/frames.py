"""Define the frame and colour types that travel between the reader, the upscaler and the writer.

The numbers are the code points of ITU-T H.273 (also ISO/IEC 23091-2), which FFmpeg uses too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from itertools import chain

import torch
from torch import Tensor

__all__ = ["ChromaLocation", "Color", "FrameBatch", "Matrix", "Primaries", "Range", "Transfer"]


class Matrix(IntEnum):
    """List matrix coefficients, H.273 table 4."""

    RGB = 0
    BT709 = 1
    FCC = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    YCGCO = 8
    BT2020_NCL = 9
    BT2020_CL = 10
    SMPTE2085 = 11
    CHROMA_DERIVED_NCL = 12
    CHROMA_DERIVED_CL = 13
    ICTCP = 14


class Primaries(IntEnum):
    """List colour primaries, H.273 table 2."""

    BT709 = 1
    BT470M = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    FILM = 8
    BT2020 = 9
    SMPTE428 = 10
    SMPTE431 = 11
    SMPTE432 = 12
    EBU3213 = 22


class Transfer(IntEnum):
    """List transfer characteristics, H.273 table 3."""

    BT709 = 1
    BT470M = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    LINEAR = 8
    LOG100 = 9
    LOG316 = 10
    IEC61966_2_4 = 11
    BT1361 = 12
    SRGB = 13
    BT2020_10 = 14
    BT2020_12 = 15
    PQ = 16
    SMPTE428 = 17
    HLG = 18


class Range(IntEnum):
    """List ranges of the sample values; FFmpeg's AVColorRange."""

    LIMITED = 1
    FULL = 2


class ChromaLocation(IntEnum):
    """List places of a subsampled chroma sample among its luma samples; FFmpeg's AVChromaLocation."""

    LEFT = 1
    CENTER = 2
    TOPLEFT = 3
    TOP = 4
    BOTTOMLEFT = 5
    BOTTOM = 6

    @property
    def offset(self) -> tuple[float, float]:
        """Return the (x, y) of the sample within its cell, as a fraction of the cell where a cell is subsampled.

        A horizontally subsampled cell is two luma samples wide with centres at 1/4 and 3/4: a left
        sample lies at 1/4, a centred one at 1/2. Likewise vertically.
        """
        x = 0.25 if self in (ChromaLocation.LEFT, ChromaLocation.TOPLEFT, ChromaLocation.BOTTOMLEFT) else 0.5
        if self in (ChromaLocation.TOPLEFT, ChromaLocation.TOP):
            return x, 0.25
        if self in (ChromaLocation.BOTTOMLEFT, ChromaLocation.BOTTOM):
            return x, 0.75
        return x, 0.5


@dataclass(frozen=True, slots=True)
class Color:
    """Describe the meaning of sample values. Every field is explicit; there is no "unspecified" here.

    Args:
        bit_depth: significant bits of a sample, 8 to 16, stored in the low bits of uint8 or uint16.
    """

    matrix: Matrix
    primaries: Primaries
    transfer: Transfer
    range: Range
    chroma_location: ChromaLocation
    bit_depth: int

    def __post_init__(self) -> None:
        if not 8 <= self.bit_depth <= 16:
            raise ValueError(f"bit depth must be 8 to 16, got {self.bit_depth}")

    @property
    def is_rgb(self) -> bool:
        return self.matrix is Matrix.RGB

    @property
    def dtype(self) -> torch.dtype:
        """Return torch.uint8 for 8 bit samples, torch.uint16 above."""
        return torch.uint8 if self.bit_depth == 8 else torch.uint16


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Hold N frames in presentation order, as planes of native samples.

    Args:
        planes: all of one dtype (uint8 or uint16) and one N: luma (N, 1, H, W), then chroma (N, 2, h, w) as Cb, Cr,
            unless the frames are gray; or, where `color.is_rgb`, one (N, 3, H, W) in the order R, G, B; then, where the
            source has alpha, (N, 1, H, W) alpha (full range).
        pts: N ticks of `time_base`, strictly increasing.
        durations: N ticks of `time_base`; 0 is unknown.
        time_base: seconds per tick.
        color: the meaning of the samples.
    """

    planes: tuple[Tensor, ...]
    pts: tuple[int, ...]
    durations: tuple[int, ...]
    time_base: Fraction
    color: Color

    def __post_init__(self) -> None:
        main = self.planes[0]
        num_frames, channels = main.shape[0], main.shape[1]
        if channels != (3 if self.color.is_rgb else 1):
            raise ValueError(f"first plane has {channels} channels, which does not fit {self.color.matrix.name}")
        if any(p.ndim != 4 or p.shape[0] != num_frames or p.dtype != self.color.dtype for p in self.planes):
            raise ValueError("planes must share N and the dtype of the colour's bit depth")
        size = tuple(main.shape[2:])
        if any(p.shape[1] not in (1, 2) or (p.shape[1] == 1 and tuple(p.shape[2:]) != size) for p in self.planes[1:]):
            raise ValueError("after the first plane come chroma of two channels and alpha of the luma's size")
        if len(self.pts) != num_frames or len(self.durations) != num_frames:
            raise ValueError(f"{num_frames} frames with {len(self.pts)} pts and {len(self.durations)} durations")
        if any(b <= a for a, b in zip(self.pts, self.pts[1:], strict=False)):
            raise ValueError("pts must strictly increase")

    @property
    def num_frames(self) -> int:
        return len(self.pts)

    def split(self, num_frames: int) -> list[FrameBatch]:
        """Split the batch into views of `num_frames` frames each; fewer in the last."""
        starts = range(0, self.num_frames, num_frames)
        return [self] if len(starts) == 1 else [self.part(start, start + num_frames) for start in starts]

    def part(self, start: int, stop: int) -> FrameBatch:
        """A view of the frames at positions from `start` to before `stop`."""
        frames = slice(start, stop)
        planes = tuple(plane[frames] for plane in self.planes)
        return FrameBatch(planes, self.pts[frames], self.durations[frames], self.time_base, self.color)

    @classmethod
    def joined(cls, batches: Sequence[FrameBatch]) -> FrameBatch:
        """Put batches of one size, colour and clock in a row."""
        planes = tuple(torch.cat(parts) for parts in zip(*(batch.planes for batch in batches), strict=True))
        pts = tuple(chain.from_iterable(batch.pts for batch in batches))
        durations = tuple(chain.from_iterable(batch.durations for batch in batches))
        return cls(planes, pts, durations, batches[0].time_base, batches[0].color)

    @property
    def height(self) -> int:
        return int(self.planes[0].shape[2])

    @property
    def width(self) -> int:
        return int(self.planes[0].shape[3])

    @property
    def chroma(self) -> Tensor | None:
        """Return the (N, 2, h, w) Cb and Cr planes, or None for gray and RGB."""
        return next((p for p in self.planes[1:] if p.shape[1] == 2), None)

    @property
    def alpha(self) -> Tensor | None:
        """Return the (N, 1, H, W) alpha plane, or None."""
        return next((p for p in self.planes[1:] if p.shape[1] == 1), None)
