"""How a low-resolution training picture is made from a sharp one."""

from __future__ import annotations

from torch import Tensor

from vsr.media.resample import imresize

__all__ = ["bicubic", "mod_crop"]


def mod_crop(image: Tensor, scale: int) -> Tensor:
    """Crop (..., H, W) at the right and bottom to a multiple of `scale`."""
    height, width = image.shape[-2:]
    return image[..., : height - height % scale, : width - width % scale]


def bicubic(image: Tensor, scale: int) -> Tensor:
    """BI: MATLAB's antialiased bicubic; (C, H, W) uint8, H and W multiples of scale, to uint8."""
    height, width = image.shape[-2:]
    return imresize(image[None], (height // scale, width // scale))[0]
