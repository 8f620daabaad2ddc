"""A step as a CUDA graph, on its stand-in: with PyTorch's engine, and TensorRT's on its double."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
import test_conformance
import torch
from graph_double import GraphRunner, Recording
from tensorrt_double import VERSIONS, Device
from torch import Tensor

from vsr.backends import tensorrt_builder
from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import Engine, make_launch
from vsr.backends.select import _Fallback
from vsr.backends.step_graph import Frame, StepGraph
from vsr.backends.tensorrt_engine import make_tensorrt_engine
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError

CPU = torch.device("cpu")
HEIGHT, WIDTH = 19, 26
STATE = (1, 6, HEIGHT, WIDTH)


class _AtOnce(list[Callable[[], None]]):
    """A queue for a stream beside whose work PyTorch's is done at once."""

    def append(self, operation: Callable[[], None]) -> None:
        operation()


class _OnDevice(GraphRunner):
    """Graphs on the GPU that the double of TensorRT pretends."""

    def __init__(self, double: Device) -> None:
        super().__init__()
        self._double = double

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self._double.allocate(shape, dtype)

    @contextmanager
    def turn(self) -> Iterator[None]:
        assert not self._double.in_turn, "within a turn of the engine's own stream"
        with super().turn():
            self._double.in_turn, self._double.queue = True, _AtOnce()
            self._double.current_stream = self.stream_handle
            try:
                yield
            finally:
                self._double.in_turn, self._double.queue = False, []

    def recording(self) -> Recording:
        recording = super().recording()
        self._double.captured = recording.operations
        return recording

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        try:
            return super().capture(launch)
        finally:
            self._double.captured = None


class Bench:
    """An engine of a small network with a state, and a runner for graphs on its device."""

    def __init__(self, engine: Engine, runner: GraphRunner, device: Device | None) -> None:
        self.engine, self.runner, self.device = engine, runner, device

    def graph(self) -> StepGraph:
        launch = make_launch(self.engine, self.runner, (1, 2, HEIGHT, WIDTH))
        assert launch is not None

        def step(x: Tensor, state: Tensor) -> tuple[Tensor, ...]:
            outputs = launch(x, state / 2)
            return (*outputs, torch.isfinite(outputs[0].sum()))

        return StepGraph(self.runner, step, _frames(1)[0], STATE, torch.float32)

    def plain(self, frames: Sequence[Frame], state: Tensor) -> tuple[list[Tensor], Tensor]:
        images = []
        for (x,) in frames:
            image, _, state = self.engine(x, state / 2)
            images.append(image)
        return images, state


@pytest.fixture(params=["pytorch", *VERSIONS])
def bench(
    request: pytest.FixtureRequest,
    install_tensorrt: Callable[[str], Device],
    export_once: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    net = test_conformance.stepping_net()
    if request.param == "pytorch":
        return Bench(TorchEngine(net, CPU, "fp32"), GraphRunner(), None)
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path))
    monkeypatch.setattr(tensorrt_builder, "export_onnx", lambda *args, **kwargs: _exported(export_once, net))
    device = install_tensorrt(request.param)
    signature, make_runner = test_conformance.STEPPING, device.make_runner
    engine = make_tensorrt_engine(net, signature, precision="fp32", device=CPU, make_runner=make_runner)
    other: Any = lambda *why: pytest.fail(f"PyTorch takes over {why}")  # noqa: E731
    return Bench(_Fallback(engine, other, other), _OnDevice(device), device)


def _exported(export_once: Callable[..., bytes], net: torch.nn.Module) -> bytes:
    model = onnx.load_from_string(export_once(net, test_conformance.STEPPING, precision="fp32", beside_integers="fp16"))
    for tensor, scale in zip((*model.graph.input, *model.graph.output), (1, 1, 3, 2, 1), strict=True):
        for axis, length in ((0, 1), (2, HEIGHT * scale), (3, WIDTH * scale)):
            tensor.type.tensor_type.shape.dim[axis].dim_value = length
    return model.SerializeToString()


def _frames(num: int) -> list[Frame]:
    generator = torch.Generator().manual_seed(4)
    return [(torch.rand(1, 2, HEIGHT, WIDTH, generator=generator),) for _ in range(num)]


