"""Offer models by name and scale, and choose among them by the size of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from vsr.errors import OptionError
from vsr.jobs.plan import Footage, choose_model
from vsr.models.cards import shipped_cards
from vsr.pipeline.loading import ModelOptions

__all__ = [
    "AUTO",
    "CLASSIC",
    "SCALES",
    "ModelForImage",
    "choose_for_image",
    "image_models",
    "video_model",
    "video_models",
]

AUTO = "auto"
CLASSIC = "classic"
SCALES = (2, 3, 4)
# Pixels of the result up to which VDSR, which computes at that size, takes seconds on two cores.
_LARGEST_FOR_VDSR = 2**20
_WORDS: Mapping[str, str] = {
    AUTO: "Automatic, by the size",
    CLASSIC: "Classic: VDSR or SRCNN, by the size",
    "srresnet": "srresnet: most faithful",
    "edsr": "edsr: faithful",
    "srgan": "srgan: sharp, invents detail",
    "srgan-perpix": "srgan-perpix: sharp, invents less",
    "fast": "fast: for large images",
    "fast-real": "fast-real: for compressed sources",
    "nano": "nano: the lightest",
    "vdsr": "vdsr: the classic of 20 layers",
    "srcnn": "srcnn: the first of its kind",
    "video": "video: uses neighbouring frames",
    "video-fast": "video-fast: uses neighbouring frames, lighter",
}
_SUFFIX_X2 = "-x2"


@dataclass(frozen=True, slots=True)
class ModelForImage:
    """Say which model upscales an image, and to which size.

    Args:
        name: Of a shipped model.
        size: (width, height) of the result in pixels.
        why: Reason for the choice, for people; empty where the model was asked for by name.
    """

    name: str
    size: tuple[int, int]
    why: str = ""


def image_models() -> list[tuple[str, str]]:
    """List the models for images: words for people, and the name by which `choose_for_image` knows each."""
    return _listed([AUTO, CLASSIC, *_families(recurrent=False)])


def video_models() -> list[tuple[str, str]]:
    """List the models for videos: words for people, and the name by which `video_model` knows each."""
    return _listed([AUTO, *_families(recurrent=True), *_families(recurrent=False)])


def choose_for_image(model: str, scale: int, width: int, height: int) -> ModelForImage:
    """Choose the network for an image of that size in pixels. Raises OptionError for what is not offered."""
    if scale not in SCALES:
        raise OptionError(f"`scale={scale}`: is one of {', '.join(map(str, SCALES))}")
    size = width * scale, height * scale
    if model == AUTO:
        options = ModelOptions(scale=scale)
        name, _ = choose_model(options, Footage(width, height, is_image=True), torch.device("cpu"))
        return ModelForImage(name, size, f"chosen for {width}×{height}")
    if model == CLASSIC:
        is_small = size[0] * size[1] <= _LARGEST_FOR_VDSR
        family: Literal["vdsr", "srcnn"] = "vdsr" if is_small else "srcnn"
        return ModelForImage(_of_scale(family, scale), size, f"chosen for {width}×{height}")
    if model not in _families(recurrent=False):
        raise OptionError(f"`model={model}`: is not offered for images")
    return ModelForImage(_of_scale(model, scale), size)


def video_model(model: str, scale: int) -> str:
    """Return the shipped model, or "auto", of a name in `video_models`. Raises OptionError for any other."""
    if model not in (AUTO, *_families(recurrent=True), *_families(recurrent=False)):
        raise OptionError(f"`model={model}`: is not offered for videos")
    return AUTO if model == AUTO else _of_scale(model, scale)


def _of_scale(family: str, scale: int) -> str:
    """Take the network of a family that is trained for ×2 where that is enough."""
    name = f"{family}{_SUFFIX_X2}"
    return name if scale <= 2 and name in shipped_cards() else family


def _families(*, recurrent: bool) -> list[str]:
    names = [name for name, card in shipped_cards().items() if card.recurrent == recurrent]
    families = [name for name in names if not name.endswith(_SUFFIX_X2)]
    order = list(_WORDS)
    return sorted(families, key=lambda name: order.index(name) if name in order else len(order))


def _listed(names: list[str]) -> list[tuple[str, str]]:
    return [(_WORDS.get(name, name), name) for name in names]
