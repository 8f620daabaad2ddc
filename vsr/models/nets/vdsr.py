"""Define VDSR, Kim et al. 2016, arXiv:1511.04587."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from vsr.models.nets.bicubic import BicubicUp
from vsr.models.nets.layout import SAME, Layout, State, convolutions, numbered, rename_module

__all__ = ["LAYOUTS", "VDSR"]


class VDSR(nn.Module):
    """Enlarge the luma plane bicubically, then add the detail that `depth` 3×3 convolutions find in it.

    One set of weights serves several scales, as in the paper: only the enlargement differs.

    Input (N, 1, H, W) float32, nominally in [0, 1]; output (N, 1, H·scale, W·scale) float32, unclamped.
    Enlargement, first convolution and sum stay in float32 for the reason given in `LumaNet`.
    """

    keep_float32 = ("up", "body.0")

    def __init__(self, features: int = 64, depth: int = 20, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.up = BicubicUp(scale)
        layers: list[nn.Module] = [nn.Conv2d(1, features, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.tail = nn.Conv2d(features, 1, 3, padding=1)
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.tail.weight, std=1e-3)  # starts at the bicubic image
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.halo = BicubicUp.halo + -(-depth // scale)

    def forward(self, x: Tensor) -> Tensor:
        enlarged: Tensor = self.up(x)
        first = self.body[0].get_parameter("weight")
        features = self.body[0](enlarged.to(first.dtype)).to(self.tail.weight.dtype)
        detail: Tensor = self.tail(self.body[1:](features))
        return enlarged + detail.float()


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    body = convolutions(state, "body")
    return {"features": body[0].shape[0], "depth": len(body) + 1}


def _end_body(state: State) -> State:
    """Rename the last of VDSR's numbered layers to our tail."""
    last = max(int(match[1]) for key in state if (match := re.match(r"body\.(\d+)\.", key)))
    return rename_module(state, f"body.{last}", "tail")


LAYOUTS = (
    Layout(
        "twtygqyy/pytorch-vdsr",
        "vdsr",
        (
            (r"input", "body.0"),
            (r"residual_layer\.(\d+)\.conv", numbered("body.{}", 2, 2)),
            (r"output", "tail"),
        ),
        _options,
        any_scale=True,
    ),
    Layout(
        "twtygqyy/pytorch-vdsr, old names",
        "vdsr",
        ((r"features\.(\d+)", r"body.\1"),),
        _options,
        _end_body,
        any_scale=True,
    ),
    Layout(
        "Lornatang/VDSR-PyTorch",
        "vdsr",
        ((r"conv1\.0", "body.0"), (r"trunk\.(\d+)\.conv", numbered("body.{}", 2, 2)), (r"conv2", "tail")),
        _options,
        any_scale=True,
    ),
    Layout("vsr", "vdsr", SAME, _options, any_scale=True),
)
