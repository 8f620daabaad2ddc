"""Define the compact SRVGG network of Real-ESRGAN, Wang et al. 2021, arXiv:2107.10833."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.layout import Layout, State, convolutions

__all__ = ["LAYOUTS", "SRVGG"]


class SRVGG(nn.Module):
    """Add plain 3×3 convolutions with PReLU and one pixel shuffle to the nearest-neighbour upscaled image.

    Args:
        depth: convolutions between the first and the last: 16 in realesr-animevideov3, 32 in realesr-general-x4v3.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first convolution and
    the sum stay in float32 for the reason given in `LumaNet`.
    """

    keep_float32 = ("body.0",)

    def __init__(self, features: int = 64, depth: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(depth):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, 3 * scale**2, 3, padding=1))
        self.halo = depth + 2

    def forward(self, x: Tensor) -> Tensor:
        first, last = (self.body[index].get_parameter("weight") for index in (0, -1))
        features = self.body[0](x.to(first.dtype)).to(last.dtype)
        detail = F.pixel_shuffle(self.body[1:](features), self.scale)
        return detail.float() + F.interpolate(x, scale_factor=self.scale, mode="nearest")


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    first, *body, last = convolutions(state, "body")
    return {"features": first.shape[0], "depth": len(body), "scale": math.isqrt(last.shape[0] // 3)}


LAYOUTS = (Layout("Real-ESRGAN's compact SRVGG", "srvgg", ((r"body\.\d+", r"\g<0>"),), _options),)
