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
    "Taps",
    "estimate_motion",
    "is_scene_cut",
    "luma_8bit",
    "optical_flow",
    "submit_motion",
    "taps_of",
    "warp",
]

# DIS (Kroeger et al. 2016) from coarse patches down to the full resolution of the small frame: its preset "medium"
# stops at half of it, which costs 0.07 dB on Vid4. Fewer descents and refinements than the preset's, as the finest
# scale has few errors left.
_FINEST_SCALE = 0
_PATCH_STRIDE = 4
_GRADIENT_DESCENTS = 12
_REFINEMENTS = 2
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
    height, width = frame.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(other, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
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


def estimate_motion(earlier: np.ndarray, later: np.ndarray) -> Motion | None:
    """Estimate the motion between two frames, (H, W) uint8 luma; None where they belong to different scenes."""
    back = optical_flow(later, earlier)
    return None if is_scene_cut(later, earlier, back) else Motion(back, optical_flow(earlier, later))


def submit_motion(earlier: np.ndarray, later: np.ndarray) -> Future[Motion | None]:
    """Begin `estimate_motion` in a thread; all jobs of a process share a few."""
    return _threads().submit(estimate_motion, earlier, later)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "vsr-motion")


def luma_8bit(batch: FrameBatch) -> np.ndarray:
    """Bring the luma of a batch on the CPU to the 8 bits that motion is estimated on: (N, H, W) uint8."""
    codes = batch.planes[0]
    if batch.color.is_rgb:
        codes = codes[:, 1:2]  # green, which is most of luma
    shift = batch.color.bit_depth - 8
    values = codes[:, 0].numpy()
    return np.ascontiguousarray(values if shift == 0 else values >> shift, dtype=np.uint8)


_CUBIC_A = -0.5  # Keys' cubic kernel of third order, as for MATLAB's bicubic; PyTorch's own, -0.75, overshoots more


@dataclass(frozen=True, slots=True)
class Taps:
    """Sixteen pixels and weights for each pixel of N warped frames: (N·H·W, 16) int64 and float32.

    The indices count the pixels of all N frames, row by row.
    """

    index: Tensor
    weight: Tensor

    def split(self, num_parts: int) -> list[Taps]:
        """Divide the taps of num_parts·N frames into those of N each."""
        index, weight = (x.chunk(num_parts) for x in (self.index, self.weight))
        size = len(self.index) // num_parts
        return [Taps(i - size * part, w) for part, (i, w) in enumerate(zip(index, weight, strict=True))]


def taps_of(flow: Tensor) -> Taps:
    """Find the bicubic taps of a flow: (N, H, W, 2) float32, in pixels to the right and down."""
    num, height, width, _ = flow.shape
    columns, x_weight = _axis_taps(flow[..., 0] + torch.arange(width, device=flow.device), width)
    rows, y_weight = _axis_taps(flow[..., 1] + torch.arange(height, device=flow.device).unsqueeze(1), height)
    rows = rows + torch.arange(num, device=flow.device).view(-1, 1, 1, 1) * height
    index = rows[..., :, None] * width + columns[..., None, :]
    weight = y_weight[..., :, None] * x_weight[..., None, :]
    return Taps(index.reshape(-1, 16), weight.reshape(-1, 16))


def _axis_taps(place: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Find the four samples around each place, kept within the frame, and their weights."""
    place = place.clamp(0, length - 1)
    first = place.floor()
    index = (first.long()[..., None] + torch.arange(-1, 3, device=place.device)).clamp(0, length - 1)
    t = (place - first)[..., None]
    distance = torch.cat((t + 1, t, 1 - t, 2 - t), -1)
    near = ((_CUBIC_A + 2) * distance - (_CUBIC_A + 3)) * distance * distance + 1
    far = _CUBIC_A * (((distance - 5) * distance + 8) * distance - 4)
    return index, torch.where(distance <= 1, near, far)


def warp(x: Tensor, taps: Taps) -> Tensor:
    """Fetch for each pixel the value that lies where its flow leads; beyond the border the nearest pixel counts.

    x: (N, C, H, W) float32 or bfloat16.  taps: `taps_of` a flow of N frames of that size. The result is channels
    last. A bilinear kernel would blur a state that is warped again and again. Weighted rows of channels take half
    the time of a bicubic `grid_sample` on a CPU.
    """
    num, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    warped = F.embedding_bag(taps.index, rows, mode="sum", per_sample_weights=taps.weight.to(rows.dtype))
    return warped.view(num, height, width, channels).permute(0, 3, 1, 2)
