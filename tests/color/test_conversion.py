from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product

import av
import av.filter
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace, Interpolation
from torch import Tensor

from vsr.color.conversion import (
    dequantize_chroma,
    dequantize_luma,
    quantize_chroma,
    quantize_luma,
    resize_chroma,
    rgb_to_ycbcr,
    upsample_chroma,
    ycbcr_to_rgb,
)
from vsr.errors import InputError
from vsr.frames import ChromaLocation, Color, Matrix, Primaries, Range, Transfer

MATRICES = (Matrix.SMPTE170M, Matrix.BT709, Matrix.BT2020_NCL)
RANGES = (Range.LIMITED, Range.FULL)
SWS = {
    Matrix.SMPTE170M: Colorspace.ITU601,
    Matrix.BT709: Colorspace.ITU709,
    Matrix.BT2020_NCL: Colorspace.BT2020,
}
ACCURATE = int(
    Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
# SWS_UNSTABLE: swscale's rewritten converter, in floats. The old one takes white for 1020 of 1023 at 10 bit.
IN_FLOATS = ACCURATE | 1 << 20
needs_new_swscale = pytest.mark.skipif(
    av.library_versions["libswscale"] < (9, 0, 0), reason="the float converter came with FFmpeg 8"
)


def _color(
    matrix: Matrix = Matrix.BT709,
    range_: Range = Range.LIMITED,
    depth: int = 8,
    location: ChromaLocation = ChromaLocation.LEFT,
) -> Color:
    return Color(matrix, Primaries.BT709, Transfer.BT709, range_, location, depth)


def _pixel(r: float, g: float, b: float) -> Tensor:
    return torch.tensor([r, g, b]).view(1, 3, 1, 1)


def _codes_of_rgb(rgb: Tensor, color: Color) -> tuple[Tensor, Tensor]:
    luma, chroma = rgb_to_ycbcr(rgb, color.matrix)
    return quantize_luma(luma, color), quantize_chroma(chroma, color)


def _rgb_of_codes(luma: Tensor, chroma: Tensor, color: Color) -> Tensor:
    return ycbcr_to_rgb(dequantize_luma(luma, color), dequantize_chroma(chroma, color), color.matrix)


# -- against the numbers of the standards ----------------------------------------------------------------

RED, GREEN, BLUE, YELLOW = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)
WHITE, BLACK = (1, 1, 1), (0, 0, 0)
LIMITED, FULL = RANGES


@pytest.mark.parametrize(
    ("matrix", "range_", "depth", "rgb", "codes"),
    [
        (Matrix.BT709, LIMITED, 8, RED, (63, 102, 240)),
        (Matrix.BT709, LIMITED, 8, GREEN, (173, 42, 26)),
        (Matrix.BT709, LIMITED, 8, BLUE, (32, 240, 118)),
        (Matrix.BT709, LIMITED, 8, WHITE, (235, 128, 128)),
        (Matrix.BT709, LIMITED, 8, BLACK, (16, 128, 128)),
        (Matrix.SMPTE170M, LIMITED, 8, RED, (81, 90, 240)),
        (Matrix.SMPTE170M, LIMITED, 8, GREEN, (145, 54, 34)),
        (Matrix.SMPTE170M, LIMITED, 8, BLUE, (41, 240, 110)),
        (Matrix.BT470BG, LIMITED, 8, YELLOW, (210, 16, 146)),
        (Matrix.SMPTE170M, FULL, 8, RED, (76, 85, 255)),  # JFIF
        (Matrix.SMPTE170M, FULL, 8, GREEN, (150, 44, 21)),
        (Matrix.SMPTE170M, FULL, 8, BLUE, (29, 255, 107)),
        (Matrix.SMPTE170M, FULL, 8, WHITE, (255, 128, 128)),
        (Matrix.BT2020_NCL, LIMITED, 10, RED, (294, 387, 960)),
        (Matrix.BT2020_NCL, LIMITED, 10, WHITE, (940, 512, 512)),
        (Matrix.BT2020_NCL, LIMITED, 10, BLACK, (64, 512, 512)),
        (Matrix.BT2020_NCL, LIMITED, 12, WHITE, (3760, 2048, 2048)),
        (Matrix.BT2020_NCL, FULL, 10, WHITE, (1023, 512, 512)),
    ],
)
def test_pure_colours_have_the_codes_of_the_standards(
    matrix: Matrix, range_: Range, depth: int, rgb: tuple[int, int, int], codes: tuple[int, int, int]
) -> None:
    color = _color(matrix, range_, depth)
    luma, chroma = _codes_of_rgb(_pixel(*rgb), color)
    assert luma.dtype is chroma.dtype is color.dtype
    assert (luma.item(), *chroma.flatten().tolist()) == codes


