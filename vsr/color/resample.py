"""Resample planes separably: MATLAB's antialiased bicubic, and chroma with its siting.

The kernel is Keys' cubic convolution with a = -1/2 (Keys 1981), the one of MATLAB's `imresize`, and so of the
low-resolution images of Set5, Set14, BSD100 and Vid4 BI. Downscaling stretches the kernel by the inverse of the scale
(antialiasing); images continue past their edges by symmetric reflection. The other low resolution of the field, BD, is
made here as well: a Gaussian, then every scale-th pixel.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.color.exact_float32 import exact_float32

__all__ = [
    "CENTERED",
    "halving_taps",
    "imresize",
    "mod_crop",
    "reduce_bicubic",
    "reduce_gaussian",
    "reflected_indices",
    "resample",
]

CENTERED = (0.5, 0.5)


def resample(
    x: Tensor,
    size: tuple[int, int],
    source_offset: tuple[float, float] = CENTERED,
    target_offset: tuple[float, float] = CENTERED,
    scale: tuple[float, float] | None = None,
) -> Tensor:
    """Resample (N, C, H, W) floats to (N, C, *size) with the antialiased cubic kernel.

    Args:
        source_offset, target_offset: (x, y) of a sample within its own cell, 0.5 being its centre; other values place
            subsampled chroma (`ChromaLocation.offset`).
        scale: (vertical, horizontal) output samples per input sample; the ratio of the sizes unless given, which is
            needed only where rounding made the sizes inexact (odd sizes of subsampled planes).
    """
    height, width = x.shape[-2:]
    scale_y, scale_x = scale or (size[0] / height, size[1] / width)
    if _is_whole(scale_y, height, size[0]) and _is_whole(scale_x, width, size[1]) and scale_y * scale_x > 1:
        return _upsample(x, (int(scale_y), int(scale_x)), source_offset, target_offset)
    # The dimension that shrinks most goes first, as in imresize: less work, and the same result.
    steps = [(-2, size[0], scale_y, source_offset[1], target_offset[1])]
    steps.insert(1 if scale_y <= scale_x else 0, (-1, size[1], scale_x, source_offset[0], target_offset[0]))
    for dim, length, ratio, source, target in steps:
        x = _resample_dim(x, dim, length, ratio, source, target)
    return x


def imresize(image: Tensor, size: tuple[int, int], scale: float | None = None) -> Tensor:
    """Resize uint8 (N, C, H, W) as MATLAB's `imresize(image, ..., 'bicubic')`: antialiased, rounded, uint8.

    Args:
        image: (N, C, H, W) uint8.
        size: (H, W) of the output.
        scale: output pixels per input pixel; the ratio of the sizes unless given.
    """
    out = resample(image.float(), size, scale=None if scale is None else (scale, scale))
    return out.add_(0.5).clamp_(0, 255.5).floor_().to(torch.uint8)


def mod_crop(image: Tensor, scale: int) -> Tensor:
    """Crop (..., H, W) at the right and bottom to a multiple of `scale`."""
    height, width = image.shape[-2:]
    return image[..., : height - height % scale, : width - width % scale]


def reduce_bicubic(image: Tensor, scale: int) -> Tensor:
    """Reduce an image as the protocol BI does, by `imresize`.

    Args:
        image: (C, H, W) uint8, H and W multiples of `scale`.
        scale: input pixels per output pixel in each direction.
    """
    height, width = image.shape[-2:]
    return imresize(image[None], (height // scale, width // scale))[0]


def reduce_gaussian(image: Tensor, scale: int) -> Tensor:
    """Reduce an image as the protocol BD does: a 13×13 Gaussian, then every scale-th pixel from the first on.

    DUF's protocol (Jo et al. 2018), by which EDVR and the papers after it are scored: sigma 1.6 at ×4, 1.2 at ×3 and
    0.8 at ×2; edges reflected without the edge pixel. A low-resolution pixel lies on the first pixel of its cell and
    not in the cell's middle: networks trained on BI are off by 1.5 pixels at ×4.

    Args:
        image: (3, H, W) uint8.
        scale: input pixels per output pixel in each direction.
    """
    window = np.exp(-np.square(np.arange(-6, 7)) / (2 * (0.4 * scale) ** 2))
    kernel = np.asarray(window / window.sum(), np.float32)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy(), dtype=np.float32)
    blurred = cv2.sepFilter2D(pixels, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    low = np.floor(blurred[::scale, ::scale] + 0.5).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(low).permute(2, 0, 1).contiguous()


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x <= 2, far, 0.0))


@functools.lru_cache(maxsize=64)
def _taps(source: int, target: int, scale: float, source_offset: float, target_offset: float) -> tuple[Tensor, Tensor]:
    """Compute the filter of each output sample: weights (target, P) float64 and source indices (target, P).

    The indices are not reflected yet: they may lie outside.
    """
    center = (torch.arange(target, dtype=torch.float64) + target_offset) / scale - source_offset
    stretch = min(scale, 1.0)
    support = 2.0 / stretch
    first = torch.floor(center - support).long() + 1
    num_taps = math.ceil(2 * support) + 1
    index = first[:, None] + torch.arange(num_taps)
    weight = _cubic((center[:, None] - index) * stretch)
    weight /= weight.sum(1, keepdim=True)
    used = (weight.abs().amax(0) > 1e-12).nonzero()
    first_used, last_used = int(used[0]), int(used[-1])  # the taps between stay, zero or not: they are a kernel
    return weight[:, first_used : last_used + 1], index[:, first_used : last_used + 1]


def _reflect(index: Tensor, length: int) -> Tensor:
    """Reflect indices symmetrically: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    index = index % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)


