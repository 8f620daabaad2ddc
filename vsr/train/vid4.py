"""Report a clip network's figures on Vid4 during training; they choose nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import nn

from vsr.color.resample import mod_crop
from vsr.media.images import find_images, read_rgb
from vsr.quality.protocols import clip_protocol
from vsr.train.clip_loop import clip_scores
from vsr.train.clips import Clip, Footage, make_clip
from vsr.train.video_degrade import CLIP_DEGRADATIONS
from vsr.train.video_recipes import VideoRecipe

__all__ = ["vid4_validation"]


def vid4_validation(
    recipe: VideoRecipe, folder: Path, device: torch.device, bf16: bool, log: Callable[[str], None]
) -> Callable[[nn.Module], dict[str, float]]:
    """Make a function that scores a network on Vid4: BD for a network trained on BD, BI for all others.

    It runs all frames of each clip; the figure is the mean of the clips' means.
    """
    name = "gaussian" if recipe.degradation == "gaussian" else "bicubic"
    protocol = clip_protocol(recipe.scale, "bd" if name == "gaussian" else "bi")
    folders = sorted(path for path in (folder / "Vid4").glob("*") if path.is_dir())
    if not folders:
        log(f"no Vid4 in {folder}: training without its figures (`validation` names another folder)")
        return lambda net: {}
    clips: list[Clip] = []

    def validate(net: nn.Module) -> dict[str, float]:
        if not clips:
            degradation = CLIP_DEGRADATIONS[name]
            for path in folders:
                rgb = torch.stack([mod_crop(read_rgb(file), 2 * recipe.scale) for file in find_images(path)])
                footage = Footage.of_one_scene(rgb)
                clips.append(make_clip(footage, recipe.scale, degradation, np.random.default_rng(0)))
        means = [clip_scores(net, clip, device, bf16, protocol.crop) for clip in clips]
        return {"Vid4": fmean(luma for luma, _ in means), "Vid4 chroma": fmean(chroma for _, chroma in means)}

    return validate
