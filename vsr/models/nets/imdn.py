"""Define IMDN, Hui et al. 2019, arXiv:1909.11856."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets import attention
from vsr.models.nets.layout import Layout, State, count_blocks, numbered, shuffle_scale

__all__ = ["IMDN", "LAYOUTS"]


class _Block(nn.Module):
    """Set a part of the channels aside after each of four convolutions, and fuse these parts."""

    def __init__(self, features: int, aside: int, reduced: int) -> None:
        super().__init__()
        self.aside = aside
        rest = features - aside
        self.c1 = nn.Conv2d(features, features, 3, padding=1)
        self.c2 = nn.Conv2d(rest, features, 3, padding=1)
        self.c3 = nn.Conv2d(rest, features, 3, padding=1)
        self.c4 = nn.Conv2d(rest, aside, 3, padding=1)
        self.act = nn.LeakyReLU(0.05)
        self.cca = attention.ContrastAttention(4 * aside, reduced)
        self.c5 = nn.Conv2d(4 * aside, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts, rest = [], x
        for convolution in (self.c1, self.c2, self.c3):
            out = self.act(convolution(rest))
            parts.append(out[:, : self.aside])
            rest = out[:, self.aside :]
        fused: Tensor = self.c5(self.cca(torch.cat((*parts, self.c4(rest)), 1)))
        return x + fused


class IMDN(nn.Module):
    """Upscale by blocks that distill their channels, fused at the end, and a sub-pixel shuffle.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first and last
    convolution stay in float32 when the rest runs in half precision, as they take and give the image itself.
    """

    keep_float32 = ("head", "up")
    halo = attention.HALO

    def __init__(
        self, features: int = 64, num_blocks: int = 6, scale: int = 4, aside: int = 16, reduced: int = 4
    ) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(features, aside, reduced) for _ in range(num_blocks))
        self.gather = nn.Conv2d(features * num_blocks, features, 1)
        self.act = nn.LeakyReLU(0.05)
        self.fuse = nn.Conv2d(features, features, 3, padding=1)
        self.up = nn.Conv2d(features, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(x.to(self.head.weight.dtype))
        out, outs = first.to(self.fuse.weight.dtype), []
        for block in self.blocks:
            out = block(out)
            outs.append(out)
        body = self.fuse(self.act(self.gather(torch.cat(outs, 1))))
        return F.pixel_shuffle(self.up(body.to(first.dtype) + first).float(), self.scale)


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    return {
        "features": state["head.weight"].shape[0],
        "num_blocks": count_blocks(state),
        "scale": shuffle_scale([state["up.weight"][:, :3]]),
        "aside": state["blocks.0.c4.weight"].shape[0],
        "reduced": state["blocks.0.cca.conv_du.0.weight"].shape[0],
    }


LAYOUTS = (
    Layout(
        "Zheng222/IMDN",
        "imdn",
        (
            (r"fea_conv", "head"),
            (r"IMDB(\d+)\.(c[1-5]|cca\.conv_du\.[02])", numbered("blocks.{}.{}", offset=-1)),
            (r"c\.0", "gather"),
            (r"LR_conv", "fuse"),
            (r"upsampler\.0", "up"),
        ),
        _options,
    ),
)
