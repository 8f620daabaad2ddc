"""Convert between code values, YCbCr and RGB floats, on the device of the tensors.

Matrices and quantisation follow ITU-T H.273 (equations 32 to 40 and table 4), which restates BT.601,
BT.709 and BT.2020; chroma is moved between sitings by the cubic kernel of `resample`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vsr.color.resample import CENTERED, resample
from vsr.errors import InputError
from vsr.frames import Color, Matrix, Range

__all__ = [
    "chroma_scale",
    "dequantize_chroma",
    "dequantize_luma",
    "luma_scale",
    "luma_weights",
    "quantize",
    "quantize_chroma",
    "quantize_luma",
    "resize_chroma",
    "rgb_to_ycbcr",
    "sample_dtype",
    "upsample_chroma",
    "ycbcr_to_rgb",
]

# K_R and K_B of H.273 table 4.
_LUMA_COEFFICIENTS: dict[Matrix, tuple[float, float]] = {
    Matrix.BT709: (0.2126, 0.0722),
    Matrix.FCC: (0.30, 0.11),
    Matrix.BT470BG: (0.299, 0.114),
    Matrix.SMPTE170M: (0.299, 0.114),
    Matrix.SMPTE240M: (0.212, 0.087),
    Matrix.BT2020_NCL: (0.2627, 0.0593),
}


def luma_weights(matrix: Matrix) -> tuple[float, float, float]:
    """Return the weights of R, G and B in luma. Raises InputError for a matrix that cannot be turned into RGB."""
    if matrix not in _LUMA_COEFFICIENTS:
        raise InputError(
            f"the colour matrix {matrix.name} cannot be turned into RGB; use a luma model (color 'y', see 'vsr models')"
        )
    red, blue = _LUMA_COEFFICIENTS[matrix]
    return red, 1 - red - blue, blue


def luma_scale(color: Color) -> tuple[float, float]:
    """Return code values per unit and the code value of black, for luma, R, G, B and alpha."""
    if color.range is Range.LIMITED:
        return 219.0 * 2 ** (color.bit_depth - 8), 16.0 * 2 ** (color.bit_depth - 8)
    return 2.0**color.bit_depth - 1, 0.0


def chroma_scale(color: Color) -> tuple[float, float]:
    """Return code values per unit and the code value of no colour, for chroma in [-0.5, 0.5]."""
    span = 224.0 * 2 ** (color.bit_depth - 8) if color.range is Range.LIMITED else 2.0**color.bit_depth - 1
    return span, 2.0 ** (color.bit_depth - 1)


def quantize(x: Tensor, scale: float, offset: float | Tensor, color: Color) -> Tensor:
    """Compute x · scale + offset, rounded half up and clamped to the code values of the bit depth."""
    # The cast below truncates.
    start = offset + 0.5 if isinstance(offset, Tensor) else torch.full((), offset + 0.5, device=x.device)
    return torch.add(start, x, alpha=scale).clamp_(0, 2.0**color.bit_depth - 0.5).to(sample_dtype(color, x.device))


def sample_dtype(color: Color, device: torch.device) -> torch.dtype:
    """Return the integer type of code values on a device; int32 stands for uint16 on MPS, which had none for long."""
    return torch.int32 if device.type == "mps" and color.dtype == torch.uint16 else color.dtype


def dequantize_luma(plane: Tensor, color: Color) -> Tensor:
    """Convert luma, R, G, B or alpha code values to float32: black is 0, white 1; values may exceed both."""
    scale, offset = luma_scale(color)
    return plane.to(torch.float32).sub_(offset).mul_(1 / scale)


def dequantize_chroma(plane: Tensor, color: Color) -> Tensor:
    """Convert Cb and Cr code values to float32 in about [-0.5, 0.5]."""
    scale, offset = chroma_scale(color)
    return plane.to(torch.float32).sub_(offset).mul_(1 / scale)


def quantize_luma(x: Tensor, color: Color) -> Tensor:
    """Invert `dequantize_luma`: round and clamp to the code values of the bit depth."""
    return quantize(x, *luma_scale(color), color)


def quantize_chroma(x: Tensor, color: Color) -> Tensor:
    """Invert `dequantize_chroma`: round and clamp to the code values of the bit depth."""
    return quantize(x, *chroma_scale(color), color)


def ycbcr_to_rgb(luma: Tensor, chroma: Tensor, matrix: Matrix) -> Tensor:
    """Convert Y and chroma to RGB (N, 3, H, W), unclamped.

    Args:
        luma: Y (N, 1, H, W) in [0, 1].
        chroma: Cb and Cr (N, 2, H, W) in [-0.5, 0.5].
        matrix: the colour matrix to convert by.
    """
    red, green, blue = luma_weights(matrix)
    cb, cr = chroma[:, :1], chroma[:, 1:]
    r = luma + 2 * (1 - red) * cr
    b = luma + 2 * (1 - blue) * cb
    g = luma - (2 * blue * (1 - blue) / green) * cb - (2 * red * (1 - red) / green) * cr
    return torch.cat((r, g, b), 1)


def rgb_to_ycbcr(rgb: Tensor, matrix: Matrix) -> tuple[Tensor, Tensor]:
    """Convert RGB to Y (N, 1, H, W) in [0, 1] and Cb, Cr (N, 2, H, W) in [-0.5, 0.5], at full resolution.

    Args:
        rgb: (N, 3, H, W) in [0, 1].
        matrix: the colour matrix to convert by.
    """
    red, green, blue = luma_weights(matrix)
    r, g, b = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    luma = red * r + green * g + blue * b
    return luma, torch.cat(((b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))), 1)


def _offset(color: Color, shift: tuple[int, int]) -> tuple[float, float]:
    """Return the (x, y) of a chroma sample within its cell; 0.5 in a dimension that is not subsampled."""
    x, y = color.chroma_location.offset
    return (x if shift[0] else 0.5), (y if shift[1] else 0.5)


def upsample_chroma(chroma: Tensor, color: Color, shift: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Upsample chroma to the luma grid.

    Args:
        chroma: (N, 2, h, w) floats.
        color: gives the chroma location.
        shift: log2 of the (horizontal, vertical) subsampling: (1, 1) for 4:2:0, (1, 0) for 4:2:2.
        size: (H, W) of the luma.
    """
    h, w = chroma.shape[-2:]
    full = (h << shift[1], w << shift[0])  # odd luma sizes have a last cell that is only partly used
    return resample(chroma, full, _offset(color, shift), CENTERED)[..., : size[0], : size[1]]


def resize_chroma(
    chroma: Tensor,
    source: tuple[Color, tuple[int, int]],
    target: tuple[Color, tuple[int, int]],
    luma_scale: tuple[float, float],
    luma_size: tuple[int, int],
) -> Tensor:
    """Resize chroma from its own grid to the chroma grid of an image of another size.

    Args:
        chroma: (N, 2, h, w) floats.
        source, target: colour and log2 of the (horizontal, vertical) subsampling of input and output.
        luma_scale: (vertical, horizontal) output luma samples per input luma sample.
        luma_size: (H, W) of the output's luma.
    """
    (source_color, source_shift), (target_color, target_shift) = source, target
    size = (-(-luma_size[0] // (1 << target_shift[1])), -(-luma_size[1] // (1 << target_shift[0])))
    scale = (
        luma_scale[0] * 2.0 ** (source_shift[1] - target_shift[1]),
        luma_scale[1] * 2.0 ** (source_shift[0] - target_shift[0]),
    )
    return resample(chroma, size, _offset(source_color, source_shift), _offset(target_color, target_shift), scale)
