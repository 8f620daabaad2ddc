"""Run a training on images or clips: its length, its state on disk, its reports."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vsr.errors import EngineError, InputError, ModelError, OptionError, OutputError
from vsr.files import naming_output, write_file
from vsr.models.cards import ModelCard
from vsr.models.weights import build_net, load_net, resolve, save_model_file
from vsr.train.recipes import AnyRecipe
from vsr.train.record import RunRecord

__all__ = ["CHECKPOINT", "WEIGHTS", "Budget", "Judge", "Learner", "Pace", "Reporter", "check_folder", "run"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
BEST_WEIGHTS = "best.safetensors"
BEST_SCORE = "best.json"
LONGEST_STEP_SECONDS = 30.0
NUM_WARMUP_STEPS = 200
MOST_BAD_STEPS = 20  # in a row
HIGHEST_LOSS = 1e4  # on images in [0, 1]; a network that learns stays orders of magnitude below
LOWEST_DB = 8.0  # less than a flat gray image has


@dataclass(frozen=True, slots=True)
class Budget:
    """Limit a training: by steps or by minutes of training time, exactly one of them."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise OptionError("give the length of the training either as steps or as minutes")
        if self.steps is not None and self.steps <= 0:
            raise OptionError(f"`steps={self.steps}`: the length of the training must be greater than zero")
        if self.minutes is not None and not 0 < self.minutes < math.inf:  # which "not a number" fails, too
            raise OptionError(f"`minutes={self.minutes:g}`: the length of the training must be greater than zero")

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the schedule that is done, 0 to 1."""
        done = step / self.steps if self.steps else seconds / (60 * (self.minutes or 1))
        return min(done, 1.0)


class Learner:
    """Hold a network, its moving average, its optimiser and the random state.

    Subclasses add `step`, which moves all of them by one batch; `save` and `load` keep all of them. `seconds` is the
    training time so far.

    Args:
        clock: returns seconds, by which the budget is counted.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, recipe: AnyRecipe, card: ModelCard, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.identity = identity(recipe)
        self.card, self.device = card, device
        self.net = build_net(card).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.optimizer = self.make_optimizer(recipe)
        self.rng = np.random.default_rng(seed)
        self.num_steps = 0
        self.num_bad_steps = 0  # in a row up to the last one
        self.seconds = 0.0
        self.learning_rate, self._ema_decay = recipe.learning_rate, recipe.ema_decay

    def make_optimizer(self, recipe: AnyRecipe) -> torch.optim.Optimizer:
        """Make what moves the weights."""
        return torch.optim.Adam(self.net.parameters(), recipe.learning_rate, betas=(0.9, 0.99), fused=True)

    @property
    def is_judged_by_psnr(self) -> bool:
        """Return True if the best weights are those of the highest PSNR."""
        return True

    def step(self, progress: float) -> dict[str, Tensor]:
        """Move by one batch at `progress` (0 to 1) of the schedule. Returns the losses, weighted, without gradient."""
        raise NotImplementedError

    def descend(self, loss: Tensor, max_gradient: float) -> None:
        """Follow the gradient of a loss, at most so long; leave the weights as they are where the step is bad.

        A step is bad if its loss or gradient is not finite, or the loss beyond `HIGHEST_LOSS`.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), max_gradient)
        if math.isfinite(float(norm)) and abs(float(loss.detach())) <= HIGHEST_LOSS:
            self.num_bad_steps = 0
            self.optimizer.step()
        else:
            self.num_bad_steps += 1

    def set_rate(self, rate: float) -> None:
        """Multiply the recipe's learning rate for the coming step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate

    def cosine_rate(self, progress: float) -> float:
        """Return the factor of the learning rate: a linear warm-up, then half a cosine to zero."""
        return self.warmup_rate() * (0.5 + 0.5 * math.cos(math.pi * progress))

    def warmup_rate(self) -> float:
        return min(1.0, (self.num_steps + 1) / NUM_WARMUP_STEPS)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the network; faster at the beginning, which is soon out of date."""
        decay = min(self._ema_decay, (1 + self.num_steps) / (10 + self.num_steps))
        for average, value in zip(self.ema.state_dict().values(), self.net.state_dict().values(), strict=True):
            average.lerp_(value, 1 - decay)

    def start_from(self, model: str) -> str:
        """Take the weights of a model, by name or file, or of a network with the same trunk.

        Tensors of the same name and shape are taken, and those that `fitted` makes fit. Returns a line that says how
        many were. Raises ModelError if they are less than half of the network's parameters.
        """
        source = load_net(*resolve(model))
        own = self.net.state_dict()
        state = self.fitted(source, own)
        taken = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if 2 * sum(v.numel() for v in taken.values()) < sum(v.numel() for v in own.values()):
            raise ModelError(f"`init={model}`: does not fit the recipe '{self.card.name}'")
        for net in (self.net, self.ema):
            net.load_state_dict({**own, **taken})
        return f"starts from {model}: {len(taken)} of {len(own)} tensors"

    def fitted(self, source: nn.Module, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Convert another network's weights to this one's shapes, where that is possible."""
        return source.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return {
            "recipe": self.identity,
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": json.dumps(self.rng.bit_generator.state),
            "num_steps": self.num_steps,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.num_steps, self.seconds = state["num_steps"], state["seconds"]

    def save(self, folder: Path) -> None:
        """Write checkpoint and averaged weights, each completely or not at all. Raises OutputError."""
        # Made in memory first: PyTorch and safetensors report a full disk as errors that do not say so.
        content = io.BytesIO()
        torch.save(self.state_dict(), content)
        with naming_output(folder / CHECKPOINT):
            write_file(folder / CHECKPOINT, content.getvalue())
        with naming_output(folder / WEIGHTS):
            save_model_file(folder / WEIGHTS, self.card, self.ema.state_dict())

    def load(self, folder: Path) -> None:
        """Go on where `save` left off: the same weights, moments, patches and schedule.

        Raises InputError where there is no checkpoint of a run, or a damaged one, and OptionError for another recipe.
        """
        path = folder / CHECKPOINT
        if not path.is_file():
            raise InputError(f"{path}: no checkpoint to resume from")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            recipe = state["recipe"]
        except Exception as error:  # a damaged file can break PyTorch's reader at any point
            raise _unfit(path, error) from error
        if recipe != self.identity:
            raise OptionError(f"{folder}: was trained by another recipe; `resume=True` takes the one in recipe.json")
        try:
            self.load_state_dict(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise _unfit(path, error) from error


class Judge(Protocol):
    """Score networks on held-out material, to choose the best weights."""

    def scores(self, net: nn.Module) -> dict[str, float]:
        """Score a network; the entry "held out" (PSNR in dB) chooses the best."""
        ...

    def images(self, net: nn.Module) -> Tensor:
        """Show sample output: (C, H, W) in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """Set the time between reports, in seconds: a multiple of the duration of a report, within limits.

    Args:
        longest: also the most training time that a kill can cost.
    """

    shortest: float = 30.0
    longest: float = 300.0
    times_between: int = 10

    @classmethod
    def every(cls, seconds: float) -> Pace:
        return cls(seconds, seconds)

    def between(self, duration: float) -> float:
        return min(max(self.shortest, self.times_between * duration), self.longest)


class Reporter:
    """Collect losses; at intervals save, validate and report."""

    def __init__(
        self,
        learner: Learner,
        record: RunRecord,
        judge: Judge,
        validate: Callable[[nn.Module], dict[str, float]],
        pace: Pace,
    ) -> None:
        self._learner, self._record, self._judge, self._validate, self._pace = learner, record, judge, validate, pace
        self._seconds = pace.shortest
        self._sums: dict[str, Tensor] = {}
        self._num = 0
        self._last = self._next_validation = time.monotonic()
        self._best = _best_so_far(record.out)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        self._num += 1
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def is_due(self) -> bool:
        """Tell whether it is time for a report; bad steps put it off."""
        return time.monotonic() - self._last >= self._seconds and not self._learner.num_bad_steps

    def report(self, progress: float) -> None:
        """Score, save and report. Raises EngineError, with the last state kept, where the network is worthless."""
        started = time.monotonic()
        learner, out = self._learner, self._record.out
        scores = self._judge.scores(learner.ema)
        held_out_db = scores["held out"]
        is_begun = learner.num_bad_steps or learner.num_steps > NUM_WARMUP_STEPS
        if not math.isfinite(held_out_db) or (is_begun and held_out_db < LOWEST_DB):
            raise _diverged(learner, out, f"on held-out images the network has {held_out_db:.1f} dB")
        learner.save(out)
        validated = time.monotonic()
        scores |= self._validation(is_last=progress >= 1)
        started += time.monotonic() - validated
        losses = {name: float(value) / self._num for name, value in self._sums.items()}
        self._record.report(learner.num_steps, learner.seconds / 60, progress, losses, scores)
        self._record.images(learner.num_steps, self._judge.images(learner.ema))
        if learner.is_judged_by_psnr and held_out_db > self._best:
            self._best = held_out_db
            with naming_output(out / BEST_WEIGHTS):
                save_model_file(out / BEST_WEIGHTS, learner.card, learner.ema.state_dict())
                write_file(out / BEST_SCORE, json.dumps({"held_out_psnr_db": held_out_db}) + "\n")
        self._sums, self._num, self._last = {}, 0, time.monotonic()
        self._seconds = self._pace.between(self._last - started)

    def _validation(self, is_last: bool) -> dict[str, float]:
        begun = time.monotonic()
        if begun < self._next_validation and not is_last:
            return {}
        scores = self._validate(self._learner.ema)
        now = time.monotonic()
        self._next_validation = now + self._pace.times_between * (now - begun)
        return scores


def run(learner: Learner, budget: Budget, reporter: Reporter, out: Path, log: Callable[[str], None]) -> None:
    """Train step by step to the end of the budget, or to an interrupt, which lets the step end and saves.

    Raises EngineError for a training that diverges; the last good state stays on disk.
    """
    with _deferred_interrupts() as interrupted:
        while (progress := budget.progress(learner.num_steps, learner.seconds)) < 1:
            started = learner.clock()
            losses = learner.step(progress)
            if not learner.num_bad_steps:
                reporter.add(losses)
            elif learner.num_bad_steps >= MOST_BAD_STEPS:
                what = f"the loss or its gradient was not finite for {MOST_BAD_STEPS} steps in a row"
                raise _diverged(learner, out, what)
            # A process that was suspended for a while does not use up its budget by it.
            learner.seconds += min(learner.clock() - started, LONGEST_STEP_SECONDS)
            if interrupted:
                if learner.num_bad_steps:
                    log(f"step {learner.num_steps} was not finite: not saved; the last checkpoint stays")
                else:
                    learner.save(out)
                    log(f"saved at step {learner.num_steps}; go on with `resume=True`")
                break
            if reporter.is_due():
                reporter.report(progress)
        else:
            reporter.report(1.0)


def _diverged(learner: Learner, out: Path, what: str) -> EngineError:
    """Make the error of a training that diverges: what was seen, what is kept, and what to change."""
    kept = f"{out / CHECKPOINT} is from before that" if (out / CHECKPOINT).exists() else "nothing was saved before that"
    return EngineError(
        f"step {learner.num_steps}: {what}: the training diverges; {kept}; begin again in another folder with a "
        f"lower `learning_rate` than {learner.learning_rate:g}"
    )


def _unfit(path: Path, error: Exception) -> InputError:
    why = " ".join(f"{type(error).__name__} {error}".split())[:120]
    return InputError(f"{path}: is damaged, or no checkpoint of such a run ({why}); begin anew in another folder")


def check_folder(out: Path, resume: bool) -> None:
    """Raise OptionError where a new run would overwrite another, OutputError where it cannot be written."""
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not place.is_dir():
        raise OutputError(f"{out}: {'is' if place == out else f'{place} is'} a file; name a folder for the run")
    if not os.access(place, os.W_OK):
        raise OutputError(f"{out}: no permission to write in {place}")
    if (out / CHECKPOINT).exists() and not resume:
        raise OptionError(f"{out}: holds a run already; go on with `resume=True` or name another folder")


# Fields of recipes that came later, which runs begun before do not know, and the value that stands for "as before".
_LATER_FIELDS = {"quantized": False, "judges_luma_only": False, "gan": None, "optimizer": "adam"}


def identity(recipe: AnyRecipe) -> str:
    """Describe the parts of a recipe that must stay the same for a run to go on."""
    values = asdict(recipe)
    for name, before in _LATER_FIELDS.items():
        if values.get(name) == before:
            values.pop(name, None)
    return json.dumps(values, sort_keys=True, default=dict)


def _best_so_far(out: Path) -> float:
    """Read the score of the best weights so far. Raises InputError for a damaged file."""
    path = out / BEST_SCORE
    if not path.is_file():
        return -math.inf
    try:
        return float(json.loads(path.read_text("utf-8"))["held_out_psnr_db"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged; remove it, and the best weights are chosen anew") from error


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
