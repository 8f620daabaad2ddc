"""Run the steps of a network with state as one CUDA graph, which costs a launch where the step costs tens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from vsr.backends.cuda_runner import DeviceRunner

__all__ = ["Frame", "Step", "StepGraph", "Steps"]

Frame = tuple[Tensor, ...]  # the inputs of a step but for the state, of one shape and dtype at every step
Step = Callable[..., tuple[Tensor, ...]]  # (*frame, state) → (*images, next state, whether all is finite)


@dataclass(frozen=True, slots=True)
class Steps:
    """Outputs of N steps, the caller's to keep.

    images: of all steps, (N, C, H, W) each.  state: after the last step.  are_finite: (N,) bool.
    """

    images: tuple[Tensor, ...]
    state: Tensor
    are_finite: Tensor


class StepGraph:
    """A step, captured once, with inputs and outputs at addresses that stay.

    A replay is queued behind the copies to its inputs, and the copies from its outputs behind the replay, all on the
    runner's stream: no replay overwrites what is still to be read, and nothing waits on the host.
    state_dtype: of the state that it takes, which is that of the state that it gives.
    """

    def __init__(
        self,
        runner: DeviceRunner,
        step: Step,
        frame: Frame,
        state_shape: tuple[int, int, int, int],
        state_dtype: torch.dtype,
    ) -> None:
        """Run the step, which chooses its kernels, then capture it.

        Raises torch.OutOfMemoryError, and RuntimeError where it cannot be captured; then see `DeviceRunner.capture`.

        Args:
            step: only queues work on the current stream, with no value asked of the device.
            frame: inputs like those that are to come.
            state_shape: (1, C, H, W).
            state_dtype: of a state that is all zeros; the step may give another, which the graph takes then.
        """
        self._runner, self._step = runner, step
        self._frame = tuple(runner.zeros(x.shape, x.dtype) for x in frame)
        self._state = self._zeros(state_shape, state_dtype, is_channels_last=True)
        with runner.turn():
            given = self._launch()[-2]
        # Kernels may depend on type and order: it comes as it is given.
        if given.dtype != state_dtype or given.is_contiguous():
            self._state = self._zeros(state_shape, given.dtype, is_channels_last=not given.is_contiguous())
            with runner.turn():
                self._launch()
        self.state_dtype = given.dtype
        self._outputs: tuple[Tensor, ...] = ()
        with runner.turn():
            self._replay = runner.capture(self._capture)

    def _zeros(self, shape: tuple[int, int, int, int], dtype: torch.dtype, *, is_channels_last: bool) -> Tensor:
        num, channels, height, width = shape
        if is_channels_last:
            return self._runner.zeros((num, height, width, channels), dtype).permute(0, 3, 1, 2)
        return self._runner.zeros(shape, dtype)

    def _launch(self) -> tuple[Tensor, ...]:
        return self._step(*self._frame, self._state)

    def _capture(self) -> None:
        self._outputs = self._launch()

    def run(
        self,
        frames: Sequence[Frame],
        goes_on: Sequence[bool],
        state: Tensor | None,
        take_turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Steps:
        """Queue a step for each of N frames.

        Args:
            goes_on: for each frame, whether it takes the state of the one before; zeros if not.
            state: before the first frame, of the graph's type; None for zeros.
            take_turn: held while a replay is queued.
        """
        *images, after, is_finite = self._outputs
        made = tuple(x.new_empty((len(frames), *x.shape[1:])) for x in images)
        last, are_finite = torch.empty_like(after), is_finite.new_empty((len(frames),))
        with self._runner.turn():
            for position, frame in enumerate(frames):
                for buffer, x in zip(self._frame, frame, strict=True):
                    buffer.copy_(x)
                if state is not None and goes_on[position]:
                    self._state.copy_(state)
                else:
                    self._state.zero_()
                with take_turn():
                    self._replay()
                for target, x in zip(made, images, strict=True):
                    target[position : position + 1].copy_(x)
                are_finite[position].copy_(is_finite)
                state = after
            last.copy_(after)
        return Steps(made, last, are_finite)

    def close(self) -> None:
        """Wait for the replays that are queued; what they run and write to may go then."""
        self._runner.wait()
