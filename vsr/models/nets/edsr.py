"""Define EDSR, Lim et al. 2017, arXiv:1707.02921."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vsr.models.nets.layout import SAME, Layout, State, convolutions, count_blocks, numbered, shuffle_scale

__all__ = ["EDSR", "LAYOUTS"]

# Mean colour of the DIV2K training images, which the published network subtracts from its input.
_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class _Block(nn.Module):
    """Add two convolutions with a ReLU between them, scaled, to the input; no batch norm."""

    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.act(self.conv1(x)))
        return x + out * self.residual_scale


class EDSR(nn.Module):
    """Upscale by residual blocks at low resolution, then sub-pixel convolutions (two ×2 steps for ×4).

    The baseline has 16 blocks of 64 features, the paper's large form 32 of 256 with a residual scale of 0.1.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first and last
    convolution stay in float32 when the rest runs in half precision, as they take and give the image itself.
    """

    keep_float32 = ("head.0", "tail")

    def __init__(self, features: int = 64, num_blocks: int = 16, scale: int = 4, residual_scale: float = 1.0) -> None:
        super().__init__()
        if scale not in (2, 3, 4, 8):
            raise ValueError(f"EDSR upscales by 2, 3, 4 or 8, not by {scale}")
        self.scale = scale
        self.register_buffer("mean", torch.tensor(_DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        # A sequence of one, so that the keys are SRResNet's and either trunk can start the other.
        self.head = nn.Sequential(nn.Conv2d(3, features, 3, padding=1))
        self.blocks = nn.Sequential(*(_Block(features, residual_scale) for _ in range(num_blocks)))
        self.fuse = nn.Conv2d(features, features, 3, padding=1)
        factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        steps: list[nn.Module] = []
        for factor in factors:
            steps += [nn.Conv2d(features, features * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
        self.up = nn.Sequential(*steps)
        self.tail = nn.Conv2d(features, 3, 3, padding=1)
        # Head, blocks and fuse; then at most 1 + 1/2 + 1/4 for the steps and 1/scale for the tail.
        self.halo = 1 + 2 * num_blocks + 1 + 2

    def forward(self, x: Tensor) -> Tensor:
        mean = self.get_buffer("mean").to(x.dtype)
        first = self.head[0].get_parameter("weight")
        head = self.head((x - mean).to(first.dtype)).to(self.fuse.weight.dtype)
        features = self.up(head + self.fuse(self.blocks(head)))
        out: Tensor = self.tail(features.to(self.tail.weight.dtype))
        return out.float() + mean.float()


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    features = state["head.0.weight"].shape[0]
    return {
        "features": features,
        "num_blocks": count_blocks(state),
        "scale": shuffle_scale(convolutions(state, "up")),
        "residual_scale": 0.1 if features >= 256 else 1.0,  # the paper's; the weights do not determine it
    }


def _from_range_255(state: State) -> State:
    """Turn the weights of a ReLU network for [0, 255] into those for [0, 1].

    This is exact: such a network is homogeneous but for its biases.
    """
    return {key: value / 255 if key.endswith(".bias") else value for key, value in state.items()}


def _without_mean_shift(state: State) -> State:
    """Take out the fixed convolutions that shift the mean, after a check of their mean and range."""
    rest = {key: value for key, value in state.items() if not key.startswith(("sub_mean.", "add_mean."))}
    if len(rest) == len(state):
        return _from_range_255(rest)  # the published networks' range
    mean, shift = torch.tensor(_DIV2K_MEAN), state["add_mean.bias"]
    peak = 255.0 if shift.max() > 1 else 1.0
    unit = torch.eye(3).view(3, 3, 1, 1)
    expected = {"sub_mean.bias": -peak * mean, "add_mean.bias": peak * mean, "sub_mean.weight": unit}
    for key, value in (expected | {"add_mean.weight": unit}).items():
        if not torch.allclose(state[key], value, rtol=1e-3, atol=0):
            raise ValueError(f"{key} is not for DIV2K's mean colour")
    return _from_range_255(rest) if peak > 1 else rest


LAYOUTS = (
    Layout(
        "sanghyun-son/EDSR-PyTorch",
        "edsr",
        (
            (r"sub_mean|add_mean", r"\g<0>"),
            (r"head\.0", "head.0"),
            (r"body\.(\d+)\.body\.0", r"blocks.\1.conv1"),
            (r"body\.(\d+)\.body\.2", r"blocks.\1.conv2"),
            (r"body\.\d+", "fuse"),
            (r"tail\.0\.(\d+)", r"up.\1"),
            (r"tail\.1", "tail"),
        ),
        _options,
        _without_mean_shift,
    ),
    Layout(
        "BasicSR's EDSR",
        "edsr",
        (
            (r"conv_first", "head.0"),
            (r"body\.(\d+)\.(conv[12])", r"blocks.\1.\2"),
            (r"conv_after_body", "fuse"),
            (r"upsample\.(\d+)", r"up.\1"),
            (r"upsample\.(\d+)\.upsample_conv", numbered("up.{}", 2)),
            (r"conv_last", "tail"),
        ),
        _options,
        _from_range_255,
    ),
    Layout("vsr", "edsr", SAME, _options),
)
