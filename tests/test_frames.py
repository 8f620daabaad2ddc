from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer

YUV = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 8)
RGB = replace(YUV, matrix=Matrix.RGB, range=Range.FULL)


def _plane(channels: int = 1, height: int = 6, width: int = 8, count: int = 2) -> torch.Tensor:
    return torch.zeros((count, channels, height, width), dtype=torch.uint8)


def _batch(**changes: Any) -> FrameBatch:
    fields: dict[str, Any] = {
        "planes": (_plane(), _plane(2, 3, 4)),
        "pts": (5, 9),
        "durations": (4, 0),
        "time_base": Fraction(1, 90000),
        "color": YUV,
    }
    return FrameBatch(**(fields | changes))


def test_a_batch_knows_its_size_and_its_planes() -> None:
    alpha = _plane()
    batch = _batch(planes=(_plane(), _plane(2, 3, 4), alpha))
    assert (batch.num_frames, batch.height, batch.width) == (2, 6, 8)
    assert batch.chroma is batch.planes[1]
    assert batch.alpha is alpha


def test_gray_has_no_chroma_and_its_second_plane_is_alpha() -> None:
    assert _batch(planes=(_plane(),)).chroma is None
    gray_alpha = _batch(planes=(_plane(), _plane()))
    assert gray_alpha.chroma is None
    assert gray_alpha.alpha is gray_alpha.planes[1]


def test_rgb_is_one_plane_of_three_channels_and_may_have_alpha() -> None:
    batch = _batch(planes=(_plane(3), _plane()), color=RGB)
    assert batch.chroma is None
    assert batch.alpha is batch.planes[1]
    assert (batch.height, batch.width) == (6, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"planes": (_plane(3),)},
        {"planes": (_plane(1),), "color": RGB},
        {"planes": (_plane(), _plane(2, 3, 4, count=1))},
        {"planes": (_plane()[0],)},
        {"planes": (_plane(), _plane(2, 3, 4).to(torch.uint16))},
        {"planes": (_plane().float(), _plane(2, 3, 4).float())},
        {"color": replace(YUV, bit_depth=10)},
        {"pts": (5,)},
        {"pts": (5, 9, 12)},
        {"durations": (4,)},
        {"pts": (5, 5)},
        {"pts": (9, 5)},
    ],
    ids=[
        "yuv-3-channels", "rgb-1-channel", "chroma-other-n", "3-dimensions", "mixed-dtypes", "floats",
        "8-bit-planes-as-10-bit", "pts-short", "pts-long", "durations-short", "pts-equal", "pts-backwards",
    ],
)  # fmt: skip
def test_a_batch_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        _batch(**changes)


def test_negative_pts_and_gaps_are_fine() -> None:
    assert _batch(pts=(-1024, 9_000_000_000)).pts == (-1024, 9_000_000_000)


def test_batches_and_colours_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        _batch().pts = (1, 2)  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        YUV.bit_depth = 10  # type: ignore[misc]


@pytest.mark.parametrize("depth", [0, 7, 17, 32])
def test_bit_depths_outside_8_to_16_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=str(depth)):
        replace(YUV, bit_depth=depth)


@pytest.mark.parametrize("depth", [8, 9, 10, 12, 16])
def test_deep_samples_are_16_bit_words(depth: int) -> None:
    assert replace(YUV, bit_depth=depth).dtype is (torch.uint8 if depth == 8 else torch.uint16)


def test_only_the_rgb_matrix_is_rgb() -> None:
    assert RGB.is_rgb
    assert [m for m in Matrix if replace(YUV, matrix=m).is_rgb] == [Matrix.RGB]


# Luma samples (x, y) of a 2 x 2 cell lie at 0 and 1 (H.273, ChromaLocType); the cell is 2 wide.
@pytest.mark.parametrize(
    ("location", "luma_position"),
    [
        (ChromaLocation.LEFT, (0.0, 0.5)),
        (ChromaLocation.CENTER, (0.5, 0.5)),
        (ChromaLocation.TOPLEFT, (0.0, 0.0)),
        (ChromaLocation.TOP, (0.5, 0.0)),
        (ChromaLocation.BOTTOMLEFT, (0.0, 1.0)),
        (ChromaLocation.BOTTOM, (0.5, 1.0)),
    ],
)
def test_chroma_offsets_follow_h273(location: ChromaLocation, luma_position: tuple[float, float]) -> None:
    x, y = luma_position
    assert location.offset == ((x + 0.5) / 2, (y + 0.5) / 2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Primaries.BT2020, ColorPrimaries.BT2020),
        (Primaries.SMPTE432, ColorPrimaries.SMPTE432),
        (Primaries.EBU3213, ColorPrimaries.EBU3213),
        (Transfer.PQ, ColorTrc.SMPTE2084),
        (Transfer.HLG, ColorTrc.ARIB_STD_B67),
        (Transfer.SRGB, ColorTrc.IEC61966_2_1),
        (Range.LIMITED, ColorRange.MPEG),
        (Range.FULL, ColorRange.JPEG),
    ],
)
def test_code_points_are_those_of_ffmpeg(ours: int, theirs: int) -> None:
    assert ours == theirs
