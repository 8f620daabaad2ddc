"""Queue the steps of a network with state, and do them again from the last good state where one gives NaN."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vsr.backends.engine import Engine
from vsr.backends.transfers import Planes, Transfers, make_transfers
from vsr.pipeline.checked_network import GAVE_NAN, CheckedNetwork
from vsr.pipeline.memory import BatchLimit, Splittable

__all__ = ["State", "StepQueue", "Stepped"]

State = tuple[Tensor, ...]
W = TypeVar("W", bound=Splittable)


@dataclass(frozen=True, slots=True)
class Stepped:
    """Outcome of a step, all of it on the device.

    planes: upscaled frames.  state: for the step that follows.
    is_finite: a bool tensor, False where NaN or Inf are among planes or state; see `Computed`.
    """

    planes: Planes
    state: State
    is_finite: Tensor


@dataclass(slots=True)
class _Step(Generic[W]):
    """A step whose planes were not fetched yet, and what it takes to do it again.

    before: the state it began with.  engine: of its last attempt.  fetches: give the planes of its parts, in order,
    and at their end whether these are finite.
    """

    work: W
    before: State
    engine: Engine
    fetches: list[Callable[[], Planes]]


class StepQueue(Generic[W]):
    """Steps of a recurrent network: each begins with the state that the one before has left.

    Steps are queued on the device without waiting. The planes of each are fetched in the order of the steps; only
    then NaN and Inf are seen. Such a step and all that were queued after it are done again, in a safer precision, from
    the state before it, which is the last good one.
    """

    def __init__(
        self,
        network: CheckedNetwork,
        compute: Callable[[W, State], Stepped],
        state: State = (),
        transfers: Transfers | None = None,
    ) -> None:
        """Begin with a state.

        Args:
            compute: runs `network` on a piece of work; changes neither the work nor the state, as it may be called
                again with the same, or with parts of the work in order where memory is short.
            transfers: fetch planes from the network's device; chosen by the device unless given.
        """
        self._network, self._compute, self._state = network, compute, state
        self._transfers = transfers or make_transfers(network.device)
        self._limit = BatchLimit(network.device, network.note)
        self._steps: deque[_Step[W]] = deque()

    @property
    def num_in_flight(self) -> int:
        """Steps to submit before the planes of the one before are asked for."""
        return self._transfers.num_in_flight

    def reset(self, state: State = ()) -> None:
        """Forget all steps, and go on with another state."""
        self._steps.clear()
        self._state = state

    @torch.inference_mode()
    def submit(self, work: W) -> Callable[[], Planes]:
        """Queue the next step; a call of the result waits for it and gives its planes on the CPU."""
        step = _Step(work, self._state, self._network.engine, [])
        self._begin(step)
        self._steps.append(step)
        return lambda: self._fetched(step)

    def _begin(self, step: _Step[W]) -> None:
        step.before = self._state
        step.fetches = self._limit.run(step.work, self._submitted)
        step.engine = self._network.engine

    def _submitted(self, work: W) -> Callable[[], Planes]:
        stepped = self._compute(work, self._state)
        fetch = self._transfers.download((*stepped.planes, stepped.is_finite))
        self._state = stepped.state  # only now: where memory runs out before, the work is done again from the old one
        return fetch

    @torch.inference_mode()
    def _fetched(self, step: _Step[W]) -> Planes:
        assert self._steps and self._steps[0] is step, "planes are fetched in the order of the steps"
        while True:
            parts = [fetch() for fetch in step.fetches]
            if all(part[-1] for part in parts):
                self._steps.popleft()
                return tuple(torch.cat(planes) for planes in zip(*(part[:-1] for part in parts), strict=True))
            if self._network.engine is step.engine:  # else a step before this one has led away from it already
                self._network.fall_back(GAVE_NAN)
            self._state = step.before
            for pending in self._steps:
                self._begin(pending)
