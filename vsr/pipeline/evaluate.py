"""How good finished pictures are, on the protocols of stills and of Vid4: for training, shipping and benchmarks.

Everything is measured on 8 bit RGB pictures as a user would get them. Low resolution is MATLAB's antialiased
bicubic reduction in 8 bit (BI). Pictures are read one by one, so memory does not grow with a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from vsr.errors import OptionError
from vsr.media.pictures import find_images, read_rgb
from vsr.media.resample import imresize, mod_crop, reduce_bicubic
from vsr.metrics import detail_ratio, luma_bt601, psnr_db
from vsr.pipeline.upscaler import Upscaler

__all__ = [
    "Measure",
    "StillsBenchmark",
    "Upscale",
    "check_vid4_gate",
    "luma_detail",
    "luma_psnr_db",
    "measure_pictures",
    "upscale_bicubic",
    "upscale_with",
    "vid4_bi",
]

Upscale = Callable[[Tensor], Tensor]  # (3, H, W) uint8 RGB to (3, H·scale, W·scale) uint8 RGB
Measure = Callable[[Tensor, Tensor], float]  # finished picture and truth, both (1, 3, H, W) uint8 RGB

# PSNR in dB of bicubic upscaling, which every correct measuring reproduces.
_STILLS_GATES = {
    ("Set5", 4): 28.42,
    ("Set14", 4): 26.09,
    ("BSD100", 4): 25.96,
    ("Set5", 2): 33.68,
    ("Set14", 2): 30.33,
    ("BSD100", 2): 29.56,
}
_STILLS_TOLERANCE_DB = 0.05
_VID4_GATES = {4: {"calendar": 20.39, "city": 25.16, "foliage": 23.47, "walk": 26.10}}
_VID4_TOLERANCE_DB = 0.02


# -- ways up, and measures of the result ---------------------------------------------------------------------


def upscale_bicubic(scale: int) -> Upscale:
    """Bicubic upscaling, against which the measuring itself is checked."""
    return lambda low: imresize(low[None], (low.shape[-2] * scale, low.shape[-1] * scale))[0]


def upscale_with(upscaler: Upscaler) -> Upscale:
    """A model as it upscales a user's picture."""
    return lambda low: torch.from_numpy(upscaler.upscale_image(low.permute(1, 2, 0).numpy())).permute(2, 0, 1)


def luma_psnr_db(picture: Tensor, truth: Tensor) -> float:
    """PSNR of the BT.601 luma in dB; a `Measure`."""
    return psnr_db(luma_bt601(picture), luma_bt601(truth))


def luma_detail(picture: Tensor, truth: Tensor) -> float:
    """`detail_ratio` of the BT.601 luma; a `Measure`."""
    return detail_ratio(luma_bt601(picture), luma_bt601(truth))


def measure_pictures(
    paths: list[Path], scale: int, upscale: Upscale, measures: Mapping[str, Measure], crop: int = 0
) -> dict[str, float]:
    """The mean of each measure over pictures that are reduced, upscaled again and cropped by `crop` at each edge."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for path in paths:
        high = mod_crop(read_rgb(path), scale)
        picture, truth = (_without_edge(p, crop)[None] for p in (upscale(reduce_bicubic(high, scale)), high))
        for name, measure in measures.items():
            values[name].append(measure(picture, truth))
    return {name: fmean(parts) for name, parts in values.items()}


def _without_edge(image: Tensor, crop: int) -> Tensor:
    return image[..., crop : image.shape[-2] - crop, crop : image.shape[-1] - crop]


# -- protocols -----------------------------------------------------------------------------------------------


class StillsBenchmark:
    """Luma PSNR on sets of pictures (folders below one), `scale` pixels left out at each edge.

    Names of sets that are not there are passed over.
    """

    def __init__(self, folder: Path, scale: int, names: tuple[str, ...] = ("Set5", "Set14")) -> None:
        self.scale = scale
        self.sets = {name: find_images(folder / name) for name in names if (folder / name).is_dir()}

    def measure(self, name: str, upscale: Upscale, measures: Mapping[str, Measure]) -> dict[str, float]:
        """Means over one of the sets, by measure."""
        return measure_pictures(self.sets[name], self.scale, upscale, measures, crop=self.scale)

    def score(self, upscaler: Upscaler) -> dict[str, float]:
        """Mean PSNR of a model in dB, by set."""
        return self._psnr(upscale_with(upscaler))

    def bicubic_gate(self) -> str:
        """The figures of bicubic upscaling. Raises OptionError where they are not the published ones."""
        means = self._psnr(upscale_bicubic(self.scale))
        for name, mean in means.items():
            _check(name, mean, _STILLS_GATES.get((name, self.scale)), _STILLS_TOLERANCE_DB)
        return "  ".join(f"{name} {mean:.2f}" for name, mean in means.items())

    def _psnr(self, upscale: Upscale) -> dict[str, float]:
        return {name: self.measure(name, upscale, {"psnr": luma_psnr_db})["psnr"] for name in self.sets}


def vid4_bi(folder: Path, scale: int, upscale: Upscale) -> dict[str, float]:
    """Vid4 BI: luma PSNR in dB by clip, the mean over all frames, no crop. Vid4's figure is the mean of the clips'."""
    clips = sorted(path for path in folder.iterdir() if path.is_dir())
    measures = {"psnr": luma_psnr_db}
    return {clip.name: measure_pictures(find_images(clip), scale, upscale, measures)["psnr"] for clip in clips}


def check_vid4_gate(means: Mapping[str, float], scale: int) -> None:
    """Raise OptionError where the figures of bicubic upscaling are not the published ones."""
    for clip, gate in _VID4_GATES.get(scale, {}).items():
        _check(clip, means[clip], gate, _VID4_TOLERANCE_DB)


def _check(name: str, mean: float, gate: float | None, tolerance: float) -> None:
    if gate is not None and abs(mean - gate) > tolerance:
        raise OptionError(f"{name}: bicubic scores {mean:.2f} dB and not {gate:.2f}: these are other pictures")
