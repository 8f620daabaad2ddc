"""Flow, cuts and warping on frames whose motion is known."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.pipeline.motion import (
    estimate_motion,
    inverted,
    is_scene_cut,
    luma_8bit,
    optical_flow,
    submit_motion,
    taps_of,
    warp,
)


def _scene(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Soft blobs with fine texture on top, (H, W) uint8."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.integers(0, 256, (9, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    fine = cv2.GaussianBlur(rng.normal(0, 60, (height, width)).astype(np.float32), (0, 0), 1.5)
    return np.clip(coarse * 0.7 + fine + 30, 0, 255).astype(np.uint8)


def _moved(frame: np.ndarray, right: float, down: float) -> np.ndarray:
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    size = (frame.shape[1], frame.shape[0])
    return cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize(("right", "down"), [(3.0, 0.0), (-2.5, 1.25), (0.5, -4.0)])
def test_flow_leads_to_where_a_pixel_lies_in_the_other_frame(right: float, down: float) -> None:
    frame = _scene(1)
    flow = optical_flow(frame, _moved(frame, right, down))[12:-12, 12:-12]
    assert np.abs(np.median(flow, (0, 1)) - (right, down)).max() < 0.1


def test_warping_along_the_flow_brings_the_other_frame_to_this_one() -> None:
    frame = _scene(2)
    other = _moved(frame, 2.5, -1.5)
    flow = torch.from_numpy(optical_flow(frame, other))[None]
    warped = warp(torch.from_numpy(other).float()[None, None], taps_of(flow))[0, 0].numpy()
    inside = (slice(8, -8), slice(8, -8))
    before = np.abs(frame.astype(float) - other)[inside].mean()
    assert np.abs(frame - warped)[inside].mean() < before / 8


def test_whole_pixels_are_fetched_exactly_and_the_border_repeats() -> None:
    x = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 4, 5, 2)
    flow[..., 0], flow[..., 1] = 2.0, -1.0
    rows, columns = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 3, 4, 4, 4])
    assert torch.allclose(warp(x, taps_of(flow))[0, 0], x[0, 0][rows][:, columns], atol=1e-4)


def test_no_motion_changes_nothing() -> None:
    x = torch.rand(2, 3, 17, 23)
    assert torch.allclose(warp(x, taps_of(torch.zeros(2, 17, 23, 2))), x, atol=1e-4)


def test_a_cut_is_told_from_motion_noise_and_fades() -> None:
    frame, other = _scene(3), _scene(4)
    noisy = np.clip(frame + np.random.default_rng(0).normal(0, 5, frame.shape), 0, 255).astype(np.uint8)
    darker = (frame * 0.93).astype(np.uint8)
    for same in (frame, _moved(frame, 6, 2), noisy, darker):
        assert not is_scene_cut(frame, same, optical_flow(frame, same))
    assert is_scene_cut(frame, other, optical_flow(frame, other))


def test_black_to_a_picture_is_a_cut_and_black_to_black_is_none() -> None:
    black, frame = np.full((96, 128), 16, np.uint8), _scene(5)
    assert is_scene_cut(frame, black, optical_flow(frame, black))
    assert not is_scene_cut(black, black, optical_flow(black, black))


@pytest.mark.parametrize("shape", [(1, 1), (15, 40), (16, 16), (17, 33)])
def test_any_size_has_a_flow(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    flow = optical_flow(frame, frame)
    assert flow.shape == (*shape, 2) and flow.dtype == np.float32
    assert np.isfinite(flow).all()


def _batch(luma: torch.Tensor, bit_depth: int) -> FrameBatch:
    color = Color(
        Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, bit_depth=bit_depth
    )
    return FrameBatch((luma,), (0,), (1,), Fraction(1, 25), color)


def test_ten_bits_are_brought_to_eight() -> None:
    assert luma_8bit(_batch(torch.tensor([[[[64, 940, 1023]]]], dtype=torch.uint16), 10)).tolist() == [[[16, 235, 255]]]
    assert luma_8bit(_batch(torch.tensor([[[[16, 235, 255]]]], dtype=torch.uint8), 8)).tolist() == [[[16, 235, 255]]]


def test_luma_of_rgb_is_coded_bt601() -> None:
    codes = [[0, 255, 255, 0, 0], [0, 255, 0, 255, 0], [0, 255, 0, 0, 255]]  # black, white, red, green, blue
    for bit_depth, dtype in ((8, torch.uint8), (10, torch.uint16), (16, torch.uint16)):
        rgb = (torch.tensor(codes) * (2**bit_depth - 1) // 255).to(dtype)[None, :, None]
        color = Color(Matrix.RGB, Primaries.BT709, Transfer.SRGB, Range.FULL, ChromaLocation.LEFT, bit_depth)
        batch = FrameBatch((rgb,), (0,), (1,), Fraction(1, 25), color)
        assert np.abs(luma_8bit(batch)[0, 0].astype(int) - [16, 235, 81, 145, 41]).max() <= 1


def test_the_way_ahead_is_estimated_on_request() -> None:
    earlier, later = _scene(3), _moved(_scene(3), 3, 0)
    both, inverted_only = estimate_motion(earlier, later, both_flows=True), estimate_motion(earlier, later)
    assert both is not None and inverted_only is not None
    np.testing.assert_array_equal(both.back, inverted_only.back)
    np.testing.assert_array_equal(both.ahead, optical_flow(earlier, later))


def test_motion_has_both_directions_and_ends_at_a_cut() -> None:
    frame = _scene(1)
    motion = submit_motion(_moved(frame, 3, 0), frame).result()
    assert motion is not None
    assert abs(np.median(motion.back[12:-12, 12:-12, 0]) - 3) < 0.1
    assert abs(np.median(motion.ahead[12:-12, 12:-12, 0]) + 3) < 0.1
    assert estimate_motion(_scene(3), _scene(4)) is None


def test_an_inverted_flow_leads_back() -> None:
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    zoom = np.stack(((x - 40) * 0.05 + 2, (y - 30) * 0.05 - 1), -1)  # x' = 1.05 x, and a shift
    back = np.stack(((x - 2 + 40 * 0.05) / 1.05 - x, (y + 1 + 30 * 0.05) / 1.05 - y), -1)
    assert np.abs(inverted(zoom) - back)[6:-6, 6:-6].max() < 0.01


def test_threads_give_what_one_call_after_the_other_gives() -> None:
    frames = [_scene(seed) for seed in range(4)]
    pairs = [(frame, _moved(frame, 1, 2)) for frame in frames] * 3
    futures = [submit_motion(*pair) for pair in pairs]
    for future, pair in zip(futures, pairs, strict=True):
        threaded, alone = future.result(), estimate_motion(*pair)
        assert threaded is not None and alone is not None
        assert np.array_equal(threaded.back, alone.back) and np.array_equal(threaded.ahead, alone.ahead)


def test_between_pixels_a_parabola_is_hit_exactly() -> None:
    """Only the cubic kernel with a = −1/2 reproduces parabolas (Keys 1981)."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    flow = torch.stack((torch.full((12, 16), 0.3), torch.full((12, 16), -0.6)), -1)[None]

    def parabola(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 0.3 * x * x - 0.2 * x * y + 0.1 * y * y + x

    warped = warp(parabola(columns, rows)[None, None], taps_of(flow))[0, 0]
    wanted = parabola(columns + 0.3, rows - 0.6)
    assert torch.allclose(warped[3:-3, 3:-3], wanted[3:-3, 3:-3], atol=1e-4)
