"""From native planes to a network's input, and from its output to the planes of the target.

Three paths, by the source's colour and the network's: luma alone through a luma network, with chroma resized beside
it; RGB through an RGB network; and RGB through a luma network, as BT.601 luma. Recurrent networks take luma as it is
coded and correct the resized chroma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.color import conversion as convert
from vsr.color.encoding import Encode, encode_bands
from vsr.color.pixel_formats import PixelFormat
from vsr.color.resample import resample
from vsr.color.rgb import planes_of_rgb
from vsr.color.shuffle import shuffled
from vsr.color.sub_pixels import MakeSamples, Samples, no_samples
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.nets.recurrent import CHROMA_GAIN

__all__ = [
    "NetworkColor",
    "NetworkInput",
    "Target",
    "VideoInput",
    "batch_to_network",
    "batch_to_video_network",
    "luma_to_video_network",
    "rgb_to_network",
]

NetworkColor = Literal["rgb", "y"]
Planes = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Size in pixels, pixel format and colour of output frames."""

    width: int
    height: int
    pixel_format: PixelFormat
    color: Color


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """A batch on its way through the network.

    x: the network's input, float32 (N, C, H, W), C = 3 or 1, nominally in [0, 1].
    finish: makes the target's planes of the network's output, (N, C, H·scale, W·scale), which it may overwrite.
    """

    x: Tensor
    finish: Callable[[Tensor], Planes]


def batch_to_network(
    planes: Planes,
    batch: FrameBatch,
    target: Target,
    network_color: NetworkColor,
    encode: Encode = encode_bands,
) -> NetworkInput:
    """Convert a batch for a network, and prepare the rest of its way.

    Args:
        planes: those of the batch, on the network's device.
        network_color: what the network takes and gives, as on its card.
        encode: makes luma and chroma planes of RGB.
    """
    main = _main_to_network(planes, batch, target, network_color, encode)
    if not target.pixel_format.alpha:
        return main
    alpha = planes[-1] if batch.alpha is not None else None
    return NetworkInput(main.x, lambda out: (*main.finish(out), _alpha(alpha, out, batch, target)))


def rgb_to_network(rgb: Tensor, size: tuple[int, int], network_color: NetworkColor) -> NetworkInput:
    """Prepare RGB floats, (N, 3, H, W); the one plane that comes out is RGB, unclamped, (N, 3, *size)."""
    if network_color == "rgb":
        return NetworkInput(rgb.clamp(0, 1), lambda out: (_resized(out, size),))
    # A luma network was trained on BT.601 luma as it is coded: 16 to 235, over 255.
    luma, chroma = convert.rgb_to_ycbcr(rgb.clamp(0, 1), Matrix.SMPTE170M)

    def finish(out: Tensor) -> Planes:
        sharp = _resized(out, size).sub_(16 / 255).mul_(255 / 219)
        return (convert.ycbcr_to_rgb(sharp, resample(chroma, size), Matrix.SMPTE170M),)

    return NetworkInput(luma.mul_(219 / 255).add_(16 / 255), finish)


@dataclass(frozen=True, slots=True)
class VideoInput:
    """A batch on its way through a recurrent network.

    planes: the network's first input, float32 (N, 3, H, W): luma, Cb and Cr as `RecurrentNet` takes them.
    finish: makes the target's planes of the `details` of luma and of chroma.
    """

    planes: Tensor
    finish: Callable[[Tensor, Tensor], Planes]


def batch_to_video_network(
    planes: Planes, batch: FrameBatch, target: Target, make_samples: MakeSamples = no_samples
) -> VideoInput:
    """Convert a batch for a recurrent network, and prepare the rest of its way.

    Args:
        planes: those of the batch, on the network's device.
        make_samples: makes the target's samples at once, where the network's sub-pixels are on their grid.
    """
    main = _main_to_video_network(planes, batch, target, make_samples)
    if not target.pixel_format.alpha:
        return main
    alpha = planes[-1] if batch.alpha is not None else None
    return VideoInput(
        main.planes, lambda luma, chroma: (*main.finish(luma, chroma), _alpha(alpha, luma, batch, target))
    )


