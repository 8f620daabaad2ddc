"""Strips of crops."""

from __future__ import annotations

import numpy as np
import pytest

from vsr.bench.strips import strip

HEIGHT, WIDTH, ENLARGED, GAP = 30, 60, 3, 8


@pytest.mark.parametrize(("num_crops", "grid"), [(1, (1, 1)), (5, (1, 5)), (6, (2, 3)), (7, (2, 4)), (13, (3, 5))])
def test_crops_beyond_five_go_in_rows(num_crops: int, grid: tuple[int, int]) -> None:
    crops = [np.full((HEIGHT, WIDTH, 3), 10 * index, np.uint8) for index in range(num_crops)]
    image = strip((f"m{index}", crop) for index, crop in enumerate(crops))
    height, width = HEIGHT * ENLARGED, WIDTH * ENLARGED
    assert image.shape == (grid[0] * (height + GAP) - GAP, grid[1] * (width + GAP) - GAP, 3)
    for index in range(num_crops):
        row, column = divmod(index, grid[1])
        y, x = row * (height + GAP), column * (width + GAP)
        assert (image[y + height - 30 : y + height, x : x + width] == 10 * index).all()  # below the label
    if grid[0] > 1:
        assert (image[height : height + GAP] == 255).all()
