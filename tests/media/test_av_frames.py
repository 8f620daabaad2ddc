from __future__ import annotations

import gc
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.format import names as FFMPEG_NAMES  # type: ignore[attr-defined]

from vsr.color.pixel_formats import FORMATS, PixelFormat, allocate_planes, as_stored
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.media import av_frames
from vsr.media.av_frames import closest_native, load_planes, store_planes

SIZES = [(16, 32), (17, 33)]  # (height, width)


def _ffmpeg_format(name: str) -> av.VideoFormat:
    return av.VideoFormat(name, 16, 16)


SOFTWARE_NAMES = sorted(n for n in FFMPEG_NAMES if _ffmpeg_format(n).components)  # hardware ones have none


def _color(format_: PixelFormat) -> Color:
    matrix = Matrix.RGB if format_.kind == "rgb" else Matrix.BT709
    return Color(matrix, Primaries.BT709, Transfer.BT709, Range.FULL, ChromaLocation.LEFT, format_.bit_depth)


def _random_batch(format_: PixelFormat, height: int, width: int, count: int = 2) -> FrameBatch:
    planes = allocate_planes(format_, count, height, width)
    rng = np.random.default_rng(height)
    for plane in planes:
        samples = rng.integers(0, 2**format_.bit_depth, plane.shape)
        plane.copy_(torch.from_numpy(samples.astype(format_.sample_dtype)))
    pts = tuple(range(count))
    return FrameBatch(planes, pts, (1,) * count, Fraction(1, 25), _color(format_))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_planes_survive_a_frame(name: str, size: tuple[int, int]) -> None:
    format_ = FORMATS[name]
    batch = _random_batch(format_, *size)
    again = allocate_planes(format_, 2, *size)
    for position in (1, 0):
        frame = store_planes(batch, position, format_)
        assert (frame.format.name, frame.height, frame.width) == (name, *size)
        load_planes(frame, format_, again, position)
    for before, after in zip(batch.planes, again, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name, format_ in FORMATS.items() if format_.layout == "semiplanar"])
def test_planes_that_lie_as_the_format_has_them_give_the_same_frame(name: str, size: tuple[int, int]) -> None:
    batch = _random_batch(FORMATS[name], *size)
    laid = replace(batch, planes=as_stored(batch.planes, FORMATS[name]))
    assert laid.planes[1].stride(1) == 1, "Cb and Cr of a pixel are neighbours"
    for position in (0, 1):
        wanted, found = (store_planes(each, position, FORMATS[name]) for each in (batch, laid))
        for ours, theirs in zip(found.planes, wanted.planes, strict=True):
            assert np.array_equal(_rows(ours), _rows(theirs))


def _rows(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """The bytes of a plane without what fills its rows up."""
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]  # type: ignore[call-overload]
    return rows[:, : plane.width]


@pytest.mark.parametrize("name", FORMATS)
def test_page_locked_planes_are_handed_on_where_they_lie_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_frames, "_is_page_locked", lambda plane: True)
    format_ = FORMATS[name]
    batch = _random_batch(format_, 16, 128)
    laid = replace(batch, planes=as_stored(batch.planes, format_))
    frame, again = store_planes(laid, 1, format_), allocate_planes(format_, 1, 16, 128)
    load_planes(frame, format_, again, 0)
    assert all(torch.equal(a[1:], b) for a, b in zip(batch.planes, again, strict=True))
    is_shared = frame.planes[0].buffer_ptr == laid.planes[0][1, int(format_.kind == "rgb")].data_ptr()
    assert is_shared == (format_.layout == "planar" or name in ("nv12", "p016le")), "all that PyAV takes as it is"
    carrier = av.VideoFrame(128, 16, name)
    assert store_planes(laid, 1, format_, carrier) is carrier, "which has captions"


@pytest.mark.parametrize("size", [(16, 100), (17, 128)])
def test_rows_that_vectors_do_not_fit_in_are_copied(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_frames, "_is_page_locked", lambda plane: True)
    batch, frame = _stored("yuv420p", *size)
    assert frame.planes[0].buffer_ptr != batch.planes[0].data_ptr()