def luma_to_video_network(planes: Planes, batch: FrameBatch, target: Target) -> Tensor:
    """Convert the luma of a batch as `batch_to_video_network` does, (N, 1, H, W), without the chroma where it can.

    Args:
        planes: those of the batch, on the network's device.
    """
    if not batch.color.is_rgb and _same_ycbcr(batch.color, target.color):
        return _coded_luma(planes[0], batch.color)
    luma, _ = convert.rgb_to_ycbcr(_rgb_of(planes, batch).clamp(0, 1), Matrix.SMPTE170M)
    return _limited(luma)


def _main_to_video_network(planes: Planes, batch: FrameBatch, target: Target, make_samples: MakeSamples) -> VideoInput:
    """Choose the path of all planes but alpha."""
    color, luma = batch.color, planes[0]
    if not color.is_rgb and _same_ycbcr(color, target.color):
        chroma = planes[1] if batch.chroma is not None else None
        return _coded_to_video_network((luma, chroma), color, target, make_samples)
    return _rgb_to_video_network(_rgb_of(planes, batch), target)


def _rgb_of(planes: Planes, batch: FrameBatch) -> Tensor:
    """Convert planes of any colour to RGB floats, (N, 3, H, W)."""
    color, luma = batch.color, planes[0]
    if color.is_rgb:
        return convert.dequantize_luma(luma, color)
    if batch.chroma is None:
        return convert.dequantize_luma(luma, color).expand(-1, 3, -1, -1)
    return convert.ycbcr_to_rgb(convert.dequantize_luma(luma, color), _full_chroma(planes, color), color.matrix)


def _coded_to_video_network(
    planes: tuple[Tensor, Tensor | None], color: Color, target: Target, make_samples: MakeSamples
) -> VideoInput:
    """Pass luma and chroma as they are coded; no chroma is grey."""
    luma, chroma = planes
    x = _coded_luma(luma, color)
    if chroma is None:
        full = x.new_zeros(x.shape[0], 2, *x.shape[2:])
    else:
        depth = 2.0 ** (color.bit_depth - 8)
        centred = chroma.to(torch.float32).sub_(128 * depth).mul_(1 / (255 * depth))
        shift = _chroma_shift(luma, chroma)
        full = convert.upsample_chroma(centred, color, shift, (x.shape[-2], x.shape[-1]))
        full = full if shift == (1, 1) else _as_of_420(full)

    def finish(detail: Tensor, correction: Tensor) -> Planes:
        out = _quantized(x, detail, target, make_samples)
        if target.pixel_format.kind == "gray":
            return (out,)
        unit = 255 * 2.0 ** (target.color.bit_depth - 8)
        gain, depth = unit * CHROMA_GAIN, 2.0 ** (target.color.bit_depth - color.bit_depth)
        base = None if chroma is None else _moved_chroma(luma, chroma, color, target)
        if base is not None and _is_on_grid(correction, luma, target, target.pixel_format.chroma_shift):
            made = make_samples(correction, base, Samples(gain, depth, target.color.bit_depth))
            if made is not None:
                return out, made
        moved = _correction_on_grid(correction, luma, target, target.pixel_format.chroma_shift).mul_(gain)
        moved += 128 * unit / 255 if base is None else base * depth
        return out, convert.quantize(moved, 1, 0, target.color)

    return VideoInput(torch.cat((x, full), 1), finish)


def _coded_luma(luma: Tensor, color: Color) -> Tensor:
    return luma.to(torch.float32).mul_(1 / _luma_peak(color))


def _rgb_to_video_network(rgb: Tensor, target: Target) -> VideoInput:
    """Pass RGB floats as BT.601 luma and chroma in limited range, which the network was trained on."""
    luma, chroma = convert.rgb_to_ycbcr(rgb.clamp(0, 1), Matrix.SMPTE170M)
    size = (target.height, target.width)
    coded = _limited(luma)

    def finish(detail: Tensor, correction: Tensor) -> Planes:
        moved = _correction_on_grid(correction, luma, target, (0, 0)) * (255 / 224 * CHROMA_GAIN)
        full = resample(chroma, size) + moved
        out = _resized(shuffled(detail + coded, _scale_of(detail)), size).sub(16 / 255).mul_(255 / 219)
        large = convert.ycbcr_to_rgb(out, full, Matrix.SMPTE170M)
        return planes_of_rgb(large, target.pixel_format, target.color)

    return VideoInput(torch.cat((coded, _as_of_420(chroma) * (224 / 255)), 1), finish)


