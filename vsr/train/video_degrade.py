"""Make low-resolution clips from sharp ones, frame for frame and without a shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.color import conversion as convert
from vsr.color.resample import imresize, reduce_gaussian, resample
from vsr.frames import ChromaLocation, FrameBatch
from vsr.train.codec import (
    CODECS,
    SD_COLOR,
    X26X_PRESETS,
    CodecSettings,
    available_codecs,
    clip_of_planes,
    round_trip,
    yuv420_of_rgb,
)
from vsr.train.degrade import gaussian_kernel, hwc_float, reduction_taps, sensor_noise
from vsr.train.interlace import TRACES, traced

__all__ = [
    "CLIP_DEGRADATIONS",
    "ClipDegradation",
    "CodecChoice",
    "CodecDegradation",
    "LowClip",
    "bicubic_clip",
    "gaussian_clip",
    "planes_of_rgb",
]


T = TypeVar("T")


class LowClip(NamedTuple):
    """Hold a low-resolution clip as a decoder gives it: 8 bit 4:2:0, BT.601, limited range, left-sited chroma.

    Args:
        luma: (T, h, w) uint8.
        chroma: (T, 2, ceil(h/2), ceil(w/2)) uint8, Cb and Cr.
    """

    luma: Tensor
    chroma: Tensor


class ClipDegradation(Protocol):
    """Make a low-resolution clip of a sharp one, with as many frames, none of them shifted."""

    def __call__(self, high: Tensor, scale: int, rng: np.random.Generator) -> LowClip:
        """Degrade a clip; all randomness comes from `rng`.

        Args:
            high: (T, 3, H, W) uint8 RGB, H and W multiples of `scale`.
            scale: low-resolution sides are H / scale and W / scale.
        """
        ...


def bicubic_clip(high: Tensor, scale: int, rng: np.random.Generator | None = None) -> LowClip:
    """Reduce as MATLAB's `imresize` does, to uint8 RGB, and convert that to planes."""
    height, width = high.shape[-2:]
    return planes_of_rgb(imresize(high, (height // scale, width // scale)))


def gaussian_clip(high: Tensor, scale: int, rng: np.random.Generator | None = None) -> LowClip:
    """Reduce as BD does, to uint8 RGB, and convert that to planes."""
    return planes_of_rgb(torch.stack([reduce_gaussian(frame, scale) for frame in high]))


@dataclass(frozen=True, slots=True)
class CodecChoice:
    """Describe the probability and the settings of a codec.

    Args:
        weight: relative to the weights of the other codecs.
        quality: lowest and highest `CodecSettings.quality`; the likeliest lies a third above the lowest.
        presets: drawn uniformly.
        b_frames: the fewest and the most in a row.
        gop_frames: drawn uniformly.
    """

    weight: float
    quality: tuple[int, int]
    presets: tuple[str, ...] = ("",)
    b_frames: tuple[int, int] = (0, 0)
    gop_frames: tuple[int, ...] = (250,)

    def drawn(self, rng: np.random.Generator) -> CodecSettings:
        """Draw settings of the encoder."""
        return CodecSettings(
            quality=_drawn_quality(*self.quality, rng),
            gop_frames=int(rng.choice(self.gop_frames)),
            b_frames=int(rng.integers(*self.b_frames, endpoint=True)),
            preset=str(rng.choice(self.presets)),
        )


_LONG_GOPS = (12, 250, 250, 250)
_DISC_GOPS = (12, 15)  # DVD and television
_MPEG_PRESETS = ("plain", "plain", "rd")
# The usual weighs most: files of x264, phones, and video of web sites.
_CODEC_CHOICES: tuple[tuple[str, CodecChoice], ...] = (
    ("h264", CodecChoice(40, (18, 36), X26X_PRESETS, (0, 3), _LONG_GOPS)),
    ("vp9", CodecChoice(14, (20, 50), ("good-2", "good-4", "realtime-7"), gop_frames=_LONG_GOPS)),
    ("hevc", CodecChoice(10, (18, 36), X26X_PRESETS, (0, 4), _LONG_GOPS)),
    ("mpeg4", CodecChoice(10, (2, 14), _MPEG_PRESETS, (0, 2), _LONG_GOPS)),
    ("mpeg2", CodecChoice(8, (2, 12), _MPEG_PRESETS, (0, 2), _DISC_GOPS)),
    ("vp8", CodecChoice(6, (8, 54), ("good-2", "good-4", "realtime-8"), gop_frames=_LONG_GOPS)),
    ("av1", CodecChoice(5, (20, 45), ("8", "10"), gop_frames=_LONG_GOPS)),
    ("mjpeg", CodecChoice(4, (2, 12))),
    ("h263", CodecChoice(3, (2, 18), _MPEG_PRESETS, gop_frames=_LONG_GOPS)),
    ("flv1", CodecChoice(2, (2, 16), _MPEG_PRESETS, gop_frames=_LONG_GOPS)),
    ("dv", CodecChoice(1, (1, 1))),
)


@dataclass(frozen=True, slots=True)
class CodecDegradation:
    """Imitate a real video's way from the lens to the file: optics, noise, sharpening, one encoder or two.

    The order is that of RealBasicVSR (Chan et al. 2022): blur, reduction, noise, encoding, and the last two again for
    some clips. The ranges are mild and each step is left out for most clips: a network that expects strong blur and
    noise smears the usual video, which is a clean reduction that was compressed. Codecs that PyAV lacks
    (`missing_codecs`) are never chosen.

    Ranges are (lowest, highest), drawn uniformly; a choice is drawn by its weight. Pixels are those of the encoded
    frames, code values those of 8 bit RGB.

    Args:
        clean_probability: share of clips that equal those of `bicubic_clip`.
        first_size_factor: sides of a first generation, over those of the low-resolution clip.
        lead_in_frames: frames of the clip, mirrored in time, put before its start, encoded with it and then left out,
            so that not all clips begin with a key frame.
    """

    codecs: tuple[tuple[str, CodecChoice], ...] = _CODEC_CHOICES
    clean_probability: float = 0.35
    second_generation_probability: float = 0.1
    first_size_factor: tuple[float, float] = (0.9, 1.5)
    lead_in_frames: tuple[int, int] = (0, 8)
    blur_probability: float = 0.12
    blur_sigma_pixels: tuple[float, float] = (0.1, 0.35)
    anisotropic_probability: float = 0.5
    kernel_weights: tuple[tuple[str, float], ...] = (("cubic", 5), ("box", 1), ("triangle", 1), ("lanczos3", 1))
    sharpen_probability: float = 0.12
    sharpen_amount: tuple[float, float] = (0.1, 0.9)
    sharpen_sigma_pixels: tuple[float, float] = (0.5, 1.2)
    noise_probability: float = 0.15
    noise_sigma_codes: tuple[float, float] = (0.5, 4.0)
    signal_dependent_probability: float = 0.5
    gray_noise_probability: float = 0.5
    noise_grain_pixels: tuple[float, float] = (0.0, 0.6)  # sigma of its blur, by demosaicing and denoising
    interlace_probability: float = 0.04
    interlace_weights: tuple[tuple[str, float], ...] = tuple(zip(TRACES, (2, 1, 2, 3), strict=True))
    siting_weights: tuple[tuple[ChromaLocation, float], ...] = (
        (ChromaLocation.LEFT, 16),
        (ChromaLocation.CENTER, 3),
        (ChromaLocation.TOPLEFT, 1),
    )

    def __call__(self, high: Tensor, scale: int, rng: np.random.Generator) -> LowClip:
        """Degrade a clip as `ClipDegradation` says."""
        if rng.random() < self.clean_probability:
            return bicubic_clip(high, scale)
        size = (high.shape[2] // scale, high.shape[3] // scale)
        second = rng.random() < self.second_generation_probability
        first_size = size
        if second:
            factor = rng.uniform(*self.first_size_factor)
            first_size = (max(round(size[0] * factor), 8), max(round(size[1] * factor), 8))
        frames = self._camera(self._reduced(high, scale, first_size, rng), rng)
        siting = _drawn(self.siting_weights, rng)
        clip = yuv420_of_rgb(torch.from_numpy(frames).permute(0, 3, 1, 2).mul(1 / 255).clamp_(0, 1), siting)
        clip = self._encoded(clip, rng)
        if second:
            clip = self._encoded(_resized(clip, size), rng)
        return LowClip(clip.planes[0][:, 0], clip.planes[1])

    def _reduced(self, high: Tensor, scale: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Reduce to (T, h, w, 3) float32 code values, blurred for some clips."""
        blur = self._blur(high.shape[2] / size[0], rng)
        taps = reduction_taps(_drawn(self.kernel_weights, rng), scale)
        frames = np.stack([hwc_float(frame) for frame in high])
        if blur is not None:
            frames = np.stack([cv2.filter2D(f, cv2.CV_32F, blur, borderType=cv2.BORDER_REFLECT) for f in frames])
        if (size[0] * scale, size[1] * scale) != high.shape[2:]:
            low = resample(torch.from_numpy(frames).permute(0, 3, 1, 2), size)
            return np.ascontiguousarray(low.permute(0, 2, 3, 1).numpy())
        anchor = (len(taps) - scale) // 2
        filtered = (
            cv2.sepFilter2D(f, cv2.CV_32F, taps, taps, anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)
            for f in frames
        )
        return np.stack([f[::scale, ::scale] for f in filtered])

    def _blur(self, sharp_pixels_per_pixel: float, rng: np.random.Generator) -> np.ndarray | None:
        """Draw the kernel of the optics in the sharp frame, or None."""
        if rng.random() >= self.blur_probability:
            return None
        low, highest = (sigma * sharp_pixels_per_pixel for sigma in self.blur_sigma_pixels)
        along = rng.uniform(low, highest)
        across = rng.uniform(low, highest) if rng.random() < self.anisotropic_probability else along
        return gaussian_kernel(along, across, rng.uniform(0, math.pi))

    def _camera(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Sharpen, interlace and add noise to (T, h, w, 3) float32 code values, each for some clips."""
        if rng.random() < self.sharpen_probability:
            amount, sigma = rng.uniform(*self.sharpen_amount), rng.uniform(*self.sharpen_sigma_pixels)
            frames = frames + np.float32(amount) * (frames - _blurred(frames, sigma))
        if rng.random() < self.interlace_probability:  # before the noise, which would look like motion
            frames = traced(frames, _drawn(self.interlace_weights, rng), int(rng.integers(5)))
        if rng.random() < self.noise_probability:
            frames = frames + self._noise(frames, rng)
        return frames

    def _noise(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        sigma = rng.uniform(*self.noise_sigma_codes)
        signal_dependent = bool(rng.random() < self.signal_dependent_probability)
        channels = 1 if rng.random() < self.gray_noise_probability else 3
        noise = sensor_noise(frames, sigma, signal_dependent, channels, rng)
        grain = rng.uniform(*self.noise_grain_pixels)
        return noise if grain < 0.2 else _blurred(noise, grain)

    def _encoded(self, clip: FrameBatch, rng: np.random.Generator) -> FrameBatch:
        """Encode and decode a clip, with frames before its start that are left out again."""
        size, names = (clip.height, clip.width), available_codecs()
        usable = [(name, choice) for name, choice in self.codecs if name in names and CODECS[name].fits(*size)]
        name = _drawn(tuple((name, choice.weight) for name, choice in usable), rng)
        settings = dict(usable)[name].drawn(rng)
        num_before = int(rng.integers(*self.lead_in_frames, endpoint=True))
        before = _mirrored(num_before, clip.num_frames)
        longer = clip_of_planes(*(torch.cat((plane[before], plane)) for plane in clip.planes))
        coded = round_trip(longer, CODECS[name], CODECS[name].options(settings))
        return clip_of_planes(*(plane[num_before:] for plane in coded.planes))


CLIP_DEGRADATIONS: dict[str, ClipDegradation] = {
    "bicubic": bicubic_clip,
    "gaussian": gaussian_clip,
    "codecs": CodecDegradation(),
}


def planes_of_rgb(rgb: Tensor) -> LowClip:
    """Convert (T, 3, H, W) uint8 RGB, H and W even, to planes."""
    luma, chroma = yuv420_of_rgb(rgb.float().mul_(1 / 255)).planes
    return LowClip(luma[:, 0], chroma)


def _drawn(weights: tuple[tuple[T, float], ...], rng: np.random.Generator) -> T:
    """Draw a choice by its weight."""
    shares = np.array([weight for _, weight in weights])
    return weights[int(rng.choice(len(weights), p=shares / shares.sum()))][0]


def _drawn_quality(lowest: int, highest: int, rng: np.random.Generator) -> int:
    mode = lowest + (highest - lowest) / 3
    # Half a step more on both sides, so that the ends are drawn too.
    return min(max(round(rng.triangular(lowest - 0.5, mode, highest + 0.5)), lowest), highest)


def _mirrored(num_before: int, num_frames: int) -> Tensor:
    """List the frames before the first of a clip that is mirrored in time, the earliest first."""
    if num_frames == 1:
        return torch.zeros(num_before, dtype=torch.int64)
    index = torch.arange(num_before, 0, -1) % (2 * num_frames - 2)
    return torch.where(index < num_frames, index, 2 * num_frames - 2 - index)


def _blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (T, h, w, c) float32 by a Gaussian of a sigma in pixels."""
    blurred = [cv2.GaussianBlur(frame, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for frame in frames]
    return np.stack(blurred).reshape(frames.shape)


def _resized(clip: FrameBatch, size: tuple[int, int]) -> FrameBatch:
    """Resize a clip's planes to a luma size (height, width)."""
    luma, chroma = clip.planes
    scale = (size[0] / clip.height, size[1] / clip.width)
    subsampled = (SD_COLOR, (1, 1))
    planes = (
        resample(luma.float(), size),
        convert.resize_chroma(chroma.float(), subsampled, subsampled, scale, size),
    )
    rounded = (plane.add_(0.5).clamp_(0, 255.5).to(torch.uint8) for plane in planes)
    return clip_of_planes(*rounded)
