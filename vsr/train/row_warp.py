"""Warp with a gradient that is cheap on a CPU; results are those of `motion.warp`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.pipeline.motion import Taps

__all__ = ["warp_rows"]


class _Gather(torch.autograd.Function):
    """Sum weighted rows; the gradient is gathered in the reverse direction, which is faster than scattering it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.num_rows = len(rows)
        return F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        index, weight = ctx.saved_tensors
        flat = index.flatten()
        order = torch.from_numpy(np.argsort(flat.numpy().astype(np.int32)))  # NumPy's sorts 32 bits fastest
        counts = torch.bincount(flat, minlength=ctx.num_rows)
        gathered = F.embedding_bag(
            order // index.shape[1],
            gradients[0].float(),
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weight.flatten()[order],
        )
        return gathered, None, None


def warp_rows(x: Tensor, taps: Taps) -> Tensor:
    """Warp (N, C, h, w) float32 on the CPU as `motion.warp` does."""
    num, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    warped: Tensor = _Gather.apply(rows, taps.index, taps.weight)  # type: ignore[no-untyped-call]
    return warped.view(num, height, width, channels).permute(0, 3, 1, 2)