def _resample_dim(x: Tensor, dim: int, length: int, scale: float, source_offset: float, target_offset: float) -> Tensor:
    source = x.shape[dim]
    if length == source and scale == 1 and source_offset == target_offset:
        return x
    if scale < 1 and (1 / scale) == int(1 / scale):
        return _downsample_dim(x, dim, int(1 / scale), (source, length, scale, source_offset, target_offset))
    weights, indices = _taps_on(x.device, x.dtype, source, length, scale, source_offset, target_offset)
    out = torch.zeros((), dtype=x.dtype, device=x.device)
    shape = [1, 1, 1, 1]
    shape[dim] = length
    for weight, index in zip(weights, indices, strict=True):
        out = out + weight.view(shape) * x.index_select(dim, index)
    return out


def halving_taps(target_offset: float) -> tuple[int, tuple[float, ...]]:
    """Return the filter that halves a dimension: the first sample that output 0 reaches, and the weights from it on.

    Args:
        target_offset: place of an output sample within its own cell, see `resample`.
    """
    weight, index = _taps(8, 4, 0.5, CENTERED[0], target_offset)
    return int(index[0, 0]), tuple(weight[0].tolist())


# -- what goes to the device, once: a copy from memory that is not page-locked would wait for all work queued there ----

_Axis = tuple[int, int, float, float, float]  # the arguments of `_taps`


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # of no mode, so that training may take it too
def _taps_on(device: torch.device, dtype: torch.dtype, source: int, *rest: Any) -> tuple[tuple[Tensor, ...], ...]:
    """Return the weights (target,) and the reflected indices (target,) of each tap, of `_taps`."""
    weight, index = _taps(source, *rest)
    indices = _reflect(index, source).T.contiguous().to(device)
    return weight.T.contiguous().to(device, dtype).unbind(), indices.unbind()


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def reflected_indices(device: torch.device, length: int, first: int, last: int) -> Tensor:
    """Return the indices of samples first..last of a dimension, reflected where they lie outside."""
    return _reflect(torch.arange(first, last + 1), length).to(device)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _up_kernel(device: torch.device, dtype: torch.dtype, axes: tuple[_Axis, _Axis]) -> tuple[Tensor, tuple[int, ...]]:
    """Return the kernel of every output phase, (phases, 1, h, w), and (first, last) of the samples of both axes."""
    kernels, bounds = [], []
    for axis in axes:
        factor = int(axis[2])
        weight, index = _taps(*axis)
        first, last = int(index[:factor].min()), int(index[:factor].max())
        kernel = weight.new_zeros(factor, last - first + 1)
        kernels.append(kernel.scatter_(1, index[:factor] - first, weight[:factor]))
        bounds += [first, last]
    kernel = kernels[0][:, None, :, None] * kernels[1][None, :, None, :]
    return kernel.flatten(0, 1)[:, None].to(device, dtype), tuple(bounds)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _down_kernel(device: torch.device, dtype: torch.dtype, axis: _Axis) -> tuple[Tensor, int, int]:
    """Return the one kernel of all output samples, (taps,), and the first and the last sample that it reaches."""
    weight, index = _taps(*axis)
    return weight[0].to(device, dtype), int(index[0, 0]), int(index[-1, -1])


def _padded(x: Tensor, dim: int, first: int, last: int) -> Tensor:
    """Select samples first..last of a dimension, reflected where they lie outside."""
    return x.index_select(dim, reflected_indices(x.device, x.shape[dim], first, last))


def _is_whole(scale: float, source: int, target: int) -> bool:
    return scale >= 1 and scale == int(scale) and target == source * int(scale)


def _upsample(
    x: Tensor, scale: tuple[int, int], source_offset: tuple[float, float], target_offset: tuple[float, float]
) -> Tensor:
    """Upscale both dimensions by integers: each output phase is one small convolution; they interleave."""
    n, c, h, w = x.shape
    rows: _Axis = (h, h * scale[0], float(scale[0]), source_offset[1], target_offset[1])
    columns: _Axis = (w, w * scale[1], float(scale[1]), source_offset[0], target_offset[0])
    kernel, (top, bottom, left, right) = _up_kernel(x.device, x.dtype, (rows, columns))
    padded = _padded(x.flatten(0, 1).unsqueeze(1), -2, top, h - 1 + bottom)
    padded = _padded(padded, -1, left, w - 1 + right)
    phases = _convolved(padded, kernel)
    phases = phases.view(n, c, *scale, h, w).permute(0, 1, 4, 2, 5, 3)
    return phases.reshape(n, c, h * scale[0], w * scale[1])


def _convolved(x: Tensor, kernel: Tensor, stride: tuple[int, int] = (1, 1)) -> Tensor:
    with exact_float32():  # TF32 would round code values of more than 8 bits
        return F.conv2d(x, kernel, stride=stride)


def _downsample_dim(x: Tensor, dim: int, factor: int, axis: _Axis) -> Tensor:
    """Downscale one dimension by an integer, as one strided convolution."""
    n, c = x.shape[:2]
    kernel, first, last = _down_kernel(x.device, x.dtype, axis)
    x = _padded(x, dim, first, last).flatten(0, 1).unsqueeze(1)
    if dim == -2:
        out = _convolved(x, kernel[None, None, :, None], (factor, 1))
    else:
        out = _convolved(x, kernel[None, None, None, :], (1, factor))
    return out.view(n, c, *out.shape[-2:])
