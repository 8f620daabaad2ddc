"""Train on images: one recipe, one run folder, resumable at any step."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.errors import InputError
from vsr.media.images import find_images, sort_out_damaged
from vsr.models.quantization import calibrate
from vsr.quality.lpips import LPIPS
from vsr.quality.metrics import luma_bt601
from vsr.train.adversary import Adversary
from vsr.train.data import PatchBank
from vsr.train.objective import Objective, PerceptualFeatures
from vsr.train.recipes import Recipe, card_of
from vsr.train.record import RunRecord
from vsr.train.run import WEIGHTS, Budget, Learner, Pace, Reporter, check_folder, run

__all__ = ["Budget", "Trainer", "train"]

NUM_HELD_OUT_PATCHES = 64
NUM_CALIBRATION_BATCHES = 16
MAX_GRADIENT = 1.0


class Trainer(Learner):
    """Train a network that upscales single images, and its adversary."""

    def __init__(
        self,
        recipe: Recipe,
        bank: PatchBank,
        device: torch.device,
        seed: int = 0,
        bf16: bool = True,
        features: PerceptualFeatures | None = None,
    ) -> None:
        super().__init__(recipe, card_of(recipe), device, seed)
        self.recipe, self.bank, self.bf16 = recipe, bank, bf16
        self.adversary = None
        if recipe.discriminator is not None:
            side = recipe.patch * recipe.scale
            self.adversary = Adversary(
                recipe.discriminator, recipe.adversarial, side, recipe.learning_rate, device, bf16
            )
        self.objective = Objective(features, self.adversary, recipe.judges_luma_only)
        # Compiling pays on a GPU, where steps are short and many; shapes never change.
        self._forward = torch.compile(self.net) if device.type == "cuda" else self.net

    @property
    def is_judged_by_psnr(self) -> bool:
        return self.adversary is None

    def inputs(self, patches: Tensor) -> Tensor:
        """Convert (N, 3, H, W) uint8 RGB to the network's input, float32 on the device."""
        patches = patches.to(self.device)
        values = luma_bt601(patches).float() if self.recipe.color == "y" else patches.float()
        return (values / 255).contiguous(memory_format=torch.channels_last)

    def step(self, progress: float) -> dict[str, Tensor]:
        self.bank.seek(self.num_steps)
        low_patches, high_patches = self.bank.sample(self.recipe.batch, self.rng)
        low, high = self.inputs(low_patches), self.inputs(high_patches)
        rate = self.cosine_rate(progress) if self.recipe.schedule == "cosine" else self.warmup_rate()
        self.set_rate(rate)
        weights = self.recipe.losses_at(progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self._forward(low).float()
            with torch.no_grad():
                average = self.ema(low).float() if "ldl" in weights else None
        terms = self.objective(weights, out, high, average, self.rng)
        self.descend(torch.stack(list(terms.values())).sum(), MAX_GRADIENT)
        losses = {name: value.detach() for name, value in terms.items()}
        self.num_steps += 1
        if self.num_bad_steps:
            return losses
        if self.adversary is not None and self.objective.needs_adversary(weights):
            losses["discriminator"] = self.adversary.learn(self.objective.judged(out, high), high, rate)
        self.update_average()
        return losses

    def calibrate(self) -> None:
        """Set the scales of a quantised network by patches; they then stay, and the weights learn to fit them."""
        rng = np.random.default_rng(0)
        self.bank.seek(self.num_steps)
        patches = (self.bank.sample(self.recipe.batch, rng)[0] for _ in range(NUM_CALIBRATION_BATCHES))
        calibrate(self.net, map(self.inputs, patches))
        self.ema.load_state_dict(self.net.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "adversary": self.adversary.state_dict() if self.adversary else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])


