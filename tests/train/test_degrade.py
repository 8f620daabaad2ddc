from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.color.resample import imresize, mod_crop, reduce_bicubic
from vsr.media.images import find_images, read_rgb
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.train.codec import SD_COLOR, rgb_of_yuv420, x264_rgb_round_trip, x264_round_trip, yuv420_of_rgb
from vsr.train.degrade import DEGRADATIONS, LowFrame, MixedDegradation, VideoDegradation, gaussian

CLEAN = VideoDegradation(
    blur_probability=0, noise_probability=0, kernel_weights=(("cubic", 1),), crf=(1, 1), presets=("ultrafast",)
)


@pytest.fixture(scope="module")
def image() -> Tensor:
    """(3, 156, 212) with smooth edges at every angle."""
    rng = np.random.default_rng(7)
    canvas = np.full((156, 212, 3), 128, np.uint8)
    for _ in range(60):
        start, end = rng.integers(0, 212, 2), rng.integers(0, 156, 2)
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.line(canvas, (int(start[0]), int(end[0])), (int(start[1]), int(end[1])), color, 4, cv2.LINE_AA)
    return torch.from_numpy(cv2.GaussianBlur(canvas, (0, 0), 1.0)).permute(2, 0, 1).contiguous()


def psnr_to_target(frame: LowFrame, high: Tensor, scale: int, shift: tuple[int, int] = (0, 0)) -> float:
    """Luma PSNR of a frame against its target reduced, the target taken `shift` pixels off; 4 pixels in."""
    moved = LowFrame(frame.pixels[:, 2:-2, 2:-2], frame.top + 2 * scale + shift[0], frame.left + 2 * scale + shift[1])
    reduced = reduce_bicubic(moved.target(high, scale), scale)
    return psnr_db(luma_bt601(moved.pixels[None]), luma_bt601(reduced[None]), crop=2)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_frame_of_a_clip_shows_its_target(image: Tensor, scale: int, seed: int) -> None:
    high = mod_crop(image, scale)
    frames = CLEAN(high, scale, 16, np.random.default_rng(seed))
    assert len(frames) == CLEAN.num_frames == 7
    for frame in frames:
        exact = psnr_to_target(frame, high, scale)
        assert exact > 40
        for shift in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            assert psnr_to_target(frame, high, scale, shift) < exact - 5


@pytest.mark.parametrize("kernel", ["box", "triangle", "cubic", "lanczos3"])
def test_no_kernel_moves_the_image(image: Tensor, kernel: str) -> None:
    degradation = VideoDegradation(
        kernel_weights=((kernel, 1),), blur_probability=1, noise_probability=1, noise_sigma_codes=(1, 1), crf=(5, 5)
    )
    for frame in degradation(image, 4, 16, np.random.default_rng(3)):
        exact = psnr_to_target(frame, image, 4)
        shifts = ((-1, 0), (1, 0), (0, -1), (0, 1))
        assert all(psnr_to_target(frame, image, 4, shift) < exact - 0.5 for shift in shifts)


def test_clips_move_by_less_than_a_low_resolution_pixel_too(image: Tensor) -> None:
    phases = set()
    for seed in range(6):
        for frame in CLEAN(image, 4, 16, np.random.default_rng(seed)):
            phases.add((frame.top % 4, frame.left % 4))
    assert len(phases) > 10


def test_defaults_keep_the_image_recognisable(image: Tensor) -> None:
    scores = []
    for seed in range(8):
        scores += [
            psnr_to_target(f, image, 4) for f in DEGRADATIONS["video"](image, 4, 16, np.random.default_rng(seed))
        ]
    assert min(scores) > 20 and max(scores) > 32  # some strongly compressed, some hardly


def test_same_seed_same_clip(image: Tensor) -> None:
    video = DEGRADATIONS["video"]
    for seed in range(4):
        first, second = (video(image, 4, 16, np.random.default_rng(seed)) for _ in range(2))
        assert all(
            torch.equal(a.pixels, b.pixels) and (a.top, a.left) == (b.top, b.left)
            for a, b in zip(first, second, strict=True)
        )
    other = video(image, 4, 16, np.random.default_rng(99))
    assert other[0].pixels.shape != first[0].pixels.shape or not torch.equal(other[0].pixels, first[0].pixels)


@pytest.mark.parametrize("name", list(DEGRADATIONS))
@pytest.mark.parametrize("smallest", [8, 13])
def test_frames_are_never_smaller_than_asked(name: str, smallest: int) -> None:
    degradation = DEGRADATIONS[name]
    high = torch.randint(0, 256, (3, smallest * 4, smallest * 4 + 8), dtype=torch.uint8)
    for seed in range(5):
        frames = degradation(high, 4, smallest, np.random.default_rng(seed))
        assert len(frames) == degradation.num_frames
        for frame in frames:
            assert min(frame.pixels.shape[1:]) >= smallest and frame.pixels.dtype == torch.uint8
            assert frame.target(high, 4).shape[1:] == tuple(4 * n for n in frame.pixels.shape[1:])


