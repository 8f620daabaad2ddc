"""A colour chart through vsr with a network that changes nothing: the code values that went in come out.

The chart is computed here from ITU-T H.273 (equations 32 to 40), encoded without loss by FFmpeg, and decoded
by FFmpeg before and after."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

PATCH = 32  # pixels; chroma of 4:2:0 goes up and down by kernels that reach 5 of its 16 samples inwards
MARGIN = 12
COLUMNS, ROWS = 8, 4

# K_R, K_B; and the matrix, primaries and transfer that go with them, in the numbers of H.273.
STANDARDS = {
    "601": (0.299, 0.114, (6, 6, 6)),
    "709": (0.2126, 0.0722, (1, 1, 1)),
    "2020": (0.2627, 0.0593, (9, 9, 14)),
}
LIMITED, FULL = 1, 2
UNTAGGED = (2, 2, 2)


class Repeat:
    """An engine that repeats every pixel `scale` times in both directions."""

    name, device, dtype = "repeat", torch.device("cpu"), torch.float32

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2) for x in inputs)


def _upscaler(color: Any, scale: int = 1) -> Upscaler:
    card = ModelCard("repeat", "luma", {}, scale, color, halo=0)
    return Upscaler(CheckedNetwork(card, lambda precision: Repeat(scale), "fp32"))


def _chart_colors() -> np.ndarray:
    """(ROWS, COLUMNS, 3) RGB in [0, 1]: a gray wedge, the corners of the cube, and what lies between."""
    grays = [(v, v, v) for v in np.linspace(0, 1, COLUMNS)]
    corners = [tuple(float(c) for c in corner) for corner in itertools.product((0, 1), repeat=3)]
    inside = np.random.default_rng(7).uniform(0.05, 0.95, (COLUMNS * ROWS - 16, 3))
    return np.array(grays + corners + [tuple(c) for c in inside]).reshape(ROWS, COLUMNS, 3)


def _code_values(standard: str, color_range: int, depth: int) -> list[np.ndarray]:
    """Y', Cb and Cr of the chart, (ROWS, COLUMNS) each."""
    red, blue, _ = STANDARDS[standard]
    r, g, b = np.moveaxis(_chart_colors(), -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    step, top = 2 ** (depth - 8), 2**depth - 1
    if color_range == LIMITED:
        values = [(219 * y + 16) * step, (224 * cb + 128) * step, (224 * cr + 128) * step]
    else:
        values = [y * top, cb * top + 2 ** (depth - 1), cr * top + 2 ** (depth - 1)]
    return [np.clip(np.floor(v + 0.5), 0, top).astype(np.uint16) for v in values]


def _chart_frame(values: list[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame(COLUMNS * PATCH, ROWS * PATCH, pix_fmt)
    deep = frame.format.components[0].bits > 8
    for plane, patches in zip(frame.planes, values, strict=True):
        side = PATCH * plane.width // frame.width
        picture = patches.repeat(side, 0).repeat(side, 1)
        dtype = np.dtype(np.uint16 if deep else np.uint8)
        rows = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
        rows[:, : plane.width] = picture
        plane.update(rows.tobytes())
    return frame


def _set_tags(target: Any, tags: tuple[int, int, int], color_range: int) -> None:
    target.colorspace, target.color_primaries, target.color_trc = tags
    target.color_range = color_range


def _make_chart(
    make_clip: Callable[..., Path],
    path: Path,
    pix_fmt: str,
    values: list[np.ndarray],
    tags: tuple[int, int, int],
    color_range: int,
) -> Path:
    def picture(index: int) -> av.VideoFrame:
        frame = _chart_frame(values, pix_fmt)
        _set_tags(frame, tags, color_range)
        return frame

    return make_clip(
        path,
        pix_fmt=pix_fmt,
        size=(COLUMNS * PATCH, ROWS * PATCH),
        pts=(0, 1),
        options={"qp": "0", "preset": "ultrafast"},
        picture=picture,
        prepare=lambda stream: _set_tags(stream.codec_context, tags, color_range),
    )


def _enhance(source: Path, output: Path, upscaler: Upscaler) -> None:
    options = JobOptions.of(codec="libx264", preset="ultrafast", encoder_options={"qp": "0"})
    enhance_file(source, output, options, upscaler=upscaler)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    packed = len(frame.format.components) if len(frame.planes) == 1 else 1
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // np.dtype(dtype).itemsize)
        planes.append(rows[: plane.height, : plane.width * packed].astype(int))
    return planes


def _interiors(plane: np.ndarray) -> np.ndarray:
    """The middles of the patches, out of the reach of their neighbours."""
    height, width = plane.shape[0] // ROWS, plane.shape[1] // COLUMNS
    y, x = MARGIN * height // PATCH, MARGIN * width // PATCH
    patches = plane.reshape(ROWS, height, COLUMNS, width)
    return patches[:, y : height - y, :, x : width - x]


def _chart_cases() -> Iterator[Any]:
    for standard, color_range, depth in itertools.product(STANDARDS, (LIMITED, FULL), (8, 10)):
        for subsampling, color in itertools.product(("420", "444"), ("y", "rgb")):
            range_name = "limited" if color_range == LIMITED else "full"
            name = f"{standard}-{range_name}-{depth}bit-{subsampling}-{color}"
            yield pytest.param(standard, color_range, depth, subsampling, color, id=name)


@pytest.mark.parametrize(("standard", "color_range", "depth", "subsampling", "color"), list(_chart_cases()))
def test_code_values_come_through(
    standard: str,
    color_range: int,
    depth: int,
    subsampling: str,
    color: str,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
) -> None:
    values, tags = _code_values(standard, color_range, depth), STANDARDS[standard][2]
    pix_fmt = f"yuv{subsampling}p" + ("10le" if depth == 10 else "")
    source = _make_chart(make_clip, tmp_path / "in.mkv", pix_fmt, values, tags, color_range)
    _enhance(source, tmp_path / "out.mkv", _upscaler(color))
    before, after = (read_back(path, keep_frames=True) for path in (source, tmp_path / "out.mkv"))

    assert before.tags == (*tags, color_range)
    assert after.tags == before.tags
    assert after.first.format.name == before.first.format.name
    everywhere = color == "y" or subsampling == "444"
    for frame_before, frame_after in zip(before.frames, after.frames, strict=True):
        pairs = zip(_planes(frame_before), _planes(frame_after), values, strict=True)
        for plane_before, plane_after, patches in pairs:
            assert (_interiors(plane_before) == patches[:, None, :, None]).all()  # the source is without loss
            difference = np.abs(plane_after - plane_before)
            difference = difference if everywhere else _interiors(difference)
            assert difference.max() <= (1 if depth == 8 else 2)


# -- every kind of samples ------------------------------------------------------------------------------


def _rgb_chart() -> np.ndarray:
    """(H, W, 4) uint8 RGBA; alpha is a ramp from left to right."""
    rgb = np.round(_chart_colors() * 255).astype(np.uint8).repeat(PATCH, 0).repeat(PATCH, 1)
    ramp = np.broadcast_to(np.linspace(0, 255, rgb.shape[1]).astype(np.uint8), rgb.shape[:2])
    return np.concatenate([rgb, ramp[..., None]], -1)


def _lossless_clip(make_clip: Callable[..., Path], path: Path, codec: str, pix_fmt: str) -> Path:
    def picture(index: int) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(_rgb_chart(), "rgba").reformat(threads=1, format=pix_fmt)

    def prepare(stream: Any) -> None:
        stream.codec_context.color_range = LIMITED if pix_fmt.startswith("yuv") else FULL

    return make_clip(
        path,
        codec=codec,
        pix_fmt=pix_fmt,
        size=(COLUMNS * PATCH, ROWS * PATCH),
        pts=(0, 1),
        options={},
        picture=picture,
        prepare=prepare,
    )


@pytest.mark.parametrize("color", ["y", "rgb"])
@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("png", "rgb24"),
        ("png", "rgba"),
        ("ffv1", "gray"),
        ("ffv1", "gray10le"),
        ("ffv1", "yuva420p"),
        ("ffv1", "yuv422p"),
        ("ffv1", "yuv422p12le"),
        ("ffv1", "yuv444p16le"),
        ("ffv1", "gbrp12le"),
    ],
)
def test_samples_stay_what_they_are(
    codec: str,
    pix_fmt: str,
    color: str,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
) -> None:
    """Depth, subsampling and alpha stay, where the encoder holds them."""
    suffix = ".mov" if codec == "png" else ".mkv"
    source = _lossless_clip(make_clip, tmp_path / f"in{suffix}", codec, pix_fmt)
    target = tmp_path / f"out{suffix}"
    enhance_file(source, target, JobOptions.of(codec=codec), upscaler=_upscaler(color))
    before, after = read_back(source).first, read_back(target).first
    assert after.format.name == before.format.name == pix_fmt
    chroma_moves = color == "rgb" and "42" in pix_fmt  # up to every pixel and down again
    for plane_before, plane_after in zip(_planes(before), _planes(after), strict=True):
        difference = np.abs(plane_after - plane_before)
        # swscale puts the corners of the cube a little outside of it: an eighth of a code value of 8 bit.
        limit = 32 if "16" in pix_fmt and color == "rgb" else 1
        assert (_interiors(difference) if chroma_moves else difference).max() <= limit


def test_rgb_video_keeps_its_look_as_ycbcr(
    tmp_path: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    source = _lossless_clip(make_clip, tmp_path / "in.mov", "png", "rgb24")
    _enhance(source, tmp_path / "out.mkv", _upscaler("rgb"))
    after = read_back(tmp_path / "out.mkv")
    assert after.first.format.name == "yuv444p"
    assert 2 not in after.tags[:3]
    assert np.abs(_player_rgb(after.first) - _rgb_chart()[..., :3]).max() <= 4


# -- untagged video, made larger -----------------------------------------------------------------------


def _player_rgb(frame: av.VideoFrame) -> np.ndarray:
    """What a player shows: by the frame's matrix; without one, BT.709 from 1280 columns or 577 lines on."""
    tagged = int(frame.colorspace)
    matrix = tagged if tagged != 2 else (6 if frame.height <= 576 and frame.width < 1280 else 1)
    return _rgb_by(frame, matrix)


def _rgb_by(frame: av.VideoFrame, matrix: int) -> np.ndarray:
    names = {1: "ITU709", 6: "ITU601", 9: "BT2020"}
    ranges = {"src_color_range": LIMITED, "dst_color_range": FULL}
    return frame.reformat(threads=1, format="rgb24", src_colorspace=names[matrix], **ranges).to_ndarray().astype(int)


def _centers(rgb: np.ndarray) -> np.ndarray:
    side = rgb.shape[0] // ROWS
    return rgb[side // 2 :: side, side // 2 :: side]


@pytest.mark.parametrize("color", ["y", "rgb"])
def test_untagged_sd_made_hd_keeps_its_look(
    color: str, tmp_path: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    values = _code_values("601", LIMITED, 8)
    source = _make_chart(make_clip, tmp_path / "in.mkv", "yuv420p", values, UNTAGGED, 0)
    _enhance(source, tmp_path / "out.mkv", _upscaler(color, scale=8))
    before, after = read_back(source).first, read_back(tmp_path / "out.mkv")
    assert int(before.colorspace) == 2
    assert (before.height, after.first.height) == (128, 1024)
    assert after.tags == (6, 6, 6, LIMITED)

    want, got = _centers(_player_rgb(before)), _centers(_player_rgb(after.first))
    assert np.abs(got - want).max() <= 2
    chart = np.round(_chart_colors() * 255)
    assert np.abs(want - chart).max() <= 4  # swscale without accurate rounding
    untagged_hd = _centers(_rgb_by(after.first, 1))
    assert np.abs(untagged_hd - want).max() > 10  # what the explicit tag is there to prevent


def test_untagged_hd_is_bt709(
    tmp_path: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
) -> None:
    source = make_clip(tmp_path / "in.mkv", size=(64, 578), pts=(0, 1))
    assert int(read_back(source).first.colorspace) == 2
    _enhance(source, tmp_path / "out.mkv", _upscaler("y"))
    assert read_back(tmp_path / "out.mkv").tags == (1, 1, 1, LIMITED)


@pytest.mark.parametrize("scale", [Fraction(3, 2), Fraction(3)])
def test_chart_keeps_its_place_when_resized(
    scale: Fraction, tmp_path: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    """The one resize moves nothing: patches lie where they lay, in luma and in chroma."""
    values = _code_values("709", LIMITED, 8)
    source = _make_chart(make_clip, tmp_path / "in.mkv", "yuv420p", values, (1, 1, 1), LIMITED)
    options = JobOptions.of(codec="libx264", preset="ultrafast", encoder_options={"qp": "0"}, scale=float(scale))
    enhance_file(source, tmp_path / "out.mkv", options, upscaler=_upscaler("y", scale=2))
    frame = read_back(tmp_path / "out.mkv").first
    assert frame.width == COLUMNS * PATCH * scale
    for plane, patches in zip(_planes(frame), values, strict=True):
        assert np.abs(_interiors(plane) - patches[:, None, :, None].astype(int)).max() <= 1