class HeldOut:
    """Score networks on patches that are kept from training; this chooses the best weights."""

    def __init__(self, bank: PatchBank, trainer: Trainer) -> None:
        low, high = bank.sample(NUM_HELD_OUT_PATCHES, np.random.default_rng(0))
        self.low, self.high = trainer.inputs(low), trainer.inputs(high)
        self.features = trainer.objective.features

    @torch.inference_mode()
    def scores(self, net: nn.Module) -> dict[str, float]:
        """Compute PSNR in dB of the unrounded output, in the network's own colour; LPIPS, if the run has it."""
        errors, distances = [], []
        for low, high in zip(torch.split(self.low, 4), torch.split(self.high, 4), strict=True):
            out = net(low).clamp(0, 1)
            errors.append(F.mse_loss(out, high))
            if isinstance(self.features, LPIPS):
                distances.append(self.features(out.expand(-1, 3, -1, -1), high.expand(-1, 3, -1, -1)).mean())
        scores = {"held out": -10 * math.log10(max(float(torch.stack(errors).mean()), 1e-10))}
        return {**scores, "held out LPIPS": float(torch.stack(distances).mean())} if distances else scores

    @torch.inference_mode()
    def images(self, net: nn.Module) -> Tensor:
        """Show four patches: bicubic, output and truth side by side; (C, H, W) in [0, 1]."""
        low, high = self.low[:4], self.high[:4]
        bicubic = F.interpolate(low, high.shape[-2:], mode="bicubic")
        rows = torch.cat((bicubic, net(low).float(), high), dim=3)
        return torch.cat(list(rows.clamp(0, 1)), dim=1).cpu()


def _split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Divide images into training ones and held-out ones, one in 50, at most 16.

    Of fewer than 50 images, the first is in both.
    """
    held_out = paths[::50][:16]
    rest = sorted(set(paths) - set(held_out))
    return (rest, held_out) if len(paths) >= 50 else (paths, paths[:1])


def _usable_images(folders: Sequence[Path], log: Callable[[str], None]) -> list[Path]:
    """Find the images below some folders; log those that cannot be used. Raises InputError where there is none."""
    found = sorted({path for folder in folders for path in find_images(folder)})
    paths, unusable = sort_out_damaged(found)
    for text in unusable.values():
        log(f"left out: {text}")
    if unusable:
        log(f"{len(unusable)} of {len(found)} images cannot be used and are left out")
    if not paths:
        raise InputError(f"{', '.join(map(str, folders))}: no image can be used")
    return paths


def train(
    recipe: Recipe,
    data: Path | Sequence[Path],
    out: Path,
    budget: Budget,
    *,
    resume: bool = False,
    init: str | None = None,
    device: torch.device | None = None,
    bf16: bool = True,
    seed: int = 0,
    features: PerceptualFeatures | None = None,
    validate: Callable[[nn.Module], dict[str, float]] = lambda net: {},
    log: Callable[[str], None] = print,
    report_seconds: float | None = None,
) -> Path:
    """Train and return the path of the averaged weights; an interrupt (SIGINT, SIGTERM) lets the step end and saves.

    Args:
        data: a folder of images, or several.
        init: a model to start from instead of the recipe's own; "none" for fresh weights.
        device: the CPU unless given.
        validate: scores the averaged network, in a tenth of the time; test sets choose nothing. best.safetensors is
            chosen by PSNR on images held out of `data`, and not kept if there is an adversary, which no PSNR can judge.
        report_seconds: time between reports, each of which saves; by default ten times a report's duration, 30 to 300.
    """
    check_folder(out, resume)
    chosen = device or torch.device("cpu")
    folders = [data] if isinstance(data, Path) else list(data)
    paths, held_out = _split(_usable_images(folders, log))
    make_bank = functools.partial(
        PatchBank, scale=recipe.scale, patch=recipe.patch, degradation=recipe.degradation, seed=seed, device=chosen
    )
    bank = make_bank(paths)
    bank.tell(log)
    if bank.num_skipped:
        log(f"{bank.num_skipped} of {len(paths)} images are smaller than a patch and left out")
    trainer = Trainer(recipe, bank, chosen, seed, bf16, features)
    start = init or recipe.init
    _prepare(trainer, out if resume else None, start, log)
    record = RunRecord(out, trainer.num_steps, log)
    arguments = {"data": ", ".join(map(str, folders)), "seed": seed, "bf16": bf16, "init": start, "device": str(chosen)}
    record.start(recipe, {**arguments, **asdict(budget)})
    with make_bank(held_out) as held_out_bank:
        pace = Pace() if report_seconds is None else Pace.every(report_seconds)
        reporter = Reporter(trainer, record, HeldOut(held_out_bank, trainer), validate, pace)
    bank.seek(trainer.num_steps)  # what a first shard takes to make is not training time
    with bank, contextlib.closing(record):
        run(trainer, budget, reporter, out, log)
    return out / WEIGHTS


def _prepare(trainer: Trainer, run: Path | None, start: str | None, log: Callable[[str], None]) -> None:
    """Load the checkpoint of a resumed run, or else the weights of the model to start from, if any."""
    if run is not None:
        trainer.load(run)
        return
    if start and start != "none":
        log(trainer.start_from(start))
    if trainer.recipe.quantized:
        trainer.calibrate()
