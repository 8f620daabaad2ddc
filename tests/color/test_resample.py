from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.color.resample import CENTERED, imresize, resample
from vsr.frames import ChromaLocation
from vsr.quality.metrics import luma_bt601, psnr_db

LEFT = 0.25  # of a sample in a cell two wide


def _keys(x: float, a: float = -0.5) -> float:
    """Keys 1981, equation 4, in terms of its free constant."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _mirrored(index: int, length: int) -> int:
    while not 0 <= index < length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


def _matrix(source: int, target: int, scale: float, from_: float = 0.5, to: float = 0.5) -> np.ndarray:
    """Row i holds the weight of every source sample in target sample i: MATLAB's `contributions`, densely."""
    matrix, narrow = np.zeros((target, source)), min(scale, 1.0)
    for row in range(target):
        center = (row + to) / scale - from_
        reach = int(2 / narrow) + 2
        for index in range(int(center) - reach, int(center) + reach + 1):
            matrix[row, _mirrored(index, source)] += _keys((center - index) * narrow)
    matrix /= matrix.sum(1, keepdims=True)
    return matrix


def _noise(height: int, width: int, channels: int = 1) -> Tensor:
    rng = np.random.default_rng(height * 100 + width)
    return torch.from_numpy(rng.uniform(0, 1, (2, channels, height, width)))


