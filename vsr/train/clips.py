"""Hold clips in memory: sharp and low-resolution planes, the optical flow between frames, and batches of cut-outs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vsr.pipeline.motion import is_scene_cut, optical_flow, taps_of, warp
from vsr.train.video_degrade import ClipDegradation, planes_of_rgb

__all__ = ["Clip", "ClipBatch", "Footage", "make_clip", "turned"]


class Footage(NamedTuple):
    """Hold sharp frames and the places where scenes begin.

    Args:
        rgb: (T, 3, H, W) uint8.
        starts: (T,) bool, true at the first frame of a scene.
    """

    rgb: Tensor
    starts: np.ndarray

    @classmethod
    def of_one_scene(cls, rgb: Tensor) -> Self:
        return cls(rgb, np.arange(len(rgb)) == 0)


def turned(footage: Footage, turn: int) -> Footage:
    """Turn a clip into one of its 16 orientations.

    Do this before the clip is degraded and its flow estimated, so that chroma siting, the phase of the reduction and a
    codec's marks are those of upright video.

    Args:
        footage: the clip to turn.
        turn: bits 1, 2 and 4 flip up-down, flip left-right and transpose; bit 8 reverses time.
    """
    rgb, starts = footage
    if turn & 1:
        rgb = rgb.flip(-2)
    if turn & 2:
        rgb = rgb.flip(-1)
    if turn & 4:
        rgb = rgb.transpose(-2, -1)
    if turn & 8:
        rgb = rgb.flip(0)
        # A scene that began at frame t ended at t - 1, and so the reversed next one begins at T - t.
        starts = np.concatenate((starts[:1], starts[:0:-1]))
    return Footage(rgb.contiguous(), starts)


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Hold N clips of T frames, or cut-outs of them; time is the first dimension.

    Args:
        high_luma: (T, N, 1, H, W) uint8, the wanted output.
        high_chroma: (T, N, 2, H / 2, W / 2) uint8, the wanted output.
        low_luma: (T, N, 1, h, w) uint8.
        low_chroma: (T, N, 2, h / 2, w / 2) uint8.
        previous, following: (T, N, 1, h, w) float16, the luma of the neighbours warped to each frame, from 0 to 1; its
            own where a neighbour is missing or shows another scene.
        to_previous, to_following: (T, N, h, w, 2) float16, the flow from each low-resolution pixel to its place in the
            frame before and after (`motion.optical_flow`); zero where that frame is missing or of another scene.
        starts: (T, N) bool, true at the first frame of a scene.
    """

    high_luma: Tensor
    high_chroma: Tensor
    low_luma: Tensor
    low_chroma: Tensor
    previous: Tensor
    following: Tensor
    to_previous: Tensor
    to_following: Tensor
    starts: Tensor

    @property
    def num_frames(self) -> int:
        return len(self.low_luma)

    @property
    def num_bytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def frames(self, times: slice) -> Self:
        """Cut out some frames; the first becomes the start of a scene."""
        values = {field.name: getattr(self, field.name)[times] for field in fields(self)}
        values["starts"] = values["starts"].clone()
        values["starts"][0] = True
        return type(self)(**values)

    def area(self, top: int, left: int, side: int) -> Self:
        """Cut out a square of low-resolution pixels with all that belongs to it; top, left and side are even."""
        scale = self.high_luma.shape[-1] // self.low_luma.shape[-1]

        def cut(x: Tensor, factor: float) -> Tensor:
            rows, columns = (slice(int(start * factor), int((start + side) * factor)) for start in (top, left))
            return x[:, :, :, rows, columns]

        rows, columns = slice(top, top + side), slice(left, left + side)
        return type(self)(
            cut(self.high_luma, scale),
            cut(self.high_chroma, scale / 2),
            cut(self.low_luma, 1),
            cut(self.low_chroma, 0.5),
            cut(self.previous, 1),
            cut(self.following, 1),
            self.to_previous[:, :, rows, columns],
            self.to_following[:, :, rows, columns],
            self.starts,
        )

    def there_and_back(self) -> Self:
        """Play the clips to their last frame and back to their first: 2·T − 1 frames."""

        def joined(x: Tensor, back: Tensor) -> Tensor:
            return torch.cat((x, back.flip(0)[1:]))

        def turning(x: Tensor, back: Tensor) -> Tensor:
            """Join what belongs to the frame after: at the last frame that is the one before it."""
            return torch.cat((x[:-1], back.flip(0)))

        return type(self)(
            joined(self.high_luma, self.high_luma),
            joined(self.high_chroma, self.high_chroma),
            joined(self.low_luma, self.low_luma),
            joined(self.low_chroma, self.low_chroma),
            joined(self.previous, self.following),
            turning(self.following, self.previous),
            joined(self.to_previous, self.to_following),
            turning(self.to_following, self.to_previous),
            # On the way back a scene begins at the frame after which another one began.
            torch.cat((self.starts, self.starts.flip(0)[:-1])),
        )

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Put cut-outs of equal size side by side."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts], 1) for field in fields(cls)))

    def to(self, device: torch.device) -> Self:
        return type(self)(*(getattr(self, field.name).to(device) for field in fields(self)))


Clip = ClipBatch  # of N = 1 whole clip


def make_clip(footage: Footage, scale: int, degradation: ClipDegradation, rng: np.random.Generator) -> Clip:
    """Degrade a clip, then find motion and cuts in the degraded frames, as upscaling does.

    Args:
        footage: frames whose height and width are multiples of 2·scale.
        scale: sharp pixels per low-resolution pixel in each direction.
        degradation: makes the low-resolution frames.
        rng: gives the degradation its randomness.
    """
    high, low = planes_of_rgb(footage.rgb), degradation(footage.rgb, scale, rng)
    codes, luma = low.luma.numpy(), low.luma[:, None].float() / 255
    to_previous, to_following = torch.zeros(2, *low.luma.shape, 2)
    previous, following = luma.clone(), luma.clone()
    starts = footage.starts.copy()
    for time in range(1, len(codes)):
        flow = optical_flow(codes[time], codes[time - 1])
        starts[time] |= is_scene_cut(codes[time], codes[time - 1], flow)
        if not starts[time]:
            to_previous[time] = torch.from_numpy(flow)
            to_following[time - 1] = torch.from_numpy(optical_flow(codes[time - 1], codes[time]))
            previous[time] = _moved(luma[time - 1], to_previous[time])
            following[time - 1] = _moved(luma[time], to_following[time - 1])
    return ClipBatch(
        high.luma[:, None, None],
        high.chroma[:, None],
        low.luma[:, None, None],
        low.chroma[:, None],
        previous[:, None].half(),
        following[:, None].half(),
        to_previous[:, None].half(),
        to_following[:, None].half(),
        torch.from_numpy(starts)[:, None],
    )


def _moved(luma: Tensor, flow: Tensor) -> Tensor:
    """Warp one frame (1, h, w) along a flow (h, w, 2)."""
    return warp(luma[None], taps_of(flow[None]))[0]
