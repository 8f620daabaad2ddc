from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.quality.metrics import (
    detail_ratio,
    difference_psnr_db,
    flow_distance,
    luma_bt601,
    optical_flow,
    pooled_psnr_db,
    psnr_db,
    ssim,
)


def _image(seed: int, height: int = 14, width: int = 17) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (1, 1, height, width)).astype(np.uint8))


def test_one_code_value_everywhere_is_48_13_db() -> None:
    a = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    assert psnr_db(a, a + 1) == pytest.approx(48.1308, abs=1e-4)


def test_psnr_of_four_pixels_by_hand() -> None:
    a = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]])
    b = torch.tensor([[[[10.0, 25.0], [30.0, 37.0]]]])
    assert psnr_db(a, b) == pytest.approx(10 * math.log10(255**2 / ((25 + 9) / 4)))
    assert psnr_db(a / 255, b / 255, peak=1.0) == pytest.approx(psnr_db(a, b), abs=1e-4)


def test_uint8_images_do_not_wrap_around() -> None:
    black = torch.zeros((1, 1, 2, 2), dtype=torch.uint8)
    white = torch.full_like(black, 255)
    assert psnr_db(black, white) == psnr_db(white, black) == 0


def test_equal_images_have_infinite_psnr() -> None:
    assert psnr_db(_image(1), _image(1)) == math.inf


def test_crop_leaves_out_exactly_the_edge() -> None:
    a = torch.full((1, 1, 9, 9), 50.0)
    edge = a.clone()
    edge[..., 1, :] = edge[..., :, 7] = 90
    assert psnr_db(a, edge, crop=1) < 30
    assert psnr_db(a, edge, crop=2) == math.inf


def test_white_is_235_and_black_16() -> None:
    pixels = torch.tensor([[0, 255]]).expand(1, 3, 1, 2)
    assert luma_bt601(pixels).flatten().tolist() == pytest.approx([16.0, 235.0])


def test_primaries_have_bt601_luma() -> None:
    pixels = 255 * torch.eye(3).view(1, 3, 1, 3)
    assert luma_bt601(pixels).flatten().tolist() == pytest.approx([81.481, 144.553, 40.966])


def _gaussian_window() -> np.ndarray:
    y, x = np.mgrid[-5:6, -5:6]
    window: np.ndarray = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    window /= window.sum()
    return window


