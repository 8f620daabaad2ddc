"""Measure models by the protocols of stills and of Vid4: for training, shipping and benchmarks.

Everything is measured on 8 bit RGB images as a user would get them. Low resolution is MATLAB's antialiased bicubic
reduction in 8 bit (BI), or for clips a Gaussian and every scale-th pixel (BD). Images are read one by one, so memory
does not grow with a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from vsr.color.pixel_formats import FORMATS
from vsr.color.resample import imresize, mod_crop, reduce_bicubic, reduce_gaussian
from vsr.errors import OptionError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.media.images import find_images, read_rgb
from vsr.pipeline.color_path import Target
from vsr.pipeline.processor import make_processor
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.metrics import detail_ratio, luma_bt601, psnr_db

__all__ = [
    "Degradation",
    "Measure",
    "Protocol",
    "StillsBenchmark",
    "Upscale",
    "UpscaleFrames",
    "check_gate",
    "check_vid4_gate",
    "clip_protocol",
    "luma_detail",
    "luma_psnr_db",
    "measure_clip",
    "measure_images",
    "stills_protocol",
    "upscale_bicubic",
    "upscale_each",
    "upscale_frames_with",
    "upscale_with",
    "vid4_psnr",
    "without_edge",
]

Upscale = Callable[[Tensor], Tensor]  # (3, H, W) uint8 RGB to (3, H·scale, W·scale) uint8 RGB
UpscaleFrames = Callable[[Iterable[Tensor]], Iterator[Tensor]]  # the frames of a clip in order, each as for `Upscale`
Measure = Callable[[Tensor, Tensor], float]  # finished image and truth, both (1, 3, H, W) uint8 RGB
Degradation = Literal["bi", "bd"]

# PSNR in dB of bicubic upscaling and its tolerance, which every correct measuring reproduces: by degradation and
# scale, then by set, clip of a set, and the mean of the set's clips.
_GATES: dict[tuple[Degradation, int], dict[str, tuple[float, float]]] = {
    ("bi", 4): {
        "Set5": (28.42, 0.05),
        "Set14": (26.09, 0.05),  # its grey image as RGB; papers' 26.00 is of grey
        "BSD100": (25.96, 0.05),
        "Vid4/calendar": (20.39, 0.02),
        "Vid4/city": (25.16, 0.02),
        "Vid4/foliage": (23.47, 0.02),
        "Vid4/walk": (26.10, 0.02),
        "Vid4": (23.78, 0.02),
    },
    ("bi", 2): {"Set5": (33.68, 0.05), "Set14": (30.33, 0.05), "BSD100": (29.56, 0.05)},
    ("bd", 4): {"Vid4": (21.80, 0.1)},
}


# -- ways up, and measures of the result ---------------------------------------------------------------------


def upscale_bicubic(scale: int) -> Upscale:
    """Make a function that upscales bicubically; its published figures check the measuring itself."""
    return lambda low: imresize(low[None], (low.shape[-2] * scale, low.shape[-1] * scale))[0]


def upscale_with(upscaler: Upscaler) -> Upscale:
    """Make a function that upscales images by a model, as a user would."""
    return lambda low: torch.from_numpy(upscaler.upscale_image(low.permute(1, 2, 0).numpy())).permute(2, 0, 1)


def upscale_each(upscale: Upscale) -> UpscaleFrames:
    """Upscale the frames of a clip one by one."""
    return lambda frames: map(upscale, frames)


def upscale_frames_with(upscaler: Upscaler) -> UpscaleFrames:
    """Upscale the frames of a clip as a job does, also by a model that sees several of them.

    A frame of another size begins another clip.
    """

    def upscale(frames: Iterable[Tensor]) -> Iterator[Tensor]:
        for shape, run in groupby(frames, lambda frame: frame.shape[-2:]):
            height, width = (side * upscaler.card.scale for side in shape)
            processor = make_processor(upscaler, Target(width, height, FORMATS["gbrp"], _SRGB))
            for number, frame in enumerate(run):
                batch = FrameBatch((frame[None],), (number,), (1,), Fraction(1, 25), _SRGB)
                for result in processor.push(batch):
                    yield from result().planes[0]
            for result in processor.flush():
                yield from result().planes[0]

    return upscale


_SRGB = Color(Matrix.RGB, Primaries.BT709, Transfer.SRGB, Range.FULL, ChromaLocation.LEFT, 8)


def luma_psnr_db(image: Tensor, truth: Tensor) -> float:
    """Compute the PSNR of the BT.601 luma in dB; a `Measure`."""
    return psnr_db(luma_bt601(image), luma_bt601(truth))


def luma_detail(image: Tensor, truth: Tensor) -> float:
    """Compute the `detail_ratio` of the BT.601 luma; a `Measure`."""
    return detail_ratio(luma_bt601(image), luma_bt601(truth))


# -- protocols -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Protocol:
    """Describe the reduction of images and the part of the upscaled ones that counts.

    Args:
        scale: truth pixels per low-resolution pixel in each direction.
        degradation: "bi" or "bd".
        crop: pixels at each edge of the upscaled image that are left out.
    """

    scale: int
    degradation: Degradation
    crop: int

    def reduce(self, truth: Tensor) -> Tensor:
        """Reduce (3, H, W) uint8 RGB, sides multiples of the scale, to (3, H / scale, W / scale) uint8."""
        return (reduce_bicubic if self.degradation == "bi" else reduce_gaussian)(truth, self.scale)


def stills_protocol(scale: int) -> Protocol:
    """Return the protocol of Set5, Set14 and BSD100: BI, `scale` pixels left out at each edge."""
    return Protocol(scale, "bi", crop=scale)


def clip_protocol(scale: int, degradation: Degradation) -> Protocol:
    """Return the protocol of Vid4: whole frames under BI, without 8 pixels at each edge under BD."""
    return Protocol(scale, degradation, crop=0 if degradation == "bi" else 8)


def without_edge(image: Tensor, crop: int) -> Tensor:
    """Crop `crop` pixels at each edge of (..., H, W), as a view."""
    return image[..., crop : image.shape[-2] - crop, crop : image.shape[-1] - crop]


def measure_images(
    paths: list[Path], protocol: Protocol, upscale: Upscale, measures: Mapping[str, Measure]
) -> dict[str, float]:
    """Reduce images and upscale them again; return the mean of each measure over them."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for path in paths:
        high = mod_crop(read_rgb(path), protocol.scale)
        low = protocol.reduce(high)
        image, truth = (without_edge(p, protocol.crop)[None] for p in (upscale(low), high))
        for name, measure in measures.items():
            values[name].append(measure(image, truth))
    return {name: fmean(parts) for name, parts in values.items()}


