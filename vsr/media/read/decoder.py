"""What decodes a video stream."""

from __future__ import annotations

from typing import Literal

__all__ = ["HwAccelMode"]

HwAccelMode = Literal["none", "auto", "cuda"]
EXACT_ON_GPU = ("h264", "hevc")  # their standards fix every decoded sample, so that a GPU gives the same
