"""Turn RGB floats into the luma and chroma planes of a pixel format in one step.

A frame is worked off in bands of rows that stay in the processor's cache from the first operation to the last: every
float is read from memory once, and code values alone are written. On a GPU the step can be compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vsr.color import conversion as convert
from vsr.color.resample import halving_taps, reflected_indices
from vsr.frames import Color

__all__ = ["Coding", "Encode", "EncodeStep", "Filter", "encode_bands", "encode_step", "encode_whole"]

_BAND_BYTES = {"cpu": 1 << 20}  # of RGB floats, by type of device
_BAND_BYTES_OF_GPU = 8 << 20  # where each operation costs a launch
_FEWEST_ROWS = 16  # of chroma in a band, as each reads some rows of its neighbours


@dataclass(frozen=True, slots=True)
class Filter:
    """Reduce one dimension by an integer.

    step: input samples per output sample.  first: the first sample that output 0 reaches.  weights: from it on.
    """

    step: int
    first: int
    weights: tuple[float, ...]

    @classmethod
    def of(cls, shift: int, offset: float) -> Filter:
        """shift: log2 of the step, 0 or 1.  offset: place of an output sample within its cell."""
        return cls(2, *halving_taps(offset)) if shift else cls(1, 0, (1.0,))

    @property
    def num_beyond(self) -> int:
        """Samples that the last output reaches beyond its own cell."""
        return self.first + len(self.weights) - self.step

    def __call__(self, x: Tensor, dim: int, num: int) -> Tensor:
        """Compute `num` outputs along a dimension of samples that begin with the first that output 0 reaches.

        Each product and each sum is rounded, in the order of the samples.
        """
        if self.step == 1:
            return x
        sums: Tensor | None = None
        for tap, weight in enumerate(self.weights):
            if weight == 0:
                continue
            index = [slice(None)] * x.ndim
            index[dim] = slice(tap, tap + self.step * (num - 1) + 1, self.step)
            product = x[tuple(index)] * weight
            sums = product if sums is None else sums.add_(product)
        assert sums is not None
        return sums


@dataclass(frozen=True, slots=True)
class Coding:
    """Constants by which RGB becomes luma and chroma.

    weights: of R, G and B in luma.  luma, chroma: code values per unit, and the code value of zero; chroma's unit is
    that of B - Y and of R - Y.  peak: the highest code value.  dtype: of the samples.  rows, columns: of chroma.
    """

    weights: tuple[float, float, float]
    luma: tuple[float, float]
    chroma: tuple[tuple[float, float], tuple[float, float]]
    peak: float
    dtype: torch.dtype
    rows: Filter
    columns: Filter

    @classmethod
    def of(cls, color: Color, shift: tuple[int, int], device: torch.device) -> Coding:
        """Collect the constants of planes of a colour.

        Args:
            shift: log2 of the (horizontal, vertical) subsampling.
            device: of the planes.
        """
        red, green, blue = convert.luma_weights(color.matrix)
        span, zero = convert.chroma_scale(color)
        x, y = color.chroma_location.offset
        return cls(
            (red, green, blue),
            convert.luma_scale(color),
            ((span / (2 * (1 - blue)), zero), (span / (2 * (1 - red)), zero)),
            2.0**color.bit_depth - 1,
            convert.sample_dtype(color, device),
            Filter.of(shift[1], y),
            Filter.of(shift[0], x),
        )

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (h, w) of the chroma planes of luma planes of a size."""
        return -(-height // self.rows.step), -(-width // self.columns.step)

    def quantize(self, x: Tensor, scale: float, zero: float) -> Tensor:
        """Compute x · scale + zero in code values, rounded half up and clamped; x is overwritten."""
        return x.mul_(scale).add_(zero + 0.5).clamp_(0, self.peak + 0.5).to(self.dtype)  # which truncates


# Makes luma (N, 1, H, W) and chroma (N, 2, h, w) of RGB (N, 3, H, W).
Encode = Callable[[Tensor, Coding], tuple[Tensor, Tensor]]
EncodeStep = Callable[[Tensor, Tensor, Tensor, Coding, int], tuple[Tensor, Tensor]]  # see `encode_step`


def encode_bands(rgb: Tensor, coding: Coding) -> tuple[Tensor, Tensor]:
    """Make luma (N, 1, H, W) and chroma (N, 2, h, w) of RGB frames, band by band.

    Args:
        rgb: (N, 3, H, W) float32; what lies outside 0 to 1 is clamped.
        coding: the constants of the planes.
    """
    num_frames, _, height, width = rgb.shape
    num_rows, num_columns = coding.chroma_size(height, width)
    luma = torch.empty((num_frames, 1, height, width), dtype=coding.dtype, device=rgb.device)
    chroma = torch.empty((num_frames, 2, num_rows, num_columns), dtype=coding.dtype, device=rgb.device)
    rows, columns = _sources(rgb, coding)
    step, num_bytes = coding.rows.step, _BAND_BYTES.get(rgb.device.type, _BAND_BYTES_OF_GPU)
    at_once = max(_FEWEST_ROWS, num_bytes // (12 * width * step))
    for frame in range(num_frames):
        for first in range(0, num_rows, at_once):
            last = min(first + at_once, num_rows)
            band = rows[first * step : last * step + len(rows) - num_rows * step]
            part = encode_step(rgb[frame : frame + 1], band, columns, coding, last - first)
            own = slice(first * step, min(last * step, height))
            luma[frame, :, own] = part[0][0, :, : own.stop - own.start]
            chroma[frame, :, first:last] = part[1][0]
    return luma, chroma


def encode_whole(rgb: Tensor, coding: Coding, step: EncodeStep) -> tuple[Tensor, Tensor]:
    """Do what `encode_bands` does, with the same bits, by one call of a step that was compiled."""
    height, width = rgb.shape[-2:]
    luma, chroma = step(rgb, *_sources(rgb, coding), coding, coding.chroma_size(height, width)[0])
    return luma[..., :height, :], chroma


def encode_step(rgb: Tensor, rows: Tensor, columns: Tensor, coding: Coding, num_rows: int) -> tuple[Tensor, Tensor]:
    """Make the chroma rows that some rows of RGB give, and luma of the rows that these lie on.

    Args:
        rgb: (N, 3, H, W).
        rows, columns: indices of all samples that the chroma samples reach, edges reflected.
        num_rows: of chroma.
    """
    x = rgb.index_select(-2, rows).clamp_(0, 1)
    luma = x[:, :1] * coding.weights[0]
    luma.add_(x[:, 1:2] * coding.weights[1]).add_(x[:, 2:] * coding.weights[2])
    chroma = coding.rows(torch.cat((x[:, 2:] - luma, x[:, :1] - luma), 1), -2, num_rows)
    before, width = -coding.columns.first, rgb.shape[-1]
    edges = columns[:before], columns[before + width :]
    wide = torch.cat((chroma.index_select(-1, edges[0]), chroma, chroma.index_select(-1, edges[1])), -1)
    chroma = coding.columns(wide, -1, coding.chroma_size(1, width)[1])
    chroma = torch.cat([coding.quantize(chroma[:, [i]], *coding.chroma[i]) for i in range(2)], 1)
    own = slice(-coding.rows.first, -coding.rows.first + num_rows * coding.rows.step)
    return coding.quantize(luma[:, :, own], *coding.luma), chroma


def _sources(rgb: Tensor, coding: Coding) -> tuple[Tensor, Tensor]:
    """Return the indices of the rows and of the columns that the filters reach, reflected at the edges."""
    sides = zip((coding.rows, coding.columns), rgb.shape[-2:], coding.chroma_size(*rgb.shape[-2:]), strict=True)
    rows, columns = (
        reflected_indices(rgb.device, side, each.first, num * each.step - 1 + each.num_beyond)
        for each, side, num in sides
    )
    return rows, columns
