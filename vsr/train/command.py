"""`vsr train`: a recipe's name and some options to a run, with validation on Set5 and Set14."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from vsr.backends.engine import choose_device
from vsr.errors import OptionError
from vsr.pipeline.loading import upscaler_of_net
from vsr.quality.data_folder import evaluation_sets
from vsr.quality.protocols import StillsBenchmark
from vsr.train.loop import Budget, train
from vsr.train.memory import keep_freed_memory
from vsr.train.objective import load_features
from vsr.train.recipes import RECIPES, Recipe, card_of

__all__ = ["run_training"]


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
    chosen = _chosen_recipe(recipe, patch=patch, batch=batch, learning_rate=learning_rate)
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()
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


def _chosen_recipe(name: str, **changes: Any) -> Recipe:
    """Look a recipe up and change its fields, but for those that are None. Raises OptionError for an unknown name."""
    if name not in RECIPES:
        raise OptionError(f"unknown recipe '{name}'; there are {', '.join(RECIPES)}")
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def _validation(
    recipe: Recipe, folder: Path | None, log: Callable[[str], None]
) -> Callable[[nn.Module], dict[str, float]]:
    """PSNR on Set5 and Set14, where they are; their bicubic gate is checked first."""
    try:
        folder = evaluation_sets(folder, "--validation")
    except OptionError as error:
        log(f"training without validation: {error}")
        return lambda net: {}
    stills = StillsBenchmark(folder, recipe.scale)
    card = card_of(recipe)
    if not stills.sets:
        log(f"no Set5 or Set14 in {folder}: training without validation (--validation names another folder)")
        return lambda net: {}
    log(f"bicubic ×{recipe.scale}:  {stills.bicubic_gate()}")

    def validate(net: nn.Module) -> dict[str, float]:
        device = str(next(net.parameters()).device)
        return stills.score(upscaler_of_net(card, net, device=device, precision="fp32"))

    return validate
