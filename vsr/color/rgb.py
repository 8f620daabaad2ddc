"""Convert whole frames between native planes and RGB, by their own matrix and range."""

from __future__ import annotations

from torch import Tensor

from vsr.color import conversion as convert
from vsr.color.encoding import Coding, Encode, encode_bands
from vsr.color.pixel_formats import PixelFormat
from vsr.frames import Color, FrameBatch

__all__ = ["planes_of_rgb", "rgb_of_batch"]


def rgb_of_batch(batch: FrameBatch, format_: PixelFormat) -> Tensor:
    """Convert frames to RGB (N, 3, H, W) float32, nominally 0 to 1, unclamped; alpha is left out.

    Uses the frames' own matrix, range and chroma location. Raises InputError for a matrix that cannot be converted to
    RGB.
    """
    color = batch.color
    main = convert.dequantize_luma(batch.planes[0], color)
    if color.is_rgb:
        return main
    if format_.kind == "gray":
        return main.repeat(1, 3, 1, 1)
    chroma = convert.dequantize_chroma(batch.planes[1], color)
    chroma = convert.upsample_chroma(chroma, color, format_.chroma_shift, (batch.height, batch.width))
    return convert.ycbcr_to_rgb(main, chroma, color.matrix)


def planes_of_rgb(rgb: Tensor, format_: PixelFormat, color: Color, encode: Encode = encode_bands) -> tuple[Tensor, ...]:
    """Convert RGB to the planes of a pixel format, in the order of `FrameBatch`, without alpha.

    Args:
        rgb: (N, 3, H, W) float32; what lies outside 0 to 1 is clamped.
        format_: the pixel format of the planes.
        color: matrix, range, bit depth and chroma location of the planes.
        encode: makes luma and chroma planes.
    """
    if format_.kind == "yuv":
        return encode(rgb, Coding.of(color, format_.chroma_shift, rgb.device))
    rgb = rgb.clamp(0, 1)
    if format_.kind == "gray":
        rgb = convert.rgb_to_ycbcr(rgb, color.matrix)[0]
    return (convert.quantize_luma(rgb, color),)