def test_a_frame_outlives_the_page_locked_batch_it_was_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av_frames, "_is_page_locked", lambda plane: True)
    frames = [_stored("yuv420p", 16, 128)[1] for _ in range(8)]  # of the same samples each
    gc.collect()
    assert len({frame.planes[0].buffer_ptr for frame in frames}) == 8
    assert len({bytes(_rows(frame.planes[0]).tobytes()) for frame in frames}) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_as_ffmpeg_describes_them(name: str) -> None:
    ours, theirs = FORMATS[name], _ffmpeg_format(name)
    assert ours.name == name
    assert ours.bit_depth == theirs.components[0].bits
    assert ours.alpha == any(c.is_alpha for c in theirs.components)
    assert (ours.kind == "rgb") == theirs.is_rgb
    channels = {"gray": 1, "yuv": 3, "rgb": 3}[ours.kind] + ours.alpha
    assert len(theirs.components) == channels
    assert ours.chroma_size(17, 33) == (theirs.chroma_height(17), theirs.chroma_width(33))


# -- against FFmpeg's own idea of the same frames --------------------------------------------------------


def _stored(name: str, height: int = 17, width: int = 33) -> tuple[FrameBatch, av.VideoFrame]:
    batch = _random_batch(FORMATS[name], height, width, count=1)
    return batch, store_planes(batch, 0, FORMATS[name])


