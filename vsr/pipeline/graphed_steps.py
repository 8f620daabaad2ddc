"""Decide when the steps of a recurrent network are replayed as a CUDA graph, and when that graph is of no more use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from vsr.backends.compiled import reason_of
from vsr.backends.cuda_runner import CudaRunner, DeviceRunner
from vsr.backends.engine import Launch, make_launch, release_buffers
from vsr.backends.step_graph import StepGraph
from vsr.errors import EngineError
from vsr.events import Note, NoteCode
from vsr.models.nets.recurrent import details
from vsr.pipeline.checked_network import CheckedNetwork, is_finite
from vsr.pipeline.memory import Splittable, is_out_of_memory
from vsr.pipeline.steps import State, Stepped
from vsr.pipeline.warping import Warping

__all__ = ["GraphedSteps", "make_runner"]

W = TypeVar("W", bound=Splittable)


def make_runner(device: torch.device) -> DeviceRunner | None:
    """Make the runner of graphs for a device; None for one without."""
    return CudaRunner(device) if device.type == "cuda" else None


class GraphedSteps:
    """Steps of a network as one graph: the state warped to a frame, the network, the search for NaN.

    There is one graph at a time, of one frame size and one engine as it is now. It is made at the second run along
    frames of them: whoever runs once needs none, and an engine that the check of its precision refuses is gone by then.
    Where frames are tiled, and where nothing can be captured, there is none, and the caller steps without.
    """

    def __init__(self, network: CheckedNetwork, state_channels: int, warping: Warping, runner: DeviceRunner) -> None:
        self._network, self._state_channels = network, state_channels
        self._warping, self._runner = warping, runner
        self._key: tuple[object, ...] = ()
        self._graph: StepGraph | None = None
        self._is_tried = self._is_given_up = False
        self._num_out_of_memory = 0

    @property
    def is_in_use(self) -> bool:
        """Tell whether there is a graph, which the next steps replay if they are like the last."""
        return self._graph is not None

    def run(
        self, frames: tuple[Tensor, Tensor, Tensor], flow: Tensor, goes_on: Sequence[bool], state: State
    ) -> Stepped | None:
        """Queue the steps along N frames; None where the caller is to step without a graph.

        Args:
            frames: planes, previous and following luma, as in `RecurrentNet`, (N, C, H, W) each.
            flow: from each frame to the one before, (N, H, W, 2); zeros where there is none.
            goes_on: for each frame, whether its state is that of the frame before.
        """
        if self._is_given_up or not self._is_ready(frames[0]):
            return None
        each = list(zip(*(torch.split(x, 1) for x in (*frames, flow)), strict=True))
        with self._runner.active():
            if not self._is_tried:
                self._is_tried = True
                self._graph = self._made(each[0])
            if self._graph is None or (state and state[0].dtype != self._graph.state_dtype):
                return None
            done = self._graph.run(each, goes_on, state[0] if state else None, self._network.take_turn)
        return Stepped(done.images, (done.state,), done.are_finite.all())

    def making_room(self, compute: Callable[[W, State], Stepped]) -> Callable[[W, State], Stepped]:
        """Return the same, done again without a graph where memory runs out and less work cannot be tried instead.

        Less work comes first, and once: a graph pays for smaller batches.
        """

        def tried(work: W, state: State) -> Stepped:
            try:
                return compute(work, state)
            except (MemoryError, RuntimeError) as error:
                if not self._has_made_room(error, can_shrink=work.num_frames > 1):
                    raise
            return compute(work, state)

        return tried

    def _has_made_room(self, error: BaseException, *, can_shrink: bool) -> bool:
        """Let the graph go for lack of memory; tell whether there is none any more."""
        if self._is_given_up or not is_out_of_memory(error):
            return False
        self._forget()
        self._num_out_of_memory += 1
        if can_shrink and self._num_out_of_memory == 1:
            return False
        self._give_up("out of memory")
        return True

    def _is_ready(self, planes: Tensor) -> bool:
        """Tell whether such frames have run on this engine before, and run whole; forget the graph of any others."""
        height, width = planes.shape[-2:]
        key = (self._network.numerics_key, height, width)
        if key != self._key:
            self._forget()
            self._key = key
            return False
        multiple, tile = self._network.card.multiple_of, self._network.tile
        return not (height % multiple or width % multiple) and (tile is None or tile >= max(height, width))

    def _made(self, frame: tuple[Tensor, ...]) -> StepGraph | None:
        try:
            return self._captured(frame)
        except (RuntimeError, EngineError) as error:
            if memory := _lack_of_memory(error):
                self._runner.renew()
                raise memory from None
            reason = reason_of(error)
        # Past the handler, as the error holds on to what was made.
        self._give_up(reason)
        return None

    def _captured(self, frame: tuple[Tensor, ...]) -> StepGraph | None:
        planes, dtype = frame[0], self._network.state_dtype
        launch = make_launch(self._network.engine, self._runner, (1, *planes.shape[1:]))
        if launch is None:
            return None
        step = functools.partial(_step, launch, self._warping, dtype, self._network.card.scale)
        state_shape = (1, self._state_channels, *planes.shape[2:])
        return StepGraph(self._runner, step, frame, state_shape, dtype)

    def _give_up(self, why: str) -> None:
        """Go without from now on, and touch nothing again that a failed capture may have left in an unknown state."""
        self._is_given_up = True
        self._runner.renew()
        release_buffers(self._network.engine)
        text = f"no CUDA graph of the network's steps, which take longer to queue ({why})"
        self._network.note(Note(NoteCode.FALLBACK, text))

    def _forget(self) -> None:
        if self._graph is not None:
            self._graph.close()
        self._graph, self._key, self._is_tried = None, (), False


def _step(launch: Launch, warping: Warping, dtype: torch.dtype, scale: int, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Warp the state along the flow, run the network, and take the details out of its state; see `Step`.

    dtype: in which the network takes a state.  scale: of the network.
    """
    *frames, flow, state = inputs
    (after,) = launch(*frames, warping(flow).state(state, 0).to(dtype))
    return (*details(after, scale), after, is_finite((after,)))


def _lack_of_memory(error: BaseException) -> BaseException | None:
    """Return the lack of memory that an error comes from, as the end of a broken capture raises one of its own."""
    cause: BaseException | None = error
    while cause is not None and not is_out_of_memory(cause):
        cause = cause.__context__
    return cause