def test_a_mixed_degradation_leaves_its_share_clean(image: Tensor) -> None:
    clean = reduce_bicubic(image, 4)
    mixed = MixedDegradation(clean_probability=0.5)
    drawn = [mixed(image, 4, 16, np.random.default_rng(seed)) for seed in range(12)]
    is_clean = [all(torch.equal(frame.pixels, clean) for frame in frames) for frames in drawn]
    assert 2 <= sum(is_clean) <= 10


def test_noise_is_new_in_every_frame_and_of_the_size_that_is_named() -> None:
    gray = torch.full((3, 256, 256), 128, dtype=torch.uint8)
    noisy = VideoDegradation(
        noise_probability=1,
        noise_sigma_codes=(3, 3),
        signal_dependent_probability=0,
        gray_noise_probability=1,
        crf=(1, 1),
    )
    frames = noisy(gray, 4, 16, np.random.default_rng(0))
    first, second = (luma_bt601(f.pixels[None])[..., :48, :48] for f in frames[:2])
    assert first.std().item() == pytest.approx(3 * 219 / 255, rel=0.1)
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.1


def test_stronger_compression_is_further_from_the_image(image: Tensor) -> None:
    rgb = torch.stack([reduce_bicubic(image, 4)] * 5).float() / 255
    scores = []
    for crf in (10, 20, 30, 40):
        out = x264_rgb_round_trip(rgb, {"crf": str(crf)})
        scores.append(psnr_db(luma_bt601(out), luma_bt601(rgb * 255)))
    assert scores == sorted(scores, reverse=True) and scores[0] > 45 and scores[-1] < 35


def test_clip_has_predicted_frames_in_their_order() -> None:
    """Frames of one gray level each come back as themselves, B-frames and closed groups or not."""
    levels = torch.linspace(0.2, 0.8, 12)
    rgb = levels.view(-1, 1, 1, 1).expand(-1, 3, 31, 33)
    for params in ("bframes=3:keyint=5", "bframes=0:keyint=250", "bframes=3:keyint=250"):
        out = x264_rgb_round_trip(rgb, {"crf": "10", "x264-params": params})
        assert out.shape == (12, 3, 31, 33)
        assert (out.float().mean((1, 2, 3)) / 255 - levels).abs().max() < 0.02


def test_planes_are_bt601_limited_range() -> None:
    rgb = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).view(3, 3, 1, 1).expand(-1, -1, 8, 8)
    frames = yuv420_of_rgb(rgb)
    assert frames.color is SD_COLOR
    assert frames.planes[0][:, 0, 4, 4].tolist() == [16, 235, 81]
    assert frames.planes[1][:, :, 2, 2].tolist() == [[128, 128], [128, 128], [90, 240]]
    assert (rgb_of_yuv420(frames).float() - rgb * 255).abs().max() <= 2
    lossless = x264_round_trip(frames, {"qp": "0"})
    assert all(torch.equal(a, b) for a, b in zip(frames.planes, lossless.planes, strict=True))


def test_gaussian_reduction_samples_the_first_pixel_of_a_cell() -> None:
    high = torch.zeros(3, 64, 64, dtype=torch.uint8)
    high[:, 32, 32] = 255
    low = gaussian(high, 4)[0].int()
    assert low.shape == (16, 16)
    assert low.argmax() == 8 * 16 + 8  # the pixel itself, symmetric about it
    assert torch.equal(low[1:, 1:], low[1:, 1:].flip(0, 1))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gaussian_reduction_of_a_flat_image_is_flat(scale: int) -> None:
    high = torch.full((3, 12 * scale, 15 * scale), 201, dtype=torch.uint8)
    assert torch.equal(gaussian(high, scale), torch.full((3, 12, 15), 201, dtype=torch.uint8))


def test_bicubic_gate_of_vid4_bd(data_folder: Path) -> None:
    """Published: 21.80 dB, crop 8. Every 10th frame here; all 171 frames give 21.82."""
    means = []
    for clip in sorted(p for p in (data_folder / "test" / "Vid4").iterdir() if p.is_dir()):
        scores = []
        for path in find_images(clip)[::10]:
            high = mod_crop(read_rgb(path), 4)
            up = imresize(gaussian(high, 4)[None], (high.shape[1], high.shape[2]))
            scores.append(psnr_db(luma_bt601(up), luma_bt601(high[None]), crop=8))
        means.append(np.mean(scores))
    assert len(means) == 4
    assert np.mean(means) == pytest.approx(21.80, abs=0.1)
