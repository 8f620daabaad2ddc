from __future__ import annotations

import dataclasses
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.color.resample import imresize
from vsr.frames import FrameBatch
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.train import codec as codec_module
from vsr.train import video_degrade
from vsr.train.codec import CODECS, Codec, CodecSettings, available_codecs, clip_of_planes, missing_codecs, round_trip
from vsr.train.interlace import TRACES, traced
from vsr.train.video_degrade import CLIP_DEGRADATIONS, CodecChoice, CodecDegradation, LowClip, bicubic_clip

CODEC_DEGRADATION = CodecDegradation()
CHOICES = dict(CODEC_DEGRADATION.codecs)
# One encoder and nothing else.
PLAIN = dataclasses.replace(
    CODEC_DEGRADATION,
    clean_probability=0,
    second_generation_probability=0,
    blur_probability=0,
    kernel_weights=(("cubic", 1),),
    sharpen_probability=0,
    noise_probability=0,
    interlace_probability=0,
    siting_weights=CODEC_DEGRADATION.siting_weights[:1],
)
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def moving_clip(num_frames: int = 6, height: int = 192, width: int = 232, step: int = 3) -> Tensor:
    """(T, 3, H, W) with soft edges at every angle, panning by `step` pixels a frame."""
    rng = np.random.default_rng(7)
    full_width = width + step * (num_frames - 1)
    canvas = np.full((height, full_width, 3), 128, np.uint8)
    for _ in range(60):
        start, end = rng.integers(0, full_width, 2), rng.integers(0, height, 2)
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.line(canvas, (int(start[0]), int(end[0])), (int(start[1]), int(end[1])), color, 5, cv2.LINE_AA)
    pixels = torch.from_numpy(cv2.GaussianBlur(canvas, (0, 0), 1.5)).permute(2, 0, 1)
    return torch.stack([pixels[:, :, step * t : step * t + width] for t in range(num_frames)]).contiguous()


@pytest.fixture(scope="module")
def high() -> Tensor:
    return moving_clip()


def plain(name: str, quality: int | None = None) -> CodecDegradation:
    choice = CHOICES[name]
    quality = choice.quality[0] if quality is None else quality
    return dataclasses.replace(PLAIN, codecs=((name, dataclasses.replace(choice, quality=(quality, quality))),))


def luma_psnr(low: LowClip, clean: LowClip, shift: tuple[int, int] = (0, 0)) -> float:
    """PSNR of all frames, 2 pixels in, against the clean reduction moved by `shift`."""
    moved = torch.roll(clean.luma, shift, (1, 2))
    return psnr_db(low.luma[:, None], moved[:, None], crop=2)


def equal(first: LowClip, second: LowClip) -> bool:
    return torch.equal(first.luma, second.luma) and torch.equal(first.chroma, second.chroma)


@pytest.mark.parametrize("name", list(CODECS))
def test_a_codec_gives_back_every_frame_in_its_place(high: Tensor, name: str) -> None:
    if name not in available_codecs():
        pytest.skip(f"PyAV lacks {name}")
    clean = bicubic_clip(high, 4)
    for seed in range(3):
        low = plain(name)(high, 4, np.random.default_rng(seed))
        assert low.luma.shape == clean.luma.shape == (6, 48, 58) and low.luma.dtype == torch.uint8
        assert low.chroma.shape == clean.chroma.shape == (6, 2, 24, 29) and low.chroma.dtype == torch.uint8
        exact = luma_psnr(low, clean)
        assert exact > 30
        assert all(luma_psnr(low, clean, shift) < exact - 5 for shift in NEIGHBOURS)
        for position in range(1, 6):  # as near to no other frame
            own, before = (clean.luma[t].float() for t in (position, position - 1))
            frame = low.luma[position].float()
            assert (frame - own).square().mean() < (frame - before).square().mean()


@pytest.mark.parametrize("name", list(CODECS))
@pytest.mark.parametrize("size", [(17, 23), (33, 50)])
def test_odd_and_tiny_frames_come_back_in_their_size(name: str, size: tuple[int, int]) -> None:
    if name not in available_codecs():
        pytest.skip(f"PyAV lacks {name}")
    high = moving_clip(3, 4 * size[0], 4 * size[1])
    for seed in range(2):
        low = plain(name)(high, 4, np.random.default_rng(seed))
        assert low.luma.shape == (3, *size)
        assert low.chroma.shape == (3, 2, -(-size[0] // 2), -(-size[1] // 2))
        assert luma_psnr(low, bicubic_clip(high, 4)) > 28


@pytest.mark.parametrize("name", list(CODECS))
def test_a_codec_repeats_itself(high: Tensor, name: str) -> None:
    """Every preset gives the same samples again, after other clips went through the encoder between."""
    if name not in available_codecs():
        pytest.skip(f"PyAV lacks {name}")
    clean = bicubic_clip(high, 4)
    clip = clip_of_planes(clean.luma[:, None], clean.chroma)
    other = clip_of_planes(255 - clip.planes[0], clip.planes[1])
    for preset in CODECS[name].presets:
        settings = CodecSettings(CHOICES[name].quality[1], 250, CHOICES[name].b_frames[1], preset)
        options = CODECS[name].options(settings)
        first = round_trip(clip, CODECS[name], options)
        round_trip(other, CODECS[name], options)
        again = round_trip(clip, CODECS[name], options)
        assert all(torch.equal(a, b) for a, b in zip(first.planes, again.planes, strict=True)), preset


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "dv"])
def test_a_higher_quality_number_is_further_from_the_clip(high: Tensor, name: str) -> None:
    if name not in available_codecs():
        pytest.skip(f"PyAV lacks {name}")
    clean = bicubic_clip(high, 4)
    best, worst = (
        luma_psnr(plain(name, quality)(high, 4, np.random.default_rng(0)), clean) for quality in CHOICES[name].quality
    )
    assert best > worst + 4


