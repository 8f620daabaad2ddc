"""Compute all measures of a frame, those over time from the frame before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vsr.errors import InputError
from vsr.quality.frames import Image
from vsr.quality.lpips import load_lpips
from vsr.quality.metrics import SSIM_SIDE, difference_psnr_db, flow_distance, optical_flow, psnr_db, ssim

__all__ = ["METRICS", "Lpips", "Meter", "Metric", "lpips_from"]

Lpips = Callable[[Tensor, Tensor], float]
_LPIPS_SIDE = 17


@dataclass(frozen=True, slots=True)
class Metric:
    """Describe a measure.

    Args:
        key: its name in files.
        label: its name for people, with its unit.
        better: "higher" or "lower".
        digits: decimals in tables.
        meaning: an explanation of one line.
    """

    key: str
    label: str
    better: Literal["higher", "lower"]
    digits: int
    meaning: str


METRICS = (
    Metric("luma_psnr_db", "luma PSNR (dB)", "higher", 2, "of the luma; error against the truth, in dB"),
    Metric("rgb_psnr_db", "RGB PSNR (dB)", "higher", 2, "of the three channels, one mean squared error"),
    Metric("ssim", "SSIM", "higher", 4, "of the luma; 11×11 Gaussian of sigma 1.5, valid area (Wang et al. 2004)"),
    Metric("lpips", "LPIPS", "lower", 4, "v0.1 on SqueezeNet (Zhang et al. 2018); compares rows with one another only"),
    Metric(
        "tof_pixels",
        "tOF (px)",
        "lower",
        3,
        "distance between the motion in the output and in the truth, from frame to frame: Farneback's optical flow "
        "with TecoGAN's parameters (Chu et al. 2020), in pixels and not times ten",
    ),
    Metric(
        "difference_psnr_db",
        "difference PSNR (dB)",
        "higher",
        2,
        "of the luma's change from frame to frame: error that changes is seen as flicker",
    ),
)


def lpips_from(path: Path) -> Lpips:
    """Make the LPIPS of two (1, 3, H, W) images in 0..255, by weights from a file (`vsr.quality.lpips.load_lpips`)."""
    net = load_lpips(path)

    @torch.inference_mode()
    def distance(image: Tensor, truth: Tensor) -> float:
        return float(net(image.float() / 255, truth.float() / 255))

    return distance


@dataclass(slots=True)
class _Past:
    """Keep the luma of the frame before and the motion since then."""

    luma: Tensor | None = None
    flow: Tensor | None = None
    before: Tensor | None = None

    def push(self, image: Image) -> None:
        self.before, self.luma = self.luma, image.luma
        if self.before is not None:
            scale = 255.0 / image.peak
            self.flow = optical_flow(self.before * scale, self.luma * scale)


@dataclass(slots=True)
class Meter:
    """Measure outputs against the truth through one clip, frame after frame; keeps the last frame of each.

    Args:
        is_moving: True where frames follow one another, so that measures over time make sense.
    """

    is_moving: bool
    lpips: Lpips | None = None
    _truth: _Past = field(default_factory=_Past)
    _outputs: dict[str, _Past] = field(default_factory=dict)

    def measure(self, name: str, truth: Image, outputs: Iterable[tuple[str, Image]]) -> Mapping[str, dict[str, float]]:
        """Compute the measures of each output by its name; those over time from the second frame on.

        Raises InputError, which names the frame, where it is too small or its size differs from those before.
        """
        self._check(name, truth)
        if self.is_moving:
            self._truth.push(truth)
        return {output: self._values(output, image, truth) for output, image in outputs}

    def _values(self, output: str, image: Image, truth: Image) -> dict[str, float]:
        values = {
            "luma_psnr_db": psnr_db(image.luma, truth.luma, peak=truth.peak),
            "rgb_psnr_db": psnr_db(image.rgb, truth.rgb),
            "ssim": ssim(image.luma, truth.luma, peak=truth.peak),
        }
        if self.lpips is not None:
            values["lpips"] = self.lpips(image.rgb, truth.rgb)
        if self.is_moving:
            values |= self._over_time(output, image, truth.peak)
        return values

    def _over_time(self, output: str, image: Image, peak: float) -> dict[str, float]:
        past, truth = self._outputs.setdefault(output, _Past()), self._truth
        past.push(image)
        if past.before is None or past.luma is None or past.flow is None:
            return {}
        if truth.before is None or truth.luma is None or truth.flow is None:
            return {}
        return {
            "tof_pixels": flow_distance(past.flow, truth.flow),
            "difference_psnr_db": difference_psnr_db((past.before, past.luma), (truth.before, truth.luma), peak),
        }

    def _check(self, name: str, truth: Image) -> None:
        least = SSIM_SIDE if self.lpips is None else _LPIPS_SIDE
        width, height = truth.size
        if min(width, height) < least:
            raise InputError(f"{name}: {width}x{height} pixels count, which is too small: {least} a side are needed")
        before = self._truth.luma
        if before is not None and before.shape != truth.luma.shape:
            raise InputError(
                f"{name}: {width}x{height} pixels count, but {before.shape[-1]}x{before.shape[-2]} of the frame before"
            )
