"""Describe FFmpeg's pixel formats as planes of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["FORMATS", "PixelFormat", "allocate_planes", "as_stored"]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Describe the memory layout of the samples of one FFmpeg pixel format.

    Args:
        name: FFmpeg's name.
        kind: the colour family.
        layout: "planar", one plane per component; "semiplanar", Cb and Cr interleaved; "packed", all interleaved.
        bit_depth: significant bits of a sample.
        chroma_shift: log2 of the (horizontal, vertical) subsampling; (0, 0) for gray and RGB.
        alpha: True where there is an alpha component.
        msb_shift: unused low bits of a 16 bit word (6 for p010), else 0.
    """

    name: str
    kind: Literal["gray", "yuv", "rgb"]
    layout: Literal["planar", "semiplanar", "packed"]
    bit_depth: int
    chroma_shift: tuple[int, int] = (0, 0)
    alpha: bool = False
    msb_shift: int = 0

    @property
    def sample_dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.bit_depth == 8 else np.uint16

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (h, w) of a chroma plane; a last, partly used cell counts."""
        return -(-height // (1 << self.chroma_shift[1])), -(-width // (1 << self.chroma_shift[0]))


def _make_formats() -> dict[str, PixelFormat]:
    formats = [
        PixelFormat("gray", "gray", "planar", 8),
        PixelFormat("ya8", "gray", "packed", 8, alpha=True),
        PixelFormat("rgb24", "rgb", "packed", 8),
        PixelFormat("rgba", "rgb", "packed", 8, alpha=True),
        PixelFormat("gbrp", "rgb", "planar", 8),
        PixelFormat("gbrap", "rgb", "planar", 8, alpha=True),
    ]
    subsampling = {"420": (1, 1), "422": (1, 0), "444": (0, 0)}
    for name, shift in subsampling.items():
        formats += [
            PixelFormat(f"yuv{name}p", "yuv", "planar", 8, shift),
            PixelFormat(f"yuvj{name}p", "yuv", "planar", 8, shift),
            PixelFormat(f"yuva{name}p", "yuv", "planar", 8, shift, alpha=True),
        ]
        for depth in (9, 10, 12, 14, 16):
            formats.append(PixelFormat(f"yuv{name}p{depth}le", "yuv", "planar", depth, shift))
            if depth in (10, 16) or (depth == 12 and name != "420"):
                formats.append(PixelFormat(f"yuva{name}p{depth}le", "yuv", "planar", depth, shift, alpha=True))
    for depth in (9, 10, 12, 14, 16):
        formats.append(PixelFormat(f"gray{depth}le", "gray", "planar", depth))
        formats.append(PixelFormat(f"gbrp{depth}le", "rgb", "planar", depth))
        if depth in (10, 12, 14, 16):
            formats.append(PixelFormat(f"gbrap{depth}le", "rgb", "planar", depth, alpha=True))
    for name, digit, shift in (("nv12", 0, (1, 1)), ("nv16", 2, (1, 0)), ("nv24", 4, (0, 0))):
        formats.append(PixelFormat(name, "yuv", "semiplanar", 8, shift))
        formats += [
            PixelFormat(f"p{digit}{depth}le", "yuv", "semiplanar", depth, shift, msb_shift=16 - depth)
            for depth in (10, 12, 16)
        ]
    return {f.name: f for f in formats}


FORMATS: dict[str, PixelFormat] = _make_formats()


def allocate_planes(format_: PixelFormat, num_frames: int, height: int, width: int) -> tuple[Tensor, ...]:
    """Allocate uninitialised planes for a `FrameBatch`, in its order."""
    dtype = torch.uint8 if format_.bit_depth == 8 else torch.uint16
    planes = [torch.empty((num_frames, 3 if format_.kind == "rgb" else 1, height, width), dtype=dtype)]
    if format_.kind == "yuv":
        planes.append(torch.empty((num_frames, 2, *format_.chroma_size(height, width)), dtype=dtype))
    if format_.alpha:
        planes.append(torch.empty((num_frames, 1, height, width), dtype=dtype))
    return tuple(planes)


def as_stored(planes: tuple[Tensor, ...], format_: PixelFormat) -> tuple[Tensor, ...]:
    """Lay Cb and Cr side by side in memory where a format does, so that its frames take whole rows.

    planes: (N, channels, height, width) each, as those that come back; done on their device, before they leave it.
    """
    if format_.layout != "semiplanar":
        return planes
    luma, chroma, *rest = planes
    return (luma, chroma.contiguous(memory_format=torch.channels_last), *rest)
