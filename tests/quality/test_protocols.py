from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.color.resample import mod_crop, reduce_bicubic
from vsr.errors import InputError, OptionError
from vsr.media.images import find_images, read_rgb
from vsr.models.weights import resolve
from vsr.pipeline.loading import load_model
from vsr.quality.protocols import (
    Degradation,
    StillsBenchmark,
    check_gate,
    check_vid4_gate,
    clip_protocol,
    luma_detail,
    luma_psnr_db,
    measure_images,
    stills_protocol,
    upscale_bicubic,
    upscale_each,
    upscale_with,
    vid4_psnr,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sets of one and two small images, of sides that no scale divides."""
    rng = np.random.default_rng(1)
    for name in ("Set5/a.png", "Set14/b.png", "Set14/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        smooth = cv2.resize(rng.integers(0, 256, (6, 7, 3)).astype(np.uint8), (43, 39))
        assert cv2.imwrite(str(path), smooth)
    return tmp_path


def test_images_are_rgb_and_sorted(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "b.png"), np.full((2, 3, 3), (10, 20, 30), np.uint8))  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "a.PNG"), np.full((2, 3), 7, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    gray, color = (read_rgb(path) for path in find_images(tmp_path))
    assert gray.shape == color.shape == (3, 2, 3)
    assert set(gray.flatten().tolist()) == {7}
    assert color[:, 0, 0].tolist() == [30, 20, 10]


def test_files_that_are_missing_or_no_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images found"):
        find_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png: cannot be read"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_low_images_come_from_a_multiple_of_the_scale(scale: int) -> None:
    high = mod_crop(torch.randint(0, 256, (3, 39, 43), dtype=torch.uint8), scale)
    assert high.shape == (3, 39 - 39 % scale, 43 - 43 % scale)
    low = reduce_bicubic(high, scale)
    assert low.shape == (3, 39 // scale, 43 // scale)
    assert low.dtype is torch.uint8
    assert upscale_bicubic(scale)(low).shape == high.shape


def test_measures_see_finished_images_without_their_edge(folder: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(image: Tensor, truth: Tensor) -> float:
        seen.append((image, truth))
        return float(len(seen))

    paths = find_images(folder / "Set14")
    means = measure_images(paths, stills_protocol(4), upscale_bicubic(4), {"count": remember})
    assert means == {"count": 1.5}
    for (image, truth), path in zip(seen, paths, strict=True):
        assert image.dtype is truth.dtype is torch.uint8
        assert torch.equal(truth[0], read_rgb(path)[:, 4:32, 4:36])
        assert image.shape == truth.shape


def test_without_a_crop_the_whole_image_counts(folder: Path) -> None:
    shapes = []

    def shape(image: Tensor, truth: Tensor) -> float:
        shapes.append(tuple(image.shape))
        return 0.0

    measure_images(find_images(folder / "Set5"), clip_protocol(2, "bi"), upscale_bicubic(2), {"shape": shape})
    assert shapes == [(1, 3, 38, 42)]


def test_a_perfect_model_has_all_the_detail_and_no_error() -> None:
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert luma_psnr_db(image, image) == float("inf")
    assert luma_detail(image, image) == 1


def test_other_images_under_a_set_s_name_are_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"Set5: bicubic scores .* and not 28\.42"):
        StillsBenchmark(folder, 4).bicubic_gate()


def test_sets_that_are_not_there_are_passed_over(folder: Path) -> None:
    stills = StillsBenchmark(folder, 3, ("Set5", "BSD100"))
    assert list(stills.sets) == ["Set5"]
    assert stills.bicubic_gate().startswith("Set5 ")  # no figure is on record at ×3


def test_vid4_s_gate_names_the_clip() -> None:
    right = {"calendar": 20.39, "city": 25.16, "foliage": 23.47, "walk": 26.10}
    check_vid4_gate(right, 4)
    check_vid4_gate({}, 2)  # none on record
    with pytest.raises(OptionError, match="walk"):
        check_vid4_gate({**right, "walk": 26.15}, 4)


@pytest.mark.parametrize(
    ("name", "degradation", "scale", "right", "wrong"),
    [("Vid4", "bi", 4, 23.79, 23.81), ("Vid4", "bd", 4, 21.89, 21.91), ("Set14", "bi", 2, 30.33, 30.39)],
)
def test_the_gate_is_the_protocol_s(
    name: str, degradation: Degradation, scale: int, right: float, wrong: float
) -> None:
    protocol = clip_protocol(scale, degradation)
    assert check_gate(name, right, protocol) == pytest.approx(right, abs=0.1)
    for mean in (wrong, float("nan")):
        with pytest.raises(OptionError, match=f"{name}: bicubic scores"):
            check_gate(name, mean, protocol)
    assert check_gate("holiday", wrong, protocol) is None


def test_bd_leaves_out_eight_pixels_and_reduces_by_the_gaussian() -> None:
    protocol = clip_protocol(4, "bd")
    assert protocol.crop == 8
    high = torch.zeros(3, 32, 32, dtype=torch.uint8)
    high[:, 16, 16] = 255  # on the first pixel of its cell, which BD samples and BI does not
    low = protocol.reduce(high)
    assert low.argmax() == low[0].numel() // 2 + 4 and low[0, 4, 4] > low[0, 4, 5] == low[0, 4, 3]


def test_vid4_is_scored_clip_by_clip(folder: Path) -> None:
    means = vid4_psnr(folder, 4, upscale_each(upscale_bicubic(4)))
    assert list(means) == ["Set14", "Set5"]
    single = measure_images(
        find_images(folder / "Set5"), clip_protocol(4, "bi"), upscale_bicubic(4), {"psnr": luma_psnr_db}
    )
    assert means["Set5"] == single["psnr"]


# -- on the real images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "gate"), [(4, "Set5 28.43  Set14 26.09"), (2, "Set5 33.68  Set14 30.33")])
def test_bicubic_gate_of_the_stills(scale: int, gate: str, data_folder: Path) -> None:
    assert StillsBenchmark(data_folder / "test", scale).bicubic_gate() == gate


def test_bicubic_figure_of_a_clip_of_vid4(data_folder: Path) -> None:
    paths = find_images(data_folder / "test" / "Vid4" / "city")  # the shortest; benchmarks/models.py checks all four
    means = measure_images(paths, clip_protocol(4, "bi"), upscale_bicubic(4), {"psnr": luma_psnr_db})
    assert means["psnr"] == pytest.approx(25.16, abs=0.02)


def test_a_model_scores_what_its_card_says(data_folder: Path) -> None:
    card, _ = resolve("fast")
    stills = StillsBenchmark(data_folder / "test", card.scale, ("Set5",))
    model = load_model("fast", device="cpu", precision="fp32")
    assert stills.score(model)["Set5"] == pytest.approx(card.figures["Set5"], abs=0.005)
    # Bicubic upscaling leaves next to none of the fine detail; the network brings a part of it back.
    detail = [
        stills.measure("Set5", upscale, {"detail": luma_detail})["detail"]
        for upscale in (upscale_bicubic(4), upscale_with(model))
    ]
    assert 0 < detail[0] < detail[1] < 1