@torch.inference_mode()
def test_steps_as_a_graph_are_those_of_the_engine(bench: Bench) -> None:
    """And stay so where the engine runs beside the graph, and lets go of its own buffers."""
    frames, graph = _frames(7), bench.graph()
    wanted, state = bench.plain(frames[:4], torch.zeros(STATE))
    first = graph.run(frames[:4], [True] * 4, None)
    assert torch.equal(first.state, state) and first.are_finite.tolist() == [True] * 4
    release: Callable[[], None] = getattr(bench.engine, "release", lambda: None)
    release()
    second = graph.run(frames[4:], [True, True, False], first.state)
    more, _ = bench.plain(frames[4:6], state)
    scene, after = bench.plain(frames[6:], torch.zeros(STATE))
    assert torch.equal(torch.cat((first.images[0], second.images[0])), torch.cat((*wanted, *more, *scene)))
    assert torch.equal(second.state, after)
    assert bench.runner.num_captures == 1 and bench.runner.num_replays == 7
    assert second.images[1].shape == (3, 2, HEIGHT * 2, WIDTH * 2)


@torch.inference_mode()
def test_nan_is_told_for_the_frame_that_has_it(bench: Bench) -> None:
    frames, graph = _frames(3), bench.graph()
    frames[1] = (torch.full_like(frames[1][0], torch.nan),)
    done = graph.run(frames, [True, True, False], None)
    assert done.are_finite.tolist() == [True, False, True]


@torch.inference_mode()
def test_what_tensorrt_refuses_in_a_capture_is_an_error_and_leaves_its_engine_alone(bench: Bench) -> None:
    if bench.device is None:
        pytest.skip("PyTorch's engine has no such fault")
    bench.plain(_frames(2), torch.zeros(STATE))
    bench.device.faults.execute_in_capture = "a layer cannot be captured"
    with pytest.raises(EngineError, match="a layer cannot be captured"):
        bench.graph()
    bench.runner.renew()
    wanted, _ = bench.plain(_frames(2), torch.zeros(STATE))
    bench.device.faults.execute_in_capture = ""
    assert torch.equal(bench.graph().run(_frames(2), [True, True], None).images[0], torch.cat(wanted))


@torch.inference_mode()
def test_a_graph_takes_the_place_of_tensorrt_s_own_buffers(bench: Bench) -> None:
    """Memory that holds one set of them, and not two, is enough; and no engine is loaded twice."""
    if bench.device is None:
        pytest.skip("PyTorch's engine has no buffers")
    frames, state = _frames(3), torch.zeros(STATE)
    wanted, _ = bench.plain(frames, state)
    own = sum(block.nbytes for ref in bench.device.blocks if (block := ref()) is not None)
    bench.device.faults.memory_bytes = own + 2 * 4 * HEIGHT * WIDTH * (2 + 6)
    bench.device.faults.load = "an engine that is there already"
    graph = bench.graph()
    assert torch.equal(graph.run(frames, [True] * 3, None).images[0], torch.cat(wanted))
    bench.device.faults.memory_bytes = None
    assert torch.equal(torch.cat(bench.plain(frames, state)[0]), torch.cat(wanted))


@torch.inference_mode()
def test_the_state_goes_in_as_the_type_it_comes_out_as() -> None:
    seen: list[torch.dtype] = []

    def step(x: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        seen.append(state.dtype)
        return x + state[:, :2].float(), (state + 1).to(torch.float16), torch.isfinite(x.sum())

    graph = StepGraph(GraphRunner(), step, _frames(1)[0], STATE, torch.float32)
    assert graph.state_dtype == torch.float16 and seen[-1] == torch.float16
    done = graph.run(_frames(3), [True] * 3, None)
    assert done.state.dtype == torch.float16 and done.state.unique().tolist() == [3]


@torch.inference_mode()
def test_each_replay_is_queued_in_a_turn_of_the_device() -> None:
    runner, held = GraphRunner(), list[int]()

    @contextmanager
    def take_turn() -> Iterator[None]:
        before = runner.num_replays
        yield
        held.append(runner.num_replays - before)

    def step(x: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        return x * 2, state, torch.isfinite(x.sum())

    StepGraph(runner, step, _frames(1)[0], STATE, torch.float32).run(_frames(3), [True] * 3, None, take_turn)
    assert held == [1, 1, 1]


def test_an_engine_without_a_launch_has_none() -> None:
    class Plain:
        name, device, dtype = "plain", CPU, torch.float32

        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            return inputs

    runner: DeviceRunner = GraphRunner()
    assert make_launch(Plain(), runner, (1, 1, 8, 8)) is None
