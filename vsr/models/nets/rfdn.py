"""Define RFDN, Liu et al. 2020, arXiv:2009.11551."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vsr.models.nets import attention, deep_residual
from vsr.models.nets.layout import Layout, State, numbered

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


class RFDN(deep_residual.GatheringNet):
    """Upscale by blocks of residual feature distillation, fused at the end. Sides of at least 15 pixels."""

    def __init__(
        self, features: int = 50, num_blocks: int = 4, scale: int = 4, aside: int = 25, reduced: int = 12
    ) -> None:
        super().__init__(features, scale, (_Block(features, aside, reduced) for _ in range(num_blocks)))


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    return {
        **deep_residual.frame_options(state),
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
