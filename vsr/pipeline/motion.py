"""Motion between frames: optical flow and scene cuts from decoded luma, and warping along a flow."""

from __future__ import annotations

import functools
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.frames import FrameBatch

__all__ = [
    "Motion",
    "Sampling",
    "Taps",
    "along_axis",
    "estimate_motion",
    "inverted",
    "is_scene_cut",
    "luma_8bit",
    "optical_flow",
    "sampling_of",
    "submit_motion",
    "taps_of",
    "warp",
    "warp_plane",
]

# DIS (Kroeger et al. 2016) from coarse patches down to the full resolution of the small frame: its preset "medium"
# stops at half of it, which costs 0.07 dB on Vid4. Fewer descents and refinements than the preset's, as the finest
# scale has few errors left: patches 5 pixels apart and one refinement take two thirds of the time of 4 and two, for
# 0.007 dB of `video-fast` on the first 20 frames of Vid4's clips; none takes half, for 0.029 dB.
_FINEST_SCALE = 0
_PATCH_STRIDE = 5
_GRADIENT_DESCENTS = 12
_REFINEMENTS = 1
_INVERSIONS = 3
_SMALLEST_SIDE = 16  # DIS takes no smaller frames
_MOST_THREADS = 4  # more than this, and the network waits for cores

_per_thread = threading.local()


def optical_flow(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Find for each pixel of `frame` where it lies in `other`.

    frame, other: (H, W) uint8 luma of one size. Returns (H, W, 2) float32: pixels to the right and down. Frames
    with a side below 16 pixels get zeros. May be called from many threads.
    """
    if min(frame.shape) < _SMALLEST_SIDE:
        return np.zeros((*frame.shape, 2), np.float32)
    flow = _estimator().calc(frame, other, None)  # type: ignore[call-overload]
    return np.asarray(flow, np.float32)


def _estimator() -> cv2.DISOpticalFlow:
    """One for each thread, as an estimator keeps buffers."""
    if not hasattr(_per_thread, "dis"):
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(_FINEST_SCALE)
        dis.setPatchStride(_PATCH_STRIDE)
        dis.setGradientDescentIterations(_GRADIENT_DESCENTS)
        dis.setVariationalRefinementIterations(_REFINEMENTS)
        _per_thread.dis = dis
    estimator: cv2.DISOpticalFlow = _per_thread.dis
    return estimator


# The share of a frame's own contrast that motion cannot explain. Measured on 400 cuts and 400 pairs of neighbours
# of 96 clips: 0.45 and more at cuts, 0.30 and less within a scene.
_CUT_RESIDUAL_SHARE = 0.38
_CUT_RESIDUAL_CODES = 6.0  # noise alone leaves less


def is_scene_cut(frame: np.ndarray, other: np.ndarray, flow: np.ndarray) -> bool:
    """Tell whether `frame` shows another scene than `other`: one that no motion leads to.

    frame, other: (H, W) uint8 luma.  flow: `optical_flow(frame, other)`.
    """
    moved = _fetched(other, cv2.add(_grid(*frame.shape), flow))
    residual = float(cv2.absdiff(frame, moved).mean())
    contrast = float(np.abs(frame - frame.mean(dtype=np.float64)).mean())
    return residual > _CUT_RESIDUAL_CODES and residual > _CUT_RESIDUAL_SHARE * (contrast + 1)


@dataclass(frozen=True, slots=True)
class Motion:
    """Motion between two frames in a row of one scene: (H, W, 2) float32 flows in pixels to the right and down.

    back: for each pixel of the later frame, where it lies in the earlier one.  ahead: the other way round.
    """

    back: np.ndarray
    ahead: np.ndarray


def estimate_motion(earlier: np.ndarray, later: np.ndarray, both_flows: bool = False) -> Motion | None:
    """Estimate the motion between two frames, (H, W) uint8 luma; None where they belong to different scenes.

    both_flows: estimate the way ahead, too, instead of inverting the way back.
    """
    back = optical_flow(later, earlier)
    if is_scene_cut(later, earlier, back):
        return None
    return Motion(back, optical_flow(earlier, later) if both_flows else inverted(back))


def inverted(flow: np.ndarray) -> np.ndarray:
    """Find the flow that leads the other way, (H, W, 2) float32, by fixed-point iteration.

    Takes a fifth of the time of estimating it, for 0.007 dB of `video-fast` on Vid4 and 0.03 dB of `video`: it is only
    wrong where one of the frames hides what the other shows.
    """
    grid, back = _grid(*flow.shape[:2]), flow
    for _ in range(_INVERSIONS):
        back = _fetched(flow, cv2.subtract(grid, back))
    return -back


@functools.lru_cache(maxsize=1)
def _grid(height: int, width: int) -> np.ndarray:
    """Return the column and the row of each pixel, (H, W, 2) float32, to be read alone."""
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((columns, rows))


def _fetched(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Fetch values, bilinear, from places given as columns and rows, (H, W, 2); beyond the border the nearest."""
    return cv2.remap(x, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload, no-any-return]


def submit_motion(earlier: np.ndarray, later: np.ndarray, both_flows: bool = False) -> Future[Motion | None]:
    """Begin `estimate_motion` in a thread; all jobs of a process share a few."""
    return _threads().submit(estimate_motion, earlier, later, both_flows)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "vsr-motion")