def _h273(rgb: tuple[float, ...], kr: float, kb: float, depth: int) -> tuple[float, float, float]:
    """Limited range Y, Cb, Cr of H.273: equations 38 to 40 into 24 to 26, before rounding."""
    r, g, b = rgb
    y = kr * r + (1 - kr - kb) * g + kb * b
    step = 1 << (depth - 8)
    pb, pr = 0.5 * (b - y) / (1 - kb), 0.5 * (r - y) / (1 - kr)
    return step * (219 * y + 16), step * (224 * pb + 128), step * (224 * pr + 128)


@pytest.mark.parametrize(
    ("matrix", "kr", "kb"),
    [
        (Matrix.BT709, 0.2126, 0.0722),
        (Matrix.FCC, 0.30, 0.11),
        (Matrix.BT470BG, 0.299, 0.114),
        (Matrix.SMPTE170M, 0.299, 0.114),
        (Matrix.SMPTE240M, 0.212, 0.087),
        (Matrix.BT2020_NCL, 0.2627, 0.0593),
    ],
)
@pytest.mark.parametrize("depth", [8, 10, 12])
def test_mixed_colours_follow_h273(matrix: Matrix, kr: float, kb: float, depth: int) -> None:
    for rgb in product((0.0, 0.3, 1.0), repeat=3):
        luma, chroma = _codes_of_rgb(_pixel(*rgb), _color(matrix, Range.LIMITED, depth))
        expected = _h273(rgb, kr, kb, depth)
        assert (luma.item(), *chroma.flatten().tolist()) == pytest.approx(expected, abs=0.501)


@pytest.mark.parametrize("matrix", [Matrix.YCGCO, Matrix.BT2020_CL, Matrix.ICTCP])
def test_a_matrix_that_is_not_linear_rgb_is_refused_by_name(matrix: Matrix) -> None:
    with pytest.raises(InputError, match=matrix.name):
        ycbcr_to_rgb(torch.zeros(1, 1, 1, 1), torch.zeros(1, 2, 1, 1), matrix)


# -- round trips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 10, 16])
@pytest.mark.parametrize("range_", RANGES)
def test_every_code_survives_floats(depth: int, range_: Range) -> None:
    color = _color(range_=range_, depth=depth)
    codes = torch.arange(2**depth).to(color.dtype).view(1, 1, 1, -1)
    assert torch.equal(quantize_luma(dequantize_luma(codes, color), color), codes)
    assert torch.equal(quantize_chroma(dequantize_chroma(codes, color), color), codes)


@pytest.mark.parametrize("range_", RANGES)
@pytest.mark.parametrize("depth", [8, 10])
def test_values_beyond_the_codes_are_clamped(range_: Range, depth: int) -> None:
    color, wild = _color(range_=range_, depth=depth), torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2)
    assert quantize_luma(wild, color).flatten().tolist() == [0, 2**depth - 1]
    assert quantize_chroma(wild, color).flatten().tolist() == [0, 2**depth - 1]


def test_quantising_rounds_to_the_nearest_code() -> None:
    color = _color(range_=Range.FULL)
    x = torch.tensor([100.49, 100.51, 0.4, 254.6]).view(1, 1, 1, 4) / 255
    assert quantize_luma(x, color).flatten().tolist() == [100, 101, 0, 255]


@pytest.mark.parametrize("matrix", MATRICES)
def test_rgb_survives_ycbcr(matrix: Matrix) -> None:
    rgb = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ycbcr_to_rgb(*rgb_to_ycbcr(rgb, matrix), matrix), rgb, rtol=0, atol=1e-6)


# -- against swscale -------------------------------------------------------------------------------------


