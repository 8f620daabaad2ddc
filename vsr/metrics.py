"""Picture quality as pure tensor functions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["detail_ratio", "luma_bt601", "psnr_db", "ssim"]


def luma_bt601(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) RGB in 0..255 to (N, 1, H, W) float64 luma in 16..235, unrounded (BT.601).

    The conversion of MATLAB's `rgb2ycbcr`, on which the figures of super-resolution papers stand.
    """
    weight = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=rgb.device) / 255
    return (rgb.double() * weight[:, None, None]).sum(1, keepdim=True) + 16


def psnr_db(a: Tensor, b: Tensor, crop: int = 0, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB of two (..., H, W) pictures, `crop` pixels left out at each edge.

    Infinite for equal pictures. Raises ValueError where the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"pictures of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    if crop:
        a, b = a[..., crop:-crop, crop:-crop], b[..., crop:-crop, crop:-crop]
    mse = (a.double() - b.double()).square().mean().item()
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


def ssim(a: Tensor, b: Tensor, peak: float = 255.0) -> float:
    """Structural similarity of two (N, 1, H, W) pictures (Wang et al. 2004).

    11×11 Gaussian window of sigma 1.5, valid area only, K = 0.01 and 0.03.
    """
    if a.shape != b.shape:
        raise ValueError(f"pictures of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    x = torch.arange(11, dtype=torch.float64, device=a.device) - 5
    window = torch.exp(-x.square() / (2 * 1.5**2))
    window = window / window.sum()

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, window[None, None, :, None]), window[None, None, None, :])

    mean_a, mean_b = blur(a), blur(b)
    var_a = blur(a * a) - mean_a.square()
    var_b = blur(b * b) - mean_b.square()
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    score = score / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))
    return score.mean().item()


def detail_ratio(picture: Tensor, truth: Tensor) -> float:
    """Energy of the fine detail of a picture over that of the truth; both (..., H, W), one plane.

    Fine detail: spatial frequencies above half of Nyquist (a quarter of a cycle per pixel, in any direction),
    under a Hann window that keeps the picture's edges out of the spectrum. 1 is the sharpness of the truth,
    less is blur, more is noise or ringing. It says how much detail there is, not whether it is the right one.
    Raises ValueError where the shapes differ.
    """
    if picture.shape != truth.shape:
        raise ValueError(f"pictures of different shapes: {tuple(picture.shape)} and {tuple(truth.shape)}")
    return _fine_energy(picture) / _fine_energy(truth)


def _fine_energy(x: Tensor) -> float:
    x = x.double()
    windows, frequencies = zip(*(_window_and_frequencies(n, x.device) for n in x.shape[-2:]), strict=True)
    spectrum = torch.fft.fft2((x - x.mean((-2, -1), keepdim=True)) * torch.outer(*windows))
    is_fine = torch.hypot(frequencies[0][:, None], frequencies[1][None]) > 0.25
    return float(spectrum.abs().square()[..., is_fine].sum())


def _window_and_frequencies(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(length, periodic=False, dtype=torch.float64, device=device)
    return window, torch.fft.fftfreq(length, dtype=torch.float64, device=device)
