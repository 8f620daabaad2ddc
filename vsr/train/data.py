"""A bank of uint8 pictures in memory, and random patches out of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError
from vsr.train.degrade import bicubic, mod_crop

__all__ = ["PatchBank", "find_images", "read_rgb"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def find_images(folder: Path) -> list[Path]:
    """Pictures below a folder, sorted by path. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: no pictures found ({', '.join(sorted(_SUFFIXES))})")
    return paths


def read_rgb(path: Path) -> Tensor:
    """A picture as (3, H, W) uint8 RGB; gray pictures become RGB."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path}: cannot be read as a picture")
    return torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1])).permute(2, 0, 1).contiguous()


class PatchBank:
    """Sharp pictures with their low-resolution versions, and random aligned patches of both."""

    def __init__(self, paths: list[Path], scale: int, patch: int) -> None:
        self.scale, self.patch = scale, patch
        self.pairs: list[tuple[Tensor, Tensor]] = []
        for path in paths:
            high = mod_crop(read_rgb(path), scale)
            if min(high.shape[-2:]) >= patch * scale:
                self.pairs.append((high, bicubic(high, scale)))
        if not self.pairs:
            raise InputError(f"every picture is smaller than a patch of {patch * scale} pixels")
        # A picture is drawn in proportion to its area, so that every pixel is seen equally often.
        areas = np.array([low.shape[1] * low.shape[2] for _, low in self.pairs], dtype=np.float64)
        self._cumulative = np.cumsum(areas / areas.sum())

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """`batch` patches: low (B, 3, p, p) and high (B, 3, p·scale, p·scale), uint8, flipped and rotated."""
        lows: list[Tensor] = []
        highs: list[Tensor] = []
        p, s = self.patch, self.scale
        for _ in range(batch):
            high, low = self.pairs[int(np.searchsorted(self._cumulative, rng.random()))]
            y = int(rng.integers(low.shape[1] - p + 1))
            x = int(rng.integers(low.shape[2] - p + 1))
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            pair = (low[:, y : y + p, x : x + p], high[:, y * s : (y + p) * s, x * s : (x + p) * s])
            for patch, out in zip(pair, (lows, highs), strict=True):
                patch = torch.rot90(patch, turns, (1, 2))
                out.append(patch.flip(2) if flip else patch)
        return torch.stack(lows), torch.stack(highs)
