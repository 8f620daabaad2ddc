"""Define ESPCN, Shi et al. 2016, arXiv:1609.05158."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.layout import Layout, State, convolutions, numbered

__all__ = ["ESPCN", "LAYOUTS"]

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class ESPCN(nn.Module):
    """Upscale by one 5×5 convolution, 3×3 convolutions, and a sub-pixel shuffle of the last of them.

    Args:
        features: channels after each convolution but the last; the paper has (64, 32).
        scale: output pixels per input pixel.
        channels: 1 for luma, as in the paper, or 3 for RGB.
        activation: between the convolutions.
        sigmoid: True where the output goes through a sigmoid, as in some public code.
        last_kernel: side of the last convolution's kernel, 3 in the paper; 1 in some public code.

    Input (N, C, H, W) float32, nominally in [0, 1]; output (N, C, H·scale, W·scale) float32, unclamped. First and last
    convolution stay in float32, as they take and give the image itself.
    """

    def __init__(
        self,
        features: Sequence[int] = (64, 32),
        scale: int = 3,
        channels: int = 1,
        activation: Literal["tanh", "relu"] = "tanh",
        sigmoid: bool = False,
        last_kernel: Literal[1, 3] = 3,
    ) -> None:
        super().__init__()
        self.scale = scale
        widths = [channels, *features, channels * scale * scale]
        kernels = [5, *[3] * (len(features) - 1), last_kernel]
        self.body = nn.ModuleList(
            nn.Conv2d(before, after, kernel, padding=kernel // 2)
            for (before, after), kernel in zip(itertools.pairwise(widths), kernels, strict=True)
        )
        self.act = _ACTIVATIONS[activation]()
        self.last_act: nn.Module = nn.Sigmoid() if sigmoid else nn.Identity()
        self.keep_float32 = ("body.0", f"body.{len(features)}")
        self.halo = sum(kernel // 2 for kernel in kernels)

    def forward(self, x: Tensor) -> Tensor:
        *convolutions, last = self.body
        for convolution in convolutions:
            x = self.act(convolution(x.to(convolution.get_parameter("weight").dtype)))
        out: Tensor = self.last_act(F.pixel_shuffle(last(x.to(last.get_parameter("weight").dtype)).float(), self.scale))
        return out


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    first, *middle, last = convolutions(state, "body")
    channels = first.shape[1]
    features = [weight.shape[0] for weight in (first, *middle)]
    return {"features": features, "scale": math.isqrt(last.shape[0] // channels), "channels": channels}


def _shuffled_form(state: State) -> State:
    """Keep the pixel shuffle of three ways to enlarge whose weights lie side by side; it is that code's default."""
    return {key: value for key, value in state.items() if not key.startswith("other.")}


LAYOUTS = (
    Layout(
        "Thmen/EGVSR",
        "espcn",
        ((r"conv(\d+)", numbered("body.{}", offset=-1)), ("pwconv", "body.3"), (r"(reconv|deconv)", r"other.\1")),
        lambda state: _options(state) | {"sigmoid": True, "last_kernel": 1},
        prepare=_shuffled_form,
    ),
    Layout(
        "yjn870/ESPCN-pytorch",
        "espcn",
        ((r"first_part\.0", "body.0"), (r"first_part\.2", "body.1"), (r"last_part\.0", "body.2")),
        _options,
    ),
    Layout(
        "Lornatang/ESPCN-PyTorch",
        "espcn",
        ((r"feature_maps\.0", "body.0"), (r"feature_maps\.2", "body.1"), (r"sub_pixel\.0", "body.2")),
        _options,
    ),
    Layout(
        "leftthomas/ESPCN or pytorch/examples",
        "espcn",
        ((r"conv(\d+)", numbered("body.{}", offset=-1)),),
        _options,
        alternatives=tuple(
            {"activation": activation, "sigmoid": sigmoid}
            for activation in ("tanh", "relu")
            for sigmoid in (True, False)
        ),
    ),
)
