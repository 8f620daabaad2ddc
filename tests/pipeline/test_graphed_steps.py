"""Steps of a recurrent network as a CUDA graph, on its stand-in: the bits of steps without, never a stale graph."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from graph_double import GraphRunner
from torch import Tensor

from vsr.backends.compiled import Compiler
from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import Engine, Launch, Precision
from vsr.backends.torch_engine import TorchEngine
from vsr.color.pixel_formats import FORMATS
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.models.nets import RecurrentNet
from vsr.pipeline import temporal
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.temporal import TemporalProcessor
from vsr.pipeline.warping import FusedWarping, Warping

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {"features": 6, "blocks": 1, "scale": 4}
CARD = ModelCard(
    "small", "recurrent", OPTIONS, 4, "yuv", halo=4, recurrent=True, restart_interval=10, warm_up=3, run_in=3
)
COLOR = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 8)
HEIGHT, WIDTH = 28, 34
CUT = 13  # the first frame of the clip's second scene
NUM_FRAMES = 18


@pytest.fixture(scope="module")
def net() -> RecurrentNet:
    torch.manual_seed(3)
    made = RecurrentNet(**OPTIONS)
    torch.nn.init.normal_(made.tail.weight, std=0.03)
    return made.eval().requires_grad_(False)


def _clip(height: int = HEIGHT, width: int = WIDTH, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """(N, H, W) uint8: a texture that drifts, and another one from the cut on."""
    frames = []
    for number in range(num_frames):
        texture = np.random.default_rng(number >= CUT).normal(120, 60, (height + 60, width + 60)).astype(np.float32)
        texture = cv2.GaussianBlur(texture, (0, 0), 2.5) * 3 - 240 + 20 * (number >= CUT)
        moved = np.array([[1, 0, -0.7 * number - 4], [0, 1, -0.3 * number - 4]], np.float32)
        frames.append(cv2.warpAffine(texture, moved, (width, height), flags=cv2.INTER_CUBIC))
    return np.clip(np.stack(frames), 16, 235).astype(np.uint8)


def _batches(luma: np.ndarray, size: int) -> list[FrameBatch]:
    batches = []
    for start in range(0, len(luma), size):
        y = torch.from_numpy(luma[start : start + size])[:, None]
        chroma = torch.stack((y[:, 0, ::2, ::2] // 2 + 64, 192 - y[:, 0, ::2, ::2] // 2), 1)
        numbers = tuple(range(start, start + len(y)))
        batches.append(FrameBatch((y, chroma), numbers, (1,) * len(y), Fraction(1, 25), COLOR))
    return batches


class Bench:
    """Runs clips through networks, with graphs or without.  runner: of the processor made last, with graphs."""

    def __init__(self, net: RecurrentNet) -> None:
        self.net, self.notes, self.runner = net, list[str](), GraphRunner()

    def engine(self, precision: Precision, compiler: Compiler | None = None) -> Engine:
        return TorchEngine(self.net, CPU, precision, compiler=compiler)

    def network(self, make: Any = None, precision: Precision = "fp32", tile: int | None = None) -> CheckedNetwork:
        network = CheckedNetwork(CARD, make or self.engine, precision, tile, self.notes.append)
        network.use_precision(precision)  # as if checked
        return network

    def processor(self, network: CheckedNetwork, *faults: BaseException | None) -> TemporalProcessor:
        self.runner = GraphRunner(*faults)
        return TemporalProcessor(network, _target(), warping=_warping(), runner=self.runner)

    def plain(self, network: CheckedNetwork) -> TemporalProcessor:
        return TemporalProcessor(network, _target(), warping=_warping())


def _warping() -> Warping:
    """That of a GPU, not compiled: by operations of PyTorch, where that of a CPU has some of OpenCV."""
    return FusedWarping(lambda step: step)


def _target() -> Target:
    return Target(WIDTH * 4, HEIGHT * 4, FORMATS["yuv420p"], COLOR)


@pytest.fixture
def bench(net: RecurrentNet) -> Bench:
    return Bench(net)


def _run(processor: TemporalProcessor, batches: Sequence[FrameBatch]) -> list[Tensor]:
    """All planes of all frames."""
    results = [result for batch in batches for result in processor.push(batch)]
    done = [result().planes for result in (*results, *processor.flush())]
    return [torch.cat(planes) for planes in zip(*done, strict=True)]


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _compiled(net: torch.nn.Module) -> torch.nn.Module:
    return net  # a compiler that changes nothing: what is looked at is what it is given


@pytest.mark.parametrize(
    ("size", "precision", "compiler"), [(1, "fp32", None), (4, "bf16", None), (4, "fp32", _compiled)]
)
def test_replayed_steps_give_the_bits_of_steps_without(
    bench: Bench, size: int, precision: Precision, compiler: Compiler | None
) -> None:
    """Over a cut, restarts with frames before them, and a scene's run-in; each step but those of the first passage."""
    network = bench.network(lambda precision: bench.engine(precision, compiler), precision)
    processor = bench.processor(network)
    found = _run(processor, _batches(_clip(), size))
    assert _equal(found, _run(bench.plain(bench.network(precision=precision)), _batches(_clip(), size)))
    assert bench.runner.num_captures == 1 and bench.runner.num_replays > NUM_FRAMES and processor.is_graphed
    assert all("graph" not in note for note in bench.notes)


