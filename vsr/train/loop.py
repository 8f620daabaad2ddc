"""The training loop: one recipe, one run folder, resumable at any step."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.errors import InputError, ModelError, OptionError
from vsr.files import partial_file, write_file
from vsr.media.images import find_images
from vsr.models.quantization import calibrate
from vsr.models.weights import build_net, load_net, resolve, save_model_file
from vsr.quality.lpips import LPIPS
from vsr.quality.metrics import luma_bt601
from vsr.train.adversary import Adversary
from vsr.train.data import PatchBank
from vsr.train.objective import Objective, PerceptualFeatures
from vsr.train.recipes import Recipe, card_of
from vsr.train.record import RunRecord

__all__ = ["Budget", "Trainer", "train"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
BEST_WEIGHTS = "best.safetensors"
BEST_SCORE = "best.json"
LONGEST_STEP_SECONDS = 30.0
SHORTEST_REPORT_SECONDS = 30.0
LONGEST_REPORT_SECONDS = 300.0  # what a kill can cost
TIMES_BETWEEN = 10  # what is between two reports, or two validations, in times of what they take
NUM_WARMUP_STEPS = 200
NUM_HELD_OUT_PATCHES = 64
NUM_CALIBRATION_BATCHES = 16


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
    """A network, its moving average, its adversary, their optimisers and the random state.

    `step` moves all of them by one batch; `save` and `load` keep all of them.
    """

    def __init__(
        self,
        recipe: Recipe,
        bank: PatchBank,
        device: torch.device,
        seed: int = 0,
        bf16: bool = True,
        features: PerceptualFeatures | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.bank, self.device, self.bf16 = recipe, bank, device, bf16
        self.card = card_of(recipe)
        self.net = build_net(self.card).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(self.net.parameters(), recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        self.adversary = None
        if recipe.discriminator is not None:
            side = recipe.patch * recipe.scale
            self.adversary = Adversary(
                recipe.discriminator, recipe.adversarial, side, recipe.learning_rate, device, bf16
            )
        self.objective = Objective(features, self.adversary)
        # Compiling pays on a GPU, where steps are short and many; shapes never change.
        self._forward = torch.compile(self.net) if device.type == "cuda" else self.net
        self.rng = np.random.default_rng(seed)
        self.num_steps = 0
        self.seconds = 0.0

    def inputs(self, patches: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB to what the network takes, float32 on the device."""
        patches = patches.to(self.device)
        values = luma_bt601(patches).float() if self.recipe.color == "y" else patches.float()
        return (values / 255).contiguous(memory_format=torch.channels_last)

    def step(self, progress: float) -> dict[str, Tensor]:
        """One step at `progress` (0 to 1) of the schedule. Returns the losses, weighted, without gradient."""
        self.bank.seek(self.num_steps)
        low_patches, high_patches = self.bank.sample(self.recipe.batch, self.rng)
        low, high = self.inputs(low_patches), self.inputs(high_patches)
        rate = self._rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rate
        weights = self.recipe.losses_at(progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self._forward(low).float()
            with torch.no_grad():
                average = self.ema(low).float() if "ldl" in weights else None
        terms = self.objective(weights, out, high, average, self.rng)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        losses = {name: value.detach() for name, value in terms.items()}
        if self.adversary is not None and self.objective.needs_adversary(weights):
            losses["discriminator"] = self.adversary.learn(out, high, rate)
        self.num_steps += 1
        self._update_average()
        return losses

    def _rate(self, progress: float) -> float:
        """What the learning rates are multiplied by."""
        warmup = min(1.0, (self.num_steps + 1) / NUM_WARMUP_STEPS)
        return warmup * (0.5 + 0.5 * math.cos(math.pi * progress) if self.recipe.schedule == "cosine" else 1.0)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.num_steps) / (10 + self.num_steps))
        for average, value in zip(self.ema.state_dict().values(), self.net.state_dict().values(), strict=True):
            average.lerp_(value, 1 - decay)

    def start_from(self, model: str) -> str:
        """Take the weights of a model, by name or file, or of a network with the same trunk.

        Tensors of the same name and shape are taken. Returns a line that says how many were. Raises
        ModelError where they are less than half of the network's parameters.
        """
        state = load_net(*resolve(model)).state_dict()
        own = self.net.state_dict()
        taken = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if 2 * sum(v.numel() for v in taken.values()) < sum(v.numel() for v in own.values()):
            raise ModelError(f"--init {model}: does not fit the recipe '{self.recipe.name}'")
        for net in (self.net, self.ema):
            net.load_state_dict({**own, **taken})
        return f"starts from {model}: {len(taken)} of {len(own)} tensors"

    def calibrate(self) -> None:
        """Set the scales of a quantised network by patches; they then stay, and the weights learn to fit them."""
        rng = np.random.default_rng(0)
        self.bank.seek(self.num_steps)
        patches = (self.bank.sample(self.recipe.batch, rng)[0] for _ in range(NUM_CALIBRATION_BATCHES))
        calibrate(self.net, map(self.inputs, patches))
        self.ema.load_state_dict(self.net.state_dict())

    def save(self, folder: Path) -> None:
        """Write checkpoint and averaged weights, each whole or not at all."""
        state = {
            "recipe": _identity(self.recipe),
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary else None,
            "rng": json.dumps(self.rng.bit_generator.state),
            "num_steps": self.num_steps,
            "seconds": self.seconds,
        }
        with partial_file(folder / CHECKPOINT) as partial:
            torch.save(state, partial)
        save_model_file(folder / WEIGHTS, self.card, self.ema.state_dict())

    def load(self, folder: Path) -> None:
        """Go on where `save` left off: the same weights, moments, patches and schedule."""
        path = folder / CHECKPOINT
        if not path.is_file():
            raise InputError(f"{path}: no checkpoint to resume from")
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != _identity(self.recipe):
            raise OptionError(f"{folder}: was trained by another recipe; --resume takes the one in recipe.json")
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.num_steps, self.seconds = state["num_steps"], state["seconds"]