def _expected(x: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    return torch.from_numpy(rows @ x.numpy() @ columns.T)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((5, 7), (10, 14)),
        ((5, 7), (15, 21)),
        ((6, 5), (24, 20)),
        ((12, 16), (6, 8)),
        ((12, 16), (3, 4)),
        ((15, 9), (5, 3)),
        ((10, 6), (5, 12)),
        ((7, 9), (5, 4)),
        ((9, 7), (13, 10)),
        ((11, 13), (7, 29)),
        ((2, 3), (1, 9)),
        ((1, 1), (4, 3)),
    ],
)
def test_resampling_equals_the_dense_matrix(source: tuple[int, int], size: tuple[int, int]) -> None:
    x = _noise(*source, channels=2)
    rows = _matrix(source[0], size[0], size[0] / source[0])
    columns = _matrix(source[1], size[1], size[1] / source[1])
    torch.testing.assert_close(resample(x, size), _expected(x, rows, columns), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("up", [True, False])
def test_integer_factors_equal_the_dense_matrix_at_every_length(factor: int, up: bool) -> None:
    for length in (1, 2, 3, 7, 24, 49, 61):
        source, target = (length, length * factor) if up else (length * factor, length)
        x = _noise(1, source)
        expected = _expected(x, np.eye(1), _matrix(source, target, target / source))
        torch.testing.assert_close(resample(x, (1, target)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [5, 6, 7, 10])
def test_large_integer_reductions_equal_the_dense_matrix(factor: int) -> None:
    for length in (1, 3, 20, 49):
        x = _noise(length * factor, 2)
        expected = _expected(x, _matrix(length * factor, length, 1 / factor), np.eye(2))
        torch.testing.assert_close(resample(x, (length, 2)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("offsets", [(LEFT, 0.5), (0.5, LEFT), (LEFT, LEFT), (0.75, 0.5)])
@pytest.mark.parametrize(
    ("source", "target", "scale"),
    [(9, 18, 2), (9, 17, 2), (9, 5, 0.5), (9, 9, 1), (9, 14, 1.5)],
)
def test_offsets_and_inexact_sizes_equal_the_dense_matrix(
    source: int, target: int, scale: float, offsets: tuple[float, float]
) -> None:
    from_, to = offsets
    weights = _matrix(source, target, scale, from_, to)
    wide, tall = _noise(1, source), _noise(source, 1)
    across = resample(wide, (1, target), (from_, 0.5), (to, 0.5), (1, scale))
    down = resample(tall, (target, 1), (0.5, from_), (0.5, to), (scale, 1))
    torch.testing.assert_close(across, _expected(wide, np.eye(1), weights), rtol=0, atol=1e-12)
    torch.testing.assert_close(down, _expected(tall, weights, np.eye(1)), rtol=0, atol=1e-12)


def test_kernels_are_the_published_ones() -> None:
    impulse = torch.zeros((1, 1, 1, 17), dtype=torch.float64)
    impulse[..., 8] = 1
    up = resample(impulse, (1, 34))[0, 0, 0, 13:21]
    half = torch.tensor([-0.0234375, -0.0703125, 0.2265625, 0.8671875], dtype=torch.float64)
    torch.testing.assert_close(up, torch.cat((half, half.flip(0))))
    even = torch.zeros((1, 1, 1, 16), dtype=torch.float64)
    even[..., 8] = 1
    down = resample(even, (1, 8))[0, 0, 0, 2:6]
    expected = torch.tensor([-0.01171875, 0.11328125, 0.43359375, -0.03515625], dtype=torch.float64)
    torch.testing.assert_close(down, expected)


@pytest.mark.parametrize("size", [(9, 7), (18, 14), (27, 28), (3, 2), (5, 11)])
def test_constant_images_stay_constant(size: tuple[int, int]) -> None:
    out = resample(torch.full((1, 3, 9, 7), 0.3), size)
    assert out.shape == (1, 3, *size)
    torch.testing.assert_close(out, torch.full_like(out, 0.3))


def test_equal_size_changes_nothing() -> None:
    x = _noise(5, 6).float()
    assert torch.equal(resample(x, (5, 6)), x)


def test_float32_is_kept_and_accurate() -> None:
    x = _noise(12, 15)
    out = resample(x.float(), (7, 30))
    assert out.dtype is torch.float32
    torch.testing.assert_close(out.double(), resample(x, (7, 30)), rtol=0, atol=1e-6)


def test_imresize_rounds_half_up_and_clamps_overshoot() -> None:
    edge = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).view(1, 1, 1, 6)
    out = imresize(edge, (1, 12))
    assert out.dtype is torch.uint8
    weights = _matrix(6, 12, 2) @ edge[0, 0, 0].double().numpy()
    assert weights.min() < -1 and weights.max() > 256  # it does overshoot before it is clamped
    assert out.flatten().tolist() == np.clip(np.floor(weights + 0.5), 0, 255).tolist()


@pytest.mark.parametrize("location", [ChromaLocation.LEFT, ChromaLocation.CENTER, ChromaLocation.TOPLEFT])
def test_upsampled_ramps_keep_their_phase(location: ChromaLocation) -> None:
    x0 = 0.5 if location is ChromaLocation.CENTER else 0.0  # luma position of the first chroma sample
    y0 = 0.0 if location is ChromaLocation.TOPLEFT else 0.5
    columns, rows = 2 * torch.arange(12.0) + x0, 2 * torch.arange(10.0) + y0
    chroma = columns.expand(10, 12) + 100 * rows[:, None]
    out = resample(chroma[None, None], (20, 24), location.offset, CENTERED)[0, 0]
    expected = torch.arange(24.0) + 100 * torch.arange(20.0)[:, None]
    inside = (slice(4, -4), slice(4, -4))  # reflection bends the ramp near the edges
    torch.testing.assert_close(out[inside], expected[inside], rtol=0, atol=1e-3)


def _read(path: Path) -> Tensor:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).permute(2, 0, 1)[None]


def _bicubic_psnr_db(high: Tensor) -> float:
    height, width = high.shape[-2] // 4 * 4, high.shape[-1] // 4 * 4
    high = high[..., :height, :width]
    again = imresize(imresize(high, (height // 4, width // 4)), (height, width))
    return psnr_db(luma_bt601(again), luma_bt601(high), crop=4)


def test_set5_bicubic_x4_gives_the_published_psnr(data_folder: Path) -> None:
    folder = data_folder / "test" / "Set5"
    scores = [_bicubic_psnr_db(_read(path)) for path in sorted(folder.glob("*.webp"))]
    assert len(scores) == 5
    assert np.mean(scores) == pytest.approx(28.42, abs=0.05)