def measure_clip(
    paths: list[Path], protocol: Protocol, upscale: UpscaleFrames, measures: Mapping[str, Measure]
) -> dict[str, float]:
    """Reduce the frames of a clip and upscale them again, in order; return the mean of each measure over them."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    sharp = (mod_crop(read_rgb(path), protocol.scale) for path in paths)
    reduced = (protocol.reduce(mod_crop(read_rgb(path), protocol.scale)) for path in paths)
    for pair in zip(upscale(reduced), sharp, strict=True):
        frame, truth = (without_edge(image, protocol.crop)[None] for image in pair)
        for name, measure in measures.items():
            values[name].append(measure(frame, truth))
    return {name: fmean(parts) for name, parts in values.items()}


class StillsBenchmark:
    """Measure luma PSNR on sets of images, folders below `folder`; `scale` pixels are left out at each edge.

    Sets that are missing are passed over.
    """

    def __init__(self, folder: Path, scale: int, names: tuple[str, ...] = ("Set5", "Set14")) -> None:
        self.protocol = stills_protocol(scale)
        self.sets = {name: find_images(folder / name) for name in names if (folder / name).is_dir()}

    def measure(self, name: str, upscale: Upscale, measures: Mapping[str, Measure]) -> dict[str, float]:
        """Compute the means over one of the sets, by measure."""
        return measure_images(self.sets[name], self.protocol, upscale, measures)

    def score(self, upscaler: Upscaler) -> dict[str, float]:
        """Compute the mean PSNR of a model in dB, by set."""
        return self._psnr(upscale_with(upscaler))

    def bicubic_gate(self) -> str:
        """Measure bicubic upscaling and format its figures. Raises OptionError if they are not the published ones."""
        means = self._psnr(upscale_bicubic(self.protocol.scale))
        for name, mean in means.items():
            check_gate(name, mean, self.protocol)
        return "  ".join(f"{name} {mean:.2f}" for name, mean in means.items())

    def _psnr(self, upscale: Upscale) -> dict[str, float]:
        return {name: self.measure(name, upscale, {"psnr": luma_psnr_db})["psnr"] for name in self.sets}


def vid4_psnr(folder: Path, scale: int, upscale: UpscaleFrames, degradation: Degradation = "bi") -> dict[str, float]:
    """Compute the luma PSNR in dB by clip of Vid4: the mean over all frames, no crop.

    Vid4's figure is the mean of the clips' means.
    """
    clips = sorted(path for path in folder.iterdir() if path.is_dir())
    protocol, measures = clip_protocol(scale, degradation), {"psnr": luma_psnr_db}
    return {clip.name: measure_clip(find_images(clip), protocol, upscale, measures)["psnr"] for clip in clips}


def check_vid4_gate(means: Mapping[str, float], scale: int) -> None:
    """Raise OptionError where the figures of bicubic upscaling, by clip under BI, are not the published ones."""
    for clip, mean in means.items():
        check_gate(f"Vid4/{clip}", mean, clip_protocol(scale, "bi"))


def check_gate(name: str, mean: float, protocol: Protocol) -> float | None:
    """Compare the mean luma PSNR in dB of bicubic upscaling with the one on record; return that one, if there is one.

    Args:
        name: a set ("Set5"), a clip of a set ("Vid4/walk"), or a set of clips ("Vid4"), by the mean of its clips.
        mean: the measured PSNR in dB.
        protocol: the protocol it was measured by.

    Raises OptionError where the two differ by more than the protocol's tolerance.
    """
    gate, tolerance = _GATES.get((protocol.degradation, protocol.scale), {}).get(name, (None, 0.0))
    if gate is not None and not abs(mean - gate) <= tolerance:
        raise OptionError(f"{name}: bicubic scores {mean:.2f} dB and not {gate:.2f}: these are other images")
    return gate
