"""Define a light luma network for CPUs: plain 3×3 convolutions at low resolution, one pixel shuffle."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.layout import SAME, Layout, State, convolutions

__all__ = ["LAYOUTS", "LumaNet"]


class LumaNet(nn.Module):
    """Upscale the luma plane alone; the pipeline upscales chroma bicubically, as the eye is less sensitive to it.

    A head, `depth` body convolutions and a tail, all 3×3 with PReLU between them, and a sub-pixel shuffle (Shi et al.
    2016, ESPCN), on top of the nearest-neighbour upscaled input as in the compact SRVGG networks (Wang et al. 2021,
    Real-ESRGAN).

    Input (N, 1, H, W) float32, nominally in [0, 1]; output (N, 1, H·scale, W·scale) float32, unclamped. The
    convolutions run in the dtype of the weights. In bf16 the first stays in float32, as eight bits of mantissa are too
    few for the image itself, and the residual is added in float32 for the same reason: the remaining error is about one
    code value at the worst pixel of a frame.
    """

    keep_float32 = ("body.0",)

    def __init__(self, features: int = 32, depth: int = 5, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(1, features, 3, padding=1), nn.PReLU(features, 0.1)]
        for _ in range(depth):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features, 0.1)]
        self.body = nn.Sequential(*layers)
        self.tail = nn.Conv2d(features, scale * scale, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)  # starts at the nearest-neighbour image
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.halo = depth + 2

    def forward(self, x: Tensor) -> Tensor:
        first = self.body[0].get_parameter("weight")
        features = self.body[0](x.to(first.dtype)).to(self.tail.weight.dtype)
        detail = self.tail(self.body[1:](features))
        return F.pixel_shuffle(detail + x, self.scale)  # x spreads over the sub-pixels: nearest neighbour


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    first, *body = convolutions(state, "body")
    return {"features": first.shape[0], "depth": len(body), "scale": math.isqrt(state["tail.weight"].shape[0])}


LAYOUTS = (Layout("vsr", "luma", SAME, _options),)
