"""Divide a video into passages for a network with memory: which frames begin a state, and what it sees beside them."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np
import torch

from vsr.frames import FrameBatch
from vsr.models.cards import ModelCard
from vsr.pipeline.motion import Motion, luma_8bit, submit_motion

__all__ = ["Passage", "Passages"]


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive frames on their way through the network.

    batch: N frames on the CPU.
    motions: from the frame before to each frame, and from the last frame to the one after it: N + 1. None where the
        two belong to different scenes, or where there is no such frame.
    before, after: the frames beside the batch, one each; used where there is motion to them.
    run_up: frames from which the state is made anew: those before a restart or, where a scene begins, those after its
        first frame, the last one first. None where the state goes on, and where there are none.
    """

    batch: FrameBatch
    motions: tuple[Motion | None, ...]
    before: FrameBatch | None
    after: FrameBatch | None
    run_up: Passage | None = None

    @property
    def num_frames(self) -> int:
        return self.batch.num_frames

    @property
    def neighbours(self) -> tuple[FrameBatch | None, FrameBatch | None]:
        """The frames before and after."""
        return self.before, self.after

    def part(self, start: int, stop: int) -> Passage:
        """Return the frames at positions from `start` to before `stop`, with the same neighbours and motion."""
        return Passage(
            self.batch.part(start, stop),
            self.motions[start : stop + 1],
            self.batch.part(start - 1, start) if start else self.before,
            self.batch.part(stop, stop + 1) if stop < self.num_frames else self.after,
            self.run_up if start == 0 else None,
        )

    def split(self, num_frames: int) -> list[Passage]:
        """Divide into passages of `num_frames` frames, fewer in the last."""
        starts = range(0, self.num_frames, num_frames)
        return [self.part(start, min(start + num_frames, self.num_frames)) for start in starts]


@dataclass(frozen=True, slots=True)
class _Held:
    """Frames that wait for those after them, and the motion into each from the frame before; None where none is."""

    batch: FrameBatch
    motions: tuple[Future[Motion | None] | None, ...]


class Passages:
    """Holds frames back until those that they depend on are known, and divides them into passages.

    So that a frame depends on a known run of frames alone, the state starts anew every `restart_interval` frames of the
    source, from `warm_up` frames earlier: resumed jobs and segments made elsewhere then give the bits of an unbroken
    run. At a cut, and at the video's beginning, there is nothing earlier; there the network first runs backwards
    through the `run_in` frames that follow, so that the first frame of a scene is as sharp as the others. Motion is
    found in threads while the network works on earlier frames.
    """

    def __init__(self, card: ModelCard) -> None:
        self._interval, self._warm_up, self._run_in = card.restart_interval, card.warm_up, card.run_in
        self._num_seen_after = card.num_seen_after
        self._motion = functools.partial(submit_motion, both_flows=card.both_flows)
        self.reset()

    def reset(self, next_frame: int = 0) -> None:
        """Forget all frames: the next push begins with frame number `next_frame` of the source."""
        self._next = next_frame  # number of the first frame that is held back, or else of the next
        self._held: deque[_Held] = deque()
        self._last_luma: np.ndarray | None = None
        self._recent: deque[Passage] = deque()  # frames before it, one each: what a restart begins with

    def lead_in_frames(self, first_frame: int) -> int:
        """Return how many frames before a frame of the source its state goes back to; see `FrameProcessor`."""
        restart = first_frame // self._interval * self._interval
        return first_frame - max(0, restart - self._warm_up)

    def push(self, batch: FrameBatch) -> Iterator[list[Passage]]:
        """Take the next frames; yield the passages of each batch for which all is known now."""
        self._hold(batch)
        while sum(held.batch.num_frames for held in islice(self._held, 1, None)) >= self._num_seen_after:
            yield self._divided(self._held.popleft())

    def flush(self, after: FrameBatch | None = None) -> Iterator[list[Passage]]:
        """Yield the passages of all batches that are held back.  after: frames that follow them, to be seen alone."""
        num_batches = len(self._held)
        if num_batches and after is not None:
            self._hold(after)
        for _ in range(num_batches):
            yield self._divided(self._held.popleft())
        self._held.clear()
        self._last_luma = None

    def _hold(self, batch: FrameBatch) -> None:
        """Keep frames, and begin to find the motion into them."""
        lumas = luma_8bit(batch)
        into_first = None if self._last_luma is None else self._motion(self._last_luma, lumas[0])
        self._held.append(_Held(batch, (into_first, *(self._motion(*pair) for pair in pairwise(lumas)))))
        self._last_luma = lumas[-1]

    def _divided(self, held: _Held) -> list[Passage]:
        """Divide a batch where a state begins: at restarts and with scenes."""
        before = self._recent[-1].batch if self._recent else None
        after = self._held[0] if self._held else None
        motions = tuple(map(_found, (*held.motions, after.motions[0] if after else None)))
        whole = Passage(held.batch, motions, before, after.batch.part(0, 1) if after else None)
        restarts = range(-self._next % self._interval, held.batch.num_frames, self._interval)
        scenes = [position for position, motion in enumerate(motions[:-1]) if motion is None and self._run_in]
        parts = []
        for start, stop in pairwise(sorted({0, *restarts, *scenes, held.batch.num_frames})):
            part = whole.part(start, stop)
            if part.motions[0] is None:
                parts.append(self._run_into(part, held, start))
            else:
                parts.append(self._restarted(part) if start in restarts else part)
            self._remember(part)
        self._next += held.batch.num_frames
        return parts

    def _restarted(self, part: Passage) -> Passage:
        """Let a passage begin with the state that the frames before it leave, where there are any."""
        if not self._recent:
            return part
        frames = [frame.batch for frame in self._recent]
        motions = (None, *(frame.motions[0] for frame in islice(self._recent, 1, None)), part.motions[0])
        return replace(part, run_up=_run_up(frames, motions, part.batch.part(0, 1)))

    def _run_into(self, part: Passage, held: _Held, start: int) -> Passage:
        """Let a scene begin with its following frames, the last one first, as if the video ran backwards to it.

        held: the batch that the passage is a part of, from position `start`.
        """
        following = [
            (line.batch.part(position, position + 1), line.motions[position])
            for line in (held, *self._held)
            for position in range(start + 1 if line is held else 0, line.batch.num_frames)
        ]
        frames, motions = [], []
        for frame, future in following[: self._run_in]:
            motion = _found(future)
            if motion is None:  # another scene
                break
            frames.append(frame)
            motions.append(Motion(back=motion.ahead, ahead=motion.back))
        if not frames:
            return part
        run_up = _run_up(frames[::-1], (None, *motions[::-1]), part.batch.part(0, 1))
        return replace(part, motions=(motions[0], *part.motions[1:]), before=frames[0], run_up=run_up)

    def _remember(self, passage: Passage) -> None:
        self._recent.extend(passage.split(1))
        while len(self._recent) > max(self._warm_up, 1):
            self._recent.popleft()


def _found(motion: Future[Motion | None] | None) -> Motion | None:
    return None if motion is None else motion.result()


def _run_up(frames: list[FrameBatch], motions: tuple[Motion | None, ...], after: FrameBatch) -> Passage:
    """Join frames, one each in the order in which the network takes them, to a passage that begins a state."""
    planes = tuple(torch.cat(parts) for parts in zip(*(frame.planes for frame in frames), strict=True))
    times = tuple(range(len(frames)))  # nobody asks for its own
    batch = FrameBatch(planes, times, (0,) * len(frames), frames[0].time_base, frames[0].color)
    return Passage(batch, motions, None, after)
