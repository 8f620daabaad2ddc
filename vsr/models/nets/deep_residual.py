"""Share the frame of light networks between a convolution at either end: IMDN, RFDN and RLFN."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets import attention
from vsr.models.nets.layout import State, count_blocks, shuffle_scale

__all__ = ["GatheringNet", "ResidualNet", "frame_options"]


class ResidualNet(nn.Module):
    """Add what a deep part makes of the first convolution's features to these, and upscale by a sub-pixel shuffle.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first and last
    convolution stay in float32 when the rest runs in bfloat16, as they take and give the image itself.
    """

    keep_float32 = ("head", "up")
    halo = attention.HALO

    def __init__(self, features: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.fuse = nn.Conv2d(features, features, 3, padding=1)
        self.up = nn.Conv2d(features, 3 * scale**2, 3, padding=1)

    def deep(self, x: Tensor) -> Tensor:
        """Compute (N, features, H, W) from the first features, before the convolution that fuses them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x.to(self.head.weight.dtype))
        body = self.fuse(self.deep(first.to(self.fuse.weight.dtype)))
        return F.pixel_shuffle(self.up(body.to(first.dtype) + first).float(), self.scale)


class GatheringNet(ResidualNet):
    """Run blocks one after the other, and gather the outputs of all of them."""

    def __init__(self, features: int, scale: int, blocks: Iterable[nn.Module]) -> None:
        super().__init__(features, scale)
        self.blocks = nn.ModuleList(blocks)
        self.gather = nn.Conv2d(features * len(self.blocks), features, 1)
        self.act = nn.LeakyReLU(0.05)

    def deep(self, x: Tensor) -> Tensor:
        outs = []
        for block in self.blocks:
            x = block(x)
            outs.append(x)
        out: Tensor = self.act(self.gather(torch.cat(outs, 1)))
        return out


def frame_options(state: State) -> dict[str, Any]:
    """Find the options of the frame from a network's weights."""
    return {
        "features": state["head.weight"].shape[0],
        "num_blocks": count_blocks(state),
        "scale": shuffle_scale([state["up.weight"][:, :3]]),
    }
