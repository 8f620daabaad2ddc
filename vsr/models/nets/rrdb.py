"""Define the generator of ESRGAN (RRDBNet), Wang et al. 2018, arXiv:1809.00219."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.layout import SAME, Layout, State, convolutions, count_blocks, numbered, rename_module

__all__ = ["LAYOUTS", "RRDBNet"]

_RESIDUAL_SCALE = 0.2


class _DenseBlock(nn.Module):
    """Add five 3×3 convolutions, each fed with the input and all earlier outputs, scaled, to the input."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, self.act(conv(seen))), 1)
        out: Tensor = self.conv5(seen)
        return x + out * _RESIDUAL_SCALE


class _Block(nn.Module):
    """Add three dense blocks in a row, scaled, to the input: residual in residual."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.dense1 = _DenseBlock(features, growth)
        self.dense2 = _DenseBlock(features, growth)
        self.dense3 = _DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense3(self.dense2(self.dense1(x)))
        return x + out * _RESIDUAL_SCALE


class RRDBNet(nn.Module):
    """Upscale by dense residual blocks at low resolution, then ×2 steps of nearest-neighbour enlarging and convolution.

    Args:
        growth: channels that each convolution of a dense block adds.
        unshuffle: side of the cells of input pixels that are folded into channels first; Real-ESRGAN makes its ×2 and
            ×1 networks from the ×4 form so (2 and 4). Input sides must be multiples of it.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. The first and last
    convolution stay in float32 when the rest runs in half precision, as they take and give the image itself.
    """

    keep_float32 = ("head", "tail")

    def __init__(
        self, features: int = 64, num_blocks: int = 23, growth: int = 32, scale: int = 4, unshuffle: int = 1
    ) -> None:
        super().__init__()
        num_steps = (scale * unshuffle).bit_length() - 1
        if scale < 1 or unshuffle < 1 or scale * unshuffle != 1 << num_steps:
            raise ValueError(f"RRDBNet upscales by powers of two, not by {scale} after an unshuffle by {unshuffle}")
        self.scale = scale
        self.multiple_of = unshuffle
        self.head = nn.Conv2d(3 * unshuffle**2, features, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(features, growth) for _ in range(num_blocks)))
        self.fuse = nn.Conv2d(features, features, 3, padding=1)
        self.up = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(num_steps))
        self.hr = nn.Conv2d(features, features, 3, padding=1)
        self.tail = nn.Conv2d(features, 3, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)
        # In cells: head, 15 convolutions a block, fuse; then at most 2 for all that runs at higher resolution.
        self.halo = (1 + 15 * num_blocks + 1 + 2 + 1) * unshuffle - 1

    def forward(self, x: Tensor) -> Tensor:
        cells = F.pixel_unshuffle(x, self.multiple_of)
        head = self.head(cells.to(self.head.weight.dtype)).to(self.fuse.weight.dtype)
        features = head + self.fuse(self.blocks(head))
        for step in self.up:
            features = self.act(step(F.interpolate(features, scale_factor=2, mode="nearest")))
        features = self.act(self.hr(features))
        out: Tensor = self.tail(features.to(self.tail.weight.dtype))
        return out.float()


# -- layouts ----------------------------------------------------------------------------------------------


def _options(state: State) -> dict[str, Any]:
    features, in_channels = state["head.weight"].shape[:2]
    unshuffle = math.isqrt(in_channels // 3)
    return {
        "features": features,
        "num_blocks": count_blocks(state),
        "growth": state["blocks.0.dense1.conv1.weight"].shape[0],
        "scale": 2 ** len(convolutions(state, "up")) // unshuffle,
        "unshuffle": unshuffle,
    }


def _number_esrgan(state: State) -> State:
    """Rename the layers that old ESRGAN files count from 0, with activations and enlargings.

    Each ×2 step takes three numbers; the last convolutions take two each.
    """
    numbers = sorted({int(match[1]) for key in state if (match := re.match(r"layer\.(\d+)\.", key))})
    num_steps = len(numbers) - 2
    if numbers != [*range(3, 3 * num_steps + 1, 3), 3 * num_steps + 2, 3 * num_steps + 4]:
        raise ValueError(f"layers {numbers} are not those of an ESRGAN")
    names = [*(f"up.{step}" for step in range(num_steps)), "hr", "tail"]
    for number, name in zip(numbers, names, strict=True):
        state = rename_module(state, f"layer.{number}", name)
    return state


_DENSE = r"(\d+)\.(?:rdb|RDB)([123])\.(conv[1-5])"


LAYOUTS = (
    Layout(
        "ESRGAN's RRDBNet",
        "rrdb",
        (
            (r"conv_first", "head"),
            (rf"(?:body|RRDB_trunk)\.{_DENSE}", r"blocks.\1.dense\2.\3"),
            (r"conv_body|trunk_conv", "fuse"),
            (r"(?:conv_up|upconv)(\d)", numbered("up.{}", offset=-1)),
            (r"conv_hr|HRconv", "hr"),
            (r"conv_last", "tail"),
        ),
        _options,
    ),
    Layout(
        "ESRGAN's RRDBNet, old names",
        "rrdb",
        (
            (r"model\.0", "head"),
            (rf"model\.1\.sub\.{_DENSE}\.0", r"blocks.\1.dense\2.\3"),
            (r"model\.1\.sub\.\d+", "fuse"),
            (r"model\.(\d+)", r"layer.\1"),
        ),
        _options,
        _number_esrgan,
    ),
    Layout("vsr", "rrdb", SAME, _options),
)
