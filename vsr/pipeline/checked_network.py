"""A network whose numbers can be relied upon: any size, enough memory, a precision that was checked, no NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vsr.backends.engine import Engine, Precision, safer_precisions, state_dtype
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError
from vsr.events import Note, NoteCode, OnNote
from vsr.models.cards import ModelCard
from vsr.pipeline.precision_gate import GATE_TOLERANCE, PrecisionGate
from vsr.pipeline.tiles import TiledNetwork

__all__ = ["GAVE_NAN", "CheckedNetwork", "Computed", "Network", "SteppingNetwork", "is_finite"]

GAVE_NAN = "gave NaN or Inf"


@dataclass(frozen=True, slots=True)
class Computed:
    """Outputs of a network on its device.

    is_finite: a bool tensor on the device, False where NaN or Inf are among the outputs; asking for its value waits.
    """

    outputs: tuple[Tensor, ...]
    is_finite: Tensor


class Network(Protocol):
    """Compute outputs without waiting for the device; a caller checks `is_finite` when it fetches them."""

    def run(self, *inputs: Tensor) -> Computed: ...


class SteppingNetwork(Network, Protocol):
    """See `Network`: one with a state.  state_dtype: the type in which it is handed on; see `Engine`."""

    @property
    def state_dtype(self) -> torch.dtype: ...


def is_finite(outputs: tuple[Tensor, ...]) -> Tensor:
    """Return whether all values are finite, as a bool tensor on their device, without waiting for it."""
    finite = torch.isfinite(_sum(outputs[0]))
    for out in outputs[1:]:
        finite = finite & torch.isfinite(_sum(out))
    return finite


def _sum(x: Tensor) -> Tensor:
    """Add up all values in a type in which the sum of finite ones is finite, as that of fp16 is not.

    bf16 has the range of float32, and is added up in it: to ask for that type would convert all values first.
    """
    return x.sum(dtype=None if x.dtype is torch.bfloat16 else torch.float32)


class CheckedNetwork:
    """Run a model's network on frames of any size, in a precision that gives what fp32 gives.

    Inputs are float32 (N, C, H, W) of one N, H and W on `device`. The first call is checked against fp32. Where that
    differs, and where a caller reports NaN or Inf (`fall_back`), the next safer precision takes over, with a note;
    EngineError where there is none left. Keeps the limits and the precision it has found, and no frames.
    use_backend: makes later engines run on a backend, by its name; to be set where there is a choice.
    """

    def __init__(
        self,
        card: ModelCard,
        make_engine: Callable[[Precision], Engine],
        precision: Precision,
        tile: int | None = None,
        note: OnNote = lambda line: None,
        *,
        make_reference: Callable[[], Engine] | None = None,
        is_fixed: bool = False,
    ) -> None:
        """Make the engine for `precision`.

        Args:
            tile: side of a tile in input pixels; None for whole frames.
            make_reference: makes an engine whose numbers are trusted; `make_engine("fp32")` unless given.
            note: called with one line for each change of precision, batch or tile.
            is_fixed: whether the reference must not take over when `make_engine` fails at every precision.
        """
        self.card, self.precision, self._make_engine, self.note = card, precision, make_engine, note
        self._make_reference, self._is_fixed = make_reference, is_fixed
        self.use_backend: Callable[[str], None] = lambda backend: None
        self._tiled = TiledNetwork(make_engine(precision), card, tile, note)
        self._is_checked = self._is_trusted()

    @property
    def engine(self) -> Engine:
        return self._tiled.engine

    @property
    def device(self) -> torch.device:
        return self.engine.device

    @property
    def tile(self) -> int | None:
        """Side of a tile in input pixels; None for whole frames."""
        return self._tiled.tile

    @property
    def state_dtype(self) -> torch.dtype:
        return state_dtype(self.engine)

    @property
    def numerics_key(self) -> tuple[object, ...]:
        """All that the last bits of an output depend on beside the inputs: engine, precision, batch and tile limits."""
        return self.engine, self.engine.name, self._tiled.max_batch, self._tiled.tile

    @property
    def take_turn(self) -> Callable[[], AbstractContextManager[object]]:
        """The block in which a batch or a tile is computed; where others share the device, set it to their turn."""
        return self._tiled.take_turn

    @take_turn.setter
    def take_turn(self, take_turn: Callable[[], AbstractContextManager[object]]) -> None:
        self._tiled.take_turn = take_turn

    @property
    def is_checked(self) -> bool:
        """Tell whether its precision was compared with fp32, or needs not to be."""
        return self._is_checked

    @property
    def backend(self) -> str:
        """The name of the backend that runs the network now, as the option `backend` has it."""
        return self.engine.name.partition(" ")[0].lower()

    def use_precision(self, precision: Precision, backend: str = "") -> None:
        """Continue in a precision that an earlier run of the same job has checked on its frames.

        backend: that ran it, where that is known; what "auto" chooses may be another by now.
        """
        if precision != self.precision or (backend and backend != self.backend):
            self.use_backend(backend)
            self.precision = precision
            self._tiled.engine = self._make_engine(precision)
        self._is_checked = True

    def check_again(self) -> None:
        """Check the precision anew on the next call, which is of another job."""
        self._is_checked = self._is_trusted()

    def leave_check(self) -> None:
        """Check nothing on the next call, as the caller does so; see `fall_back_from`."""
        self._is_checked = True

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute outputs, unclamped, at the first precision that gives neither NaN nor Inf; waits for the device."""
        while True:
            computed = self.run(*inputs)
            if computed.is_finite:
                return computed.outputs
            self.fall_back(GAVE_NAN)

    def run(self, *inputs: Tensor) -> Computed:
        """See `Network`; the first call waits, as it is checked."""
        outputs = self._tiled(*inputs)
        if not self._is_checked:
            outputs = self._check_precision(inputs, outputs)
        return Computed(outputs, is_finite(outputs))

    def fall_back(self, why: str) -> None:
        """Take the next safer precision or, after the last, the reference. Raises EngineError where none is left."""
        remaining = safer_precisions(self.precision)
        if remaining:
            self.note(Note(NoteCode.FALLBACK, f"{self.precision} {why}: going on in {remaining[0]}"))
            self.precision = remaining[0]
            self._tiled.engine = self._make_engine(self.precision)
        elif self._make_reference is not None and not self._is_fixed and not self._is_trusted():
            reference = self._make_reference()
            self.note(Note(NoteCode.FALLBACK, f"{self.engine.name}, {why}: going on with {reference.name}"))
            self._tiled.engine = reference
        else:
            raise EngineError(
                f"model '{self.card.name}' {why} at {self.precision} on {self.engine.name}; "
                + ("its weights are bad" if self._is_trusted() else "try another `backend`")
            )
        self._is_checked = self._is_checked or self._is_trusted()

    def fall_back_from(self, difference: float) -> None:
        """Take the next safer precision, as an image in [0, 1] differs so much from a trusted one, or has NaN."""
        is_nan = math.isnan(difference)
        self.fall_back(GAVE_NAN if is_nan else f"differs from fp32 by {difference * 255:.1f} code values")

    def _check_precision(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the outputs of the first call, or what a safer precision gives in their place."""
        while not self._is_checked:
            gate = PrecisionGate(self.trusted(), inputs)  # anew, as int8 has a reference of its own
            difference = gate.difference(outputs[0])
            if difference <= GATE_TOLERANCE:  # false for NaN
                self._is_checked = True
            else:
                self.fall_back_from(difference)
                outputs = self._tiled(*inputs)
        return outputs

    def trusted(self) -> TiledNetwork:
        """Make the network whose numbers are relied upon."""
        return TiledNetwork(self._make_reference() if self._make_reference else self._make_engine("fp32"), self.card)

    def _is_trusted(self) -> bool:
        """Tell whether there is nothing to check the engine against."""
        has_safer = bool(safer_precisions(self.precision))
        return not has_safer and (self._make_reference is None or isinstance(self.engine, TorchEngine))
