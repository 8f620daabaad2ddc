"""Define RFDN, Liu et al. 2020, arXiv:2009.11551."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets import attention
from vsr.models.nets.layout import Layout, State, count_blocks, numbered, shuffle_scale

__all__ = ["LAYOUTS", "RFDN"]


class _Block(nn.Module):
    """Distill features beside each of three residual convolutions, and fuse what was distilled."""

    def __init__(self, features: int, aside: int, reduced: int) -> None:
        super().__init__()
        self.asides = nn.ModuleList(nn.Conv2d(features, aside, 1) for _ in range(3))
        self.residuals = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(3))
        self.c4 = nn.Conv2d(features, aside, 3, padding=1)
        self.act = nn.LeakyReLU(0.05)
        self.c5 = nn.Conv2d(4 * aside, features, 1)
        self.esa = attention.SpatialAttention(features, reduced, deep=True)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for aside, residual in zip(self.asides, self.residuals, strict=True):
            parts.append(self.act(aside(x)))
            x = self.act(residual(x) + x)
        out: Tensor = self.esa(self.c5(torch.cat((*parts, self.act(self.c4(x))), 1)))
        return out


class RFDN(nn.Module):
    """Upscale by blocks of residual feature distillation, fused at the end, and a sub-pixel shuffle.

    Input (N, 3, H, W) float32 in [0, 1], sides of at least 15; output (N, 3, H·scale, W·scale) float32, unclamped. The
    first and last convolution stay in float32 when the rest runs in half precision, as they take and give the image.
    """

    keep_float32 = ("head", "up")
    halo = attention.HALO

    def __init__(
        self, features: int = 50, num_blocks: int = 4, scale: int = 4, aside: int = 25, reduced: int = 12
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
        "reduced": state["blocks.0.esa.conv1.weight"].shape[0],
    }


LAYOUTS = (
    Layout(
        "njulj/RFDN",
        "rfdn",
        (
            (r"fea_conv", "head"),
            (r"B(\d+)\.c1_d", numbered("blocks.{}.asides.0", offset=-1)),
            (r"B(\d+)\.c2_d", numbered("blocks.{}.asides.1", offset=-1)),
            (r"B(\d+)\.c3_d", numbered("blocks.{}.asides.2", offset=-1)),
            (r"B(\d+)\.c1_r", numbered("blocks.{}.residuals.0", offset=-1)),
            (r"B(\d+)\.c2_r", numbered("blocks.{}.residuals.1", offset=-1)),
            (r"B(\d+)\.c3_r", numbered("blocks.{}.residuals.2", offset=-1)),
            (r"B(\d+)\.(c[45]|esa\.conv(?:1|2|4|_f))", numbered("blocks.{}.{}", offset=-1)),
            (r"B(\d+)\.esa\.conv_max", numbered("blocks.{}.esa.coarse.0", offset=-1)),
            (r"B(\d+)\.esa\.conv3", numbered("blocks.{}.esa.coarse.2", offset=-1)),
            (r"B(\d+)\.esa\.conv3_", numbered("blocks.{}.esa.coarse.4", offset=-1)),
            (r"c\.0", "gather"),
            (r"LR_conv", "fuse"),
            (r"upsampler\.0", "up"),
        ),
        _options,
    ),
)
