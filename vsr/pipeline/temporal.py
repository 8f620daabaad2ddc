"""Upscale video with a network that carries what it saw before, aligned by optical flow."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from vsr.backends.compiled import choose_samples
from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import Engine
from vsr.backends.transfers import Transfers, make_transfers
from vsr.color.pixel_formats import as_stored
from vsr.color.sub_pixels import MakeSamples
from vsr.errors import ModelError
from vsr.frames import FrameBatch
from vsr.models.nets.recurrent import details, state_channels
from vsr.pipeline.checked_network import CheckedNetwork, SteppingNetwork
from vsr.pipeline.color_path import Target, VideoInput, batch_to_video_network, luma_to_video_network
from vsr.pipeline.graphed_steps import GraphedSteps, make_runner
from vsr.pipeline.passages import Passage, Passages
from vsr.pipeline.sequence_gate import SequenceGate
from vsr.pipeline.steps import State, Stepped, StepQueue
from vsr.pipeline.warping import Warping, Way, make_warping

__all__ = ["TemporalProcessor"]

_FEWEST_CHECKED = 2  # frames at the start of a job that are compared with fp32
_PIXELS_CHECKED = 2**21  # of all these frames, at most

Result = Callable[[], FrameBatch]


class TemporalProcessor:
    """See `FrameProcessor`: run a recurrent network along a video, a few frames behind those that are pushed.

    A frame sees its neighbours and the state of the frame before, all warped to it; `Passages` decides where a state
    begins, and from which frames.
    """

    reused_share: float | None = None

    def __init__(
        self,
        network: CheckedNetwork,
        target: Target,
        transfers: Transfers | None = None,
        warping: Warping | None = None,
        runner: DeviceRunner | None = None,
        make_samples: MakeSamples | None = None,
    ) -> None:
        """Begin before the first frame.

        Args:
            transfers: bring frames to the network's device and back; chosen by the device unless given.
            warping: warps neighbours and state there; chosen by the device unless given.
            runner: replays steps as graphs; a `CudaRunner` on CUDA unless given.
            make_samples: makes the target's samples; by one compiled loop on CUDA unless given.
        """
        card = network.card
        if card.restart_interval < 1 or not 0 <= card.warm_up <= card.restart_interval:
            raise ModelError(
                f"model '{card.name}': its card says nothing usable of restarts (restart_interval "
                f"{card.restart_interval}, warm_up {card.warm_up}); train it with this version"
            )
        self._network, self._target = network, target
        self._warm_up = card.warm_up
        self._passages = Passages(card)
        self._num_channels, self._scale = state_channels(**card.options), card.scale
        self._transfers = transfers or make_transfers(network.device)
        self._warping = warping or make_warping(network.device, network.note)
        self._make_samples = make_samples or choose_samples(network.device, network.note)
        runner = runner or make_runner(network.device)
        self._graphed = None if runner is None else GraphedSteps(network, self._num_channels, self._warping, runner)
        own = weakref.proxy(self)  # in no circle: the memory of a graph goes with its processor, at once

        def compute(passage: Passage, state: State) -> Stepped:
            done: Stepped = own._compute(passage, state)
            return done

        computed = compute if self._graphed is None else self._graphed.making_room(compute)
        self._steps: StepQueue[Passage] = StepQueue(network, computed, transfers=self._transfers)
        self.reset()

    @property
    def engine(self) -> Engine:
        return self._network.engine

    @property
    def num_in_flight(self) -> int:
        return self._steps.num_in_flight

    @property
    def is_graphed(self) -> bool:
        """Tell whether steps are replayed as a CUDA graph."""
        return self._graphed is not None and self._graphed.is_in_use

    def reset(self, next_frame: int = 0) -> None:
        self._steps.reset()
        self._gate: SequenceGate | None = None
        self._passages.reset(next_frame)

    def lead_in_frames(self, first_frame: int) -> int:
        return self._passages.lead_in_frames(first_frame)

    def push(self, batch: FrameBatch) -> Sequence[Result]:
        return [self._submit(parts) for parts in self._passages.push(batch)]

    def flush(self, after: FrameBatch | None = None) -> Sequence[Result]:
        return [self._submit(parts) for parts in self._passages.flush(after)]

    def _submit(self, parts: list[Passage]) -> Result:
        """Queue the passages that a batch was divided into."""
        fetches = [self._steps.submit(part) for part in parts]
        batches = [part.batch for part in parts]
        pts = tuple(chain.from_iterable(batch.pts for batch in batches))
        durations = tuple(chain.from_iterable(batch.durations for batch in batches))
        time_base = batches[0].time_base

        def result() -> FrameBatch:
            planes = tuple(torch.cat(tensors) for tensors in zip(*(fetch() for fetch in fetches), strict=True))
            return FrameBatch(planes, pts, durations, time_base, self._target.color)

        return result

    # -- on the device -----------------------------------------------------------------------------

    def _compute(self, passage: Passage, state: State) -> Stepped:
        """Run the network along a passage, after its run-up if it has one, and make the target's planes."""
        if passage.run_up is not None:
            self._gate, state = None, ()
            for part in _parts(passage.run_up, self._network.device):
                state = self._gated(part, self._prepared(part.batch).planes, state).state
        runs = []
        for part in _parts(passage, self._network.device):
            prepared = self._prepared(part.batch)
            run = self._gated(part, prepared.planes, state)
            state = run.state
            runs.append(replace(run, planes=as_stored(prepared.finish(*run.planes), self._target.pixel_format)))
        planes = tuple(_joined(frames) for frames in zip(*(run.planes for run in runs), strict=True))
        return Stepped(planes, state, torch.stack([run.is_finite for run in runs]).all())

    def _gated(self, passage: Passage, planes: Tensor, state: State) -> Stepped:
        """Run the network along a passage; the first frames of a job until they are right."""
        if state == () and not self._network.is_checked:
            self._gate = SequenceGate(self._network, self._num_to_check(passage))
        run = self._along(passage, planes, state)
        while self._gate is not None and self._strays(self._gate, passage, planes, run):
            run = self._along(passage, planes, self._gate.state)
        return run

    def _num_to_check(self, passage: Passage) -> int:
        """Choose the frames to compare with fp32: as long as a state takes to settle, fewer of large frames."""
        num_pixels = passage.batch.planes[0][0, 0].numel()
        return max(_FEWEST_CHECKED, min(self._warm_up, _PIXELS_CHECKED // num_pixels))

    def _strays(self, gate: SequenceGate, passage: Passage, planes: Tensor, run: Stepped) -> bool:
        """Compare the outputs along a passage with fp32; where they differ, take a safer precision."""
        num = min(gate.num_left, passage.num_frames)
        part = passage.part(0, num)

        def along(network: SteppingNetwork, state: State) -> Stepped:
            return self._along(part, planes[:num], state, network)

        if not gate.passes(run, planes[:num, :1], along):
            return True
        self._gate = gate if gate.num_left else None
        return False

    def _along(self, passage: Passage, planes: Tensor, state: State, network: SteppingNetwork | None = None) -> Stepped:
        """Run the network, or another, along the frames of a passage; gives the `details` of luma and chroma."""
        sight = self._sight(passage, planes)
        if network is None and self._graphed is not None:
            run = self._graphed.run(sight.frames, sight.flow, sight.goes_on, state)
            if run is not None:
                return run
        network = network or self._network
        found, are_finite = [], []
        for position in range(passage.num_frames):
            moved = self._moved(sight, position, state).to(network.state_dtype)
            frame, *beside = (x[position : position + 1] for x in sight.frames)
            computed = network.run(frame, *beside, moved)
            state = computed.outputs
            found.append(details(state[0], self._scale))
            are_finite.append(computed.is_finite)
        luma, chroma = (_joined(frames) for frames in zip(*found, strict=True))
        return Stepped((luma, chroma), state, torch.stack(are_finite).all())

    def _prepared(self, batch: FrameBatch) -> VideoInput:
        planes = self._transfers.upload(batch.planes)
        return batch_to_video_network(planes, batch, self._target, self._make_samples)

    def _luma(self, batch: FrameBatch) -> Tensor:
        return luma_to_video_network(self._transfers.upload(batch.planes), batch, self._target)

    def _sight(self, passage: Passage, planes: Tensor) -> _Sight:
        """Warp the neighbours of each frame to it, and prepare the warping of the state."""
        luma = planes[:, :1]
        before, after = (luma[:1] if beside is None else self._luma(beside) for beside in passage.neighbours)
        back = [None if motion is None else motion.back for motion in passage.motions[:-1]]
        ahead = [None if motion is None else motion.ahead for motion in passage.motions[1:]]
        flow, flow_ahead = (self._uploaded(flows, luma) for flows in (back, ahead))
        way, way_ahead = self._warping(flow), self._warping(flow_ahead)
        previous = self._where_known(back, way.plane(torch.cat((before, luma[:-1]))), luma)
        following = self._where_known(ahead, way_ahead.plane(torch.cat((luma[1:], after))), luma)
        return _Sight((planes, previous, following), flow, way, [each is not None for each in back])

    def _where_known(self, flows: Sequence[object | None], warped: Tensor, own: Tensor) -> Tensor:
        """Take a frame's own luma where there is no motion to its neighbour."""
        known = [flow is not None for flow in flows]
        if all(known):
            return warped
        (mask,) = self._transfers.upload((torch.tensor(known),))
        return torch.where(mask.view(-1, 1, 1, 1), warped, own)

    def _uploaded(self, flows: Sequence[np.ndarray | None], luma: Tensor) -> Tensor:
        """Bring flows to the device, (N, H, W, 2); zeros where there is none."""
        none = np.zeros((*luma.shape[-2:], 2), np.float32)
        stacked = torch.from_numpy(np.stack([none if flow is None else flow for flow in flows]))
        return self._transfers.upload((stacked,))[0]

    def _moved(self, sight: _Sight, position: int, state: State) -> Tensor:
        """Warp the state to a frame; zeros where a scene begins."""
        if state and sight.goes_on[position]:
            return sight.way.state(state[0], position)
        x = sight.frames[0][:1]
        return x.new_zeros(1, self._num_channels, *x.shape[2:])


def _parts(passage: Passage, device: torch.device) -> list[Passage]:
    """Divide a passage into single frames on a CPU, where a frame stays in the caches all its way."""
    return passage.split(1) if device.type == "cpu" else [passage]


def _joined(frames: tuple[Tensor, ...]) -> Tensor:
    """Make one tensor of the frames of several, and no copy of a single one."""
    return frames[0] if len(frames) == 1 else torch.cat(frames)


@dataclass(frozen=True, slots=True)
class _Sight:
    """The inputs of a network for N frames, but for the state.

    frames: planes, previous and following luma, as in `RecurrentNet`.
    flow: from each frame to the one before.  way: prepared to warp along it.
    goes_on: whether its state is that of the frame before.
    """

    frames: tuple[Tensor, Tensor, Tensor]
    flow: Tensor
    way: Way
    goes_on: list[bool]