@pytest.mark.parametrize("name", ["rgb24", "gbrp", "gbrp10le", "gbrp16le"])
def test_rgb_frames_read_as_rgb(name: str) -> None:
    batch, frame = _stored(name)
    assert np.array_equal(frame.to_ndarray(), batch.planes[0][0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", ["rgba", "gbrap", "gbrap12le"])
def test_rgb_frames_with_alpha_read_as_rgba(name: str) -> None:
    batch, frame = _stored(name)
    expected = torch.cat([p.to(torch.int32) for p in batch.planes], 1)[0].permute(1, 2, 0)
    assert np.array_equal(frame.to_ndarray(), expected.numpy())


@pytest.mark.parametrize("name", ["gray", "gray10le", "gray16le"])
def test_gray_frames_read_as_gray(name: str) -> None:
    batch, frame = _stored(name)
    assert np.array_equal(frame.to_ndarray(), batch.planes[0][0, 0].numpy())


@pytest.mark.parametrize("name", ["yuv444p", "yuv444p16le"])
def test_444_frames_read_as_y_cb_cr(name: str) -> None:
    batch, frame = _stored(name)
    expected = torch.cat([p.to(torch.int32) for p in batch.planes], 1)[0].permute(1, 2, 0)
    assert np.array_equal(frame.to_ndarray(channel_last=True), expected.numpy())


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le"])
def test_subsampled_frames_read_as_luma_then_cb_then_cr(name: str) -> None:
    batch, frame = _stored(name, 16, 32)  # to_ndarray takes even sizes alone
    flat = np.concatenate([p[0, i].numpy().ravel() for p in batch.planes for i in range(p.shape[1])])
    assert np.array_equal(frame.to_ndarray().ravel(), flat)


def test_nv12_frames_read_as_luma_then_pairs() -> None:
    batch, frame = _stored("nv12", 16, 32)
    pairs = batch.planes[1][0].permute(1, 2, 0).reshape(8, 32)
    assert np.array_equal(frame.to_ndarray(), np.concatenate((batch.planes[0][0, 0].numpy(), pairs.numpy())))


@pytest.mark.parametrize(
    ("name", "planar"),
    [
        ("nv12", "yuv420p"),
        ("nv16", "yuv422p"),
        ("nv24", "yuv444p"),
        ("p010le", "yuv420p10le"),
        ("p210le", "yuv422p10le"),
        ("p410le", "yuv444p10le"),
        ("p012le", "yuv420p12le"),
        ("p016le", "yuv420p16le"),
        ("yuva420p", "yuv420p"),
        ("yuva444p16le", "yuv444p16le"),
    ],
)
def test_ffmpeg_repacks_frames_to_the_same_samples(name: str, planar: str) -> None:
    batch, frame = _stored(name)
    target = FORMATS[planar]
    planes = allocate_planes(target, 1, 17, 33)
    # Same matrix and range on both sides: swscale moves samples without computing on them.
    space: dict[str, Any] = {f"{end}_colorspace": "ITU709" for end in ("src", "dst")}
    space |= {f"{end}_color_range": 2 for end in ("src", "dst")}
    # One thread: swscale's slices overwrite the start of one another's rows at odd widths (FFmpeg 8.1).
    load_planes(frame.reformat(format=planar, threads=1, **space), target, planes, 0)
    assert torch.equal(planes[0], batch.planes[0])
    if batch.chroma is not None:
        assert torch.equal(planes[1], batch.chroma)


def test_gray_with_alpha_is_packed_as_pairs() -> None:
    batch, frame = _stored("ya8")
    row = np.frombuffer(bytes(frame.planes[0]), np.uint8)[: 2 * 33]
    assert batch.alpha is not None
    assert np.array_equal(row[0::2], batch.planes[0][0, 0, 0].numpy())
    assert np.array_equal(row[1::2], batch.alpha[0, 0, 0].numpy())


def test_reading_leaves_the_other_frames_of_the_batch_alone() -> None:
    _, frame = _stored("yuv420p")
    planes = allocate_planes(FORMATS["yuv420p"], 3, 17, 33)
    for plane in planes:
        plane.fill_(7)
    load_planes(frame, FORMATS["yuv420p"], planes, 1)
    assert all((p[0] == 7).all() and (p[2] == 7).all() and (p[1] != 7).any() for p in planes)


# -- formats that are not read as they are ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yuv410p", "yuv420p"),
        ("yuv411p", "yuv422p"),
        ("yuv440p", "yuv444p"),
        ("yuyv422", "yuv422p"),
        ("uyvy422", "yuv422p"),
        ("nv21", "yuv420p"),
        ("yuv420p10be", "yuv420p10le"),
        ("yuv422p12be", "yuv422p12le"),
        ("y210le", "yuv422p10le"),
        ("bgr24", "rgb24"),
        ("bgra", "rgba"),
        ("pal8", "rgb24"),
        ("rgb48be", "gbrp16le"),
        ("rgba64be", "gbrap16le"),
        ("x2rgb10le", "gbrp10le"),
        ("gray10be", "gray10le"),
        ("monow", "gray"),
        ("yuva420p9le", "yuva420p10le"),
        ("yuva422p12be", "yuva422p12le"),
        ("yuv444p10be", "yuv444p10le"),
        ("nv42", "yuv444p"),
        ("xv30le", "yuv444p10le"),
        ("vuyx", "yuv444p"),
        ("ayuv", "yuva444p"),
        ("yuva444p12be", "yuva444p12le"),
    ],
)
def test_other_formats_go_to_the_closest_native_one(name: str, expected: str) -> None:
    assert closest_native(_ffmpeg_format(name)) == expected


@pytest.mark.parametrize("name", SOFTWARE_NAMES)
def test_no_format_loses_a_kind_of_sample(name: str) -> None:
    theirs = _ffmpeg_format(name)
    ours = FORMATS[closest_native(theirs)]
    num_alpha = sum(c.is_alpha for c in theirs.components)
    assert len(theirs.components) - num_alpha < 3 or ours.kind != "gray", "colour becomes gray"
    assert not num_alpha or ours.alpha, "alpha is dropped"
    # Bayer components count the bits of a 2 x 2 cell together; 32 bit samples have no native home.
    assert theirs.is_bayer or ours.bit_depth >= min(16, max(c.bits for c in theirs.components))


@pytest.mark.parametrize("name", FORMATS)
def test_native_formats_stay_themselves(name: str) -> None:
    assert closest_native(_ffmpeg_format(name)) == name