def _write(plane: av.video.plane.VideoPlane, samples: np.ndarray) -> None:
    stride = plane.line_size // samples.itemsize
    memory = np.zeros((plane.buffer_size // plane.line_size, stride), samples.dtype)
    memory[: samples.shape[0], : samples.shape[1]] = samples
    plane.update(memory.tobytes())


def _read_gbr(frame: av.VideoFrame) -> Tensor:
    """The planes of a planar RGB frame as (1, 3, H, W) doubles, R first."""
    planes = []
    for index in (2, 0, 1):
        plane = frame.planes[index]
        dtype = np.uint8 if frame.format.name == "gbrp" else np.dtype("<u2")
        rows = np.frombuffer(bytes(plane), dtype).reshape(-1, plane.line_size // np.dtype(dtype).itemsize)
        planes.append(rows[: frame.height, : frame.width].astype(np.float64))
    return torch.from_numpy(np.stack(planes))[None]


def _slopes(height: int, width: int, seed: int) -> np.ndarray:
    """Three gently sloping planes around middle gray, in units of 8 bit, within the RGB gamut."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] - np.array([height / 2, width / 2])[:, None, None]
    slopes = rng.uniform(0.6, 1.2, (3, 2)) * rng.choice([-1, 1], (3, 2)) * np.array([[1.2], [0.8], [0.8]])
    return np.array([125 + sy * y + sx * x for sy, sx in slopes])


def _yuv_frame(name: str, depth: int, seed: int) -> tuple[av.VideoFrame, Tensor, Tensor]:
    """A 48 x 32 frame, and its luma and chroma as tensors."""
    frame, planes = av.VideoFrame(48, 32, name), []
    for plane, slope in zip(frame.planes, _slopes(32, 48, seed), strict=True):
        part = slope[:: 32 // plane.height, :: 48 // plane.width] * 2 ** (depth - 8)
        samples = np.rint(part).astype(np.uint8 if depth == 8 else np.uint16)
        _write(plane, samples)
        planes.append(torch.from_numpy(samples)[None, None])
    return frame, planes[0], torch.cat(planes[1:], 1)


def _reformat(frame: av.VideoFrame, format_: str, color: Color, flags: int) -> Tensor:
    space = SWS[color.matrix]
    return _read_gbr(
        frame.reformat(
            threads=1,  # swscale slices overwrite one another at odd widths (FFmpeg 8.1)
            format=format_,
            src_colorspace=space,
            dst_colorspace=space,
            src_color_range=int(color.range),
            dst_color_range=int(Range.FULL),
            interpolation=flags,
        )
    )


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("range_", RANGES)
def test_444_at_8_bit_is_within_a_code_of_swscale(matrix: Matrix, range_: Range) -> None:
    color = _color(matrix, range_)
    frame, luma, chroma = _yuv_frame("yuv444p", 8, seed=1)
    ours = _rgb_of_codes(luma, chroma, color).clamp(0, 1) * 255
    difference = ours.round() - _reformat(frame, "gbrp", color, ACCURATE)
    assert difference.abs().max() <= 1


@needs_new_swscale
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("range_", RANGES)
@pytest.mark.parametrize(("name", "depth"), [("yuv444p", 8), ("yuv444p10le", 10)])
def test_444_is_within_a_16_bit_code_of_swscale(name: str, depth: int, matrix: Matrix, range_: Range) -> None:
    color = _color(matrix, range_, depth)
    frame, luma, chroma = _yuv_frame(name, depth, seed=2)
    ours = _rgb_of_codes(luma, chroma, color).double().clamp(0, 1) * 65535
    assert (ours - _reformat(frame, "gbrp16le", color, IN_FLOATS)).abs().max() <= 1


@needs_new_swscale
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("range_", RANGES)
def test_rgb_to_444_at_10_bit_is_within_a_code_of_swscale(matrix: Matrix, range_: Range) -> None:
    frame = av.VideoFrame(48, 32, "gbrp16le")
    rgb = np.random.default_rng(3).integers(0, 65536, (3, 32, 48)).astype(np.uint16)
    for plane, index in zip(frame.planes, (1, 2, 0), strict=True):
        _write(plane, rgb[index])
    out = frame.reformat(
        threads=1,  # swscale slices overwrite one another at odd widths (FFmpeg 8.1)
        format="yuv444p10le",
        src_colorspace=SWS[matrix],
        dst_colorspace=SWS[matrix],
        src_color_range=int(Range.FULL),
        dst_color_range=int(range_),
        interpolation=IN_FLOATS,
    )
    luma, chroma = _codes_of_rgb(torch.from_numpy(rgb / 65535)[None].float(), _color(matrix, range_, 10))
    ours = torch.cat((luma, chroma), 1)[0].int().numpy()
    for plane, expected in zip(ours, out.planes, strict=True):
        rows = np.frombuffer(bytes(expected), "<u2").reshape(-1, expected.line_size // 2)[:32, :48]
        assert np.abs(plane - rows.astype(int)).max() <= 1


def _scale_filter(frame: av.VideoFrame, color: Color) -> Tensor:
    """FFmpeg's scale filter, which unlike PyAV can be told where chroma lies."""
    graph = av.filter.Graph()
    width, height = frame.width, frame.height
    source = graph.add_buffer(width=width, height=height, format=frame.format, time_base=Fraction(1, 25))
    options = (
        f"in_color_matrix=bt601:in_range={'full' if color.range is Range.FULL else 'limited'}:out_range=full:"
        f"in_chroma_loc={color.chroma_location.name.lower()}:"
        "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
    )
    steps = [source, graph.add("scale", options), graph.add("format", "gbrp"), graph.add("buffersink")]
    for first, second in pairwise(steps):
        first.link_to(second)
    graph.configure()
    frame.pts = 0
    graph.push(frame)
    out = graph.pull()
    assert isinstance(out, av.VideoFrame)
    return _read_gbr(out)


def _ours_subsampled(luma: Tensor, chroma: Tensor, color: Color, shift: tuple[int, int]) -> Tensor:
    size = (luma.shape[-2], luma.shape[-1])
    full = upsample_chroma(dequantize_chroma(chroma, color), color, shift, size)
    rgb = ycbcr_to_rgb(dequantize_luma(luma, color), full, color.matrix)
    return rgb.clamp(0, 1).mul(2**color.bit_depth - 1).double()


@pytest.mark.parametrize("location", list(ChromaLocation))
@pytest.mark.parametrize("range_", RANGES)
@pytest.mark.parametrize(("name", "shift"), [("yuv420p", (1, 1)), ("yuv422p", (1, 0))])
def test_subsampled_chroma_lies_where_swscale_takes_it_to_lie(
    name: str, shift: tuple[int, int], range_: Range, location: ChromaLocation
) -> None:
    color = _color(Matrix.SMPTE170M, range_, location=location)
    frame, luma, chroma = _yuv_frame(name, 8, seed=4)
    theirs = _scale_filter(frame, color)
    inside = (..., slice(4, -4), slice(4, -4))  # at the edges ours reflects, theirs repeats

    def distance(ours: Tensor) -> float:
        return float((ours - theirs)[inside].abs().max())

    assert distance(_ours_subsampled(luma, chroma, color, shift)) <= 1  # half of it is their rounding
    right = ChromaLocation.CENTER if location.offset[0] < 0.5 else ChromaLocation.LEFT
    assert distance(_ours_subsampled(luma, chroma, _color(color.matrix, range_, location=right), shift)) > 1


@pytest.mark.parametrize(("name", "shift"), [("yuv420p10le", (1, 1)), ("yuv422p10le", (1, 0))])
@pytest.mark.parametrize("matrix", MATRICES)
def test_10_bit_subsampled_chroma_is_close_to_it(name: str, shift: tuple[int, int], matrix: Matrix) -> None:
    # Untold, swscale takes chroma as centred. In limited range it would map white to 1020 of 1023.
    color = _color(matrix, Range.FULL, 10, ChromaLocation.CENTER)
    frame, luma, chroma = _yuv_frame(name, 10, seed=5)
    difference = _ours_subsampled(luma, chroma, color, shift) - _reformat(frame, "gbrp10le", color, ACCURATE)
    assert difference[..., 4:-4, 4:-4].abs().max() <= 1.5


# -- chroma on the move ----------------------------------------------------------------------------------


def _ramp(length: int, cell: int, first: float) -> Tensor:
    """Samples at the luma positions first, first + cell, ...: each has its own position as value."""
    return first + cell * torch.arange(float(length))


@pytest.mark.parametrize("size", [(20, 24), (19, 23)])
def test_upsampling_covers_odd_luma_sizes(size: tuple[int, int]) -> None:
    color = _color(location=ChromaLocation.TOPLEFT)
    chroma = (_ramp(12, 2, 0) + 100 * _ramp(10, 2, 0)[:, None]).expand(1, 2, 10, 12)
    out = upsample_chroma(chroma, color, (1, 1), size)
    assert out.shape == (1, 2, *size)
    expected = torch.arange(float(size[1])) + 100 * torch.arange(float(size[0]))[:, None]
    torch.testing.assert_close(out[0, 1, 4:-4, 4:-4], expected[4:-4, 4:-4], rtol=0, atol=1e-3)


FIRST = {ChromaLocation.LEFT: 0.0, ChromaLocation.CENTER: 0.5}


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("source", list(FIRST))
@pytest.mark.parametrize("target", list(FIRST))
@pytest.mark.parametrize(("source_shift", "target_shift"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_resized_chroma_stays_aligned_with_luma(
    scale: int, source: ChromaLocation, target: ChromaLocation, source_shift: int, target_shift: int
) -> None:
    width = 33  # odd: the last chroma cell is only partly used
    num = -(-width // (1 << source_shift))
    chroma = _ramp(num, 1 << source_shift, FIRST[source] if source_shift else 0).expand(1, 2, 4, num)
    ends = (_color(location=source), (source_shift, 0)), (_color(location=target), (target_shift, 0))
    out = resize_chroma(chroma, *ends, (1, scale), (4, width * scale))
    num = -(-width * scale // (1 << target_shift))
    assert out.shape == (1, 2, 4, num)
    luma_position = _ramp(num, 1 << target_shift, FIRST[target] if target_shift else 0)
    expected = (luma_position + 0.5) / scale - 0.5  # on the luma grid of the source
    edge = 8 * scale
    torch.testing.assert_close(out[0, 0, 1, edge:-edge], expected[edge:-edge], rtol=0, atol=1e-4)
