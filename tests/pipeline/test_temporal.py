"""Recurrent networks in the way of a frame: what a frame depends on, and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsr.backends.engine import Engine, Precision
from vsr.backends.torch_engine import TorchEngine
from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.errors import ModelError, OptionError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.models.nets import RecurrentNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target, batch_to_video_network
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.pipeline.motion import inverted, optical_flow, taps_of, warp
from vsr.pipeline.processor import FrameProcessor, make_processor
from vsr.pipeline.temporal import TemporalProcessor

INTERVAL, WARM_UP = 10, 3
OPTIONS: dict[str, Any] = {"features": 6, "blocks": 1, "scale": 4}
CARD = ModelCard(
    "small", "recurrent", OPTIONS, 4, "yuv", halo=4, recurrent=True, restart_interval=INTERVAL, warm_up=WARM_UP
)
RUN_IN = 3
CARDS = (CARD, replace(CARD, run_in=RUN_IN, both_flows=True))
COLOR = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 8)
HEIGHT, WIDTH = 36, 50


@pytest.fixture(scope="module")
def net() -> RecurrentNet:
    torch.manual_seed(3)
    made = RecurrentNet(**OPTIONS)
    torch.nn.init.normal_(made.tail.weight, std=0.03)
    return made.eval().requires_grad_(False)


def _luma(num: int, scenes: Sequence[int] = (0,)) -> np.ndarray:
    """(N, H, W) uint8: a texture that drifts; another one from each of the frames in `scenes` on."""
    frames = []
    for position in range(num):
        scene = max(start for start in scenes if start <= position)
        texture = np.random.default_rng(scene).normal(120, 60, (HEIGHT + 60, WIDTH + 60)).astype(np.float32)
        texture = cv2.GaussianBlur(texture, (0, 0), 2.5) * 3 - 240 + 20 * scene
        moved = np.array([[1, 0, -0.7 * position - 4], [0, 1, -0.3 * position - 4]], np.float32)
        frames.append(cv2.warpAffine(texture, moved, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC))
    return np.clip(np.stack(frames), 16, 235).astype(np.uint8)


def _batch(luma: np.ndarray, first: int = 0, color: Color = COLOR) -> FrameBatch:
    y = torch.from_numpy(luma)[:, None]
    chroma = torch.stack((y[:, 0, ::2, ::2] // 2 + 64, 192 - y[:, 0, ::2, ::2] // 2), 1)
    num = len(luma)
    return FrameBatch((y, chroma), tuple(range(first, first + num)), (1,) * num, Fraction(1, 25), color)


def _target(color: Color = COLOR, pixel_format: PixelFormat = FORMATS["yuv420p"], scale: int = 4) -> Target:
    return Target(WIDTH * scale, HEIGHT * scale, pixel_format, color)


def _processor(
    net: RecurrentNet, target: Target | None = None, card: ModelCard = CARD, **options: Any
) -> FrameProcessor:
    upscaler = upscaler_of_net(card, net, ModelOptions(precision="fp32", backend="pytorch", device="cpu", **options))
    return make_processor(upscaler, target or _target())


def _run(processor: FrameProcessor, batches: Sequence[FrameBatch]) -> list[Tensor]:
    """All planes of all frames, each with all frames."""
    results = [result for batch in batches for result in processor.push(batch)]
    done = [result() for result in [*results, *processor.flush()]]
    assert [pts for batch in done for pts in batch.pts] == [pts for batch in batches for pts in batch.pts]
    return [torch.cat(planes) for planes in zip(*(batch.planes for batch in done), strict=True)]


def _in_batches(luma: np.ndarray, size: int, first: int = 0) -> list[FrameBatch]:
    starts = range(0, len(luma), size)
    return [_batch(luma[start : start + size], first + start) for start in starts]


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_first_frames_are_what_the_network_makes_of_frame_neighbours_and_state(net: RecurrentNet) -> None:
    luma = _luma(3)
    wanted: list[Tensor] = []
    state: Tensor | None = None
    for position, frame in enumerate(luma):
        y = torch.from_numpy(frame).float()[None, None] / 255
        beside = []
        for other in (position - 1, position + 1):
            if not 0 <= other < len(luma):
                beside.append(y)
                continue
            flow = optical_flow(frame, luma[other]) if other < position else inverted(optical_flow(luma[other], frame))
            taps = taps_of(torch.from_numpy(flow)[None])
            beside.append(warp(torch.from_numpy(luma[other]).float()[None, None] / 255, taps))
        planes = torch.cat((y, torch.zeros(1, 2, HEIGHT, WIDTH)), 1)
        if state is None:
            state = net.initial_state(planes)
        else:
            taps = taps_of(torch.from_numpy(optical_flow(frame, luma[position - 1]))[None])
            state = warp(state, taps)
        state = net(planes, *beside, state)
        out, _ = net.images(planes, state)
        wanted.append((out * 255 + 0.5).clamp(0, 255).to(torch.uint8))
    gray = replace(_target(), pixel_format=FORMATS["gray"])
    batch = _batch(luma)
    grey_source = FrameBatch(batch.planes[:1], batch.pts, batch.durations, batch.time_base, COLOR)
    found = _run(_processor(net, gray), [grey_source])[0]
    difference = (found.int() - torch.cat(wanted).int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.001


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("size", [1, 3, 7, 26])
def test_batches_of_any_size_give_the_same_bits(net: RecurrentNet, size: int, card: ModelCard) -> None:
    luma = _luma(26, scenes=(0, 14, 20, 25))  # the third begins with an interval, the last has no second frame
    found, wanted = (_run(_processor(net, card=card), _in_batches(luma, each)) for each in (size, 4))
    assert _equal(found, wanted)


def test_a_scene_begins_with_the_state_of_its_following_frames_in_reverse(net: RecurrentNet) -> None:
    """The first frame is what it would be if the video came to it backwards and then turned."""
    card = CARDS[1]
    luma = _luma(9, scenes=(0, 5))
    found = _run(_processor(net, card=card), _in_batches(luma, 2))
    for start, stop in ((0, 5), (5, 9)):
        scene = luma[start:stop]
        turned = np.concatenate((scene[1 : RUN_IN + 1][::-1], scene))
        plain = _run(_processor(net, card=replace(card, run_in=0)), _in_batches(turned, 4))
        num = len(turned) - len(scene)
        assert _equal([plane[start:stop] for plane in found], [plane[num:] for plane in plain])
    assert not _equal(found, _run(_processor(net), _in_batches(luma, 2)))


def test_frames_after_the_last_are_seen(net: RecurrentNet) -> None:
    """A part of a video ends as it would in the whole, even where a scene begins with its last frame."""
    card = CARDS[1]
    luma = _luma(12, scenes=(0, 7))
    whole = _run(_processor(net, card=card), _in_batches(luma, 4))
    processor = _processor(net, card=card)
    results = list(processor.push(_batch(luma[:8])))
    results += processor.flush(_batch(luma[8 : 8 + card.num_seen_after], 8))
    done = [result() for result in results]
    assert [pts for batch in done for pts in batch.pts] == [*range(8)]
    planes = [torch.cat(parts) for parts in zip(*(batch.planes for batch in done), strict=True)]
    assert _equal(planes, [plane[:8] for plane in whole])


def test_a_frame_is_held_back_until_the_one_after_it_is_known(net: RecurrentNet) -> None:
    processor = _processor(net)
    first, second = _in_batches(_luma(8), 4)
    assert not processor.push(first)
    (result,) = processor.push(second)
    assert result().pts == (0, 1, 2, 3)
    (result,) = processor.flush()
    assert result().pts == (4, 5, 6, 7)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("first", [1, 9, 10, 11, 13, 20, 25])
def test_a_run_that_begins_later_gives_the_bits_of_an_unbroken_one(
    net: RecurrentNet, first: int, card: ModelCard
) -> None:
    luma = _luma(28, scenes=(0, 18))
    whole = _run(_processor(net, card=card), _in_batches(luma, 4))
    processor = _processor(net, card=card)
    num = processor.lead_in_frames(first)
    assert 0 <= num <= first
    processor.reset(first - num)
    found = _run(processor, _in_batches(luma[first - num :], 5, first - num))
    assert _equal([plane[num:] for plane in found], [plane[first:] for plane in whole])
    if num:  # and fewer frames would not do, unless the network sees no difference
        processor.reset(first)
        assert not _equal(_run(processor, _in_batches(luma[first:], 5, first)), [plane[first:] for plane in whole])


def test_the_state_matters_within_an_interval_and_is_made_anew_at_its_end(net: RecurrentNet) -> None:
    luma = _luma(24)
    other = luma.copy()
    other[2] = 255 - other[2]
    changed = [
        not torch.equal(a, b)
        for a, b in zip(
            _run(_processor(net), _in_batches(luma, 4))[0], _run(_processor(net), _in_batches(other, 4))[0], strict=True
        )
    ]
    assert all(changed[1:4])  # the frame itself, and both neighbours
    assert not any(changed[INTERVAL:])


@pytest.mark.parametrize("card", CARDS)
def test_nothing_passes_a_cut(net: RecurrentNet, card: ModelCard) -> None:
    luma = _luma(8, scenes=(0, 4))
    before = _run(_processor(net, card=card), _in_batches(luma, 3))
    assert _equal([plane[4:] for plane in before], _run(_processor(net, card=card), _in_batches(luma[4:], 3, 4)))
    alone = _run(_processor(net, card=card), _in_batches(luma[:4], 3))
    assert _equal([plane[:4] for plane in before], alone)


def test_tiles_give_what_whole_frames_give(net: RecurrentNet) -> None:
    luma = _luma(5)
    whole, tiled = (_run(_processor(net, tile=tile), _in_batches(luma, 5)) for tile in (None, 16))
    assert all((a.int() - b.int()).abs().max() <= 1 for a, b in zip(whole, tiled, strict=True))


class _Spoiled:
    """An engine whose output is NaN at its third call."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine, self._num_calls = engine, 0
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._num_calls += 1
        outputs = self._engine(*inputs)
        return tuple(x * math.nan for x in outputs) if self._num_calls == 3 else outputs


