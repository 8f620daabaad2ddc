"""Warp neighbours and state along the flows of a passage: by lists of taps, or on a GPU by one compiled kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from vsr.backends.compiled import Kernel, compared, empty_alike, fused
from vsr.events import OnNote
from vsr.pipeline.motion import Taps, along_axis, sampling_of, taps_of, warp, warp_plane

__all__ = ["FusedWarping", "TapsWay", "WarpStep", "Warping", "Way", "compile_warp", "make_warping", "warp_step"]


class Way(Protocol):
    """Flows of N frames, (N, H, W, 2) float32 in pixels to the right and down, to fetch values along."""

    def plane(self, x: Tensor) -> Tensor:
        """Warp N frames of one channel, (N, 1, H, W) float32."""
        ...

    def state(self, x: Tensor, position: int) -> Tensor:
        """Warp a state, (1, C, H, W) float32 or of 16 bits, along the flow of one frame."""
        ...


Warping = Callable[[Tensor], Way]  # prepares flows
WarpStep = Callable[[Tensor, Tensor], Tensor]  # see `warp_step`
_PROBED_MOTION = 16.0  # pixels


def make_warping(device: torch.device, note: OnNote) -> Warping:
    """Make the warping that suits a device. note: called where a kernel does not compile."""
    return FusedWarping(note=note) if device.type == "cuda" else TapsWay


class TapsWay:
    """See `Way`: pixels and weights are worked out once for all channels, as suits a CPU."""

    def __init__(self, flow: Tensor) -> None:
        self._places, self._num_frames = sampling_of(flow), flow.shape[0]

    def plane(self, x: Tensor) -> Tensor:
        return warp_plane(x, self._places)

    def state(self, x: Tensor, position: int) -> Tensor:
        return warp(x, self._taps[position])

    @functools.cached_property
    def _taps(self) -> list[Taps]:
        return self._places.taps().split(self._num_frames)


class FusedWarping:
    """Warp by one kernel; by taps where that does not compile, or gives other values."""

    def __init__(
        self, compiler: Callable[[WarpStep], WarpStep] | None = None, note: OnNote = lambda line: None
    ) -> None:
        """Prepare to compile.

        Args:
            compiler: makes a kernel of `warp_step`; `compile_warp` unless given.
            note: called with the reason where taps go on.
        """
        self._kernel = Kernel((compiler or compile_warp)(warp_step), "warping along motion", note)

    def __call__(self, flow: Tensor) -> Way:
        return TapsWay(flow) if self._kernel.has_failed else _FusedWay(flow, self._kernel)


class _FusedWay:
    """See `Way`: by the kernel of a `FusedWarping`."""

    def __init__(self, flow: Tensor, kernel: Kernel) -> None:
        self._flow, self._kernel = flow, kernel

    def plane(self, x: Tensor) -> Tensor:
        # Frame by frame, as the state: one frame and many would be kernels of their own, each with its compilation.
        frames = zip(torch.split(x, 1), torch.split(self._flow, 1), strict=True)
        warped = [self._kernel(*frame) for frame in frames]
        known = [frame for frame in warped if frame is not None]
        return torch.cat(known) if len(known) == len(warped) else self._taps.plane(x)

    def state(self, x: Tensor, position: int) -> Tensor:
        warped = self._kernel(x, self._flow[position : position + 1])
        return self._taps.state(x, position) if warped is None else warped

    @functools.cached_property
    def _taps(self) -> TapsWay:
        return TapsWay(self._flow)


def compile_warp(step: WarpStep) -> WarpStep:
    """Fuse all of the step; it is compared with taps at the first of each size of frames."""
    return compared(fused(step), lambda x, flow: warp(x, taps_of(flow)), _probe)


def _probe(x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Make noise in the order of memory of x, and flows that leave the frame."""
    return empty_alike(x).uniform_(), empty_alike(flow).normal_(0, _PROBED_MOTION)


def warp_step(x: Tensor, flow: Tensor) -> Tensor:
    """Fetch for each pixel the value that lies where its flow leads, as `motion.warp` does.

    Each value works out its sixteen neighbours and their weights by itself, in the order of the memory of x, so that
    all of it becomes one loop: x and the flow are read, the result is written, and nothing lies in memory between.
    Weights and sums are float32, whatever the type of x; the sum alone is rounded to that.

    Args:
        x: (N, C, H, W) float32 or of 16 bits.
        flow: (N, H, W, 2) float32, in pixels to the right and down; beyond the border the nearest pixel counts.

    Returns the type and the memory format of x.
    """
    is_last = not x.is_contiguous()  # channels: as convolutions leave them
    values = x.permute(0, 2, 3, 1) if is_last else x
    channel, down, right = (3, 1, 2) if is_last else (1, 2, 3)
    grid = [torch.arange(size, device=x.device).view(_along(dim, size)) for dim, size in enumerate(values.shape)]
    # Expanded first: what is worked out for a pixel alone would be a loop of its own, and its results in memory.
    flows = [part.unsqueeze(channel).expand(values.shape) for part in flow.unbind(-1)]
    column, x_weights = along_axis(flows[0] + grid[right], values.shape[right])
    row, y_weights = along_axis(flows[1] + grid[down], values.shape[down])
    columns = [(column + step).clamp(0, values.shape[right] - 1) for step in range(-1, 3)]
    rows = [(row + step).clamp(0, values.shape[down] - 1) for step in range(-1, 3)]
    places = list(grid)
    warped = torch.zeros((), device=x.device)
    for places[down], y_weight in zip(rows, y_weights, strict=True):
        along = torch.zeros((), device=x.device)
        for places[right], x_weight in zip(columns, x_weights, strict=True):
            along = along + values[tuple(places)].to(torch.float32) * x_weight
        warped = warped + along * y_weight
    warped = warped.to(x.dtype)
    return warped.permute(0, 3, 1, 2) if is_last else warped


def _along(dim: int, size: int) -> list[int]:
    """Return the shape of a line of samples along one of four dimensions."""
    return [size if other == dim else 1 for other in range(4)]