class HeldOut:
    """Patches of pictures that are kept from training: they choose the best weights, and are shown."""

    def __init__(self, bank: PatchBank, trainer: Trainer) -> None:
        low, high = bank.sample(NUM_HELD_OUT_PATCHES, np.random.default_rng(0))
        self.low, self.high = trainer.inputs(low), trainer.inputs(high)
        self.features = trainer.objective.features

    @torch.inference_mode()
    def scores(self, net: nn.Module) -> dict[str, float]:
        """PSNR in dB of the unrounded output, in the network's own colour; LPIPS, if the run has it."""
        errors, distances = [], []
        for low, high in zip(torch.split(self.low, 4), torch.split(self.high, 4), strict=True):
            out = net(low).clamp(0, 1)
            errors.append(F.mse_loss(out, high))
            if isinstance(self.features, LPIPS):
                distances.append(self.features(out.expand(-1, 3, -1, -1), high.expand(-1, 3, -1, -1)).mean())
        scores = {"held out": -10 * math.log10(max(float(torch.stack(errors).mean()), 1e-10))}
        return {**scores, "held out LPIPS": float(torch.stack(distances).mean())} if distances else scores

    @torch.inference_mode()
    def pictures(self, net: nn.Module) -> Tensor:
        """Four patches: bicubic, output and truth side by side; (C, H, W) in [0, 1]."""
        low, high = self.low[:4], self.high[:4]
        bicubic = F.interpolate(low, high.shape[-2:], mode="bicubic")
        rows = torch.cat((bicubic, net(low).float(), high), dim=3)
        return torch.cat(list(rows.clamp(0, 1)), dim=1).cpu()


