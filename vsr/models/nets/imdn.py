"""Define IMDN, Hui et al. 2019, arXiv:1909.11856."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vsr.models.nets import attention, deep_residual
from vsr.models.nets.layout import Layout, State, numbered

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


class IMDN(deep_residual.GatheringNet):
    """Upscale by blocks that distill their channels, fused at the end."""

    def __init__(
        self, features: int = 64, num_blocks: int = 6, scale: int = 4, aside: int = 16, reduced: int = 4
    ) -> None:
        super().__init__(features, scale, (_Block(features, aside, reduced) for _ in range(num_blocks)))


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    return {
        **deep_residual.frame_options(state),
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
