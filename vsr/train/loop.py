"""The training loop: one recipe, one run folder, resumable at any step."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.errors import InputError, ModelError, OptionError
from vsr.metrics import luma_bt601
from vsr.models.weights import build_net, load_net, resolve, save_model_file
from vsr.train.data import PatchBank, find_images
from vsr.train.recipes import Recipe, card_of

__all__ = ["Budget", "Trainer", "train"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
LONGEST_STEP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: exactly one of steps, or minutes of training time."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise OptionError("give the length of the training either as steps or as minutes")
        if (self.steps or self.minutes or 0) <= 0:
            raise OptionError("the length of the training must be greater than zero")

    def progress(self, step: int, seconds: float) -> float:
        """Share of the schedule that is done, 0 to 1."""
        done = step / self.steps if self.steps else seconds / (60 * (self.minutes or 1))
        return min(done, 1.0)


class Trainer:
    """A network, its moving average, Adam and the random state; `step` moves all of them by one batch."""

    def __init__(self, recipe: Recipe, bank: PatchBank, device: torch.device, seed: int = 0, bf16: bool = True) -> None:
        torch.manual_seed(seed)
        self.recipe, self.bank, self.device, self.bf16 = recipe, bank, device, bf16
        self.card = card_of(recipe)
        self.net = build_net(self.card).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(self.net.parameters(), recipe.learning_rate, betas=(0.9, 0.99))
        self.rng = np.random.default_rng(seed)
        self.num_steps = 0
        self.seconds = 0.0

    def _inputs(self, patches: Tensor) -> Tensor:
        patches = patches.to(self.device)
        values = luma_bt601(patches).float() if self.recipe.color == "y" else patches.float()
        return (values / 255).contiguous(memory_format=torch.channels_last)

    def step(self, progress: float) -> float:
        """One Adam step at `progress` (0 to 1) of the schedule. Returns the loss."""
        low, high = self.bank.sample(self.recipe.batch, self.rng)
        for group in self.optimizer.param_groups:
            warmup = min(1.0, (self.num_steps + 1) / 200)
            group["lr"] = self.recipe.learning_rate * warmup * (0.5 + 0.5 * math.cos(math.pi * progress))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.net(self._inputs(low))
        loss_fn = F.mse_loss if progress >= 1 - self.recipe.mse_share else F.l1_loss
        loss = loss_fn(out.float(), self._inputs(high))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.num_steps += 1
        decay = min(self.recipe.ema_decay, (1 + self.num_steps) / (10 + self.num_steps))
        with torch.no_grad():
            pairs = zip(self.ema.state_dict().values(), self.net.state_dict().values(), strict=True)
            for average, value in pairs:
                average.lerp_(value, 1 - decay)
        return float(loss.detach())

    def start_from(self, model: str) -> None:
        """Take the weights of a model, by name or file. Raises ModelError where they do not fit."""
        state = load_net(*resolve(model)).state_dict()
        try:
            self.net.load_state_dict(state)
            self.ema.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"--init {model}: does not fit the recipe '{self.recipe.name}'") from error

    def save(self, folder: Path) -> None:
        """Write checkpoint and averaged weights, each whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": json.dumps(self.rng.bit_generator.state),
            "num_steps": self.num_steps,
            "seconds": self.seconds,
        }
        partial = folder / (CHECKPOINT + ".part")
        torch.save(state, partial)
        partial.replace(folder / CHECKPOINT)
        save_model_file(folder / WEIGHTS, self.card, self.ema.state_dict())

    def load(self, folder: Path) -> None:
        """Go on where `save` left off: the same weights, moments, patches and schedule."""
        path = folder / CHECKPOINT
        if not path.is_file():
            raise InputError(f"{path}: no checkpoint to resume from")
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.num_steps, self.seconds = state["num_steps"], state["seconds"]


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    budget: Budget,
    *,
    resume: bool = False,
    init: str | None = None,
    device: torch.device | None = None,
    bf16: bool = True,
    seed: int = 0,
    validate: Callable[[nn.Module], str] | None = None,
    log: Callable[[str], None] = print,
    report_seconds: float = 120.0,
) -> Path:
    """Train and return the path of the averaged weights.

    validate: called with the averaged network at each report; its text joins the log.
    Ctrl-C saves before it goes on its way.
    """
    if (out / CHECKPOINT).exists() and not resume:
        raise OptionError(f"{out}: holds a run already; go on with --resume or name another folder")
    bank = PatchBank(find_images(data), recipe.scale, recipe.patch)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, bank, device or torch.device("cpu"), seed, bf16)
    if resume:
        trainer.load(out)
    elif init is not None:
        trainer.start_from(init)
    losses: list[float] = []
    reported = time.monotonic()
    try:
        while (progress := budget.progress(trainer.num_steps, trainer.seconds)) < 1:
            started = time.monotonic()
            losses.append(trainer.step(progress))
            # A process that was suspended for a while does not use up its budget by it.
            trainer.seconds += min(time.monotonic() - started, LONGEST_STEP_SECONDS)
            if time.monotonic() - reported >= report_seconds:
                log(_report(trainer, progress, losses, validate))
                trainer.save(out)
                losses, reported = [], time.monotonic()
    finally:
        trainer.save(out)
    log(_report(trainer, 1.0, losses, validate))
    return out / WEIGHTS


def _report(trainer: Trainer, progress: float, losses: list[float], validate: Callable[[nn.Module], str] | None) -> str:
    mean = sum(losses) / len(losses) if losses else math.nan
    line = f"{progress:6.1%}  step {trainer.num_steps}  {trainer.seconds / 60:.1f} min  loss {mean:.5f}"
    return line + ("  " + validate(trainer.ema) if validate else "")