def luma_8bit(batch: FrameBatch) -> np.ndarray:
    """Bring the luma of a batch on the CPU to the 8 bits that motion is estimated on: (N, H, W) uint8."""
    codes = batch.planes[0].numpy()
    if batch.color.is_rgb:
        red, green, blue = (codes[:, channel].astype(np.uint32) for channel in range(3))
        values = (red * 66 + green * 129 + blue * 25 + (16 << batch.color.bit_depth)) >> 8  # BT.601, limited range
    else:
        values = codes[:, 0]
    shift = batch.color.bit_depth - 8
    return np.ascontiguousarray(values if shift == 0 else values >> shift, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sixteen pixels and their weights for each pixel of N warped frames, an axis at a time.

    A bilinear kernel would blur a state that is warped again and again. This one is Keys' cubic kernel of third
    order, a = −1/2, as for MATLAB's bicubic; PyTorch's own, −3/4, overshoots more.

    columns, rows: the pixel at or before the place that a flow leads to, kept within the frame: (N, H, W) int32.
    x_weights, y_weights: of the pixel before that one, itself and the two after it: four (N, H, W) float32.
    """

    columns: Tensor
    rows: Tensor
    x_weights: tuple[Tensor, Tensor, Tensor, Tensor]
    y_weights: tuple[Tensor, Tensor, Tensor, Tensor]

    def taps(self) -> Taps:
        """List all sixteen together, for `warp`."""
        num, height, width = self.columns.shape
        first = torch.arange(num, dtype=torch.int32, device=self.rows.device).view(-1, 1, 1) * height
        columns = [(self.columns + step).clamp_(0, width - 1) for step in range(-1, 3)]
        rows = [(self.rows + step).clamp_(0, height - 1).add_(first).mul_(width) for step in range(-1, 3)]
        # A plane a tap, as loops over four values at a time are slow.
        index = _interleaved([row + column for row in rows for column in columns])
        weight = _interleaved([y_weight * x_weight for y_weight in self.y_weights for x_weight in self.x_weights])
        return Taps(index, weight)


@dataclass(frozen=True, slots=True)
class Taps:
    """Sixteen pixels and weights for each pixel of N warped frames: (N·H·W, 16) int32 and float32.

    The indices count the pixels of all N frames, row by row.
    """

    index: Tensor
    weight: Tensor

    def split(self, num_parts: int) -> list[Taps]:
        """Divide the taps of num_parts·N frames into those of N each."""
        index, weight = (x.chunk(num_parts) for x in (self.index, self.weight))
        size = len(self.index) // num_parts
        return [Taps(i - size * part, w) for part, (i, w) in enumerate(zip(index, weight, strict=True))]


def _interleaved(planes: list[Tensor]) -> Tensor:
    """Put the values of K planes, (N, H, W) int32 or float32, side by side: (N·H·W, K)."""
    if planes[0].device.type == "cpu":  # where OpenCV takes a quarter of PyTorch's time
        return torch.from_numpy(cv2.merge([plane.flatten(0, 1).numpy() for plane in planes])).flatten(0, 1)
    return torch.stack(planes, -1).flatten(0, 2)


def sampling_of(flow: Tensor) -> Sampling:
    """Find the pixels of a flow, (N, H, W, 2) float32, in pixels to the right and down, and their weights."""
    _, height, width, _ = flow.shape
    columns, x_weights = along_axis(flow[..., 0] + torch.arange(width, device=flow.device), width)
    rows, y_weights = along_axis(flow[..., 1] + torch.arange(height, device=flow.device).unsqueeze(1), height)
    return Sampling(columns, rows, x_weights, y_weights)


def taps_of(flow: Tensor) -> Taps:
    """Find the taps of a flow: see `sampling_of`."""
    return sampling_of(flow).taps()


def along_axis(place: Tensor, length: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Find the pixel at or before each place, kept within the frame, and the weights of the four around it."""
    place = place.clamp(0, length - 1)
    first = place.floor()
    t = place - first
    square, left = t * t, 1 - t
    outer, outer_left = square * left * -0.5, left * left * t * -0.5
    inner = (t * 1.5 - 2.5) * square + 1
    return first.to(torch.int32), (outer_left, inner, 1 - inner - outer - outer_left, outer)


def warp(x: Tensor, taps: Taps) -> Tensor:
    """Fetch for each pixel the value that lies where its flow leads; beyond the border the nearest pixel counts.

    x: (N, C, H, W) float32, or of 16 bits, to which the weights are rounded, too.  taps: `taps_of` a flow of N frames
    of that size. The result is channels last. Weighted rows of channels take half the time of a bicubic
    `grid_sample` on a CPU.
    """
    num, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()  # else they are gathered twenty times slower
    warped = F.embedding_bag(taps.index, rows, mode="sum", per_sample_weights=taps.weight.to(rows.dtype))
    return warped.view(num, height, width, channels).permute(0, 3, 1, 2)


def warp_plane(x: Tensor, sampling: Sampling) -> Tensor:
    """Fetch as `warp` does, from frames of one channel, (N, 1, H, W) float32, in a tenth of the time."""
    num, _, height, width = x.shape
    stride = width + 3
    padded = F.pad(x, (1, 2, 1, 2), mode="replicate").reshape(-1)
    start = torch.arange(num, device=x.device).view(-1, 1, 1) * (stride * (height + 3))
    index = (start + sampling.rows * stride + sampling.columns).view(-1)
    x_weights, y_weights = ([each.reshape(-1) for each in axis] for axis in (sampling.x_weights, sampling.y_weights))
    warped = torch.zeros_like(x_weights[0])
    for row, y_weight in enumerate(y_weights):
        along = torch.zeros_like(warped)
        for column, x_weight in enumerate(x_weights):
            along.addcmul_(padded[row * stride + column :].index_select(0, index), x_weight)
        warped.addcmul_(along, y_weight)
    return warped.view(num, 1, height, width)
