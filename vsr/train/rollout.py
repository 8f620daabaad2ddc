"""Run a recurrent network over clips, for training and validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vsr.color.conversion import resize_chroma, upsample_chroma
from vsr.models.nets.recurrent import RecurrentNet
from vsr.pipeline.motion import taps_of, warp
from vsr.train.clips import ClipBatch
from vsr.train.codec import SD_COLOR
from vsr.train.row_warp import warp_rows

__all__ = ["Sight", "Target", "sight_of", "target_of", "unroll"]


@dataclass(frozen=True, slots=True)
class Sight:
    """Hold a network's prepared inputs for N clips over T frames, except its state.

    Args:
        planes: (T, N, 3, h, w) float32, as in `RecurrentNet`.
        previous, following: (T, N, 1, h, w) float32, as in `RecurrentNet`.
        warps: for each frame, the warping of the state of the step before.
        keeps: for each frame, (N, 1, 1, 1) float32, zero where a scene begins; None where none does.
    """

    planes: Tensor
    previous: Tensor
    following: Tensor
    warps: list[Callable[[Tensor], Tensor]]
    keeps: list[Tensor | None]


@dataclass(frozen=True, slots=True)
class Target:
    """Hold a network's wanted output, in its units: (T, N, 1, H, W) luma, (T, N, 2, H / 2, W / 2) chroma correction.

    Args:
        bicubic: the chroma to be corrected.
    """

    luma: Tensor
    chroma: Tensor
    bicubic: Tensor


@torch.no_grad()
def sight_of(batch: ClipBatch) -> Sight:
    """Bring the planes to the luma grid and prepare the warping of the state."""
    num_frames, num, _, height, width = batch.low_luma.shape
    luma = batch.low_luma.float() / 255
    chroma = _centred(batch.low_chroma).flatten(0, 1)
    chroma = upsample_chroma(chroma, SD_COLOR, (1, 1), (height, width)).view(num_frames, num, 2, height, width)
    first = batch.starts.view(num_frames, num, 1, 1, 1)
    return Sight(
        torch.cat((luma, chroma), 2),
        torch.where(first, luma, batch.previous.float()),  # a cut-out's first frame has none before it
        batch.following.float(),
        _warps(batch.to_previous.flatten(0, 1).float(), num_frames),
        [_keep(start) for start in batch.starts],
    )


def _warps(flow: Tensor, num_frames: int) -> list[Callable[[Tensor], Tensor]]:
    """Make the warping of each frame; on a CPU by `warp_rows`, as PyTorch's own gradient is slow there."""
    warping = warp_rows if flow.device.type == "cpu" else warp
    return [functools.partial(warping, taps=taps) for taps in taps_of(flow).split(num_frames)]


def _keep(start: Tensor) -> Tensor | None:
    return (~start).float().view(-1, 1, 1, 1) if bool(start.any()) else None


@torch.no_grad()
def target_of(batch: ClipBatch) -> Target:
    """Turn the sharp planes into the network's wanted output."""
    num_frames, num, _, height, width = batch.high_luma.shape
    scale = height // batch.low_luma.shape[-2]
    low = _centred(batch.low_chroma).flatten(0, 1)
    grid = (SD_COLOR, (1, 1))
    bicubic = resize_chroma(low, grid, grid, (scale, scale), (height, width))
    bicubic = bicubic.view(num_frames, num, 2, height // 2, width // 2)
    return Target(batch.high_luma.float() / 255, _centred(batch.high_chroma) - bicubic, bicubic)


def _centred(codes: Tensor) -> Tensor:
    """Convert chroma codes to the network's unit."""
    return (codes.float() - 128) / 255


def unroll(net: RecurrentNet, sight: Sight) -> Iterator[tuple[Tensor, Tensor]]:
    """Run a network frame by frame; yields luma and the correction of chroma of each, float32."""
    state = net.initial_state(sight.planes[0])
    for time, keep in enumerate(sight.keeps):
        if time:
            state = sight.warps[time](state)
            state = state if keep is None else state * keep
        state = net(sight.planes[time], sight.previous[time], sight.following[time], state)
        yield net.images(sight.planes[time], state)
