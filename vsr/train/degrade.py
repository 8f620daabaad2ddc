"""How low-resolution training pictures are made from a sharp one."""

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
    """A low-resolution picture and the part of the sharp one that it shows.

    pixels: (3, h, w) uint8 RGB.
    top, left: where its part, of h·scale × w·scale pixels, begins in the sharp picture.
    """

    pixels: Tensor
    top: int = 0
    left: int = 0

    def target(self, high: Tensor, scale: int) -> Tensor:
        """The (3, h·scale, w·scale) part of the sharp (3, H, W) picture, as a view."""
        height, width = self.pixels.shape[1] * scale, self.pixels.shape[2] * scale
        return high[:, self.top : self.top + height, self.left : self.left + width]


class Degradation(Protocol):
    """From a sharp picture to low-resolution ones.

    is_random: whether another generator gives other pictures.
    num_frames: how many low-resolution pictures are made of a sharp one.
    """

    @property
    def is_random(self) -> bool: ...

    @property
    def num_frames(self) -> int: ...

    def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
        """high: (3, H, W) uint8 RGB, H and W multiples of scale and at least smallest·scale.

        No side of a low-resolution picture is below `smallest`. All randomness comes from `rng`.
        """
        ...


@dataclass(frozen=True, slots=True)
class StillDegradation:
    """One low-resolution picture, always the same: `reduce` of (3, H, W) uint8 and the scale."""

    reduce: Callable[[Tensor, int], Tensor]
    is_random: bool = False
    num_frames: int = 1

    def __call__(self, high: Tensor, scale: int, smallest: int, rng: np.random.Generator) -> list[LowFrame]:
        return [LowFrame(self.reduce(high, scale))]


@dataclass(frozen=True, slots=True)
class VideoDegradation:
    """What happens to a real video: blur, reduction, noise, and H.264 with all its frame types.

    The order is that of Real-ESRGAN (Wang et al. 2021) run once, with the video codec of RealBasicVSR
    (Chan et al. 2022) in the place of JPEG. The ranges are mild: a network that expects strong blur
    and noise oversharpens and smears the usual video, which is a clean reduction that was compressed.

    A still picture becomes a clip by a smooth pan in whole high-resolution pixels, so that every frame
    samples it at another phase and its target is exact. The first frame, which no frame predicts, is
    left out: most frames of a video are predicted ones.

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
        """(frames, 2): the top left corner of each frame in pixels of the sharp picture; the smallest is 0."""
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
        """(H, W, 3) float32: at each pixel the value of the low-resolution pixel whose cell begins there."""
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
        """(N, h, w, 3) float32 code values with the noise of a sensor, new in every frame."""
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


DEGRADATIONS: dict[str, Degradation] = {
    "bicubic": StillDegradation(reduce_bicubic),
    "gaussian": StillDegradation(gaussian),
    "video": VideoDegradation(),
}


def sensor_noise(
    frames: np.ndarray, sigma: float, signal_dependent: bool, channels: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the noise of a sensor for (N, h, w, 3) float32 code values, new in every frame.

    sigma: in code values; of white, where the noise is signal-dependent.
    channels: 1 for noise that is grey, 3 for noise of its own in each colour.
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
    """Make a Gaussian of two sigmas in pixels, the first in the direction `angle` (radians)."""
    radius = math.ceil(3 * max(along, across))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return _normalized(np.exp(-np.square(u / along) / 2 - np.square(v / across) / 2))


def reduction_taps(name: str, scale: int) -> np.ndarray:
    """Make one filter of an antialiased reduction by `scale`, about the middle of a cell of `scale` pixels."""
    radius, kernel = _KERNELS[name]
    num_taps = 2 * math.ceil(radius * scale - scale / 2) + scale
    distance = np.abs(np.arange(num_taps) - (num_taps - 1) / 2) / scale
    return _normalized(np.where(distance < radius, kernel(distance), 0.0))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2, MATLAB's bicubic."""
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