@pytest.mark.parametrize("name", list(CLIP_DEGRADATIONS))
def test_same_seed_same_clip(high: Tensor, name: str) -> None:
    degrade = CLIP_DEGRADATIONS[name]
    for seed in range(12):
        first, second = (degrade(high, 4, np.random.default_rng(seed)) for _ in range(2))
        assert equal(first, second)


def test_another_seed_gives_another_clip(high: Tensor) -> None:
    degrade = dataclasses.replace(CODEC_DEGRADATION, clean_probability=0)
    first, second = (degrade(high, 4, np.random.default_rng(seed)) for seed in (1, 2))
    assert not equal(first, second)


def test_a_share_of_clips_is_the_clean_reduction() -> None:
    high = moving_clip(2, 64, 64)
    clean = bicubic_clip(high, 4)
    degrade = dataclasses.replace(CODEC_DEGRADATION, codecs=(("mpeg4", CHOICES["mpeg4"]),))
    num_clean = sum(equal(degrade(high, 4, np.random.default_rng(seed)), clean) for seed in range(400))
    assert abs(num_clean / 400 - CODEC_DEGRADATION.clean_probability) <= 0.07


def test_clean_planes_are_those_of_the_rgb_reduction(high: Tensor) -> None:
    low = imresize(high, (48, 58))
    luma = bicubic_clip(high, 4).luma
    assert (luma.float() - luma_bt601(low)[:, 0].float()).abs().max() <= 1
    assert luma.shape == (6, 48, 58)


def test_every_available_codec_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[str] = Counter()
    names = {codec.encoder: name for name, codec in CODECS.items()}

    def counted(frames: FrameBatch, codec: Codec, options: dict[str, str]) -> FrameBatch:
        used[names[codec.encoder]] += 1
        return frames

    monkeypatch.setattr(video_degrade, "round_trip", counted)
    high = moving_clip(2, 64, 64)
    for seed in range(600):
        CODEC_DEGRADATION(high, 4, np.random.default_rng(seed))
    assert set(used) == set(available_codecs())
    assert used.most_common(1)[0][0] == "h264"
    assert set(available_codecs()) | set(missing_codecs()) == set(CODECS) == set(CHOICES)


def test_a_codec_that_pyav_lacks_is_never_chosen(high: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_degrade, "available_codecs", lambda: ("mpeg4",))
    both = (("dv", CHOICES["dv"]), ("mpeg4", dataclasses.replace(CHOICES["mpeg4"], weight=1e-9)))
    low = dataclasses.replace(PLAIN, codecs=both)(high, 4, np.random.default_rng(0))
    alone = dataclasses.replace(PLAIN, codecs=both[1:])(high, 4, np.random.default_rng(0))
    assert equal(low, alone)


def test_frames_larger_than_dv_go_through_another_codec() -> None:
    high = moving_clip(2, 592 * 2, 32, step=2)
    both = (("dv", CHOICES["dv"]), ("mpeg4", dataclasses.replace(CHOICES["mpeg4"], weight=1e-9)))
    assert dataclasses.replace(PLAIN, codecs=both)(high, 2, np.random.default_rng(0)).luma.shape == (2, 592, 16)
    clip = bicubic_clip(high, 2)
    with pytest.raises(ValueError, match="do not fit"):
        round_trip(clip_of_planes(clip.luma[:, None], clip.chroma), CODECS["dv"], {})


def test_dv_takes_more_frames_than_one_canvas_holds() -> None:
    high = moving_clip(5, 300 * 2, 400 * 2, step=4)
    low = plain("dv")(high, 2, np.random.default_rng(1))
    clean = bicubic_clip(high, 2)
    assert low.luma.shape == clean.luma.shape
    assert all(psnr_db(a[None, None], b[None, None]) > 30 for a, b in zip(low.luma, clean.luma, strict=True))


