"""Upscale bicubically by a fixed convolution, for networks that refine an enlarged image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BicubicUp"]


class BicubicUp(nn.Module):
    """Enlarge by an integer factor with Keys' cubic (a = -0.5), pixel centres aligned, as MATLAB does.

    Written as a 5×5 convolution to scale² channels and a pixel shuffle, which every engine runs alike;
    borders repeat their last pixel. (N, C, H, W) float32 to (N, C, H·scale, W·scale) float32.
    """

    halo = 2

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        offsets = torch.arange(-2, 3, dtype=torch.float64)
        rows = [_keys_cubic((sub + 0.5) / scale - 0.5 - offsets) for sub in range(scale)]
        kernel = torch.stack([torch.outer(y, x) for y in rows for x in rows])
        self.register_buffer("kernel", kernel[:, None].float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Whatever precision the network runs in, the image itself needs float32.
        kernel = self.get_buffer("kernel").float()
        device = "cpu" if x.is_meta else x.device.type  # of shapes alone, PyTorch casts nothing
        with torch.autocast(device, enabled=False):
            padded = F.pad(x.float(), (2, 2, 2, 2), mode="replicate")
            channels = x.shape[1]
            if channels > 1:
                kernel = kernel.repeat(channels, 1, 1, 1)
            return F.pixel_shuffle(F.conv2d(padded, kernel, groups=channels), self.scale)


def _keys_cubic(distance: Tensor) -> Tensor:
    """Compute the interpolation weights of Keys (1981) at distances in input pixels."""
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