@pytest.mark.parametrize("first", [7, 12])
def test_a_run_that_begins_later_gives_the_bits_of_an_unbroken_one(bench: Bench, first: int) -> None:
    """Whatever it has stepped without a graph, which is at another place then."""
    whole = _run(bench.processor(bench.network()), _batches(_clip(), 4))
    processor = bench.processor(bench.network())
    num = processor.lead_in_frames(first)
    processor.reset(first - num)
    found = _run(processor, _batches(_clip()[first - num :], 3))
    assert _equal([plane[num:] for plane in found], [plane[first:] for plane in whole])
    assert bench.runner.num_captures == 1


class _Widening:
    """An engine in bf16 that gives its state in float32, as some give all their outputs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.device, self.dtype = engine.name, engine.device, engine.dtype

    def make_launch(self, runner: DeviceRunner, shape: tuple[int, int, int, int]) -> Launch:
        return self

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        assert inputs[-1].dtype == torch.bfloat16, "the state goes in as the engine computes"
        *images, state = self._engine(*inputs)
        return (*images, state.float())


def test_a_state_that_comes_out_as_another_type_is_warped_as_that_one(bench: Bench) -> None:
    def make(precision: Precision) -> Engine:
        return _Widening(bench.engine("bf16"))

    found, wanted = (
        _run(processor, _batches(_clip(), 4))
        for processor in (bench.processor(bench.network(make, "bf16")), bench.plain(bench.network(make, "bf16")))
    )
    assert _equal(found, wanted) and bench.runner.num_captures == 1


def test_a_graph_is_made_once_for_a_frame_size(bench: Bench) -> None:
    """Of another size, after the first in mid-stream, as well as of a second video of the same."""
    clips = [_clip(), _clip(), _clip(HEIGHT - 6, WIDTH + 6, 9)]
    outs = []
    for processor in (bench.processor(bench.network()), bench.plain(bench.network())):
        outs.append([])
        for luma in clips:
            outs[-1] += _run(processor, _batches(luma, 4))
            processor.reset()
    assert _equal(*outs)
    assert bench.runner.num_captures == 2
    assert bench.runner.log.index("wait") < bench.runner.log.index("capture", 1), "let go while it may still run"


class _BlindToWhite(_Widening):
    """An engine whose output is NaN for a bright frame, by operations on the device alone."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        spoiled = torch.where(inputs[0][:, :1].mean() > 0.7, torch.nan, 1.0)
        return tuple(x * spoiled.to(x.dtype) for x in self._engine(*inputs))


def test_nan_from_a_replay_is_seen_and_the_safer_engine_gets_a_graph_of_its_own(bench: Bench) -> None:
    def make(precision: Precision) -> Engine:
        engine = bench.engine(precision)
        return _BlindToWhite(engine) if precision == "bf16" else engine

    luma = _clip()
    luma[8] = 235 - luma[8] // 8
    found = _run(bench.processor(bench.network(make, "bf16")), _batches(luma, 3))
    assert len(bench.notes) == 1 and "NaN" in bench.notes[0]
    assert _equal(found, _run(bench.plain(bench.network(make, "bf16")), _batches(luma, 3)))
    log = bench.runner.log
    assert bench.runner.num_captures == 2
    assert "replay 1" in log and "replay 1" not in log[log.index("wait") :], "a graph of the engine that was left"


