"""Measure image quality, frame by frame and over time, as functions of tensors."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

__all__ = [
    "SSIM_SIDE",
    "detail_ratio",
    "difference_psnr_db",
    "flow_distance",
    "luma_bt601",
    "optical_flow",
    "pooled_psnr_db",
    "psnr_db",
    "ssim",
]

SSIM_SIDE = 11  # pixels of SSIM's window
# levels 3 of scale 0.5, window 15, 3 iterations, neighbourhood 5, sigma 1.2: as in the evaluation of TecoGAN
_FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)


def luma_bt601(rgb: Tensor) -> Tensor:
    """Convert (N, 3, H, W) RGB in 0..255 to (N, 1, H, W) float64 luma in 16..235, unrounded (BT.601).

    This is the conversion of MATLAB's `rgb2ycbcr`, on which the figures of super-resolution papers are based.
    """
    red, green, blue = (rgb[:, channel : channel + 1].double() for channel in range(3))
    return red * (65.481 / 255) + green * (128.553 / 255) + blue * (24.966 / 255) + 16


def psnr_db(a: Tensor, b: Tensor, crop: int = 0, peak: float = 255.0) -> float:
    """Compute the peak signal-to-noise ratio of two images in dB; infinite for equal ones.

    Args:
        a, b: (..., H, W) images.
        crop: pixels at each edge that are left out.
        peak: largest value of a sample.

    Raises ValueError where the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    if crop:
        a, b = a[..., crop:-crop, crop:-crop], b[..., crop:-crop, crop:-crop]
    mse = (a.double() - b.double()).square().mean().item()
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


def ssim(a: Tensor, b: Tensor, peak: float = 255.0) -> float:
    """Compute the structural similarity of two images (Wang et al. 2004); at most 1.

    11×11 Gaussian window of sigma 1.5, valid area only, K = 0.01 and 0.03.

    Args:
        a, b: (N, 1, H, W) images.
        peak: largest value of a sample.

    Raises ValueError where the shapes differ or a side is below 11 pixels.
    """
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[-2:]) < SSIM_SIDE:
        raise ValueError(f"SSIM needs {SSIM_SIDE} pixels a side, not {a.shape[-1]}x{a.shape[-2]}")
    a, b = a.double(), b.double()
    mean_a, mean_b = _gaussian_means(a), _gaussian_means(b)
    var_a = _gaussian_means(a * a) - mean_a.square()
    var_b = _gaussian_means(b * b) - mean_b.square()
    cov = _gaussian_means(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    score = score / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))
    return score.mean().item()


def _gaussian_means(x: Tensor) -> Tensor:
    """Average float64 (N, 1, H, W) by SSIM's window over the valid area, by OpenCV, which is faster for doubles."""
    window = cv2.getGaussianKernel(SSIM_SIDE, 1.5)
    edge = SSIM_SIDE // 2
    planes = [cv2.sepFilter2D(plane[0].cpu().numpy(), cv2.CV_64F, window, window) for plane in x]
    return torch.from_numpy(np.stack(planes))[:, None, edge:-edge, edge:-edge].to(x.device)


def pooled_psnr_db(psnrs_db: list[float]) -> float:
    """Compute the PSNR in dB of the mean squared error over frames of one size: ffmpeg's `average`.

    It is never above the mean of the frames' PSNR, which papers give.

    Args:
        psnrs_db: each frame's PSNR in dB.
    """
    mean = sum(10 ** (-x / 10) for x in psnrs_db) / len(psnrs_db)
    return -10 * math.log10(mean) if mean else math.inf


# -- over time ---------------------------------------------------------------------------------------------------


def optical_flow(previous: Tensor, current: Tensor) -> Tensor:
    """Estimate the motion between two images in pixels, (H, W, 2) float32 as (x, y), by Farneback's method (2003).

    Both (1, 1, H, W), values in 0..255, which are rounded. Parameters as in TecoGAN's evaluation (Chu et al. 2020).
    """
    before, after = (x[0, 0].round().clamp(0, 255).to(torch.uint8).cpu().numpy() for x in (previous, current))
    return torch.from_numpy(cv2.calcOpticalFlowFarneback(before, after, None, *_FARNEBACK))  # type: ignore[call-overload]


def flow_distance(flow: Tensor, truth: Tensor) -> float:
    """Compute the tOF of Chu et al. 2020: the mean distance in pixels between two flows (H, W, 2), 0 for equal ones."""
    return (flow.double() - truth.double()).square().sum(-1).sqrt().mean().item()


def difference_psnr_db(images: tuple[Tensor, Tensor], truths: tuple[Tensor, Tensor], peak: float = 255.0) -> float:
    """Compute the PSNR in dB of the change between two consecutive images against the change of the truth.

    A constant error cancels out: only error that changes from frame to frame counts, which is seen as flicker.

    Args:
        images, truths: (before, after), (..., H, W) each.
        peak: largest value of a sample.
    """
    return psnr_db(images[1].double() - images[0].double(), truths[1].double() - truths[0].double(), peak=peak)


# -- detail --------------------------------------------------------------------------------------------------------


def detail_ratio(image: Tensor, truth: Tensor) -> float:
    """Compute the energy of an image's fine detail over that of the truth.

    Fine detail: spatial frequencies above half of Nyquist (a quarter of a cycle per pixel, in any direction), under a
    Hann window that keeps the image's edges out of the spectrum. 1 is the sharpness of the truth, less is blur, more is
    noise or ringing. It tells the amount of detail, not whether the detail is right.

    Args:
        image, truth: (..., H, W), one plane.

    Raises ValueError where the shapes differ.
    """
    if image.shape != truth.shape:
        raise ValueError(f"images of different shapes: {tuple(image.shape)} and {tuple(truth.shape)}")
    return _fine_energy(image) / _fine_energy(truth)


def _fine_energy(x: Tensor) -> float:
    x = x.double()
    windows, frequencies = zip(*(_window_and_frequencies(n, x.device) for n in x.shape[-2:]), strict=True)
    spectrum = torch.fft.fft2((x - x.mean((-2, -1), keepdim=True)) * torch.outer(*windows))
    is_fine = torch.hypot(frequencies[0][:, None], frequencies[1][None]) > 0.25
    return float(spectrum.abs().square()[..., is_fine].sum())


def _window_and_frequencies(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(length, periodic=False, dtype=torch.float64, device=device)
    return window, torch.fft.fftfreq(length, dtype=torch.float64, device=device)