def _ssim_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, window by window."""
    window, c1, c2 = _gaussian_window(), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    scores = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            cov = (window * (p - mean_p) * (q - mean_q)).sum()
            top = (2 * mean_p * mean_q + c1) * (2 * cov + c2)
            scores.append(top / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
    return float(np.mean(scores))


@pytest.mark.parametrize("mix", [0.0, 0.5, 0.9])
def test_ssim_equals_its_definition(mix: float) -> None:
    a, noise = _image(1).double(), _image(2).double()
    b = mix * a + (1 - mix) * noise
    assert ssim(a, b) == pytest.approx(_ssim_by_definition(a[0, 0].numpy(), b[0, 0].numpy()), abs=1e-9)


@pytest.mark.parametrize("shape", [(11, 11), (40, 53)])
def test_psnr_and_ssim_are_those_of_scikit_image(shape: tuple[int, int]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, noise = _image(1, *shape), _image(2, *shape)
    b = (a.double() * 0.8 + noise.double() * 0.2).round()
    arrays = a[0, 0].numpy().astype(np.float64), b[0, 0].numpy()
    assert psnr_db(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(*arrays, data_range=255), abs=1e-6)
    score = metrics.structural_similarity(
        *arrays, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(score, abs=1e-6)


def test_ssim_needs_a_whole_window() -> None:
    with pytest.raises(ValueError, match="11 pixels a side, not 17x10"):
        ssim(_image(1, height=10), _image(2, height=10))


def test_ssim_of_equal_images_is_one() -> None:
    assert ssim(_image(3), _image(3)) == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_a_batch_is_the_mean_over_its_images() -> None:
    pairs = [(_image(1), _image(2)), (_image(3), _image(3))]
    batch = ssim(torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]))
    assert batch == pytest.approx(sum(ssim(a, b) for a, b in pairs) / 2)


@pytest.mark.parametrize("metric", [psnr_db, ssim, detail_ratio])
def test_images_of_different_shapes_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"14, 17.*15, 17"):
        metric(_image(1), _image(1, height=15))  # type: ignore[operator]


def _wave(cycles_per_pixel: float, angle: float = 0.3, size: int = 64) -> Tensor:
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    phase = 2 * math.pi * cycles_per_pixel * (math.cos(angle) * x + math.sin(angle) * y)
    return (128 + 50 * torch.sin(phase))[None, None]


def test_detail_is_what_lies_above_half_of_nyquist() -> None:
    coarse, fine = _wave(0.2), _wave(0.3)
    truth = coarse + fine - 128
    assert detail_ratio(coarse, truth) == pytest.approx(0, abs=1e-3)
    assert detail_ratio(fine, truth) == pytest.approx(1, abs=1e-3)
    assert detail_ratio(truth, truth) == 1


@pytest.mark.parametrize("angle", [0.0, math.pi / 4, math.pi / 2, 2.5])
def test_detail_counts_the_same_in_every_direction(angle: float) -> None:
    assert detail_ratio(_wave(0.35, angle), _wave(0.35)) == pytest.approx(1, rel=0.01)
    assert detail_ratio(_wave(0.2, angle), _wave(0.35)) == pytest.approx(0, abs=1e-3)


def test_half_the_contrast_is_a_quarter_of_the_detail() -> None:
    a = _image(1, 40, 50).double()
    assert detail_ratio(a / 2 + 10, a) == pytest.approx(0.25)


def test_blur_takes_detail_and_noise_adds_it() -> None:
    a = _image(1, 40, 50).double()
    blurred = torch.nn.functional.avg_pool2d(a, 3, 1, padding=1)
    assert detail_ratio(blurred, a) < 0.3
    assert detail_ratio(a + _image(2, 40, 50), a) > 1.5


def test_a_bright_edge_of_the_image_is_no_detail() -> None:
    ramp = torch.linspace(0, 255, 64, dtype=torch.float64).expand(1, 1, 64, 64)
    assert detail_ratio(ramp, _wave(0.35)) < 1e-3  # its ends differ, which a bare spectrum takes for a sharp step


# -- over time -----------------------------------------------------------------------------------------------------


def test_pooled_psnr_is_that_of_all_pixels_together() -> None:
    a, b = _image(1), _image(2)
    c = (b.double() + 3).clamp(0, 255)
    together = psnr_db(torch.cat((a.double(), c)), torch.cat((b.double(), b.double())))
    assert pooled_psnr_db([psnr_db(a, b), psnr_db(c, b)]) == pytest.approx(together)
    assert pooled_psnr_db([math.inf, math.inf]) == math.inf
    assert pooled_psnr_db([math.inf, 40.0]) == pytest.approx(40 + 10 * math.log10(2))


def _moving(shift: float) -> Tensor:
    """A smooth pattern that has moved to the right by `shift` pixels."""
    y, x = torch.meshgrid(*[torch.arange(64, dtype=torch.float64)] * 2, indexing="ij")
    return (128 + 50 * torch.sin((x - shift) / 5) + 40 * torch.sin(y / 7))[None, None]


def test_flow_is_the_motion_in_pixels() -> None:
    flow = optical_flow(_moving(0), _moving(2))[16:-16, 16:-16]
    assert flow[..., 0].median().item() == pytest.approx(2, abs=0.1)
    assert flow[..., 1].median().item() == pytest.approx(0, abs=0.1)


def test_tof_is_the_distance_of_two_motions() -> None:
    still, moved = torch.zeros(5, 6, 2), torch.zeros(5, 6, 2)
    moved[..., 0], moved[..., 1] = 3, -4
    assert flow_distance(moved, still) == 5
    assert flow_distance(moved, moved) == 0


def test_an_error_that_stays_does_not_flicker() -> None:
    before, after = _image(1).double(), _image(2).double()
    error = _image(3).double() / 8
    assert difference_psnr_db((before + error, after + error), (before, after)) > 200
    assert difference_psnr_db((before + error, after), (before, after)) == pytest.approx(
        psnr_db(before + error, before)
    )
