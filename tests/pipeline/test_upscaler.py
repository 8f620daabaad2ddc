from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import PRECISIONS, Precision
from vsr.backends.transfers import DirectTransfers, Planes
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.errors import EngineError, InputError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.pipeline.upscaler import Upscaler

Function = Callable[[Tensor], Tensor]


class FunctionEngine:
    def __init__(self, function: Function, precision: Precision) -> None:
        self.name, self.device, self.dtype = f"fake, {precision}", torch.device("cpu"), PRECISIONS[precision]
        self._function = function
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.shapes.append(tuple(inputs[0].shape))
        return (self._function(inputs[0]),)


def _same(x: Tensor) -> Tensor:
    return x


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _card(color: str = "y", scale: int = 1) -> ModelCard:
    return ModelCard("fake", "luma", {}, scale, color, halo=0)  # type: ignore[arg-type]


def _upscaler(
    functions: dict[Precision, Function] | Function = _same,
    precision: Precision = "fp32",
    card: ModelCard | None = None,
    note: Callable[[str], None] = lambda line: None,
    transfers: DirectTransfers | None = None,
) -> Upscaler:
    def make_engine(wanted: Precision) -> FunctionEngine:
        return FunctionEngine(functions[wanted] if isinstance(functions, dict) else functions, wanted)

    return Upscaler(CheckedNetwork(card or _card(), make_engine, precision, note=note), transfers)


def _color(name: str, matrix: Matrix = Matrix.BT709, range_: Range = Range.LIMITED) -> Color:
    format_ = FORMATS[name]
    matrix = Matrix.RGB if format_.kind == "rgb" else matrix
    return Color(matrix, Primaries.BT709, Transfer.BT709, range_, ChromaLocation.LEFT, format_.bit_depth)


def _target(name: str, height: int, width: int, **colors: Any) -> Target:
    return Target(width, height, FORMATS[name], _color(name, **colors))


def _noise(name: str, height: int = 17, width: int = 33, **colors: Any) -> FrameBatch:
    """Three frames of any codes at all, within the format's bit depth."""
    format_, rng = FORMATS[name], np.random.default_rng(1)
    planes = allocate_planes(format_, 3, height, width)
    for plane in planes:
        codes = rng.integers(0, 2**format_.bit_depth, plane.shape)
        plane.copy_(torch.from_numpy(codes.astype(format_.sample_dtype)))
    return FrameBatch(planes, (-2, 5, 6), (7, 1, 0), Fraction(1, 24), _color(name, **colors))


def _flat(name: str, values: tuple[int, ...], height: int = 16, width: int = 24, **colors: Any) -> FrameBatch:
    planes = allocate_planes(FORMATS[name], 1, height, width)
    for plane, value in zip(planes, values, strict=True):
        plane.fill_(value)
    return FrameBatch(planes, (0,), (1,), Fraction(1, 25), _color(name, **colors))


def _in_gamut(name: str, height: int = 16, width: int = 24, **colors: Any) -> FrameBatch:
    """Gentle slopes around middle gray, all of them colours that RGB has."""
    format_ = FORMATS[name]
    planes = allocate_planes(format_, 1, height, width)
    for number, plane in enumerate(planes):
        y, x = np.mgrid[0 : plane.shape[2], 0 : plane.shape[3]] / max(plane.shape[2:])
        for channel in range(plane.shape[1]):
            codes = (0.45 + 0.15 * x * (-1) ** channel + 0.1 * y * (-1) ** number) * 2**format_.bit_depth
            plane[0, channel] = torch.from_numpy(np.rint(codes).astype(format_.sample_dtype))
    return FrameBatch(planes, (0,), (1,), Fraction(1, 25), _color(name, **colors))


