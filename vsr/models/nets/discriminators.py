"""Tell generated images from real ones, in training."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["UNetDiscriminator", "VGGDiscriminator"]


class VGGDiscriminator(nn.Module):
    """Judge whole patches as SRGAN's discriminator does (Ledig et al. 2017, arXiv:1609.04802).

    Eight convolutions and two dense layers. Input (N, 3, side, side) float32 in [0, 1], side a multiple of 16 (96 in
    the paper). Output: (N, 1) logits, large for real images, and the activations after every stride-2 stage, for
    feature matching.
    """

    def __init__(self, side: int = 96, features: int = 64) -> None:
        super().__init__()
        if side % 16:
            raise ValueError(f"the side of a patch must be a multiple of 16, not {side}")
        widths = [features, features * 2, features * 4, features * 8]
        stages = [
            nn.Sequential(nn.Conv2d(3, features, 3, padding=1), nn.LeakyReLU(0.2), *_layer(features, features, 2))
        ]
        for before, after in itertools.pairwise(widths):
            stages.append(nn.Sequential(*_layer(before, after, 1), *_layer(after, after, 2)))
        self.stages = nn.ModuleList(stages)
        self.dense = nn.Sequential(
            nn.Linear(widths[-1] * (side // 16) ** 2, 1024), nn.LeakyReLU(0.2), nn.Linear(1024, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        activations = []
        x = x * 2 - 1
        for stage in self.stages:
            x = stage(x)
            activations.append(x)
        # Its weights are most of the network and its work is little: casting them would cost more than it saves.
        with torch.autocast(x.device.type, enabled=False):
            return self.dense(x.flatten(1).float()), activations


def _layer(before: int, after: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]


class UNetDiscriminator(nn.Module):
    """Judge every pixel by a U-Net with spectral normalisation (Real-ESRGAN, Wang et al. 2021, arXiv:2107.10833).

    Input (N, 3, H, W) float32 in [0, 1], sides multiples of 8. Output: (N, 1, H, W) logits, large for real images, and
    the encoder's activations, for feature matching.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        f = features
        self.head = nn.Conv2d(3, f, 3, padding=1)
        self.down = nn.ModuleList(_normed(f * 2**i, f * 2 ** (i + 1), kernel=4, stride=2) for i in range(3))
        self.up = nn.ModuleList(_normed(f * 2 ** (i + 1), f * 2**i) for i in reversed(range(3)))
        self.last = nn.Sequential(_normed(f, f), nn.LeakyReLU(0.2), _normed(f, f), nn.LeakyReLU(0.2))
        self.logits = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        levels = [F.leaky_relu(self.head(x), 0.2)]
        for down in self.down:
            levels.append(F.leaky_relu(down(levels[-1]), 0.2))
        out = levels[-1]
        for up, skip in zip(self.up, reversed(levels[:-1]), strict=True):
            out = F.interpolate(out, scale_factor=2, mode="bilinear", align_corners=False)
            out = F.leaky_relu(up(out), 0.2) + skip
        return self.logits(self.last(out)), levels[1:]


def _normed(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    module: nn.Module = spectral_norm(nn.Conv2d(before, after, kernel, stride, padding=1, bias=False))
    return module