def _split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pictures to train on, and one in 50, at most 16, to hold out; of few pictures the first is in both."""
    held_out = paths[::50][:16]
    rest = sorted(set(paths) - set(held_out))
    return (rest, held_out) if len(paths) >= 50 else (paths, paths[:1])


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
    features: PerceptualFeatures | None = None,
    validate: Callable[[nn.Module], dict[str, float]] = lambda net: {},
    log: Callable[[str], None] = print,
    report_seconds: float | None = None,
) -> Path:
    """Train and return the path of the averaged weights.

    init: a model to start from instead of the recipe's own; "none" for fresh weights.
    validate: called with the averaged network at the first and the last report, and at so many between that it
        takes a tenth of the time; its scores join the log. Test sets choose nothing: best.safetensors is by PSNR
        on pictures held out of `data`, and not kept where an adversary is at work, which no PSNR can judge.
    report_seconds: between reports, each of which saves; by default ten times what a report takes, without its
        validation, but 30 to 300.
    An interrupt (SIGINT, SIGTERM) lets the step end and saves before it goes on its way.
    """
    if (out / CHECKPOINT).exists() and not resume:
        raise OptionError(f"{out}: holds a run already; go on with --resume or name another folder")
    chosen = device or torch.device("cpu")
    paths, held_out = _split(find_images(data))
    make_bank = functools.partial(
        PatchBank, scale=recipe.scale, patch=recipe.patch, degradation=recipe.degradation, seed=seed, device=chosen
    )
    bank = make_bank(paths)
    if bank.num_skipped:
        log(f"{bank.num_skipped} of {len(paths)} pictures are smaller than a patch and left out")
    trainer = Trainer(recipe, bank, chosen, seed, bf16, features)
    start = init or recipe.init
    _prepare(trainer, out if resume else None, start, log)
    out.mkdir(parents=True, exist_ok=True)
    record = RunRecord(out, trainer.num_steps, log)
    arguments = {"data": str(data), "seed": seed, "bf16": bf16, "init": start, "device": str(chosen)}
    record.start(recipe, {**arguments, **asdict(budget)})
    with make_bank(held_out) as held_out_bank:
        reporter = _Reporter(trainer, record, HeldOut(held_out_bank, trainer), validate, report_seconds)
    bank.seek(trainer.num_steps)  # what a first shard takes to make is not training time
    with bank, contextlib.closing(record):
        _run(trainer, budget, reporter, out, log)
    return out / WEIGHTS


def _prepare(trainer: Trainer, run: Path | None, start: str | None, log: Callable[[str], None]) -> None:
    """Load the checkpoint of a run that goes on, or else the weights of the model to start from, if there is one."""
    if run is not None:
        trainer.load(run)
        return
    if start and start != "none":
        log(trainer.start_from(start))
    if trainer.recipe.quantized:
        trainer.calibrate()


def _run(trainer: Trainer, budget: Budget, reporter: _Reporter, out: Path, log: Callable[[str], None]) -> None:
    """Step by step to the end of the budget, or to an interrupt."""
    with _deferred_interrupts() as interrupted:
        while (progress := budget.progress(trainer.num_steps, trainer.seconds)) < 1:
            started = time.monotonic()
            reporter.add(trainer.step(progress))
            # A process that was suspended for a while does not use up its budget by it.
            trainer.seconds += min(time.monotonic() - started, LONGEST_STEP_SECONDS)
            if interrupted:
                trainer.save(out)
                log(f"saved at step {trainer.num_steps}; go on with --resume")
                break
            if reporter.is_due():
                reporter.report(progress)
        else:
            reporter.report(1.0)


class _Reporter:
    """Collects losses, and at times saves, validates and reports."""

    def __init__(
        self,
        trainer: Trainer,
        record: RunRecord,
        held_out: HeldOut,
        validate: Callable[[nn.Module], dict[str, float]],
        report_seconds: float | None,
    ) -> None:
        self._trainer, self._record, self._held_out, self._validate = trainer, record, held_out, validate
        self._seconds = SHORTEST_REPORT_SECONDS if report_seconds is None else report_seconds
        self._is_adaptive = report_seconds is None
        self._sums: dict[str, Tensor] = {}
        self._num = 0
        self._last = self._next_validation = time.monotonic()
        self._best = _best_so_far(record.out)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        self._num += 1
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._seconds

    def report(self, progress: float) -> None:
        started = time.monotonic()
        trainer, out = self._trainer, self._record.out
        trainer.save(out)
        scores = self._held_out.scores(trainer.ema)
        held_out_db = scores["held out"]
        validated = time.monotonic()
        scores |= self._validation(is_last=progress >= 1)
        started += time.monotonic() - validated
        losses = {name: float(value) / self._num for name, value in self._sums.items()}
        self._record.report(trainer.num_steps, trainer.seconds / 60, progress, losses, scores)
        self._record.pictures(trainer.num_steps, self._held_out.pictures(trainer.ema))
        if trainer.adversary is None and held_out_db > self._best:
            self._best = held_out_db
            save_model_file(out / BEST_WEIGHTS, trainer.card, trainer.ema.state_dict())
            write_file(out / BEST_SCORE, json.dumps({"held_out_psnr_db": held_out_db}) + "\n")
        self._sums, self._num, self._last = {}, 0, time.monotonic()
        if self._is_adaptive:
            wanted = TIMES_BETWEEN * (self._last - started)
            self._seconds = min(max(SHORTEST_REPORT_SECONDS, wanted), LONGEST_REPORT_SECONDS)

    def _validation(self, is_last: bool) -> dict[str, float]:
        begun = time.monotonic()
        if begun < self._next_validation and not is_last:
            return {}
        scores = self._validate(self._trainer.ema)
        now = time.monotonic()
        self._next_validation = now + TIMES_BETWEEN * (now - begun)
        return scores


def _best_so_far(out: Path) -> float:
    path = out / BEST_SCORE
    return float(json.loads(path.read_text("utf-8"))["held_out_psnr_db"]) if path.is_file() else -math.inf


def _identity(recipe: Recipe) -> str:
    """What must stay the same for a run to go on."""
    values = asdict(recipe)
    if not recipe.quantized:
        del values["quantized"]  # which runs begun by earlier versions do not know
    return json.dumps(values, sort_keys=True, default=dict)


@contextlib.contextmanager
def _deferred_interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of acting on them; on leaving, act on the first.

    A step that is broken off half-way would be saved half-way. Threads other than the main one cannot
    take signals, and have none to defer.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, lambda n, frame: received.append(n)) for number in _INTERRUPTS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
