"""Picture files: which there are, how large they are, and their pixels."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError
from vsr.media.image_sequence import IMAGE_SUFFIXES

__all__ = ["find_images", "picture_size", "read_rgb"]


def find_images(folder: Path) -> list[Path]:
    """Pictures below a folder, sorted by path. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: no pictures found ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def read_rgb(path: Path) -> Tensor:
    """A picture as (3, H, W) uint8 RGB; gray becomes RGB, 16 bit becomes 8, alpha is left out."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path}: cannot be read as a picture")
    return torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1])).permute(2, 0, 1).contiguous()


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture, from its header; raises InputError where the file is no picture.

    A picture that its EXIF orientation lays on the side has the two the other way round in `read_rgb`.
    """
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            if video.width and video.height:
                return video.height, video.width
    except (av.FFmpegError, OSError, IndexError):
        pass  # not a format that FFmpeg knows; OpenCV may, or says that it is none
    picture = read_rgb(path)
    return picture.shape[1], picture.shape[2]
