from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


def _write_clip(folder: Path, num_frames: int, size: tuple[int, int] = (64, 48), seed: int = 1) -> Path:
    """Images of a pattern that moves by two pixels a frame; size is (width, height)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    width, height = size
    pattern = cv2.resize(rng.integers(0, 256, (12, 24, 3)).astype(np.uint8), (width + 2 * num_frames, height))
    for index in range(num_frames):
        image = pattern[:, 2 * index : 2 * index + width]
        assert cv2.imwrite(str(folder / f"{index:03}.png"), image)
    return folder


@pytest.fixture
def write_clip() -> Callable[..., Path]:
    """`_write_clip`, for tests."""
    return _write_clip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of two short clips; one has sides that 4 does not divide."""
    _write_clip(tmp_path / "clips" / "harbour", 4)
    _write_clip(tmp_path / "clips" / "market", 3, (66, 51), seed=2)
    return tmp_path / "clips"


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Two images of different sizes."""
    for name, size in (("a", (48, 40)), ("b", (57, 45))):
        source = _write_clip(tmp_path / name, 1, size) / "000.png"
        (tmp_path / "stills").mkdir(exist_ok=True)
        source.rename(tmp_path / "stills" / f"{name}.png")
    return tmp_path / "stills"
