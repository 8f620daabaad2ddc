"""Run `vsr train`: turn a recipe's name and options into a run, validated on the test sets at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vsr.backends.engine import choose_device
from vsr.errors import OptionError
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.quality.data_folder import evaluation_sets
from vsr.quality.protocols import StillsBenchmark
from vsr.train.clip_loop import train_on_clips
from vsr.train.loop import train
from vsr.train.memory import keep_freed_memory
from vsr.train.objective import load_features
from vsr.train.recipes import RECIPES, Recipe, card_of
from vsr.train.run import Budget
from vsr.train.vid4 import vid4_validation
from vsr.train.video_recipes import VIDEO_RECIPES, VideoRecipe

__all__ = ["run_training"]

Validation = Callable[[nn.Module], dict[str, float]]


def run_training(
    recipe: str,
    data: Path | Sequence[Path],
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
    threads: int | None = None,
    seed: int = 0,
) -> Path:
    """Train a recipe; return the path of the weights, a .safetensors file that `model` takes.

    Args:
        data: Folders of images; for video networks also folders of clips.
        patch, batch, learning_rate: Replace the recipe's, which are made for a CPU.
        threads: Of PyTorch on the CPU; by default one for clips, whose many small operations gain nothing from more.
    """
    _check_numbers(learning_rate=learning_rate, patch=patch, batch=batch, threads=threads, seed=seed)
    chosen = _chosen_recipe(recipe, patch=patch, batch=batch, learning_rate=learning_rate)
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    if threads or isinstance(chosen, VideoRecipe):
        torch.set_num_threads(threads or 1)
    budget = Budget(chosen.num_steps if steps is None and minutes is None else steps, minutes)
    options: dict[str, Any] = {"resume": resume, "init": init, "device": where, "bf16": not fp32, "seed": seed}
    options["features"] = features = load_features(vgg, squeezenet, where)
    if features is None and _sees_features(chosen):
        log("perceptual loss: the discriminator's own features (`vgg` or `squeezenet` name a network's file)")
    if isinstance(chosen, VideoRecipe):
        validate = _clip_validation(chosen, validation, where, not fp32, log)
        folders = [data] if isinstance(data, Path) else list(data)
        path = train_on_clips(chosen, folders, out, budget, validate=validate, log=log, **options)
    else:
        validate = _validation(chosen, validation, log)
        path = train(chosen, data, out, budget, validate=validate, log=log, **options)
    log(f"weights: {path}")
    return path


def _sees_features(recipe: Recipe | VideoRecipe) -> bool:
    if isinstance(recipe, VideoRecipe):
        return recipe.gan is not None
    return any("perceptual" in stage.losses for stage in recipe.stages)


def _check_numbers(*, learning_rate: float | None, seed: int, **counts: int | None) -> None:
    """Raise OptionError for numbers that no training can use."""
    if learning_rate is not None and not 0 < learning_rate < math.inf:  # which "not a number" fails, too
        raise OptionError(f"`learning_rate={learning_rate:g}`: must be greater than zero")
    if not 0 <= seed < 2**63:
        raise OptionError(f"`seed={seed}`: must lie between 0 and 2⁶³ - 1")
    for name, value in counts.items():
        least = 4 if name == "patch" else 1
        if value is not None and value < least:
            raise OptionError(f"`{name}={value}`: must be at least {least}")


def _chosen_recipe(name: str, **changes: Any) -> Recipe | VideoRecipe:
    """Look up a recipe and set those of its fields that are not None. Raises OptionError for unfit values."""
    known: dict[str, Recipe | VideoRecipe] = {**RECIPES, **VIDEO_RECIPES}
    if name not in known:
        raise OptionError(f"unknown recipe '{name}'; there are {', '.join(known)}")
    chosen = replace(known[name], **{key: value for key, value in changes.items() if value is not None})
    if isinstance(chosen, VideoRecipe) and chosen.patch % 2:
        raise OptionError(f"`patch={chosen.patch}`: clips need an even number, as chroma has half the samples")
    if isinstance(chosen, VideoRecipe) and chosen.gan and chosen.patch % 4:
        raise OptionError(f"`patch={chosen.patch}`: the discriminator needs a multiple of 4")
    return chosen


def _test_sets(folder: Path | None, log: Callable[[str], None]) -> Path | None:
    """Find the folder of the test sets, or log the reason why there is none."""
    try:
        return evaluation_sets(folder, "`validation`")
    except OptionError as error:
        log(f"training without validation: {error}")
        return None


def _clip_validation(
    recipe: VideoRecipe, folder: Path | None, device: torch.device, bf16: bool, log: Callable[[str], None]
) -> Validation:
    """Make a function that scores a network on Vid4, if it is there."""
    found = _test_sets(folder, log)
    return vid4_validation(recipe, found, device, bf16, log) if found else lambda net: {}


def _validation(recipe: Recipe, folder: Path | None, log: Callable[[str], None]) -> Validation:
    """Make a function that scores a network on Set5 and Set14, if they are there; check their bicubic gate first."""
    found = _test_sets(folder, log)
    if found is None:
        return lambda net: {}
    stills = StillsBenchmark(found, recipe.scale)
    card = card_of(recipe)
    if not stills.sets:
        log(f"no Set5 or Set14 in {found}: training without validation (`validation` names another folder)")
        return lambda net: {}
    log(f"bicubic ×{recipe.scale}:  {stills.bicubic_gate()}")

    def validate(net: nn.Module) -> dict[str, float]:
        device = str(next(net.parameters()).device)
        return stills.score(upscaler_of_net(card, net, ModelOptions(device=device, precision="fp32")))

    return validate
