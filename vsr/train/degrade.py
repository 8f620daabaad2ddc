"""Make low-resolution training images from sharp ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.color.resample import reduce_bicubic
from vsr.color.resample import reduce_gaussian as gaussian
from vsr.train.codec import CODECS, X26X_PRESETS, CodecSettings, x264_rgb_round_trip

__all__ = [
    "DEGRADATIONS",
    "Degradation",
    "LowFrame",
    "VideoDegradation",
    "gaussian",
    "gaussian_kernel",
    "hwc_float",
    "reduction_taps",
    "sensor_noise",
]


class LowFrame(NamedTuple):
    """Hold a low-resolution image and the place of its target in the sharp one.

    Args:
        pixels: (3, h, w) uint8 RGB.
        top, left: first row and column of its target, of h·scale × w·scale pixels, in the sharp image.
    """

    pixels: Tensor
    top: int = 0
    left: int = 0

    def target(self, high: Tensor, scale: int) -> Tensor:
        """Cut the target, (3, h·scale, w·scale), out of the sharp image (3, H, W), as a view."""
        height, width = self.pixels.shape[1] * scale, self.pixels.shape[2] * scale
        return high[:, self.top : self.top + height, self.left : self.left + width]


class Degradation(Protocol):
    """Make low-resolution images from a sharp one.

    Args:
        is_random: True where another generator gives other images.
        num_frames: number of low-resolution images made of a sharp one.
    """

    @property
    def is_random(self) -> bool: ...

    @property
    def num_frames(self) -> int: ...

    def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
        """Degrade an image; all randomness comes from `rng`.

        Args:
            high: (3, H, W) uint8 RGB, H and W multiples of scale and at least smallest·scale.
            scale: sharp pixels per low-resolution pixel in each direction.
            smallest: least side of a low-resolution image in pixels.
            rng: the source of randomness.
        """
        ...


@dataclass(frozen=True, slots=True)
class StillDegradation:
    """Make one low-resolution image, always the same, by `reduce` of (3, H, W) uint8 and the scale."""

    reduce: Callable[[Tensor, int], Tensor]
    is_random: bool = False
    num_frames: int = 1

    def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
        return [LowFrame(self.reduce(high, scale))]


@dataclass(frozen=True, slots=True)
class VideoDegradation:
    """Imitate a real video: blur, reduction, noise, and H.264 with all its frame types.

    The order is that of Real-ESRGAN (Wang et al. 2021) run once, with the video codec of RealBasicVSR (Chan et al.
    2022) in the place of JPEG. The ranges are mild: a network that expects strong blur and noise oversharpens and
    smears the usual video, which is a clean reduction that was compressed.

    A still image becomes a clip by a smooth pan in whole high-resolution pixels, so that every frame samples it at
    another phase and its target is exact. The first frame, which no frame predicts, is left out: most frames of a video
    are predicted ones.

    Ranges are (lowest, highest), drawn uniformly; a choice is drawn by its weight.
    """

    num_encoded_frames: int = 8
    speed_lr_pixels_per_frame: tuple[float, float] = (0.0, 2.0)
    turn_degrees_per_frame: tuple[float, float] = (-15.0, 15.0)
    largest_travel_share_of_side: float = 0.125
    blur_probability: float = 0.25
    blur_sigma_lr_pixels: tuple[float, float] = (0.1, 0.4)
    anisotropic_probability: float = 0.5
    kernel_weights: tuple[tuple[str, float], ...] = (("cubic", 5), ("box", 1), ("triangle", 1), ("lanczos3", 1))
    noise_probability: float = 0.25
    noise_sigma_codes: tuple[float, float] = (0.5, 3.0)  # of 8 bit code values
    signal_dependent_probability: float = 0.5
    gray_noise_probability: float = 0.5
    crf: tuple[int, int] = (18, 32)
    presets: tuple[str, ...] = X26X_PRESETS
    gop_frames: tuple[int, ...] = (3, 5, 250, 250, 250, 250)
    b_frames: tuple[int, int] = (0, 3)

    @property
    def is_random(self) -> bool:
        return True

    @property
    def num_frames(self) -> int:
        return self.num_encoded_frames - 1

    def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
        height, width = high.shape[-2:]
        corners = self._path((height, width), scale, smallest, rng)
        filtered = self._filtered(hwc_float(high), scale, rng)
        rows = (height - int(corners[:, 0].max())) // scale
        columns = (width - int(corners[:, 1].max())) // scale
        frames = np.stack([filtered[y::scale, x::scale][:rows, :columns] for y, x in corners])
        frames = self._noisy(frames, rng)
        rgb = torch.from_numpy(frames).permute(0, 3, 1, 2).mul(1 / 255).clamp_(0, 1)
        low = x264_rgb_round_trip(rgb, self._encoder_options(rng))
        return [LowFrame(low[i].contiguous(), int(corners[i, 0]), int(corners[i, 1])) for i in range(1, len(low))]

    def _path(self, size: tuple[int, int], scale: int, smallest: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the top left corner of each frame, (frames, 2), in pixels of the sharp image; the smallest is 0."""
        speed = rng.uniform(*self.speed_lr_pixels_per_frame) * scale
        heading = math.radians(rng.uniform(0, 360))
        turn = math.radians(rng.uniform(*self.turn_degrees_per_frame))
        angles = heading + turn * np.arange(self.num_encoded_frames)
        path = np.cumsum(speed * np.stack((np.sin(angles), np.cos(angles)), 1), 0)
        path -= path.min(0)
        room = [min(side * self.largest_travel_share_of_side, side - smallest * scale) for side in size]
        path *= min(1.0, *(room / np.maximum(path.max(0), 1e-9)))
        return np.rint(path).astype(np.int64)

    def _filtered(self, high: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
        """Filter to (H, W, 3) float32: at each pixel, the low-resolution pixel whose cell begins there."""
        if rng.random() < self.blur_probability:
            low, highest = (sigma * scale for sigma in self.blur_sigma_lr_pixels)
            along = rng.uniform(low, highest)
            across = rng.uniform(low, highest) if rng.random() < self.anisotropic_probability else along
            kernel = gaussian_kernel(along, across, rng.uniform(0, math.pi))
            high = cv2.filter2D(high, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
        names, weights = zip(*self.kernel_weights, strict=True)
        taps = reduction_taps(str(rng.choice(names, p=np.array(weights) / sum(weights))), scale)
        anchor = (len(taps) - scale) // 2
        return cv2.sepFilter2D(high, cv2.CV_32F, taps, taps, anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)

    def _noisy(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add sensor noise, new in every frame, to (N, h, w, 3) float32 code values."""
        if rng.random() >= self.noise_probability:
            return frames
        sigma = rng.uniform(*self.noise_sigma_codes)
        signal_dependent = bool(rng.random() < self.signal_dependent_probability)
        channels = 1 if rng.random() < self.gray_noise_probability else 3
        return np.asarray(frames + sensor_noise(frames, sigma, signal_dependent, channels, rng))

    def _encoder_options(self, rng: np.random.Generator) -> dict[str, str]:
        gop_frames = int(rng.choice(self.gop_frames))
        b_frames = int(rng.integers(self.b_frames[0], self.b_frames[1], endpoint=True))
        crf = int(rng.integers(self.crf[0], self.crf[1], endpoint=True))
        return CODECS["h264"].options(CodecSettings(crf, gop_frames, b_frames, str(rng.choice(self.presets))))


@dataclass(frozen=True, slots=True)
class MixedDegradation:
    """Reduce some images bicubically and nothing more, and put the others through `degraded`.

    A network that saw clean images only makes a mesh of a codec's marks; one that saw none smears clean images.
    """

    clean_probability: float
    degraded: VideoDegradation = VideoDegradation()

    @property
    def is_random(self) -> bool:
        return True

    @property
    def num_frames(self) -> int:
        return self.degraded.num_frames

    def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
        if rng.random() < self.clean_probability:
            return [LowFrame(reduce_bicubic(high, scale))] * self.num_frames
        return self.degraded(high, scale, smallest, rng)


DEGRADATIONS: dict[str, Degradation] = {
    "bicubic": StillDegradation(reduce_bicubic),
    "gaussian": StillDegradation(gaussian),
    "video": VideoDegradation(),
    "mixed": MixedDegradation(clean_probability=0.4),
}


def sensor_noise(
    frames: np.ndarray, sigma: float, signal_dependent: bool, channels: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw sensor noise, new in every frame.

    Args:
        frames: (N, h, w, 3) float32 code values.
        sigma: in code values; at white, if the noise is signal-dependent.
        signal_dependent: lets the variance grow with the light.
        channels: 1 for grey noise, 3 for independent noise in each colour.
        rng: the source of randomness.
    """
    noise = rng.standard_normal((*frames.shape[:3], channels), np.float32) * np.float32(sigma)
    # Photons: the variance grows with the light.
    return np.asarray(noise * np.sqrt(frames.clip(0, 255) / 255) if signal_dependent else noise)


def hwc_float(image: Tensor) -> np.ndarray:
    """Turn a (3, H, W) image into (H, W, 3) float32 of the same values."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy(), dtype=np.float32)


def _normalized(kernel: np.ndarray) -> np.ndarray:
    return np.asarray(kernel / kernel.sum(), np.float32)


def gaussian_kernel(along: float, across: float, angle: float) -> np.ndarray:
    """Make a Gaussian kernel of two sigmas in pixels, the first in the direction `angle` (radians)."""
    radius = math.ceil(3 * max(along, across))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return _normalized(np.exp(-np.square(u / along) / 2 - np.square(v / across) / 2))


def reduction_taps(name: str, scale: int) -> np.ndarray:
    """Make the filter of an antialiased reduction by `scale`, about the middle of a cell of `scale` pixels."""
    radius, kernel = _KERNELS[name]
    num_taps = 2 * math.ceil(radius * scale - scale / 2) + scale
    distance = np.abs(np.arange(num_taps) - (num_taps - 1) / 2) / scale
    return _normalized(np.where(distance < radius, kernel(distance), 0.0))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate Keys' cubic with a = -1/2, MATLAB's bicubic."""
    near = (1.5 * x - 2.5) * x * x + 1
    return np.asarray(np.where(x <= 1, near, ((-0.5 * x + 2.5) * x - 4) * x + 2))


# Radius in low-resolution pixels, and the kernel of a distance in them. The box is the area average, the
# triangle antialiased bilinear.
_KERNELS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "box": (0.5, np.ones_like),
    "triangle": (1.0, lambda x: 1 - x),
    "cubic": (2.0, _cubic),
    "lanczos3": (3.0, lambda x: np.sinc(x) * np.sinc(x / 3)),
}
