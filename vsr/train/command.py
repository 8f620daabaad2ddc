"""`vsr train`: a recipe's name and some options to a run, with validation on Set5 and Set14."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vsr.backends.engine import choose_device
from vsr.errors import OptionError
from vsr.media.resample import imresize
from vsr.metrics import luma_bt601, psnr_db
from vsr.pipeline.upscaler import Upscaler, upscaler_of_net
from vsr.train.data import find_images, read_rgb
from vsr.train.degrade import bicubic, mod_crop
from vsr.train.loop import Budget, train
from vsr.train.objective import load_features
from vsr.train.recipes import RECIPES, Recipe, card_of

__all__ = ["StillsValidation", "run_training"]

# PSNR in dB of bicubic upscaling, which every correct measuring reproduces (tolerance 0.05 dB).
_GATES = {
    ("Set5", 4): 28.42,
    ("Set14", 4): 26.09,
    ("BSD100", 4): 25.96,
    ("Set5", 2): 33.68,
    ("Set14", 2): 30.33,
    ("BSD100", 2): 29.56,
}
_GATE_TOLERANCE_DB = 0.05


class StillsValidation:
    """Luma PSNR on folders of pictures: MATLAB bicubic LR in uint8, crop of `scale` pixels, BT.601 luma."""

    def __init__(self, folder: Path, scale: int, names: tuple[str, ...] = ("Set5", "Set14")) -> None:
        self.scale = scale
        self.sets = {
            name: [mod_crop(read_rgb(path), scale) for path in find_images(folder / name)]
            for name in names
            if (folder / name).is_dir()
        }

    def bicubic_gate(self) -> str:
        """The figures of bicubic upscaling. Raises OptionError where they are not the published ones."""
        parts = []
        for name, pictures in self.sets.items():
            scores = []
            for high in pictures:
                up = imresize(bicubic(high, self.scale)[None], (high.shape[-2], high.shape[-1]))
                scores.append(psnr_db(luma_bt601(up), luma_bt601(high[None]), crop=self.scale))
            mean = sum(scores) / len(scores)
            gate = _GATES.get((name, self.scale))
            if gate is not None and abs(mean - gate) > _GATE_TOLERANCE_DB:
                raise OptionError(f"{name}: bicubic scores {mean:.2f} dB and not {gate:.2f}: these are other pictures")
            parts.append(f"{name} {mean:.2f}")
        return "  ".join(parts)

    def score(self, upscaler: Upscaler) -> dict[str, float]:
        """Mean PSNR in dB by set, of the finished uint8 RGB pictures."""
        means = {}
        for name, pictures in self.sets.items():
            scores = []
            for high in pictures:
                low = bicubic(high, self.scale).permute(1, 2, 0).numpy()
                out = torch.from_numpy(upscaler.upscale_image(low)).permute(2, 0, 1)[None]
                scores.append(psnr_db(luma_bt601(out), luma_bt601(high[None]), crop=self.scale))
            means[name] = sum(scores) / len(scores)
        return means


def run_training(
    recipe: str,
    data: Path,
    out: Path,
    *,
    log: Callable[[str], None],
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    init: str | None = None,
    vgg: Path | None = None,
    squeezenet: Path | None = None,
    patch: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    validation: Path | None = None,
    device: str = "auto",
    fp32: bool = False,
    seed: int = 0,
) -> Path:
    """Train a recipe; returns the path of the weights, a .safetensors file that `--model` takes.

    patch, batch, learning_rate: instead of the recipe's, which are made for a CPU.
    """
    if recipe not in RECIPES:
        raise OptionError(f"unknown recipe '{recipe}'; there are {', '.join(RECIPES)}")
    changes: dict[str, Any] = {"patch": patch, "batch": batch, "learning_rate": learning_rate}
    chosen = replace(RECIPES[recipe], **{key: value for key, value in changes.items() if value is not None})
    where = choose_device(device)
    features = load_features(vgg, squeezenet, where)
    if features is None and any("perceptual" in stage.losses for stage in chosen.stages):
        log("perceptual loss: the discriminator's own features (--vgg or --squeezenet name a network's file)")
    if steps is None and minutes is None:
        steps = chosen.num_steps
    path = train(
        chosen,
        data,
        out,
        Budget(steps, minutes),
        resume=resume,
        init=init,
        device=where,
        bf16=not fp32,
        seed=seed,
        features=features,
        validate=_validation(chosen, validation, log),
        log=log,
    )
    log(f"weights: {path}")
    return path


def _validation(
    recipe: Recipe, folder: Path | None, log: Callable[[str], None]
) -> Callable[[nn.Module], dict[str, float]]:
    """PSNR on Set5 and Set14, where they are; their bicubic gate is checked first."""
    folder = folder or Path(os.environ.get("VSR_DATA", "../shared/data")) / "test"
    stills = StillsValidation(folder, recipe.scale)
    card = card_of(recipe)
    if not stills.sets:
        log(f"no Set5 or Set14 in {folder}: training without validation (--validation names another folder)")
        return lambda net: {}
    log(f"bicubic ×{recipe.scale}:  {stills.bicubic_gate()}")

    def validate(net: nn.Module) -> dict[str, float]:
        device = str(next(net.parameters()).device)
        return stills.score(upscaler_of_net(card, net, device=device, precision="fp32"))

    return validate
