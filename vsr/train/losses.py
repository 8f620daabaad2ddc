"""Compute losses of super-resolution from (N, C, H, W) float32 images nominally in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.models.perceptual import VGG19Features
from vsr.quality.lpips import LPIPS

__all__ = [
    "PIXEL_LOSSES",
    "AdversarialKind",
    "artefact_map",
    "charbonnier",
    "chroma_l1",
    "discriminator_loss",
    "feature_matching",
    "fft_l1",
    "generator_loss",
    "lattice_l1",
    "lpips_loss",
    "vgg_loss",
    "with_chroma_of",
]

AdversarialKind = Literal["vanilla", "relativistic"]


def charbonnier(out: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Compute a smooth L1 (Lai et al. 2017, LapSRN); epsilon in units of the images."""
    return ((out - target).square() + epsilon**2).sqrt().mean()


def fft_l1(out: Tensor, target: Tensor) -> Tensor:
    """Compute the L1 of the orthonormal Fourier coefficients, real and imaginary part (Cho et al. 2021, MIMO-UNet)."""
    difference = torch.fft.rfft2(out - target, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def lattice_l1(out: Tensor, target: Tensor, period: int = 4, num_periods: int = 3) -> Tensor:
    """Compute the L1 of the error's periodic part: the grid that a pixel shuffle can draw over an image.

    In windows of `num_periods` periods a side the mean error of each position within the period, less the window's
    mean. Errors that do not repeat average out, so that texture is not held back as it is by L1 of the pixels.

    Args:
        out, target: (N, C, H, W) images.
        period: in output pixels; the scale, or a multiple of it. Rows and columns beyond the last whole window are left
            out.
        num_periods: periods along a side of a window.
    """
    side = period * num_periods
    rows, columns = (length // side for length in out.shape[-2:])
    error = (out - target)[..., : rows * side, : columns * side]
    cells = error.reshape(*error.shape[:2], rows, num_periods, period, columns, num_periods, period)
    phases = cells.mean((3, 6))  # (N, C, rows, period, columns, period)
    return (phases - phases.mean((3, 5), keepdim=True)).abs().mean()


def chroma_l1(out: Tensor, target: Tensor) -> Tensor:
    """Compute the L1 of B'−Y' and R'−Y' (BT.601) of RGB images: what a discriminator must not paint with."""
    error = out - target
    luma = _luma(error)
    return torch.cat((error[:, 2:] - luma, error[:, :1] - luma), 1).abs().mean()


def with_chroma_of(target: Tensor, out: Tensor) -> Tensor:
    """Give an RGB image the colour differences of another, and its own luma; (N, 1, H, W) images stay as they are.

    What is judged so teaches nothing about colour, in which features and discriminators find texture that is not there.
    """
    return target + _luma(out - target) if out.shape[1] == 3 else out


def _luma(rgb: Tensor) -> Tensor:
    return (rgb * rgb.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "charbonnier": charbonnier,
    "mse": F.mse_loss,
    "chroma": chroma_l1,
    "fft": fft_l1,
    "lattice": lattice_l1,
}


def artefact_map(out: Tensor, average: Tensor, target: Tensor, window: int = 7) -> Tensor:
    """Locate a generator's artefacts: LDL (Liang et al. 2022, arXiv:2203.09195).

    The residual's local variance, scaled by the fifth root of its variance over the whole image, where the average is
    closer to the target than the output is; elsewhere 0. Returns (N, 1, H, W) without gradient.

    Args:
        out, target: (N, C, H, W) images.
        average: output of the generator's moving average, which is steadier.
        window: side in pixels of the neighbourhood for the local variance.
    """
    with torch.no_grad():
        residual = (target - out).abs().sum(1, keepdim=True)
        steady = (target - average).abs().sum(1, keepdim=True)
        overall = residual.var((1, 2, 3), keepdim=True) ** 0.2
        padded = F.pad(residual, [window // 2] * 4, mode="reflect")
        mean = F.avg_pool2d(padded, window, 1)
        local = (F.avg_pool2d(padded.square(), window, 1) - mean.square()).clamp_min(0)
        return torch.where(residual < steady, torch.zeros_like(local), overall * local)


def vgg_loss(features: VGG19Features, out: Tensor, target: Tensor) -> Tensor:
    """Compute the MSE of VGG19's block5_conv4 before its activation, features over 12.75 (SRGAN, Ledig et al. 2017)."""
    with torch.no_grad():
        wanted = features(target)
    return F.mse_loss(features(out), wanted) / 12.75**2


def lpips_loss(lpips: LPIPS, out: Tensor, target: Tensor) -> Tensor:
    """Compute LPIPS on SqueezeNet (Zhang et al. 2018, arXiv:1801.03924), times 0.15: about the size of `vgg_loss`."""
    distance: Tensor = lpips(out, target)
    return 0.15 * distance.mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Compute the mean L1 of a discriminator's activations, each relative to the real ones' mean (pix2pixHD, 2018)."""
    parts = [
        F.l1_loss(a.float(), b.detach().float()) / b.detach().float().abs().mean().clamp_min(1e-6)
        for a, b in zip(fake, real, strict=True)
    ]
    return torch.stack(parts).mean()


def generator_loss(kind: AdversarialKind, fake: Tensor, real: Tensor) -> Tensor:
    """Compute the generator's loss from the discriminator's logits.

    "vanilla": Goodfellow et al. 2014, non-saturating. "relativistic": the average form of Jolicoeur-Martineau 2018
    (arXiv:1807.00734), as ESRGAN uses it.
    """
    if kind == "vanilla":
        return _bce(fake, 1)
    return (_bce(fake - real.mean(), 1) + _bce(real - fake.mean(), 0)) / 2


def discriminator_loss(kind: AdversarialKind, fake: Tensor, real: Tensor) -> Tensor:
    """Compute the discriminator's loss; kinds as in `generator_loss`."""
    if kind == "vanilla":
        return (_bce(real, 1) + _bce(fake, 0)) / 2
    return (_bce(real - fake.mean(), 1) + _bce(fake - real.mean(), 0)) / 2


def _bce(logits: Tensor, wanted: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))