def _largest_difference(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype
    return int((a.int() - b.int()).abs().max())


def _codes(plane: Tensor) -> list[int]:
    """The code values that occur in a plane."""
    return sorted(set(plane.flatten().tolist()))


def _assert_same_planes(out: FrameBatch, batch: FrameBatch, within: int = 0) -> None:
    assert len(out.planes) == len(batch.planes)
    assert [_largest_difference(a, b) <= within for a, b in zip(out.planes, batch.planes, strict=True)] == [
        True for _ in batch.planes
    ]


# -- the precision gate ----------------------------------------------------------------------------------


def _off_by(codes: float) -> Function:
    return lambda x: x + codes / 255


def _nan(x: Tensor) -> Tensor:
    return torch.full_like(x, math.nan)


MIDDLE = torch.full((1, 1, 20, 20), 0.5)


def test_a_precision_as_good_as_fp32_is_kept_without_a_note() -> None:
    notes: list[str] = []
    upscaler = _upscaler({"bf16": _off_by(1), "fp32": _same}, "bf16", note=notes.append)
    torch.testing.assert_close(upscaler.network(MIDDLE)[0], MIDDLE + 1 / 255)
    assert (upscaler.precision, notes) == ("bf16", [])


@pytest.mark.parametrize(
    "bad",
    [_off_by(5), _off_by(-5), _nan, lambda x: x / 0],
    ids=["+5", "-5", "nan", "inf"],
)
def test_a_precision_that_is_wrong_falls_back_to_fp32_with_a_note(bad: Function) -> None:
    notes: list[str] = []
    upscaler = _upscaler({"bf16": bad, "fp32": _same}, "bf16", note=notes.append)
    assert torch.equal(upscaler.network(MIDDLE)[0], MIDDLE)
    assert upscaler.precision == "fp32"
    assert upscaler.engine.dtype is torch.float32
    assert len(notes) == 1 and "bf16" in notes[0] and "fp32" in notes[0]


def test_fp16_falls_back_to_bf16_first() -> None:
    notes: list[str] = []
    upscaler = _upscaler({"fp16": _nan, "bf16": _off_by(1), "fp32": _same}, "fp16", note=notes.append)
    upscaler.network(MIDDLE)[0]
    assert (upscaler.precision, len(notes)) == ("bf16", 1)
    upscaler = _upscaler({"fp16": _nan, "bf16": _off_by(9), "fp32": _same}, "fp16", note=notes.append)
    upscaler.network(MIDDLE)[0]
    assert (upscaler.precision, len(notes)) == ("fp32", 3)


def test_differences_outside_the_range_of_a_picture_do_not_count() -> None:
    upscaler = _upscaler({"bf16": _off_by(30), "fp32": _same}, "bf16")
    upscaler.network(torch.full((1, 1, 20, 20), 1.1))[0]  # clamped to white by both
    assert upscaler.precision == "bf16"


def test_nan_in_a_later_batch_falls_back_and_that_batch_is_done_again() -> None:
    def nan_for_dark(x: Tensor) -> Tensor:
        return torch.where(x.amin() < 0.1, math.nan, x)

    notes: list[str] = []
    upscaler = _upscaler({"bf16": nan_for_dark, "fp32": _same}, "bf16", note=notes.append)
    assert torch.equal(upscaler.network(MIDDLE)[0], MIDDLE)
    dark = torch.full((2, 1, 20, 20), 0.01)
    dark[0] = 0.9
    assert torch.equal(upscaler.network(dark)[0], dark)
    assert upscaler.precision == "fp32"
    assert len(notes) == 1 and "NaN" in notes[0]


def test_one_nan_pixel_is_enough() -> None:
    def one_pixel(x: Tensor) -> Tensor:
        out = x.clone()
        out[-1, 0, 3, 4] = math.inf
        return out

    with pytest.raises(EngineError):
        _upscaler(one_pixel).network(torch.rand(4, 1, 200, 200))[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nan_at_every_precision_is_an_engine_error_that_names_the_model(precision: Precision) -> None:
    with pytest.raises(EngineError, match="'fake'") as caught:
        _upscaler(_nan, precision).network(MIDDLE)[0]
    assert "\n" not in str(caught.value)


def test_a_bf16_network_of_ours_passes_the_gate() -> None:
    torch.manual_seed(1)
    net = LumaNet(8, 1, 2)
    upscaler = upscaler_of_net(_card(scale=2), net, ModelOptions(device="cpu", precision="bf16"))
    upscaler.network(torch.rand(1, 1, 20, 20))[0]
    assert upscaler.precision == "bf16"


def _near_sums(x: Tensor) -> Tensor:
    """A function of halo 20, which zeros around a picture or a crop change a lot."""
    return F.avg_pool2d(x, 41, stride=1, padding=20) + x / 2


@pytest.mark.parametrize("size", [(300, 210), (400, 90), (60, 500), (31, 33), (129, 128)])
@pytest.mark.parametrize("multiple", [1, 4])
def test_the_gate_runs_the_engine_on_whole_frames_once_and_does_not_see_the_crops_borders(
    size: tuple[int, int], multiple: int
) -> None:
    notes: list[str] = []
    reference = FunctionEngine(_near_sums, "fp32")
    card = replace(_card(), halo=20, multiple_of=multiple)
    engine = FunctionEngine(_near_sums, "bf16")
    made: dict[Precision, FunctionEngine] = {"bf16": engine, "fp32": reference}
    upscaler = Upscaler(CheckedNetwork(card, made.__getitem__, "bf16", note=notes.append))
    x = torch.rand(2, 1, *size)
    for _ in range(2):
        upscaler.network(x)[0]
    padded = tuple(-(-side // multiple) * multiple for side in size)
    assert (engine.shapes, notes) == ([(2, 1, *padded)] * 2, [])
    assert len(reference.shapes) == 1 and max(reference.shapes[0][-2:]) <= 132


@pytest.mark.parametrize(("row", "column"), [(150, 105), (110, 75), (189, 134)])
def test_the_gate_sees_every_pixel_around_the_middle(row: int, column: int) -> None:
    def off_in_one_place(x: Tensor) -> Tensor:
        out = _near_sums(x)
        out[1, 0, row, column] += 5 / 255
        return out

    upscaler = _upscaler({"bf16": off_in_one_place, "fp32": _near_sums}, "bf16", replace(_card(), halo=20))
    x = torch.rand(2, 1, 300, 210) / 4
    assert torch.equal(upscaler.network(x)[0], _near_sums(x))
    assert upscaler.precision == "fp32"


def test_a_network_that_sees_further_than_its_halo_says_is_not_accused() -> None:
    def by_the_mean(x: Tensor) -> Tensor:
        return x - x.mean((-2, -1), keepdim=True) + 0.3

    notes: list[str] = []
    upscaler = _upscaler(by_the_mean, "bf16", replace(_card(), halo=5), notes.append)
    x = torch.linspace(0, 1, 400).expand(1, 1, 400, 400) ** 2
    assert torch.equal(upscaler.network(x)[0], by_the_mean(x))
    assert (upscaler.precision, notes) == ("bf16", [])


# -- batches in flight, and short memory -----------------------------------------------------------------


class LateTransfers(DirectTransfers):
    """Planes come down when they are asked for, and the uploads that come before are limited in frames."""

    num_in_flight = 1

    def __init__(self, most_frames: int = 100) -> None:
        super().__init__(torch.device("cpu"))
        self.most_frames, self.uploads = most_frames, list[int]()

    def upload(self, planes: Planes) -> Planes:
        self.uploads.append(planes[0].shape[0])
        if planes[0].shape[0] > self.most_frames:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to")
        return super().upload(planes)

    def download(self, planes: Planes) -> Callable[[], Planes]:
        return lambda: tuple(plane.clone() for plane in planes)


def _nan_above(code: int) -> Function:
    return lambda x: torch.where(x.amax() > (code + 0.5) / 255, math.nan, x)


def _levels(*codes: int) -> list[FrameBatch]:
    return [_flat("yuv420p", (code, 128)) for code in codes]


def test_batches_in_flight_that_hold_nan_are_done_again_and_no_other() -> None:
    notes: list[str] = []
    functions: dict[Precision, Function] = {"fp16": _nan_above(100), "bf16": _same, "fp32": _same}
    upscaler = _upscaler(functions, "fp16", note=notes.append, transfers=LateTransfers())
    batches, target = _levels(50, 120, 130, 60), _target("yuv420p", 16, 24)
    begun = [upscaler.submit(batch, target) for batch in batches]
    first_engine = upscaler.engine
    assert notes == []
    for batch, finish in zip(batches, begun, strict=True):
        _assert_same_planes(finish(), batch)
    assert len(notes) == 1 and "fp16 gave NaN" in notes[0] and "bf16" in notes[0]
    assert upscaler.engine.shapes == [(1, 1, 16, 24)] * 2  # type: ignore[attr-defined]
    assert first_engine.shapes == [(1, 1, 16, 24)] * 4  # type: ignore[attr-defined]


def test_nan_goes_down_precision_by_precision_while_batches_are_in_flight() -> None:
    notes: list[str] = []
    functions: dict[Precision, Function] = {"fp16": _nan_above(100), "bf16": _nan_above(125), "fp32": _same}
    upscaler = _upscaler(functions, "fp16", note=notes.append, transfers=LateTransfers())
    batches, target = _levels(50, 120, 130), _target("yuv420p", 16, 24)
    begun = [upscaler.submit(batch, target) for batch in batches]
    for batch, finish in zip(batches, begun, strict=True):
        _assert_same_planes(finish(), batch)
    assert [line.split(":")[1] for line in notes] == [" going on in bf16", " going on in fp32"]


def test_out_of_memory_around_the_network_takes_fewer_frames_and_keeps_all() -> None:
    notes: list[str] = []
    transfers = LateTransfers(most_frames=2)
    upscaler = _upscaler(note=notes.append, transfers=transfers)
    frames = [_noise("yuv420p10le"), replace(_noise("yuv420p10le"), pts=(7, 8, 9))]
    for batch in frames:
        out = upscaler.upscale(batch, _target("yuv420p10le", 17, 33))
        _assert_same_planes(out, batch)
        assert (out.pts, out.durations) == (batch.pts, batch.durations)
    assert notes == ["out of memory: going on with batches of 1"]
    assert transfers.uploads == [3, 1, 1, 1, 1, 1, 1]


def test_too_little_memory_for_one_frame_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match=r"out of memory.*one frame"):
        _upscaler(transfers=LateTransfers(0)).upscale(_noise("yuv420p"), _target("yuv420p", 17, 33))


def test_other_errors_around_the_network_pass_through() -> None:
    class Broken(DirectTransfers):
        def upload(self, planes: Planes) -> Planes:
            raise RuntimeError("CUDA error: unspecified launch failure")

    upscaler = _upscaler(transfers=Broken(torch.device("cpu")))
    with pytest.raises(RuntimeError, match="launch failure"):
        upscaler.submit(_noise("yuv420p"), _target("yuv420p", 17, 33))


# -- nothing is changed by a network that changes nothing ------------------------------------------------


@pytest.mark.parametrize("range_", [Range.LIMITED, Range.FULL])
@pytest.mark.parametrize(
    "name",
    [f"yuv{layout}p{depth}" for layout in (420, 422, 444) for depth in ("", "10le")] + ["yuva420p", "p010le"],
)
def test_luma_models_leave_every_code_as_it_is(name: str, range_: Range) -> None:
    batch = _noise(name, range_=range_)
    out = _upscaler().upscale(batch, _target(name, 17, 33, range_=range_))
    _assert_same_planes(out, batch)
    assert out.color == batch.color
    assert (out.pts, out.durations, out.time_base) == (batch.pts, batch.durations, batch.time_base)


@pytest.mark.parametrize("name", ["gray", "gray10le", "ya8"])
@pytest.mark.parametrize("range_", [Range.LIMITED, Range.FULL])
def test_luma_models_leave_gray_as_it_is(name: str, range_: Range) -> None:
    batch = _noise(name, range_=range_)
    _assert_same_planes(_upscaler().upscale(batch, _target(name, 17, 33, range_=range_)), batch)


@pytest.mark.parametrize("name", ["yuv444p", "yuv444p10le", "gray", "gray10le", "gbrp", "gbrp10le", "gbrap"])
@pytest.mark.parametrize("range_", [Range.LIMITED, Range.FULL])
@pytest.mark.parametrize("color", ["rgb", "y"])
def test_in_gamut_pictures_survive_within_a_code(name: str, range_: Range, color: str) -> None:
    batch = _in_gamut(name, range_=range_)
    out = _upscaler(card=_card(color)).upscale(batch, _target(name, 16, 24, range_=range_))
    _assert_same_planes(out, batch, within=1)


@pytest.mark.parametrize("matrix", [Matrix.SMPTE170M, Matrix.BT709, Matrix.BT2020_NCL])
@pytest.mark.parametrize("location", list(ChromaLocation))
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p"])
def test_rgb_models_keep_chroma_where_it_was(name: str, location: ChromaLocation, matrix: Matrix) -> None:
    color = replace(_color(name, matrix), chroma_location=location)
    batch = replace(_in_gamut(name, 32, 48), color=color)
    out = _upscaler(card=_card("rgb")).upscale(batch, Target(48, 32, FORMATS[name], color))
    assert _largest_difference(out.planes[0], batch.planes[0]) <= 1
    # Upsampled and downsampled again: edges are reflected, so they bend a little.
    assert _largest_difference(out.planes[1][..., 3:-3, 3:-3], batch.planes[1][..., 3:-3, 3:-3]) <= 1
    assert _largest_difference(out.planes[1], batch.planes[1]) <= 4


def test_the_input_is_not_written_to() -> None:
    for name, color in (("yuv420p", "y"), ("gray", "y"), ("gbrp", "rgb"), ("yuva420p", "rgb")):
        batch = _noise(name)
        before = [p.clone() for p in batch.planes]
        _upscaler(lambda x: x.mul_(0.5), card=_card(color)).upscale(batch, _target(name, 17, 33))
        assert all(torch.equal(a, b) for a, b in zip(before, batch.planes, strict=True))


# -- codes, colours and alpha of the output --------------------------------------------------------------


@pytest.mark.parametrize(("wild", "code"), [(lambda x: x + 7, 1023), (lambda x: x - 7, 0)])
def test_wild_networks_stay_within_10_bit_codes(wild: Function, code: int) -> None:
    out = _upscaler(wild).upscale(_noise("yuv420p10le"), _target("yuv420p10le", 17, 33))
    assert out.planes[0].dtype is torch.uint16
    assert (out.planes[0].int() == code).all()


def test_10_bit_luma_keeps_its_fine_steps() -> None:
    batch = _noise("yuv420p10le")
    assert len(_codes(batch.planes[0])) > 600
    out = _upscaler(lambda x: x * 1.0).upscale(batch, _target("yuv420p10le", 17, 33))
    assert _codes(out.planes[0]) == _codes(batch.planes[0])


@pytest.mark.parametrize("color", ["y", "rgb"])
@pytest.mark.parametrize(("range_", "white", "deep"), [(Range.LIMITED, 235, 940), (Range.FULL, 255, 1023)])
def test_white_stays_white_from_8_to_10_bit(color: str, range_: Range, white: int, deep: int) -> None:
    batch = _flat("yuv420p", (white, 128), range_=range_)
    out = _upscaler(card=_card(color)).upscale(batch, _target("yuv420p10le", 16, 24, range_=range_))
    assert _codes(out.planes[0]) == [deep]
    assert _codes(out.planes[1]) == [512]


@pytest.mark.parametrize("color", ["y", "rgb"])
def test_red_is_coded_anew_where_matrix_and_range_change(color: str) -> None:
    batch = _flat("yuv444p", (81, 0), matrix=Matrix.SMPTE170M)
    batch.planes[1][:, 0], batch.planes[1][:, 1] = 90, 240
    out = _upscaler(card=_card(color)).upscale(batch, _target("yuv444p", 16, 24, matrix=Matrix.BT709))
    y, (cb, cr) = _codes(out.planes[0]), out.planes[1][0, :, 5, 5].tolist()
    assert y[0] == pytest.approx(63, abs=1) and len(y) == 1
    assert (cb, cr) == pytest.approx((102, 240), abs=1)
    full = _upscaler(card=_card(color)).upscale(batch, _target("gbrp", 16, 24, range_=Range.FULL))
    assert full.planes[0][0, :, 5, 5].tolist() == pytest.approx([255, 0, 0], abs=2)


def test_rgb_is_coded_as_ycbcr_for_encoders_that_want_it() -> None:
    batch = _flat("gbrp", (0,), range_=Range.FULL)
    batch.planes[0][:, 0] = 255
    out = _upscaler(card=_card("rgb")).upscale(batch, _target("yuv420p", 16, 24))
    assert _codes(out.planes[0]) == [63]
    assert [_codes(out.planes[1][:, i]) for i in (0, 1)] == [[102], [240]]


@pytest.mark.parametrize("color", ["y", "rgb"])
def test_gray_has_neutral_chroma_for_encoders_that_want_some(color: str) -> None:
    batch = _flat("gray", (77,))
    out = _upscaler(card=_card(color)).upscale(batch, _target("yuv420p", 16, 24))
    assert _codes(out.planes[0]) == [77]
    assert out.planes[1].shape == (1, 2, 8, 12)
    assert _codes(out.planes[1]) == [128]


def test_colour_becomes_gray_by_its_luma() -> None:
    out = _upscaler().upscale(_noise("yuv420p"), _target("gray", 17, 33))
    assert len(out.planes) == 1
    assert torch.equal(out.planes[0], _noise("yuv420p").planes[0])


def test_a_matrix_that_rgb_models_cannot_use_goes_through_luma_models() -> None:
    batch = _noise("yuv420p", matrix=Matrix.ICTCP)
    target = _target("yuv420p", 17, 33, matrix=Matrix.ICTCP)
    _assert_same_planes(_upscaler().upscale(batch, target), batch)
    with pytest.raises(InputError, match="ICTCP"):
        _upscaler(card=_card("rgb")).upscale(batch, target)


def test_alpha_is_kept_scaled_to_the_depth_and_size_and_left_out_where_there_is_none() -> None:
    batch = _flat("yuva420p", (120, 128, 255))
    batch.planes[2][..., :12] = 0
    upscaler = _upscaler(_twice, card=_card(scale=2))
    alpha = upscaler.upscale(batch, _target("yuva420p10le", 32, 48)).alpha
    assert alpha is not None and alpha.shape == (1, 1, 32, 48) and alpha.dtype is torch.uint16
    assert _codes(alpha[..., :18]) == [0]
    assert _codes(alpha[..., 30:]) == [1023]
    assert upscaler.upscale(batch, _target("yuv420p", 32, 48)).alpha is None


def test_alpha_that_the_source_lacks_is_opaque() -> None:
    out = _upscaler().upscale(_noise("yuv420p"), _target("yuva420p", 17, 33))
    assert out.alpha is not None and _codes(out.alpha) == [255]
    _assert_same_planes(replace(out, planes=out.planes[:2]), _noise("yuv420p"))


# -- size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["y", "rgb"])
@pytest.mark.parametrize("size", [(32, 48), (16, 24), (24, 36), (50, 70), (31, 47)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p10le", "gbrp", "gray"])
def test_any_size_comes_out_and_flat_pictures_stay_flat(name: str, size: tuple[int, int], color: str) -> None:
    codes = {"gbrp": (90,), "gray": (90,), "yuv444p10le": (360, 530)}.get(name, (90, 140))
    upscaler = _upscaler(_twice, card=_card(color, 2))
    out = upscaler.upscale(_flat(name, codes), _target(name, *size))
    assert (out.height, out.width) == size
    if out.chroma is not None:
        assert out.chroma.shape[-2:] == FORMATS[name].chroma_size(*size)
    for plane, code in zip(out.planes, codes, strict=True):
        assert (plane.int() - code).abs().max() <= 1


@pytest.mark.parametrize("width", [72, 96, 48, 40])
def test_luma_and_chroma_stay_on_top_of_each_other_at_any_size(width: int) -> None:
    """A ramp in luma and the same ramp in chroma, sampled where its siting says."""
    batch = _flat("yuv420p", (0, 0), 16, 24)
    batch.planes[0][:] = (40 + 6 * torch.arange(24)).to(torch.uint8)
    batch.planes[1][:] = (40 + 12 * torch.arange(12)).to(torch.uint8)  # left: at luma 0, 2, 4, ...
    smooth = _upscaler(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), card=_card(scale=2))
    out = smooth.upscale(batch, _target("yuv420p", 32, width))
    assert out.chroma is not None
    inside = slice(width // 4, -(width // 4))
    luma, chroma = out.planes[0][0, 0, 9, ::2].int(), out.chroma[0, 0, 4].int()
    assert (luma - chroma)[inside.start // 2 : inside.stop // 2].abs().max() <= 1


# -- pictures --------------------------------------------------------------------------------------------


def _image(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    codes: np.ndarray = np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, shape)
    return codes.astype(dtype)


@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7, 4), (9, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_survive_a_network_that_changes_nothing(shape: tuple[int, ...], dtype: type) -> None:
    image = _image(*shape, dtype=dtype)
    out = _upscaler(card=_card("rgb")).upscale_image(image)
    assert out.dtype == dtype
    assert np.abs(out.astype(int) - image).max() <= (0 if dtype is np.uint8 else 1)


@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7, 4), (9, 7)])
def test_pictures_survive_a_luma_network_that_changes_nothing(shape: tuple[int, ...]) -> None:
    image = _image(*shape)
    assert np.abs(_upscaler().upscale_image(image).astype(int) - image).max() <= 1


@pytest.mark.parametrize("color", ["y", "rgb"])
@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7, 4), (9, 7)])
def test_pictures_grow_by_the_scale_or_to_the_size_asked_for(shape: tuple[int, ...], color: str) -> None:
    upscaler = _upscaler(_twice, card=_card(color, 2))
    assert upscaler.upscale_image(_image(*shape)).shape == (18, 14, *shape[2:])
    assert upscaler.upscale_image(_image(*shape), (20, 31)).shape == (31, 20, *shape[2:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_and_white_pictures_stay_so_when_the_network_overshoots(dtype: type) -> None:
    top = np.iinfo(dtype).max
    image: np.ndarray = np.zeros((8, 8, 4), dtype)
    image[:, 4:] = top
    for color in ("rgb", "y"):
        out = _upscaler(lambda x: (x - 0.5) * 3 + 0.5, card=_card(color)).upscale_image(image)
        assert (out[:, :4] == 0).all() and (out[:, 4:] == top).all()


def test_alpha_goes_up_with_the_picture() -> None:
    image = np.full((8, 8, 4), 200, np.uint8)
    image[:, 4:, 3] = 0
    out = _upscaler(_twice, card=_card("rgb", 2)).upscale_image(image)
    assert (out[..., :3] == 200).all()
    assert (out[:, :4, 3] == 200).all() and (out[:, 12:, 3] == 0).all()


def test_views_and_read_only_pictures_are_taken() -> None:
    image = _image(9, 7, 3)[::-1, :, ::-1]
    image.setflags(write=False)
    assert np.array_equal(_upscaler(card=_card("rgb")).upscale_image(image), image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int16),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "int16", "2-channels", "1-channel", "batch", "row", "empty"],
)
def test_what_is_not_a_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image must be"):
        _upscaler(card=_card("rgb")).upscale_image(image)
