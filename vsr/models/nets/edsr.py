"""EDSR, Lim et al. 2017, arXiv:1707.02921."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["EDSR"]

# Mean colour of the DIV2K training pictures, which the published network takes off its input.
_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class _Block(nn.Module):
    """Two convolutions with a ReLU between them, scaled, around a skip connection; no batch norm."""

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
    """Residual blocks at low resolution, then sub-pixel upscaling (two ×2 steps for ×4).

    The baseline has 16 blocks of 64 features, the paper's large form 32 of 256 with a residual scale of 0.1.

    Input (N, 3, H, W) float32 in [0, 1]; output (N, 3, H·scale, W·scale) float32, unclamped. First and
    last convolution stay in float32 when the rest runs in less: one takes the picture, the other gives it.
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