def test_nan_is_done_again_from_the_last_good_state(net: RecurrentNet) -> None:
    def make(precision: Precision) -> Engine:
        engine = TorchEngine(net, torch.device("cpu"), "fp32")
        return _Spoiled(engine) if precision == "bf16" else engine

    notes: list[str] = []
    network = CheckedNetwork(CARD, make, "bf16", note=notes.append)
    network.use_precision("bf16")  # as if checked: the fault is to come later
    luma = _luma(9)
    found = _run(TemporalProcessor(network, _target()), _in_batches(luma, 2))
    assert _equal(found, _run(_processor(net), _in_batches(luma, 2)))
    assert len(notes) == 1 and "NaN" in notes[0]


class _Drifting:
    """An engine whose images are right, and whose state is a little off at every step."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (state,) = self._engine(*inputs)
        return (_drifted(state, 1),)


def _drifted(state: Tensor, by: float) -> Tensor:
    """Change the features of a state, and not the details of the image beside them."""
    return torch.cat((state[:, : OPTIONS["features"]] + by, state[:, OPTIONS["features"] :]), 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_state_that_drifts_from_fp32_is_seen_and_done_again(net: RecurrentNet, batch: int) -> None:
    engine = TorchEngine(net, torch.device("cpu"), "fp32")
    notes: list[str] = []
    network = CheckedNetwork(
        CARD, lambda precision: _Drifting(engine) if precision == "bf16" else engine, "bf16", note=notes.append
    )
    luma = _luma(9)
    found = _run(TemporalProcessor(network, _target()), _in_batches(luma, batch))
    assert network.precision == "fp32" and len(notes) == 1 and "differs from fp32" in notes[0]
    wanted = _run(_processor(net), _in_batches(luma, batch))
    assert all((a[3:].int() - b[3:].int()).abs().max() <= 4 for a, b in zip(found, wanted, strict=True))


class _Rounded:
    """An engine whose luma has a pixel in a hundred off by eight codes, and which may drift as well."""

    def __init__(self, engine: TorchEngine, drift: float) -> None:
        self._engine, self._drift = engine, drift
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (state,) = self._engine(*inputs)
        luma = state[:, OPTIONS["features"] : OPTIONS["features"] + OPTIONS["scale"] ** 2]
        luma += (torch.rand(luma.shape, generator=torch.Generator().manual_seed(0)) < 0.01) * (8 / 255)
        return (_drifted(state, self._drift),)


@pytest.mark.parametrize(("drift", "expected"), [(0.0, "int8"), (1.0, "bf16")])
def test_int8_is_judged_by_its_own_network_and_what_it_falls_back_to_by_fp32(
    net: RecurrentNet, drift: float, expected: Precision
) -> None:
    torch.manual_seed(5)
    integers = RecurrentNet(**OPTIONS).eval()  # the same network in integers, which says something else
    torch.nn.init.normal_(integers.tail.weight, std=0.03)

    def make(precision: Precision) -> Engine:
        if precision == "int8":
            return _Rounded(TorchEngine(integers, torch.device("cpu"), "fp32"), drift)
        return TorchEngine(net, torch.device("cpu"), "fp32")

    def make_reference() -> Engine:
        return TorchEngine(integers if network.precision == "int8" else net, torch.device("cpu"), "fp32")

    notes: list[str] = []
    network = CheckedNetwork(CARD, make, "int8", note=notes.append, make_reference=make_reference)
    _run(TemporalProcessor(network, _target()), _in_batches(_luma(9), 2))
    assert network.precision == expected, notes
    assert len(notes) == (expected != "int8")


def test_a_precision_that_holds_is_checked_once_and_kept(net: RecurrentNet) -> None:
    made: list[Precision] = []

    def make(precision: Precision) -> Engine:
        made.append(precision)
        return TorchEngine(net, torch.device("cpu"), "fp32")

    network = CheckedNetwork(CARD, make, "bf16")
    processor = TemporalProcessor(network, _target())
    found = _run(processor, _in_batches(_luma(9), 2))
    assert network.precision == "bf16" and made.count("bf16") == 1
    assert _equal(found, _run(_processor(net), _in_batches(_luma(9), 2)))
    processor.reset()
    num_made = len(made)
    _run(processor, _in_batches(_luma(4), 2))
    assert len(made) == num_made


class _Elsewhere:
    """An engine on a device without memory, which shows what is copied there."""

    name, device, dtype = "elsewhere", torch.device("meta"), torch.float32

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        assert all(x.device.type == "meta" for x in inputs)
        return (torch.empty_like(inputs[3]),)


class _Copies(TorchDispatchMode):
    """Count what waits for a device: copies to and from it, and values that are asked for."""

    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        crosses = len({x.device.type for x in tensors if x.ndim}) > 1
        self.num += crosses or func is torch.ops.aten._local_scalar_dense.default
        return result


@pytest.mark.parametrize("scenes", [(0,), (0, 3)])
def test_copies_to_the_device_are_a_batchs_and_not_a_frames(scenes: tuple[int, ...]) -> None:
    counts = []
    for size in (5, 5, 9):  # the first fetches what is kept
        network = CheckedNetwork(CARD, lambda precision: _Elsewhere(), "fp32")
        processor = TemporalProcessor(network, _target())
        processor._transfers.download = lambda planes: lambda: planes  # type: ignore[method-assign]
        with _Copies() as copies:
            processor.push(_batch(_luma(size, scenes)))
            processor.flush()
        counts.append(copies.num)
    assert counts[0] >= counts[1] == counts[2] > 0


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray", "gbrp", "yuva420p"])
def test_an_untrained_network_gives_every_format_its_nearest_neighbours(name: str) -> None:
    """Luma as the shuffle repeats it, and chroma as other networks' is resized: no colour path adds to it."""
    plain = RecurrentNet(**OPTIONS).eval().requires_grad_(False)
    torch.nn.init.zeros_(plain.tail.weight)
    pixel_format = FORMATS[name]
    color = replace(COLOR, bit_depth=10) if name.endswith("10le") else COLOR
    if pixel_format.kind == "rgb":
        color = replace(color, matrix=Matrix.RGB, range=Range.FULL)
    found = _run(_processor(plain, _target(color, pixel_format)), _in_batches(_luma(3), 3))
    assert found[0].shape[-2:] == (HEIGHT * 4, WIDTH * 4)
    if pixel_format.kind != "rgb":
        wanted = torch.from_numpy(_luma(3)).repeat_interleave(4, 1).repeat_interleave(4, 2).int()
        assert ((found[0][:, 0].int() >> (color.bit_depth - 8)) - wanted).abs().max() <= 1
    assert all(torch.isfinite(plane.float()).all() for plane in found)


