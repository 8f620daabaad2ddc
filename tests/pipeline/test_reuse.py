"""Reuse must not be seen in the result: every test compares with an upscaler that does all the work."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import PRECISIONS, Precision
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import ModelOptions, load_model, upscaler_of_net
from vsr.pipeline.reuse import FrameReuse, can_reuse
from vsr.pipeline.upscaler import Upscaler

HALO = 2
Frame = tuple[Tensor, ...]


class CountingEngine:
    """An engine around any function, which counts the pixels it was given."""

    def __init__(self, function: Callable[[Tensor], Tensor], precision: Precision = "fp32") -> None:
        self.name, self.device, self.dtype = f"fake, {precision}", torch.device("cpu"), PRECISIONS[precision]
        self.function, self.num_pixels = function, 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        self.num_pixels += x.shape[0] * x.shape[-2] * x.shape[-1]
        return (self.function(x),)


def _blurred(x: Tensor) -> Tensor:
    """×2 with a halo of 2, zeros around the picture; summed in one order whatever the shape."""
    padded, height, width = F.pad(x, (HALO,) * 4), x.shape[-2], x.shape[-1]
    out = torch.zeros_like(x)
    for dy in range(2 * HALO + 1):
        for dx in range(2 * HALO + 1):
            out = out + padded[..., dy : dy + height, dx : dx + width] * ((1 + dy * 5 + dx) / 325)
    return F.interpolate(out, scale_factor=2.0, mode="nearest")


def _card(color: str = "y", **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {"name": "fake", "net": "luma", "options": {}, "scale": 2, "color": color, "halo": HALO}
    return ModelCard(**(fields | changes))


def _upscaler(engine: CountingEngine, card: ModelCard | None = None) -> Upscaler:
    return Upscaler(CheckedNetwork(card or _card(), lambda precision: engine, "fp32"))


def _color(name: str) -> Color:
    format_ = FORMATS[name]
    matrix = Matrix.RGB if format_.kind == "rgb" else Matrix.BT709
    return Color(matrix, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, format_.bit_depth)


def _target(name: str, height: int, width: int, scale: float = 2) -> Target:
    sides = (math.ceil(width * scale / 2) * 2, math.ceil(height * scale / 2) * 2)
    return Target(*sides, FORMATS[name], _color(name))


def _noise(name: str, height: int, width: int, seed: int = 1) -> Frame:
    format_, rng = FORMATS[name], np.random.default_rng(seed)
    planes = allocate_planes(format_, 1, height, width)
    for plane in planes:
        codes = rng.integers(0, 2**format_.bit_depth, plane.shape)
        plane.copy_(torch.from_numpy(codes.astype(format_.sample_dtype)))
    return planes


def _changed(frame: Frame, plane: int, row: int, column: int) -> Frame:
    """A copy in which one sample of one plane is another."""
    copies = tuple(p.clone() for p in frame)
    samples = copies[plane].numpy()
    samples[0, 0, row, column] ^= 1 << 5
    return copies


def _batches(name: str, frames: list[Frame], size: int) -> list[FrameBatch]:
    batches = []
    for start in range(0, len(frames), size):
        part = frames[start : start + size]
        planes = tuple(torch.cat(planes) for planes in zip(*part, strict=True))
        pts = tuple(7 * i - 5 for i in range(start, start + len(part)))
        batches.append(FrameBatch(planes, pts, tuple(i % 3 for i in pts), Fraction(1, 90), _color(name)))
    return batches


def _assert_alike(out: FrameBatch, expected: FrameBatch) -> None:
    assert (out.pts, out.durations, out.time_base) == (expected.pts, expected.durations, expected.time_base)
    assert [p.shape for p in out.planes] == [p.shape for p in expected.planes]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(out.planes, expected.planes, strict=True))


def _reused(
    make: Callable[[], Upscaler],
    name: str,
    frames: list[Frame],
    *,
    batch: int = 1,
    target: Target | None = None,
    interior: int = 128,
    note: Callable[[str], None] = lambda line: None,
) -> float:
    """The share that was reused; fails where the result is not that of doing all the work."""
    height, width = frames[0][0].shape[-2:]
    target = target or _target(name, height, width)
    plain, reuse = make(), FrameReuse(make(), note, interior)
    for part in _batches(name, frames, batch):
        _assert_alike(reuse.submit(part, target)(), plain.upscale(part, target))
    return reuse.reused_share


# -- frames ----------------------------------------------------------------------------------------------


FORMAT_NAMES = ["yuv420p", "yuv420p10le", "yuva420p", "yuv444p", "gbrp", "gbrap10le", "gray"]


@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("color", ["y", "rgb"])
def test_still_frames_are_not_computed_again(name: str, color: str) -> None:
    engines: list[CountingEngine] = []

    def make() -> Upscaler:
        engines.append(CountingEngine(_blurred))
        return _upscaler(engines[-1], _card(color))

    assert _reused(make, name, [_noise(name, 17, 33)] * 9) == pytest.approx(8 / 9)
    plain, reusing = engines
    assert plain.num_pixels == 9 * reusing.num_pixels == 9 * 17 * 33


@pytest.mark.parametrize(("batch", "still"), [(1, 11), (3, 9), (8, 4)])
def test_still_frames_in_batches(batch: int, still: int) -> None:
    """All but the first batch are still; of the first, which is a proof, nothing is reused."""
    frames = [_noise("yuv420p", 16, 24)] * 12
    assert _reused(lambda: _upscaler(CountingEngine(_blurred)), "yuv420p", frames, batch=batch) == still / 12


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_frames_that_come_back_and_frames_that_move(batch: int) -> None:
    a, b, c = (_noise("yuv420p", 16, 24, seed) for seed in (1, 2, 3))
    frames = [a, a, b, a, a, a, c, c, b, b, b, a, c, a, b, c, c, c, c, c, a, a, a, b, b, b, b, b, b]
    share = _reused(lambda: _upscaler(CountingEngine(_blurred)), "yuv420p", frames, batch=batch)
    assert (share > 0.5) if batch == 1 else (share > 0.1)


def test_moving_frames_cost_what_they_cost_without() -> None:
    engines: list[CountingEngine] = []

    def make() -> Upscaler:
        engines.append(CountingEngine(_blurred))
        return _upscaler(engines[-1])

    frames = [_noise("yuv420p", 40, 50, seed) for seed in range(12)]
    assert _reused(make, "yuv420p", frames, batch=3, interior=8) == 0
    assert engines[0].num_pixels == engines[1].num_pixels


@pytest.mark.parametrize(("name", "plane"), [("yuv420p", 1), ("yuva420p", 2), ("yuv420p10le", 1), ("gbrap10le", 1)])
def test_a_change_of_chroma_or_alpha_alone_is_a_change(name: str, plane: int) -> None:
    still = _noise(name, 17, 33)
    frames = [still, still, _changed(still, plane, 3, 5), still, still]
    for color in ("y", "rgb"):
        assert _reused(lambda color=color: _upscaler(CountingEngine(_blurred), _card(color)), name, frames) < 1  # type: ignore[misc]


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.1])
def test_other_sizes_than_the_networks_own(scale: float) -> None:
    still = _noise("yuv420p", 96, 165)
    frames = [still, *(_changed(still, 0, row, 9) for row in (0, 1, 2, 40, 41)), still, still]
    target = _target("yuv420p", 96, 165, scale)
    share = _reused(lambda: _upscaler(CountingEngine(_blurred)), "yuv420p", frames, target=target, interior=24)
    assert share > 0.5


def test_where_a_batch_of_fewer_frames_comes_out_otherwise_batches_are_computed_whole() -> None:
    notes: list[str] = []
    a, b = (_noise("yuv420p", 16, 24, seed) for seed in (1, 2))

    def by_batch(x: Tensor) -> Tensor:
        return _blurred(x) + x.shape[0] * 1e-7  # far below a code value

    frames = [a, a, a, a, b, b, b, b, b, b, b, b]
    share = _reused(lambda: _upscaler(CountingEngine(by_batch)), "yuv420p", frames, batch=4, note=notes.append)
    assert share == 4 / 12  # of the still batch alone
    assert "a batch of 1" in notes[0]


def test_after_a_fall_back_nothing_of_the_worse_precision_is_reused() -> None:
    """The batch that begins still and then gives NaN is done again, still frames included."""

    def make() -> Upscaler:
        functions: dict[Precision, Callable[[Tensor], Tensor]] = {
            "bf16": lambda x: torch.where(x.amin() == 0, math.nan, _blurred(x) + 1 / 255),
            "fp32": _blurred,
        }
        return Upscaler(
            CheckedNetwork(_card(), lambda precision: CountingEngine(functions[precision], precision), "bf16")
        )

    still, dark = _noise("gray", 16, 24), _noise("gray", 16, 24, 2)
    still[0].clamp_(min=10)
    dark[0].clamp_(min=10)
    dark[0][0, 0, 3, 3] = 0
    bright = (torch.full_like(still[0], 200),)
    frames = [still, bright, still, still, still, bright, still, still, still, dark, dark, dark, still, still]
    _reused(make, "gray", frames, batch=2)
    frames = [still, still, still, dark]
    plain = make()
    target = _target("gray", 16, 24)
    outs = [plain.upscale(part, target) for part in _batches("gray", frames, 2)]
    assert not np.array_equal(outs[0].planes[0][1].numpy(), outs[1].planes[0][0].numpy())  # else nothing is tested


@pytest.mark.parametrize("changes", [{"window": 3}, {"recurrent": True}])
def test_networks_that_look_at_other_frames_are_left_alone(changes: dict[str, Any]) -> None:
    assert can_reuse(_card())
    assert not can_reuse(_card(**changes))


# -- tiles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(120, 160), (121, 163)])
@pytest.mark.parametrize(("name", "color"), [("yuv420p", "y"), ("yuv420p", "rgb"), ("gbrp", "y"), ("yuv420p10le", "y")])
def test_a_changed_sample_renews_all_that_it_can_influence(size: tuple[int, int], name: str, color: str) -> None:
    """Anywhere: also at the borders of windows and of the picture, and within their halo."""
    rng = np.random.default_rng(4)
    frames = [_noise(name, *size)]
    for _ in range(30):
        plane = int(rng.integers(len(frames[-1])))
        row, column = (int(rng.integers(side)) for side in frames[-1][plane].shape[-2:])
        frames.append(_changed(frames[-1], plane, row, column))
    share = _reused(lambda: _upscaler(CountingEngine(_blurred), _card(color)), name, frames, interior=24)
    assert share > 0.6


@pytest.mark.parametrize("column", [0, 21, 22, 23, 24, 25, 26, 159])
def test_changes_at_the_borders_of_windows(column: int) -> None:
    still = _noise("gray", 96, 160)
    frames = [still, *(_changed(still, 0, row, column) for row in (0, 23, 24, 25, 40, 95)), still]
    assert _reused(lambda: _upscaler(CountingEngine(_blurred)), "gray", frames, interior=24, batch=2) > 0.5


def test_a_halo_too_small_would_be_seen_by_these_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    from vsr.pipeline.tile_reuse import TileReuse

    monkeypatch.setattr(TileReuse, "_gives_the_same", lambda *args: True)
    still = _noise("gray", 48, 96)
    frames = [still, *(_changed(still, 0, 20, column) for column in range(40, 49))]
    with pytest.raises(AssertionError):
        _reused(lambda: _upscaler(CountingEngine(_blurred), _card(halo=0)), "gray", frames, interior=8)


def test_a_network_that_sees_further_than_its_halo_is_found_out() -> None:
    notes: list[str] = []
    still = _noise("gray", 48, 96)
    frames = [still, *(_changed(still, 0, 20, column) for column in range(40, 49)), still, still]
    make: Callable[[], Upscaler] = lambda: _upscaler(CountingEngine(_blurred), _card(halo=0))  # noqa: E731
    share = _reused(make, "gray", frames, interior=8, note=notes.append)
    assert share == 1 / 12  # of the still frame at the end
    assert len(notes) == 1 and "only whole frames" in notes[0]


def test_where_tiles_come_out_otherwise_only_frames_are_reused() -> None:
    notes: list[str] = []

    def by_shape(x: Tensor) -> Tensor:
        return _blurred(x) + x.shape[-1] * 1e-8  # far below a code value

    still = _noise("yuv420p", 64, 96)
    frames = [still, *(_changed(still, 0, 30, column) for column in range(8)), *[still] * 6]
    share = _reused(lambda: _upscaler(CountingEngine(by_shape)), "yuv420p", frames, interior=24, note=notes.append)
    assert share == 5 / 15
    assert len(notes) == 1 and "only whole frames" in notes[0]


def test_large_changes_are_computed_whole() -> None:
    engine = CountingEngine(_blurred)
    still = _noise("gray", 64, 96)
    frames = [still]
    for _ in range(4):
        everywhere = frames[-1]
        for row in range(0, 64, 8):
            for column in range(0, 96, 8):
                everywhere = _changed(everywhere, 0, row, column)
        frames.append(everywhere)
    assert _reused(lambda: _upscaler(engine), "gray", frames, interior=8) == 0


def test_sides_that_the_network_needs_a_multiple_of() -> None:
    def in_cells(x: Tensor) -> Tensor:
        """Halo 3, on cells of 2 × 2: what a pixel does depends on where in its cell it lies."""
        cells = F.pixel_unshuffle(x, 2)
        padded = F.pad(cells, (1, 1, 1, 1))
        height, width = cells.shape[-2:]
        out = sum(padded[..., i : i + height, i : i + width] * (i + 1) for i in range(3)) * 0.125
        return F.interpolate(F.pixel_shuffle(out, 2), scale_factor=2.0, mode="nearest")

    for size, least in (((128, 192), 0.5), ((127, 192), 0.0)):
        still = _noise("gray", *size)
        frames = [still, *(_changed(still, 0, row, 3 * row) for row in range(30))]
        card = _card(multiple_of=2, halo=3)
        assert (
            _reused(lambda card=card: _upscaler(CountingEngine(in_cells), card), "gray", frames, interior=24) >= least
        )  # type: ignore[misc]


# -- real engines ----------------------------------------------------------------------------------------


def _slide(index: int, size: tuple[int, int] = (288, 352)) -> Frame:
    """Text-like strokes on a gradient, and a cursor that rests and moves."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    luma = (60 + rows // 4 + 80 * ((rows // 3 % 7 == 0) & (columns * 13 // 7 % 11 < 4))).astype(np.uint8)
    row, column = 40 + 9 * (index // 3), 50 + 23 * (index // 3)
    luma[row : row + 14, column : column + 9] = 235
    chroma = np.full((1, 2, -(-height // 2), -(-width // 2)), 120, np.uint8)
    chroma[0, 1, row // 2 : row // 2 + 7, column // 2 : column // 2 + 5] = 150
    return torch.from_numpy(luma[None, None]), torch.from_numpy(chroma)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backend", ["pytorch", "openvino"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_cursor_over_a_slide_on_real_engines(backend: str, precision: str, batch: int) -> None:
    if backend == "openvino":
        openvino = pytest.importorskip("openvino")
        if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this CPU has no bfloat16, which OpenVINO then refuses")
    torch.manual_seed(2)
    net = LumaNet(features=8, depth=2, scale=2)
    torch.nn.init.normal_(net.tail.weight, std=0.2)
    notes: list[str] = []

    def make() -> Upscaler:
        options = ModelOptions(device="cpu", backend=backend, precision=precision)
        return upscaler_of_net(_card(halo=net.halo), net, options)

    frames = [_slide(index) for index in range(15)]
    share = _reused(make, "yuv420p", frames, batch=batch, note=notes.append)
    # Four of five positions of the cursor are new; the first is whole, the second and the third prove.
    assert share > (0.66 if batch == 1 and not notes else 0.2)


@pytest.mark.parametrize("backend", ["pytorch", "openvino"])
def test_small_pictures_on_real_engines(backend: str) -> None:
    """PyTorch computes pictures of few pixels by other kernels, one alone otherwise than several."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    torch.manual_seed(2)
    net = LumaNet(features=4, depth=1, scale=2)
    torch.nn.init.normal_(net.tail.weight, std=0.2)
    frames = [_slide(index // 2, (120, 176)) for index in range(18)]
    card = _card(halo=net.halo)
    for batch in (1, 4):
        _reused(
            lambda: upscaler_of_net(card, net, ModelOptions(device="cpu", backend=backend)),
            "yuv420p",
            frames,
            batch=batch,
            interior=16,
        )


# -- files -----------------------------------------------------------------------------------------------


def _write_slides(path: Path, num_frames: int = 24, pix_fmt: str = "yuv420p") -> Path:
    """Two slides, the second with a moving cursor, each frame coded without loss; uneven timestamps."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 176, 144, pix_fmt
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            step = 0 if index < num_frames // 2 else 3 + index // 4
            frame = av.VideoFrame.from_ndarray(_slide(step, (144, 176))[0][0, 0].numpy(), "gray").reformat(
                format=pix_fmt, threads=1
            )
            frame.pts, frame.time_base = 40 * index + index % 5, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _packets(path: Path) -> list[tuple[int | None, int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts, p.duration, bytes(p)) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize(
    "options",
    [{}, {"batch": 1}, {"batch": 8}, {"size": "400x400"}, {"deinterlace": "on"}, {"tile": 64}, {"pix_fmt": "yuv444p"}],
    ids=str,
)
def test_a_job_writes_the_same_file(tmp_path: Path, options: dict[str, Any]) -> None:
    source = _write_slides(tmp_path / "slides.mkv")
    upscaler = load_model("nano", device="cpu", backend="pytorch")
    chosen = {"preset": "ultrafast", **options}
    report = enhance_file(source, tmp_path / "with.mkv", JobOptions.of(reuse=True, **chosen), upscaler=upscaler)
    plain = enhance_file(source, tmp_path / "without.mkv", JobOptions.of(reuse=False, **chosen), upscaler=upscaler)
    assert _packets(tmp_path / "with.mkv") == _packets(tmp_path / "without.mkv")
    assert report.num_frames == plain.num_frames == 24
    assert plain.reused_share is None
    assert report.reused_share is not None and report.reused_share > 0.3


def test_a_job_with_ten_bits_writes_the_same_file(tmp_path: Path) -> None:
    source = _write_slides(tmp_path / "slides.mkv", pix_fmt="yuv420p10le")
    upscaler = load_model("nano", device="cpu", backend="pytorch")
    for name, reuse in (("with.mkv", True), ("without.mkv", False)):
        options = JobOptions.of(codec="libx264", preset="ultrafast", reuse=reuse)
        enhance_file(source, tmp_path / name, options, upscaler=upscaler)
    assert _packets(tmp_path / "with.mkv") == _packets(tmp_path / "without.mkv")


def test_moving_pictures_of_a_camera(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "samples" / "sample.mp4"
    upscaler = load_model("nano", device="cpu", backend="pytorch")
    for name, reuse in (("with.mkv", True), ("without.mkv", False)):
        options = JobOptions.of(preset="ultrafast", reuse=reuse, duration_seconds=Fraction(1, 5))
        enhance_file(source, tmp_path / name, options, upscaler=upscaler)
    assert _packets(tmp_path / "with.mkv") == _packets(tmp_path / "without.mkv")