def _limited(luma: Tensor) -> Tensor:
    """Code luma, black 0 and white 1, in limited range over 255, as recurrent networks were trained on it."""
    return luma * (219 / 255) + 16 / 255


def _as_of_420(chroma: Tensor) -> Tensor:
    """Blur chroma at the luma grid, (N, 2, H, W), to what 4:2:0 leaves of it.

    Recurrent networks were trained on that, and correct nothing well that is sharper: unblurred, Vid4's "calendar" in
    RGB loses 0.06 dB of luma and 0.4 dB of RGB by `video`.
    """
    size = (chroma.shape[-2], chroma.shape[-1])
    small = convert.resize_chroma(chroma, (_NETWORK_CHROMA, (0, 0)), (_NETWORK_CHROMA, (1, 1)), (1, 1), size)
    return convert.upsample_chroma(small, _NETWORK_CHROMA, (1, 1), size)


# The grid on which recurrent networks give chroma: 4:2:0 with left siting, by far the most frequent.
_NETWORK_CHROMA = Color(
    Matrix.SMPTE170M, Primaries.SMPTE170M, Transfer.SMPTE170M, Range.LIMITED, ChromaLocation.LEFT, bit_depth=8
)


def _scale_of(detail: Tensor) -> int:
    """Return the network's scale factor, whose square is the number of sub-pixels of luma."""
    return math.isqrt(detail.shape[1])


def _quantized(luma: Tensor, detail: Tensor, target: Target, make_samples: MakeSamples) -> Tensor:
    """Make luma's code values of a frame's luma and its detail; in their places only then, as codes are small."""
    scale = _scale_of(detail)
    peak = _luma_peak(target.color)
    if (target.height, target.width) == (detail.shape[-2] * scale, detail.shape[-1] * scale):
        made = make_samples(detail, luma, Samples(peak, peak, target.color.bit_depth))
        if made is not None:
            return made
        return shuffled(convert.quantize(detail, peak, luma * peak, target.color), scale)
    out = _resized(shuffled(detail + luma, scale), (target.height, target.width))
    return convert.quantize(out, peak, 0, target.color)