@pytest.mark.parametrize("name", ["yuv444p", "yuv422p", "gbrp"])
def test_a_network_sees_chroma_as_420_leaves_it(name: str) -> None:
    """Stripes of colour one pixel wide, which 4:2:0 cannot hold, are hidden from the network but stay in the output."""
    stripes = torch.tensor([100, 156], dtype=torch.uint8).repeat(HEIGHT // 2).view(1, 1, HEIGHT, 1)
    chroma = stripes.expand(1, 2, HEIGHT, WIDTH if name != "yuv422p" else WIDTH // 2).contiguous()
    luma = torch.full((1, 1, HEIGHT, WIDTH), 128, dtype=torch.uint8)
    if name == "gbrp":
        planes: tuple[Tensor, ...] = (torch.cat((stripes.expand_as(luma), luma, luma), 1),)
        color = replace(COLOR, matrix=Matrix.RGB, range=Range.FULL)
    else:
        planes, color = (luma, chroma), COLOR
    batch = FrameBatch(planes, (0,), (1,), Fraction(1, 25), color)
    prepared = batch_to_video_network(planes, batch, _target(color, FORMATS[name]))
    assert prepared.planes[:, 1:].std(2).max() < 0.01
    out = prepared.finish(torch.zeros(1, 16, HEIGHT, WIDTH), torch.zeros(1, 8, HEIGHT, WIDTH))
    assert out[-1][:, 0].float().std(1).min() > 10


def test_an_image_alone_is_refused_with_what_to_take(net: RecurrentNet) -> None:
    upscaler = upscaler_of_net(CARD, net, ModelOptions(precision="fp32", backend="pytorch", device="cpu"))
    with pytest.raises(OptionError, match="frames of a video"):
        upscaler.upscale_image(np.zeros((8, 8, 3), np.uint8))


def test_a_card_without_restarts_is_refused(net: RecurrentNet) -> None:
    with pytest.raises(ModelError, match="restart_interval 0"):
        make_processor(upscaler_of_net(replace(CARD, restart_interval=0), net), _target())
