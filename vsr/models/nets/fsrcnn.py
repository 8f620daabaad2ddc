"""Define FSRCNN, Dong et al. 2016, arXiv:1608.00367."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from vsr.models.nets.layout import Layout, State, convolutions

__all__ = ["FSRCNN", "LAYOUTS"]


class FSRCNN(nn.Module):
    """Upscale by a shrunk body of 3×3 convolutions and a transposed convolution, all with PReLU between them.

    Args:
        features: channels of the first and last convolution.
        shrunk: channels between them.
        depth: 3×3 convolutions of so many channels.
        scale: output pixels per input pixel.
        channels: 1 for luma, as in the paper, or 3 for RGB.

    Input (N, C, H, W) float32, nominally in [0, 1]; output (N, C, H·scale, W·scale) float32, unclamped. First and last
    convolution stay in float32, as they take and give the image itself.
    """

    keep_float32 = ("first_part", "last_part")

    def __init__(self, features: int = 56, shrunk: int = 12, depth: int = 4, scale: int = 3, channels: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.first_part = nn.Sequential(nn.Conv2d(channels, features, 5, padding=2), nn.PReLU(features))
        layers: list[nn.Module] = [nn.Conv2d(features, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(depth):
            layers += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        self.mid_part = nn.Sequential(*layers, nn.Conv2d(shrunk, features, 1), nn.PReLU(features))
        self.last_part = nn.ConvTranspose2d(features, channels, 9, stride=scale, padding=4, output_padding=scale - 1)
        self.halo = 2 + depth + -(-4 // scale)

    def forward(self, x: Tensor) -> Tensor:
        ends, middle = self.last_part.weight.dtype, self.mid_part[0].get_parameter("weight").dtype
        out: Tensor = self.last_part(self.mid_part(self.first_part(x.to(ends)).to(middle)).to(ends))
        return out.float()


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    first, middle = state["first_part.0.weight"], convolutions(state, "mid_part")
    return {
        "features": first.shape[0],
        "shrunk": middle[0].shape[0],
        "depth": len(middle) - 2,
        "channels": first.shape[1],
    }


def _prepare(state: State) -> State:
    """Number the layers of the body throughout, and give a PReLU of one slope a slope per channel."""
    depth = len(convolutions(state, "map"))
    moved = {}
    for key, value in state.items():
        match = re.fullmatch(r"(map|expand)\.(\d+)\.(\w+)", key)
        if match is not None:
            before = 2 if match[1] == "map" else 2 + 2 * depth
            key = f"mid_part.{int(match[2]) + before}.{match[3]}"
        moved[key] = value
    for key, value in moved.items():
        if value.shape == (1,) and key.endswith(".weight"):
            module, _, number = key.removesuffix(".weight").rpartition(".")
            moved[key] = value.repeat(moved[f"{module}.{int(number) - 1}.bias"].numel())
    return moved


# A transposed convolution of 9×9 weights serves any step.
_SCALES = tuple({"scale": scale} for scale in (2, 3, 4))

LAYOUTS = (
    Layout(
        "yjn870/FSRCNN-pytorch",
        "fsrcnn",
        ((r"(first|mid)_part\.\d+", r"\g<0>"), (r"last_part", r"\g<0>")),
        _options,
        _prepare,
        alternatives=_SCALES,
    ),
    Layout(
        "Lornatang/FSRCNN-PyTorch",
        "fsrcnn",
        (
            (r"feature_extraction\.(\d+)", r"first_part.\1"),
            (r"shrink\.(\d+)", r"mid_part.\1"),
            (r"(map|expand)\.\d+", r"\g<0>"),
            (r"deconv", "last_part"),
        ),
        _options,
        _prepare,
        alternatives=_SCALES,
    ),
)