def test_a_lost_frame_is_an_error(high: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = bicubic_clip(high, 4)
    encode = codec_module._encoded
    monkeypatch.setattr(codec_module, "_encoded", lambda *arguments: encode(*arguments)[:-1])
    with pytest.raises(RuntimeError, match="6 frames went into mjpeg and 5 came out"):
        round_trip(clip_of_planes(clean.luma[:, None], clean.chroma), CODECS["mjpeg"], {})


@pytest.mark.parametrize("seed", range(8))
def test_a_still_clip_stays_nearly_still(seed: int) -> None:
    high = moving_clip(1).expand(6, -1, -1, -1).contiguous()
    low = dataclasses.replace(CODEC_DEGRADATION, clean_probability=0, noise_probability=0)(
        high, 4, np.random.default_rng(seed)
    )
    change = (low.luma[1:].float() - low.luma[:-1].float()).abs().mean()
    assert change < 4  # code values


@pytest.mark.parametrize("seed", range(6))
def test_a_grey_clip_stays_grey(seed: int) -> None:
    high = moving_clip(4)[:, :1].expand(-1, 3, -1, -1).contiguous()
    low = dataclasses.replace(CODEC_DEGRADATION, gray_noise_probability=1)(high, 4, np.random.default_rng(seed))
    assert (low.chroma.float() - 128).abs().max() <= 3


@pytest.mark.parametrize("num_frames", [1, 2, 15])
def test_clips_of_any_length(num_frames: int) -> None:
    high = moving_clip(num_frames, 96, 96, 1)
    for seed in range(4):
        low = CODEC_DEGRADATION(high, 4, np.random.default_rng(seed))
        assert low.luma.shape == (num_frames, 24, 24)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("factor", [0.9, 1.31])
def test_a_second_generation_moves_nothing(high: Tensor, scale: int, factor: float) -> None:
    high = high[..., :192, :228]
    degrade = dataclasses.replace(
        plain("h264", 10), second_generation_probability=1, first_size_factor=(factor, factor)
    )
    clean = bicubic_clip(high, scale)
    low = degrade(high, scale, np.random.default_rng(0))
    exact = luma_psnr(low, clean)
    assert exact > 30
    moved = [luma_psnr(low, clean, shift) for shift in NEIGHBOURS]
    assert max(moved) < exact - 5 and abs(moved[0] - moved[1]) < 1.5 and abs(moved[2] - moved[3]) < 1.5


def test_defaults_keep_clips_recognisable_and_in_place(high: Tensor) -> None:
    clean = bicubic_clip(high, 4)
    scores = []
    for seed in range(40):
        low = CODEC_DEGRADATION(high, 4, np.random.default_rng(seed))
        scores.append(luma_psnr(low, clean))
        assert all(luma_psnr(low, clean, shift) < scores[-1] for shift in NEIGHBOURS)
    assert min(scores) > 20 and np.median(scores) > 30


def test_noise_and_sharpening_change_what_their_names_say(high: Tensor) -> None:
    def energy(low: LowClip) -> float:
        return float((low.luma[:, :, 1:].float() - low.luma[:, :, :-1].float()).square().mean())

    def degraded(**changes: object) -> LowClip:
        return dataclasses.replace(plain("h264", 4), **changes)(high, 4, np.random.default_rng(0))  # type: ignore[arg-type]

    none = energy(degraded())
    assert energy(degraded(sharpen_probability=1, sharpen_amount=(0.5, 0.5))) > 1.1 * none
    assert energy(degraded(noise_probability=1, noise_sigma_codes=(4, 4), noise_grain_pixels=(0, 0))) > none + 10
    assert energy(degraded(blur_probability=1, blur_sigma_pixels=(0.4, 0.4))) < 0.95 * none


@pytest.mark.parametrize("trace", TRACES)
def test_interlacing_leaves_still_parts_alone(trace: str) -> None:
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.uniform(0, 255, (1, 24, 40, 3)).astype(np.float32), 5, 0)
    frames[:, :, 20:] = rng.uniform(0, 255, (5, 24, 20, 3))
    out = traced(frames, trace, 1)
    assert out.shape == frames.shape and np.array_equal(out[:, :, :20], frames[:, :, :20])
    assert not np.array_equal(out[:, :, 20:], frames[:, :, 20:])


def test_pulldown_mixes_two_frames_of_five() -> None:
    frames = np.broadcast_to(np.arange(10, dtype=np.float32).reshape(-1, 1, 1, 1) * 20, (10, 8, 8, 3))
    mixed = [len(np.unique(frame)) == 2 for frame in traced(frames, "telecine", 0)]
    assert mixed == [False, False, True, True, False] * 2


def test_a_choice_stays_in_its_ranges() -> None:
    choice = CodecChoice(1, (3, 7), ("a", "b"), (1, 2), (5, 9))
    rng = np.random.default_rng(0)
    drawn = [choice.drawn(rng) for _ in range(300)]
    assert {d.quality for d in drawn} == {3, 4, 5, 6, 7}
    assert {(d.preset, d.b_frames, d.gop_frames) for d in drawn} == {
        (p, b, g) for p in "ab" for b in (1, 2) for g in (5, 9)
    }
