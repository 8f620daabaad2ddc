"""Define SRResNet as BasicSR modified it (MSRResNet, from Wang et al. 2018, arXiv:1809.00219)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.layout import SAME, Layout, State, convolutions, count_blocks, numbered, shuffle_scale

__all__ = ["LAYOUTS", "MSRResNet"]


class _Block(nn.Module):
    """Add two convolutions with a ReLU between them to the input; no batch norm."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.act(self.conv1(x)))
        return x + out


class MSRResNet(nn.Module):
    """Add the output of residual blocks and sub-pixel steps with leaky ReLU to the bilinearly upscaled image.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first
    convolution and the sum stay in float32 for the reason given in `LumaNet`.
    """

    keep_float32 = ("head",)

    def __init__(self, features: int = 64, num_blocks: int = 16, scale: int = 4) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"MSRResNet upscales by 2, 3 or 4, not by {scale}")
        self.scale = scale
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(features) for _ in range(num_blocks)))
        self.act = nn.LeakyReLU(0.1)
        steps: list[nn.Module] = []
        for factor in (2, 2) if scale == 4 else (scale,):
            steps += [nn.Conv2d(features, features * factor**2, 3, padding=1), nn.PixelShuffle(factor), self.act]
        self.up = nn.Sequential(*steps)
        self.hr = nn.Conv2d(features, features, 3, padding=1)
        self.tail = nn.Conv2d(features, 3, 3, padding=1)
        # Head and blocks; then at most 1 + 1/2 for the steps and 2/scale for the last two, rounded up.
        self.halo = 1 + 2 * num_blocks + 3

    def forward(self, x: Tensor) -> Tensor:
        head = self.act(self.head(x.to(self.head.weight.dtype))).to(self.hr.weight.dtype)
        features = self.up(self.blocks(head))
        detail: Tensor = self.tail(self.act(self.hr(features)))
        return detail.float() + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    scale = shuffle_scale(convolutions(state, "up"))
    return {"features": state["head.weight"].shape[0], "num_blocks": count_blocks(state), "scale": scale}


LAYOUTS = (
    Layout(
        "BasicSR's MSRResNet",
        "msrresnet",
        (
            (r"conv_first", "head"),
            (r"(?:body|recon_trunk|trunk_net)\.(\d+)\.(conv[12])", r"blocks.\1.\2"),
            (r"upconv([12])", numbered("up.{}", 3, -3)),
            (r"upsample([12])\.upsample_conv", numbered("up.{}", 3, -3)),
            (r"conv_hr|HRconv", "hr"),
            (r"conv_last", "tail"),
        ),
        _options,
    ),
    Layout("vsr", "msrresnet", SAME, _options),
)