class _Drifting(_Widening):
    """An engine whose images are right, and whose state is a little off at every step."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *images, state = self._engine(*inputs)
        return (*images, state + 1)


def test_the_first_frames_are_checked_as_they_are_replayed(bench: Bench) -> None:
    def make(precision: Precision) -> Engine:
        engine = bench.engine(precision)
        return _Drifting(engine) if precision == "bf16" else engine

    batches = _batches(_clip(), 3)
    found, wanted = (
        _run(make_processor(CheckedNetwork(CARD, make, "bf16", note=bench.notes.append)), batches)
        for make_processor in (bench.processor, bench.plain)
    )
    assert _equal(found, wanted)
    assert len(bench.notes) == 2 and all("differs from fp32" in note for note in bench.notes)


def test_a_graph_goes_with_its_processor(bench: Bench) -> None:
    processor = bench.processor(bench.network())
    _run(processor, _batches(_clip(num_frames=9), 3))
    assert processor.is_graphed
    gone = weakref.ref(processor._graphed)
    gc.disable()
    try:
        del processor
        assert gone() is None, "its memory would be held until a collection"
    finally:
        gc.enable()


def test_an_engine_that_becomes_another_by_itself_is_seen(bench: Bench) -> None:
    """As TensorRT does, behind whose name PyTorch takes over."""
    changing = bench.engine("bf16")
    network = bench.network(lambda precision: changing, "bf16")
    processor, batches = bench.processor(network), _batches(_clip(), 3)
    found = _run(processor, batches[:3])
    changing.__dict__ |= bench.engine("fp32").__dict__
    processor.reset()
    found += _run(processor, batches[3:])
    other = bench.plain(bench.network())
    assert bench.runner.num_captures == 2
    assert _equal(found[2:], _run(other, batches[3:]))


def test_frames_in_tiles_and_engines_that_cannot_be_captured_go_without(bench: Bench) -> None:
    class Closed:
        def __init__(self, engine: Engine) -> None:
            self.name, self.device, self.dtype, self._engine = engine.name, engine.device, engine.dtype, engine

        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return self._engine(*inputs)

    batches = _batches(_clip(num_frames=9), 3)
    for network in (bench.network(tile=32), bench.network(lambda precision: Closed(bench.engine(precision)))):
        processor = bench.processor(network)
        _run(processor, batches)
        assert bench.runner.num_captures == 0 and not processor.is_graphed
    assert bench.notes == []


def test_tiles_that_memory_asks_for_later_end_the_graph(bench: Bench) -> None:
    network = bench.network()
    processor, batches = bench.processor(network), _batches(_clip(), 3)
    _run(processor, batches[:3])
    num_replays = bench.runner.num_replays
    assert num_replays and processor.is_graphed
    network._tiled.tile = 32
    processor.reset()
    found = _run(processor, batches[3:])
    assert bench.runner.num_replays == num_replays and not processor.is_graphed
    assert _equal(found, _run(bench.plain(bench.network(tile=32)), batches[3:]))


def test_where_nothing_can_be_captured_it_is_said_once_and_the_steps_go_on(bench: Bench) -> None:
    fault = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    batches = _batches(_clip(), 3)
    found = _run(bench.processor(bench.network(), fault), batches)
    assert _equal(found, _run(bench.plain(bench.network()), batches))
    assert len(bench.notes) == 1 and "no CUDA graph" in bench.notes[0] and "previous error" in bench.notes[0]
    assert bench.runner.log == ["renew"], "nothing that the capture may have broken is used again"


def test_a_step_that_waits_for_the_device_cannot_be_captured(bench: Bench) -> None:
    class Waiting(_BlindToWhite):
        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            assert inputs[0].mean().item() < 1
            return self._engine(*inputs)

    _run(bench.processor(bench.network(lambda precision: Waiting(bench.engine(precision)))), _batches(_clip(), 3))
    assert len(bench.notes) == 1 and "not permitted" in bench.notes[0]


def _out_of_memory(*, is_hidden: bool) -> RuntimeError:
    """Memory that runs out in a capture, whose end may raise an error of its own."""
    lack = torch.OutOfMemoryError("CUDA out of memory")
    if not is_hidden:
        return lack
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = lack
    return error


@pytest.mark.parametrize("is_hidden", [False, True])
def test_memory_that_runs_out_in_a_capture_shrinks_the_batch_and_then_ends_graphs(
    bench: Bench, is_hidden: bool
) -> None:
    batches = _batches(_clip(), 4)
    wanted = _run(bench.plain(bench.network()), batches)
    assert _equal(_run(bench.processor(bench.network(), _out_of_memory(is_hidden=is_hidden)), batches), wanted)
    assert bench.notes == ["out of memory: going on with batches of 2"] and bench.runner.num_captures == 1
    bench.notes.clear()
    faults = [_out_of_memory(is_hidden=is_hidden) for _ in range(2)]
    assert _equal(_run(bench.processor(bench.network(), *faults), batches), wanted)
    assert bench.runner.num_captures == 0
    assert bench.notes[0] == "out of memory: going on with batches of 2"
    assert len(bench.notes) == 2 and "no CUDA graph" in bench.notes[1]


def test_memory_for_a_graph_is_given_up_before_a_job_of_single_frames(bench: Bench) -> None:
    batches = _batches(_clip(), 1)
    found = _run(bench.processor(bench.network(), _out_of_memory(is_hidden=False)), batches)
    assert _equal(found, _run(bench.plain(bench.network()), batches))
    assert len(bench.notes) == 1 and "no CUDA graph" in bench.notes[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_on_a_gpu_replayed_steps_give_the_bits_of_steps_without(
    net: RecurrentNet, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for has_graphs in (True, False):
        if not has_graphs:
            monkeypatch.setattr(temporal, "make_runner", lambda device: None)
        network = CheckedNetwork(
            replace(CARD), lambda precision: TorchEngine(net, torch.device("cuda"), precision), precision
        )
        processor = TemporalProcessor(network, _target())
        runs.append(_run(processor, _batches(_clip(), 4)))
        assert processor.is_graphed == has_graphs
    assert _equal(*runs)
