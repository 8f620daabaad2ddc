"""Measure which backend and precision run a network fastest on this CPU, and keep what was found.

Which one it is depends on the machine: bf16 is the fastest on one processor and slower than fp32 on the next. Of the
fastest, several divisions of the cores are measured next: all on one frame, or some frames side by side. The
measurements lie as JSON beside the engines, a file for each network and machine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vsr.backends.engine import PRECISIONS, Engine, Precision, Signature
from vsr.backends.engine_store import engines_folder
from vsr.backends.installed import Backend
from vsr.backends.onnx_export import fingerprint
from vsr.errors import EngineError, MissingExtraError
from vsr.events import Note, NoteCode, OnNote
from vsr.files import write_file

__all__ = [
    "Candidate",
    "Division",
    "Machine",
    "Tuning",
    "divisions",
    "list_tunings",
    "measure_divisions",
    "measure_engines",
    "processor_name",
    "take_turns",
]

BUDGET_SECONDS = 0.1  # of all turns, as long as their times settle
MOST_SECONDS = 1.0  # where they do not, as other programs are at work
TILE_SECONDS = 0.005  # that a turn takes, about
FEWEST_ROUNDS = 3
NEARLY = 1.05  # of the shortest time: noise, for which no exactness is given away
_FRAMES = 2  # at a time, as a job has at least
_SPEED = 50e9  # multiply-accumulates per second and thread
_TILE_STEP, _MOST_STEPS = 48, 4  # input pixels
_EXACT_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Division:
    """Divide the cores among frames.

    frames: that are computed at a time.  threads: of all of them together.
    """

    frames: int
    threads: int

    def __str__(self) -> str:
        return f"{self.frames} at a time by {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend and a precision that could run a network, and how it divides the cores; None for its own way."""

    backend: Backend
    precision: Precision
    division: Division | None = None

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}" + (f" {self.division}" if self.division else "")