def _correction_on_grid(sub_pixels: Tensor, luma: Tensor, target: Target, shift: tuple[int, int]) -> Tensor:
    """Bring the network's correction of chroma to the target's size and chroma grid, in its own unit.

    sub_pixels: of Cb and Cr.  luma: of the source, (N, 1, H, W), for its size.
    """
    half = math.isqrt(sub_pixels.shape[1] // 2)
    correction = shuffled(sub_pixels.to(torch.float32), half)
    if _is_on_grid(sub_pixels, luma, target, shift):
        return correction
    height, width = (2 * half * side for side in luma.shape[-2:])
    size = (target.height, target.width)
    scale = (size[0] / height, size[1] / width)
    return convert.resize_chroma(correction, (_NETWORK_CHROMA, (1, 1)), (target.color, shift), scale, size)


def _is_on_grid(sub_pixels: Tensor, luma: Tensor, target: Target, shift: tuple[int, int]) -> bool:
    """Tell whether the network's correction of chroma lies where the target has its samples."""
    half = math.isqrt(sub_pixels.shape[1] // 2)
    is_of_size = (target.height, target.width) == tuple(2 * half * side for side in luma.shape[-2:])
    return is_of_size and shift == (1, 1) and target.color.chroma_location is ChromaLocation.LEFT


def _main_to_network(
    planes: Planes, batch: FrameBatch, target: Target, network_color: NetworkColor, encode: Encode
) -> NetworkInput:
    """Choose the path of all planes but alpha."""
    color, luma = batch.color, planes[0]
    if network_color == "y" and not color.is_rgb:
        if batch.chroma is None:
            if target.pixel_format.kind == "gray" and color.range is target.color.range:
                return _through_luma(luma, None, color, target)
        elif _same_ycbcr(color, target.color):
            return _through_luma(luma, planes[1], color, target)
    return _through_rgb(_rgb_of(planes, batch), target, network_color, encode)


def _through_luma(luma: Tensor, chroma: Tensor | None, color: Color, target: Target) -> NetworkInput:
    """Upscale luma as it is coded; resize chroma by the cubic kernel."""

    def finish(out: Tensor) -> Planes:
        out = _resized(out, (target.height, target.width))
        out = convert.quantize(out, _luma_peak(target.color), 0, target.color)
        if chroma is None or target.pixel_format.kind == "gray":
            return (out,)
        return out, _resized_chroma(luma, chroma, color, target)

    return NetworkInput(luma.to(torch.float32).mul_(1 / _luma_peak(color)), finish)


def _through_rgb(rgb: Tensor, target: Target, network_color: NetworkColor, encode: Encode) -> NetworkInput:
    """Upscale RGB floats and convert them to the target's planes."""
    inner = rgb_to_network(rgb, (target.height, target.width), network_color)

    def finish(out: Tensor) -> Planes:
        return planes_of_rgb(inner.finish(out)[0], target.pixel_format, target.color, encode)

    return NetworkInput(inner.x, finish)


def _resized_chroma(luma: Tensor, chroma: Tensor, color: Color, target: Target) -> Tensor:
    """Resize Cb and Cr to the target's grid, in code values."""
    moved = _moved_chroma(luma, chroma, color, target)
    return convert.quantize(moved, 2.0 ** (target.color.bit_depth - color.bit_depth), 0, target.color)


def _moved_chroma(luma: Tensor, chroma: Tensor, color: Color, target: Target) -> Tensor:
    """Resize Cb and Cr to the target's grid: float code values of the source's bit depth."""
    # Of one range and matrix, so the code values themselves can be resampled.
    return convert.resize_chroma(
        chroma.to(torch.float32),
        (color, _chroma_shift(luma, chroma)),
        (target.color, target.pixel_format.chroma_shift),
        (target.height / luma.shape[-2], target.width / luma.shape[-1]),
        (target.height, target.width),
    )


def _full_chroma(planes: Planes, color: Color) -> Tensor:
    """Upsample Cb and Cr to the luma grid, as floats about zero."""
    size = (planes[0].shape[-2], planes[0].shape[-1])
    chroma = convert.dequantize_chroma(planes[1], color)
    return convert.upsample_chroma(chroma, color, _chroma_shift(planes[0], planes[1]), size)


def _alpha(alpha: Tensor | None, out: Tensor, batch: FrameBatch, target: Target) -> Tensor:
    """Resize alpha bicubically; opaque for a source without."""
    opaque = 2.0**target.color.bit_depth - 1
    if alpha is None:
        shape = (batch.num_frames, 1, target.height, target.width)
        return torch.full(shape, opaque, device=out.device).to(convert.sample_dtype(target.color, out.device))
    scaled = resample(alpha.to(torch.float32), (target.height, target.width))
    return convert.quantize(scaled, opaque / (2.0**batch.color.bit_depth - 1), 0, target.color)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to (height, width) where that is not the network's own output size."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bicubic", antialias=True)


def _same_ycbcr(source: Color, target: Color) -> bool:
    """Tell whether luma and chroma mean the same in both, bit depth aside, so that planes can go through alone."""
    return source.matrix is target.matrix and source.range is target.range


def _luma_peak(color: Color) -> float:
    """Return the code value that stands for 1 at a luma network's input: 255 at 8 bit."""
    return 255.0 * 2 ** (color.bit_depth - 8) if color.range is Range.LIMITED else 2.0**color.bit_depth - 1


def _chroma_shift(luma: Tensor, chroma: Tensor) -> tuple[int, int]:
    """Return log2 of the (horizontal, vertical) subsampling, from the planes' own sizes."""
    return int(chroma.shape[-1] < luma.shape[-1]), int(chroma.shape[-2] < luma.shape[-2])
