"""The way of the colours through the upscaler."""

from __future__ import annotations

from dataclasses import dataclass

from vsr.color.pixel_formats import PixelFormat
from vsr.frames import Color

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What the output frames are: size in pixels, samples and colour."""

    width: int
    height: int
    pixel_format: PixelFormat
    color: Color
