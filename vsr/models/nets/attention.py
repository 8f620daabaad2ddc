"""Weight channels or places of feature maps by what all of an image, or a wide part of it, has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HALO", "ContrastAttention", "SpatialAttention"]

# Input pixels by which tiles overlap for a network with such attention. It sees further: spatial attention about as far
# again in each block, contrast attention all of the image. So tiled output may differ a little from untiled output.
HALO = 64


class ContrastAttention(nn.Module):
    """Weight channels by their mean and standard deviation (Hui et al. 2019, arXiv:1909.11856)."""

    def __init__(self, features: int, reduced: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(nn.Conv2d(features, reduced, 1), nn.ReLU(), nn.Conv2d(reduced, features, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()  # sums over an image leave half precision
        mean = wide.mean((2, 3), keepdim=True)
        spread = (wide - mean).square().mean((2, 3), keepdim=True).sqrt()
        return x * torch.sigmoid(self.conv_du((mean + spread).to(x.dtype)))


class SpatialAttention(nn.Module):
    """Weight places by a coarse view of their surroundings (Liu et al. 2020, arXiv:2009.11551).

    Args:
        features: channels of the input and the output.
        reduced: channels of the coarse view.
        deep: True for three convolutions of it, as in RFDN; False for one, as in RLFN.
    """

    def __init__(self, features: int, reduced: int, deep: bool) -> None:
        super().__init__()
        self.conv1, self.conv_f = nn.Conv2d(features, reduced, 1), nn.Conv2d(reduced, reduced, 1)
        self.conv2 = nn.Conv2d(reduced, reduced, 3, stride=2)
        layers: list[nn.Module] = []
        for _ in range(2 if deep else 0):
            layers += [nn.Conv2d(reduced, reduced, 3, padding=1), nn.ReLU()]
        self.coarse = nn.Sequential(*layers, nn.Conv2d(reduced, reduced, 3, padding=1))
        self.conv4 = nn.Conv2d(reduced, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        coarse = self.coarse(F.max_pool2d(self.conv2(reduced), 7, stride=3))
        coarse = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = x * torch.sigmoid(self.conv4(coarse + self.conv_f(reduced)))
        return out
