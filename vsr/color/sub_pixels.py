"""Make the samples of a plane of the sub-pixels that a network gives, and of what they correct."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MakeSamples", "Samples", "SamplesStep", "no_samples", "samples_step"]

SamplesStep = Callable[[Tensor, Tensor, Tensor, int, bool], Tensor]  # see `samples_step`


@dataclass(frozen=True, slots=True)
class Samples:
    """Constants by which sub-pixels and a base become code values.

    gain, base_gain: in sub_pixels · gain + base · base_gain, which is rounded and clamped.
    bit_depth: of the code values, in uint8 or uint16.
    """

    gain: float
    base_gain: float
    bit_depth: int

    @property
    def is_wide(self) -> bool:
        """True for uint16, False for uint8."""
        return self.bit_depth > 8

    def constants(self, device: torch.device) -> Tensor:
        """Return gain, base_gain and the peak before it is rounded down, (3,) float32; copied to a device once."""
        return _constants(self.gain, self.base_gain, 2.0**self.bit_depth - 0.5, device)


# Makes samples of sub-pixels (N, C·factor², H, W) and a base, see `samples_step`; None where the caller is to do it.
MakeSamples = Callable[[Tensor, Tensor, Samples], Tensor | None]


def no_samples(sub_pixels: Tensor, base: Tensor, samples: Samples) -> None:
    """Leave it to the caller; see `MakeSamples`."""


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _constants(gain: float, base_gain: float, peak: float, device: torch.device) -> Tensor:
    return torch.tensor((gain, base_gain, peak), device=device)


def samples_step(sub_pixels: Tensor, base: Tensor, constants: Tensor, factor: int, is_wide: bool) -> Tensor:
    """Make code values of sub-pixels in one loop: both inputs are read, the samples are written, and that is all.

    Args:
        sub_pixels: (N, C·factor², H, W) float32 or of 16 bits, in the order of `torch.pixel_shuffle`.
        base: (N, C, H, W), which counts for all sub-pixels of a pixel, or (N, C, H·factor, W·factor).
        constants: see `Samples`.
        is_wide: whether samples are uint16 instead of uint8.

    Returns (N, C, H·factor, W·factor).
    """
    num, _, height, width = sub_pixels.shape
    inner = base.shape[-1] // width
    placed = sub_pixels.view(num, -1, factor, factor, height, width).permute(0, 1, 4, 2, 5, 3)
    values = placed.to(torch.float32) * constants[0]
    values = values + (base.view(num, -1, height, inner, width, inner).to(torch.float32) * constants[1] + 0.5)
    values = torch.minimum(values.clamp_min(0), constants[2]).to(torch.uint16 if is_wide else torch.uint8)  # truncated
    return values.reshape(num, -1, height * factor, width * factor)
