"""Compute the LPIPS distance between images. Its weights come from files that the caller has."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.perceptual import SqueezeNetFeatures, load_frozen, part_of, read_state

__all__ = ["LPIPS", "load_lpips"]

_TAP_CHANNELS = (64, 128, 256, 384, 384, 512, 512)


class LPIPS(nn.Module):
    """Compute the learned perceptual distance v0.1 on SqueezeNet (Zhang et al. 2018, arXiv:1801.03924).

    Input: two (N, 3, H, W) float32 RGB images in [0, 1], H and W at least 17; output (N,) ≥ 0, 0 for equal ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = SqueezeNetFeatures()
        heads = {f"lin{n}": nn.Conv2d(channels, 1, 1, bias=False) for n, channels in enumerate(_TAP_CHANNELS)}
        self.heads = nn.ModuleDict(heads)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distance = a.new_zeros(a.shape[0])
        for head, x, y in zip(self.heads.values(), self.trunk(a), self.trunk(b), strict=True):
            # `normalize` has a gradient of zero, and not of NaN, where all channels are silent.
            differences = F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)
            distance = distance + head(differences.square()).mean((1, 2, 3))
        return distance


def load_lpips(path: Path) -> LPIPS:
    """Load LPIPS from a file with `features.*` as `load_squeezenet` wants them, and `lpips.lin0` to `lpips.lin6`."""
    state, net = read_state(path), LPIPS()
    trunk = "SqueezeNet 1.1 in torchvision's layout (features.0 to features.12) with LPIPS heads"
    load_frozen(net.trunk, part_of(state, "features."), path, trunk)
    heads = {key.removeprefix("lpips."): value for key, value in part_of(state, "lpips.").items()}
    load_frozen(net.heads, heads, path, "a file with the heads of LPIPS v0.1 for SqueezeNet (lpips.lin0 to lpips.lin6)")
    return net.eval()
