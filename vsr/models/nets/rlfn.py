"""Define RLFN, Kong et al. 2022, arXiv:2205.07514."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vsr.models.nets import attention, deep_residual
from vsr.models.nets.layout import Layout, State, numbered

__all__ = ["LAYOUTS", "RLFN"]


class _Block(nn.Module):
    """Add three convolutions to the input, and weight the sum by spatial attention."""

    def __init__(self, features: int, middle: int, reduced: int) -> None:
        super().__init__()
        self.c1_r = nn.Conv2d(features, middle, 3, padding=1)
        self.c2_r = nn.Conv2d(middle, middle, 3, padding=1)
        self.c3_r = nn.Conv2d(middle, features, 3, padding=1)
        self.act = nn.LeakyReLU(0.05)
        self.c5 = nn.Conv2d(features, features, 1)
        self.esa = attention.SpatialAttention(features, reduced, deep=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.c3_r(self.act(self.c2_r(self.act(self.c1_r(x))))))
        weighted: Tensor = self.esa(self.c5(out + x))
        return weighted


class RLFN(deep_residual.ResidualNet):
    """Upscale by residual local feature blocks. Sides of at least 15 pixels."""

    def __init__(
        self, features: int = 52, num_blocks: int = 6, scale: int = 4, middle: int = 52, reduced: int = 16
    ) -> None:
        super().__init__(features, scale)
        self.blocks = nn.Sequential(*(_Block(features, middle, reduced) for _ in range(num_blocks)))

    def deep(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    return {
        **deep_residual.frame_options(state),
        "middle": state["blocks.0.c1_r.weight"].shape[0],
        "reduced": state["blocks.0.esa.conv1.weight"].shape[0],
    }


LAYOUTS = (
    Layout(
        "bytedance/RLFN",
        "rlfn",
        (
            (r"conv_1", "head"),
            (r"block_(\d+)\.(c[123]_r|c5|esa\.conv(?:1|2|4|_f))", numbered("blocks.{}.{}", offset=-1)),
            (r"block_(\d+)\.esa\.conv3", numbered("blocks.{}.esa.coarse.0", offset=-1)),
            (r"conv_2", "fuse"),
            (r"upsampler\.0", "up"),
        ),
        _options,
    ),
)
