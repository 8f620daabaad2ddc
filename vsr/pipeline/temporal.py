"""Upscale video with a network that carries what it saw before, aligned by optical flow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vsr.backends.engine import Engine
from vsr.backends.transfers import Transfers, make_transfers
from vsr.color.pixel_formats import as_stored
from vsr.errors import ModelError
from vsr.frames import FrameBatch
from vsr.models.nets.recurrent import state_channels
from vsr.pipeline.checked_network import CheckedNetwork, SteppingNetwork
from vsr.pipeline.color_path import Target, VideoInput, batch_to_video_network, luma_to_video_network
from vsr.pipeline.motion import Motion, Taps, luma_8bit, sampling_of, submit_motion, warp, warp_plane
from vsr.pipeline.sequence_gate import SequenceGate
from vsr.pipeline.steps import State, Stepped, StepQueue

__all__ = ["TemporalProcessor"]

_FEWEST_CHECKED = 2  # frames at the start of a job that are compared with fp32
_PIXELS_CHECKED = 2**21  # of all these frames, at most

Result = Callable[[], FrameBatch]


@dataclass(frozen=True, slots=True)
class _Passage:
    """Consecutive frames on their way through the network.

    batch: N frames on the CPU.
    motions: from the frame before to each frame, and from the last frame to the one after it: N + 1. None where the
        two belong to different scenes, or where there is no such frame.
    before, after: the frames beside the batch, one each; used where there is motion to them.
    run_up: the frames before a restart, from which the state is made anew; None where the state goes on.
    """

    batch: FrameBatch
    motions: tuple[Motion | None, ...]
    before: FrameBatch | None
    after: FrameBatch | None
    run_up: _Passage | None = None

    @property
    def num_frames(self) -> int:
        return self.batch.num_frames

    @property
    def neighbours(self) -> tuple[FrameBatch | None, FrameBatch | None]:
        """The frames before and after."""
        return self.before, self.after

    def part(self, start: int, stop: int) -> _Passage:
        """Return the frames at positions from `start` to before `stop`, with the same neighbours and motion."""
        return _Passage(
            self.batch.part(start, stop),
            self.motions[start : stop + 1],
            self.batch.part(start - 1, start) if start else self.before,
            self.batch.part(stop, stop + 1) if stop < self.num_frames else self.after,
            self.run_up if start == 0 else None,
        )

    def split(self, num_frames: int) -> list[_Passage]:
        """Divide into passages of `num_frames` frames, fewer in the last."""
        starts = range(0, self.num_frames, num_frames)
        return [self.part(start, min(start + num_frames, self.num_frames)) for start in starts]


class TemporalProcessor:
    """See `FrameProcessor`: run a recurrent network along a video, one batch behind the frames that are pushed.

    A frame sees its neighbours and the state of the frame before, all warped to it. The state starts anew at scene
    cuts and, so that a frame depends on a known run of frames alone, every `restart_interval` frames of the source,
    from `warm_up` frames earlier: resumed jobs and segments made elsewhere then give the bits of an unbroken run.
    Flows are computed in threads while the network works on the batch before.
    """

    reused_share: float | None = None

    def __init__(self, network: CheckedNetwork, target: Target, transfers: Transfers | None = None) -> None:
        """transfers: bring frames to the network's device and back; chosen by the device unless given."""
        card = network.card
        if card.restart_interval < 1 or not 0 <= card.warm_up <= card.restart_interval:
            raise ModelError(
                f"model '{card.name}': its card says nothing usable of restarts (restart_interval "
                f"{card.restart_interval}, warm_up {card.warm_up}); train it with this version"
            )
        self._network, self._target = network, target
        self._interval, self._warm_up = card.restart_interval, card.warm_up
        self._num_channels = state_channels(**card.options)
        self._transfers = transfers or make_transfers(network.device)
        self._steps: StepQueue[_Passage] = StepQueue(network, self._compute, transfers=self._transfers)
        self.reset()

    @property
    def engine(self) -> Engine:
        return self._network.engine

    @property
    def num_in_flight(self) -> int:
        return self._steps.num_in_flight

    def reset(self, next_frame: int = 0) -> None:
        self._steps.reset()
        self._gate: SequenceGate | None = None
        self._next = next_frame  # number of the first frame of the batch that is held back, or else of the next
        self._held: FrameBatch | None = None
        self._held_motions: list[Future[Motion | None] | None] = []  # into each frame of the batch that is held back
        self._last_luma: np.ndarray | None = None
        self._recent: deque[_Passage] = deque()  # frames before it, one each: what a restart begins with

    def lead_in_frames(self, first_frame: int) -> int:
        restart = first_frame // self._interval * self._interval
        return first_frame - max(0, restart - self._warm_up)

    def push(self, batch: FrameBatch) -> Sequence[Result]:
        lumas = luma_8bit(batch)
        into_first = None if self._last_luma is None else submit_motion(self._last_luma, lumas[0])
        motions = [into_first, *(submit_motion(*pair) for pair in pairwise(lumas))]
        results = [] if self._held is None else [self._submit(self._held, batch.part(0, 1), into_first)]
        self._held, self._held_motions, self._last_luma = batch, motions, lumas[-1]
        return results

    def flush(self, after: FrameBatch | None = None) -> Sequence[Result]:
        held, last_luma = self._held, self._last_luma
        self._held = self._last_luma = None
        if held is None or last_luma is None:
            return []
        if after is None:
            return [self._submit(held, None, None)]
        following = after.part(0, 1)
        return [self._submit(held, following, submit_motion(last_luma, luma_8bit(following)[0]))]

    def _submit(self, held: FrameBatch, after: FrameBatch | None, into_after: Future[Motion | None] | None) -> Result:
        """Queue the batch that was held back, now that the frame after it is known, in parts that begin at restarts."""
        before = self._recent[-1].batch if self._recent else None
        motions = tuple(None if motion is None else motion.result() for motion in (*self._held_motions, into_after))
        whole = _Passage(held, motions, before, after)
        restarts = range(-self._next % self._interval, held.num_frames, self._interval)
        fetches = []
        for start, stop in pairwise(sorted({0, *restarts, held.num_frames})):
            part = whole.part(start, stop)
            if start in restarts and self._recent:
                part = replace(part, run_up=_joined([*self._recent]))
            fetches.append(self._steps.submit(part))
            self._remember(part)
        self._next += held.num_frames

        def result() -> FrameBatch:
            planes = tuple(torch.cat(parts) for parts in zip(*(fetch() for fetch in fetches), strict=True))
            return FrameBatch(planes, held.pts, held.durations, held.time_base, self._target.color)

        return result

    def _remember(self, passage: _Passage) -> None:
        self._recent.extend(replace(frame, run_up=None) for frame in passage.split(1))
        while len(self._recent) > max(self._warm_up, 1):
            self._recent.popleft()

    # -- on the device -----------------------------------------------------------------------------

    def _compute(self, passage: _Passage, state: State) -> Stepped:
        """Run the network along a passage, after its run-up if it has one, and make the target's planes."""
        if passage.run_up is not None:
            self._gate = None
            state = self._gated(passage.run_up, self._prepared(passage.run_up.batch).planes, ()).state
        prepared = self._prepared(passage.batch)
        run = self._gated(passage, prepared.planes, state)
        luma, chroma = run.planes
        return replace(run, planes=as_stored(prepared.finish(luma, chroma), self._target.pixel_format))

    def _gated(self, passage: _Passage, planes: Tensor, state: State) -> Stepped:
        """Run the network along a passage; the first frames of a job until they are right."""
        if state == () and not self._network.is_checked:
            self._gate = SequenceGate(self._network, self._num_to_check(passage))
        run = self._along(passage, planes, state)
        while self._gate is not None and self._strays(self._gate, passage, planes, run):
            run = self._along(passage, planes, self._gate.state)
        return run

    def _num_to_check(self, passage: _Passage) -> int:
        """Choose the frames to compare with fp32: as long as a state takes to settle, fewer of large frames."""
        num_pixels = passage.batch.planes[0][0, 0].numel()
        return max(_FEWEST_CHECKED, min(self._warm_up, _PIXELS_CHECKED // num_pixels))

    def _strays(self, gate: SequenceGate, passage: _Passage, planes: Tensor, run: Stepped) -> bool:
        """Compare the outputs along a passage with fp32; where they differ, take a safer precision."""
        num = min(gate.num_left, passage.num_frames)
        part = passage.part(0, num)

        def along(network: SteppingNetwork, state: State) -> Stepped:
            return self._along(part, planes[:num], state, network)

        if not gate.passes(run, num, along):
            return True
        self._gate = gate if gate.num_left else None
        return False

    def _along(
        self, passage: _Passage, planes: Tensor, state: State, network: SteppingNetwork | None = None
    ) -> Stepped:
        """Run the network, or another, along the frames of a passage; luma and chroma as it gives them."""
        network = network or self._network
        sight = self._sight(passage, planes)
        outputs, are_finite = [], []
        for position in range(passage.num_frames):
            moved = self._moved(sight, position, state).to(network.state_dtype)
            computed = network.run(*(x[position : position + 1] for x in sight.frames), moved)
            *output, after = computed.outputs
            state = (after,)
            outputs.append(output)
            are_finite.append(computed.is_finite)
        images = tuple(torch.cat(frames) for frames in zip(*outputs, strict=True))
        return Stepped(images, state, torch.stack(are_finite).all())

    def _prepared(self, batch: FrameBatch) -> VideoInput:
        return batch_to_video_network(self._transfers.upload(batch.planes), batch, self._target)

    def _luma(self, batch: FrameBatch) -> Tensor:
        return luma_to_video_network(self._transfers.upload(batch.planes), batch, self._target)

    def _sight(self, passage: _Passage, planes: Tensor) -> _Sight:
        """Warp the neighbours of each frame to it, and prepare the warping of the state."""
        luma = planes[:, :1]
        before, after = (luma[:1] if beside is None else self._luma(beside) for beside in passage.neighbours)
        back = [None if motion is None else motion.back for motion in passage.motions[:-1]]
        ahead = [None if motion is None else motion.ahead for motion in passage.motions[1:]]
        places, places_ahead = (sampling_of(self._uploaded(flows, luma)) for flows in (back, ahead))
        previous = self._where_known(back, warp_plane(torch.cat((before, luma[:-1])), places), luma)
        following = self._where_known(ahead, warp_plane(torch.cat((luma[1:], after)), places_ahead), luma)
        taps = places.taps().split(len(back))
        return _Sight((planes, previous, following), taps, [flow is not None for flow in back])

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
            return warp(state[0], sight.taps[position])
        x = sight.frames[0][:1]
        return x.new_zeros(1, self._num_channels, *x.shape[2:])


def _joined(frames: list[_Passage]) -> _Passage:
    """Join passages in a row of one frame each, of which the first begins a state."""
    planes = tuple(torch.cat(parts) for parts in zip(*(frame.batch.planes for frame in frames), strict=True))
    pts = tuple(frame.batch.pts[0] for frame in frames)
    durations = tuple(frame.batch.durations[0] for frame in frames)
    batch = FrameBatch(planes, pts, durations, frames[0].batch.time_base, frames[0].batch.color)
    motions = (None, *(frame.motions[0] for frame in frames[1:]), frames[-1].motions[1])
    return _Passage(batch, motions, None, frames[-1].after)


@dataclass(frozen=True, slots=True)
class _Sight:
    """The inputs of a network for N frames, but for the state.

    frames: planes, previous and following luma, as in `RecurrentNet`.
    taps: of the flow from each frame to the one before.  goes_on: whether its state is that of the frame before.
    """

    frames: tuple[Tensor, Tensor, Tensor]
    taps: list[Taps]
    goes_on: list[bool]
