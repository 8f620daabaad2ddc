"""Picture files: which there are, how large they are, and their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError

__all__ = ["find_images", "picture_size", "read_rgb"]

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
    """A picture as (3, H, W) uint8 RGB; gray becomes RGB, 16 bit becomes 8, alpha is left out."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path}: cannot be read as a picture")
    return torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1])).permute(2, 0, 1).contiguous()


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width), from the header where its format is PNG, JPEG or WebP, else by reading the picture.

    A picture that its EXIF orientation lays on the side has the two the other way round in `read_rgb`.
    Raises InputError where the file is no picture.
    """
    try:
        with path.open("rb") as file:
            size = _size_in_header(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a picture ({error.strerror})") from error
    if size is not None:
        return size
    picture = read_rgb(path)
    return picture.shape[1], picture.shape[2]


def _size_in_header(file: BinaryIO) -> tuple[int, int] | None:
    head = file.read(30)
    if len(head) < 30:
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp_size(head)
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """RFC 9649: lossless, extended and lossy files say their size in three ways."""
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if head[12:16] == b"VP8 ":
        return int.from_bytes(head[28:30], "little") & 0x3FFF, int.from_bytes(head[26:28], "little") & 0x3FFF
    return None


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """ITU-T T.81: the size is in the frame header (SOF), after segments that say their own length."""
    file.seek(2)
    while len(start := file.read(4)) == 4 and start[0] == 0xFF:
        marker, length = start[1], int.from_bytes(start[2:4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            header = file.read(5)
            return (
                (int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")) if len(header) == 5 else None
            )
        file.seek(length - 2, 1)
    return None