def divisions(num_threads: int) -> list[Division]:
    """List the divisions of so many threads that are worth a measurement: from all on one frame to two a frame."""
    if num_threads < 2:
        return []
    without_spare, usual = num_threads - num_threads // 8, max(1, num_threads // 8)
    frames = {1, usual, max(1, num_threads // 4), num_threads // 2} | ({num_threads} if num_threads <= 4 else set())
    found = [Division(each, without_spare) for each in sorted(frames)]
    return found if without_spare == num_threads else [*found, Division(usual, num_threads)]


@dataclass(frozen=True, slots=True)
class Machine:
    """All that a measurement depends on beside the network.

    processor: as the system names it.  threads: of torch.  torch, openvino: versions; "" where one is missing.
    """

    processor: str
    threads: int
    torch: str
    openvino: str

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine."""
        return cls(processor_name(), torch.get_num_threads(), torch.__version__, _version("openvino"))


def take_turns(runs: Mapping[Candidate, Run]) -> dict[Candidate, float]:
    """Return the shortest seconds of each run; they take turns, so that what else goes on slows all of them."""
    seconds = dict.fromkeys(runs, float("inf"))
    begun, num_settled = time.perf_counter(), 0  # rounds in a row that brought nothing shorter
    while num_settled < FEWEST_ROUNDS or time.perf_counter() - begun < BUDGET_SECONDS:
        before = dict(seconds)
        for candidate, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[candidate] = min(seconds[candidate], time.perf_counter() - started)
        num_settled = num_settled + 1 if all(seconds[each] * NEARLY > before[each] for each in runs) else 0
        if time.perf_counter() - begun > MOST_SECONDS:
            break
    return seconds


class Tuning:
    """The measurements of one network on this machine.

    label: the model's name, for people.  seconds: of a few tiles, by candidate.  measured: when, in ISO 8601; "" for
    never.
    """

    def __init__(self, net: nn.Module, signature: Signature, label: str) -> None:
        """Read what is kept of a network, if it is of this machine and these versions."""
        self.label, self.machine = label, Machine.here()
        self.num_weights = sum(weight.numel() for weight in net.parameters())
        digest = hashlib.sha256(f"{fingerprint(net)} {signature} {self.machine}".encode()).hexdigest()
        self.path = _folder() / f"{(label or 'network').replace('/', '-')}-{digest[:16]}.json"
        self.seconds, self.measured = _read(self.path)

    def lacks(self, candidates: Iterable[Candidate]) -> bool:
        """Tell whether some of the candidates were not measured yet."""
        return not self.seconds.keys() >= set(candidates)

    def fastest(self, candidates: Sequence[Candidate]) -> Candidate:
        """Return the fastest of measured candidates; of those nearly as fast the most exact one."""
        shortest = min(self.seconds[candidate] for candidate in candidates)
        near = [candidate for candidate in candidates if self.seconds[candidate] <= shortest * NEARLY]
        return min(near, key=lambda each: (_EXACT_FIRST.index(each.precision), self.seconds[each]))

    def knows_division(self, chosen: Candidate, signature: Signature) -> bool:
        """Tell whether nothing is to be measured of how a candidate divides the cores."""
        if chosen.backend != "openvino" or signature.states:  # frames with a state go through one by one
            return True
        return not self.lacks(_divided(chosen))

    def fastest_division(self, chosen: Candidate) -> Division | None:
        """Return the fastest division of a candidate; None where none was measured."""
        measured = [candidate for candidate in _divided(chosen) if candidate in self.seconds]
        return self.fastest(measured).division if measured else None

    def measure(self, runs: Mapping[Candidate, Run], num_frames: int = _FRAMES) -> None:
        """Measure candidates, and keep the result; where it cannot be kept, the next job measures again.

        runs: compute tiles, `num_frames` each; what happens once has happened.
        """
        self.seconds |= {each: value * _FRAMES / num_frames for each, value in take_turns(runs).items()}
        self.measured = datetime.now(UTC).isoformat(timespec="seconds")
        seconds = {str(candidate): round(value, 7) for candidate, value in self.seconds.items()}
        record = {"model": self.label, "measured": self.measured, **asdict(self.machine), "seconds": seconds}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.path, json.dumps(record, indent=2) + "\n")

    def describe(self) -> str:
        """Name the candidates from the fastest to the slowest, and how many times as long as that each takes."""
        return _describe(self.seconds)


def measure_engines(
    tuning: Tuning,
    candidates: Iterable[Candidate],
    make: Callable[[Candidate], Engine],
    signature: Signature,
    note: OnNote,
) -> dict[Candidate, Engine]:
    """Make the engines of candidates, measure them on tiles of one size, and return them.

    note: called with a line that names the result, and with one for each candidate that does not run.
    """
    engines, runs, candidates = dict[Candidate, Engine](), dict[Candidate, Run](), list(candidates)
    side = _tile_side(tuning.num_weights)
    num_frames = max(_FRAMES, *(each.division.frames if each.division else 0 for each in candidates), 0)
    if signature.states:
        num_frames = 1
    tiles = tuple(torch.rand(num_frames, channels, side, side) for _, channels in signature.inputs)
    for candidate in candidates:
        try:
            engine = make(candidate)
            outputs = engine(*tiles)  # brings what happens once, such as compiling
        except (EngineError, MissingExtraError, RuntimeError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            note(Note(NoteCode.ENGINE, f"{candidate} is not measured, as it fails ({line})"))
            continue
        engines[candidate] = engine
        runs[candidate] = functools.partial(engine, *_fed_back(tiles, outputs, signature))
    if runs:
        tuning.measure(runs, _FRAMES if signature.states else num_frames)
        note(Note(NoteCode.ENGINE, f"measured on this machine, and kept: {tuning.describe()}"))
    return engines


def measure_divisions(
    tuning: Tuning, chosen: Candidate, make: Callable[[Candidate], Engine], signature: Signature, note: OnNote
) -> Engine | None:
    """Measure how a candidate divides the cores best; return its engine, or None where there is nothing to divide."""
    if chosen.backend != "openvino" or signature.states or not _divided(chosen):
        return None
    made = measure_engines(tuning, _divided(chosen), make, signature, note)
    return made.get(replace(chosen, division=tuning.fastest_division(chosen)))


def _divided(chosen: Candidate) -> list[Candidate]:
    return [replace(chosen, division=each) for each in divisions(torch.get_num_threads())]


def _fed_back(inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], signature: Signature) -> tuple[Tensor, ...]:
    """Put the states that an engine gave in place of those it took, as it gives them the way it takes them fastest."""
    given, follows = dict(zip(signature.outputs, outputs, strict=True)), dict(signature.states)
    return tuple(
        given[follows[name]] if name in follows else x for name, x in zip(signature.input_names, inputs, strict=True)
    )


def _tile_side(num_weights: int) -> int:
    """Return the side of tiles that take PyTorch about `TILE_SECONDS`, a multiple of most that networks ask for."""
    pixels = TILE_SECONDS * _SPEED * torch.get_num_threads() / max(1, num_weights) / _FRAMES
    return _TILE_STEP * max(1, min(_MOST_STEPS, round(math.sqrt(pixels) / _TILE_STEP)))


def list_tunings() -> dict[str, str]:
    """Describe what is kept of this machine and these versions, by model, the latest of each."""
    here, found = asdict(Machine.here()), {}
    for path in sorted(_folder().glob("*.json"), key=lambda each: each.stat().st_mtime):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text("utf-8"))
            if {name: record[name] for name in here} == here:
                found[str(record["model"])] = f"{_describe(record['seconds'])} (measured {record['measured']})"
    return found


def _describe(seconds: Mapping[Any, float]) -> str:
    ordered = sorted(seconds.items(), key=lambda item: item[1])
    return ", ".join(f"{candidate} ×{value / ordered[0][1]:.2f}" for candidate, value in ordered)


def _folder() -> Path:
    return engines_folder() / "tuning"


def _read(path: Path) -> tuple[dict[Candidate, float], str]:
    """Read a file of `Tuning.measure`; nothing of one that is not there or not whole."""
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        seconds = {_candidate(name): float(value) for name, value in record["seconds"].items()}
        return seconds, str(record["measured"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, ""


def _candidate(text: str) -> Candidate:
    backend, precision, *rest = text.split(maxsplit=2)
    if backend not in get_args(Backend) or precision not in PRECISIONS:
        raise ValueError(text)
    division = None
    if rest:
        frames, threads = (int(word) for word in rest[0].split() if word.isdecimal())
        division = Division(frames, threads)
    return Candidate(backend, precision, division)  # type: ignore[arg-type]


def processor_name() -> str:
    """Return the processor's name; on Linux Python's own is empty or the architecture."""
    with suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
