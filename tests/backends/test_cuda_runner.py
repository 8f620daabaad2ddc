"""The CUDA side: on a GPU where there is one, and the order of its calls on a pretended `torch.cuda`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vsr.backends import cuda_runner, engine, transfers
from vsr.backends.cuda_runner import CudaRunner
from vsr.backends.transfers import DirectTransfers, MetalTransfers, PinnedTransfers, make_transfers
from vsr.color.conversion import sample_dtype
from vsr.errors import EngineError
from vsr.frames import ChromaLocation, Color, Matrix, Primaries, Range, Transfer
from vsr.pipeline.stages import failure_named


class Calls:
    """A `torch.cuda` that writes down what is asked of its streams, events and graphs."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = self._stream("caller", 0)
        self.num_made = 0

    def _stream(self, name: str, handle: int) -> SimpleNamespace:
        return SimpleNamespace(
            name=name,
            cuda_stream=handle,
            wait_stream=lambda other: self.log.append(f"{name} waits for {other.name}"),
            wait_event=lambda event: self.log.append(f"{name} waits for an event"),
            synchronize=lambda: self.log.append(f"synchronize {name}"),
        )

    def module(self) -> SimpleNamespace:
        def make_stream(device: torch.device) -> SimpleNamespace:
            self.num_made += 1
            return self._stream(f"stream {self.num_made}", 7 + self.num_made)

        def make_event(blocking: bool = False) -> SimpleNamespace:
            def record(stream: Any) -> None:
                self.log.append(f"event on {stream.name}")

            how = "sleep until" if blocking else "spin until"
            return SimpleNamespace(record=record, synchronize=lambda: self.log.append(f"{how} the event"))

        @contextmanager
        def stream(chosen: Any) -> Iterator[None]:
            before, self.current = self.current, chosen
            yield
            self.current = before

        @contextmanager
        def graph(made: Any, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
            self.log.append(f"capture on {stream.name}, {capture_error_mode}")
            yield

        return SimpleNamespace(
            Stream=make_stream,
            Event=make_event,
            CUDAGraph=lambda: SimpleNamespace(replay=lambda: self.log.append("replay")),
            stream=stream,
            graph=graph,
            current_stream=lambda device: self.current,
            current_device=lambda: 0,
            is_available=lambda: True,
            get_device_capability=lambda device: (9, 0),
            get_device_name=lambda device: "Pretended GPU",
            empty_cache=lambda: self.log.append("empty cache"),
        )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    pretended = SimpleNamespace(**{name: getattr(torch, name) for name in ("device", "Tensor", "zeros", "dtype")})
    pretended.cuda = calls.module()
    pretended.empty_like = lambda x, **kwargs: torch.empty_like(x)
    monkeypatch.setattr(cuda_runner, "torch", pretended)
    monkeypatch.setattr(transfers, "torch", pretended)
    return calls


def test_a_device_that_is_no_cuda_gpu_is_refused() -> None:
    with pytest.raises(EngineError, match=r"NVIDIA GPU.*'cpu'"):
        CudaRunner(torch.device("cpu"))


def test_a_turn_waits_for_the_caller_and_the_caller_for_the_turn(calls: Calls) -> None:
    runner = CudaRunner(torch.device("cuda"))
    assert runner.stream_handle != 0 and runner.device == torch.device("cuda", 0)
    assert (runner.gpu.name, runner.gpu.compute_capability) == ("Pretended GPU", "9.0")
    with runner.turn():
        calls.log.append(f"work on {calls.current.name}")
    copy = runner.copy_out(torch.ones(2))
    assert torch.equal(copy, torch.ones(2))
    assert calls.log == [
        "stream 1 waits for caller",
        "stream 1 waits for an event",
        "work on stream 1",
        "caller waits for stream 1",
        "event on caller",
    ]


def test_the_caller_waits_also_when_the_turn_fails(calls: Calls) -> None:
    runner = CudaRunner(torch.device("cuda"))
    with pytest.raises(EngineError), runner.turn():
        raise EngineError
    assert calls.log[-1] == "caller waits for stream 1"


def test_a_capture_is_of_this_thread_and_replays(calls: Calls) -> None:
    runner = CudaRunner(torch.device("cuda"))
    replay = runner.capture(lambda: calls.log.append("launch"))
    replay()
    assert calls.log == ["capture on stream 1, thread_local", "launch", "replay"]


def test_captures_of_two_threads_follow_each_other(calls: Calls) -> None:
    is_second_here, is_second_captured = threading.Event(), threading.Event()

    def capture_second() -> None:
        is_second_here.set()
        CudaRunner(torch.device("cuda")).capture(is_second_captured.set)

    second = threading.Thread(target=capture_second)

    def launch() -> None:
        second.start()
        assert is_second_here.wait(60)
        assert not is_second_captured.wait(0.2), "captured within another capture"

    CudaRunner(torch.device("cuda")).capture(launch)
    second.join(60)
    assert is_second_captured.is_set()


def test_planes_go_up_and_down_on_streams_of_their_own(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x.clone())
    used = lambda x, stream: calls.log.append(f"kept for {stream.name}")  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "record_stream", used)
    planes = PinnedTransfers(torch.device("cpu"))
    (moved,) = planes.upload((torch.arange(4, dtype=torch.uint8),))
    fetch = planes.download((moved,))
    assert not any("until the event" in line for line in calls.log)  # nobody has waited yet
    assert torch.equal(fetch()[0], torch.arange(4, dtype=torch.uint8))
    assert calls.log == [
        "caller waits for stream 1",
        "kept for caller",
        "stream 2 waits for caller",
        "kept for stream 2",
        "event on stream 2",
        "sleep until the event",  # and leave the core to the encoder
    ]


def test_metal_gets_no_unsigned_16_bits_and_gives_them_back() -> None:
    """PyTorch before 2.9 has no such type there; what the colour path makes for it is int32 as well."""
    assert isinstance(make_transfers(torch.device("mps")), MetalTransfers)
    planes = (torch.tensor([0, 1, 65535], dtype=torch.uint16), torch.arange(3, dtype=torch.uint8), torch.tensor(True))
    metal = MetalTransfers(torch.device("cpu"))
    moved = metal.upload(planes)
    assert [plane.dtype for plane in moved] == [torch.int32, torch.uint8, torch.bool]
    deep = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.FULL, ChromaLocation.LEFT, 16)
    assert sample_dtype(deep, torch.device("mps")) == torch.int32
    assert sample_dtype(deep, torch.device("cuda")) == sample_dtype(deep, torch.device("cpu")) == torch.uint16
    back = metal.download(moved)()
    assert all(a.dtype == b.dtype and a.tolist() == b.tolist() for a, b in zip(back, planes, strict=True))


def test_a_type_that_a_device_lacks_is_an_engine_error_in_one_line() -> None:
    message = "Trying to convert UInt16 to the MPS backend but it does not have support for that dtype."
    engine = SimpleNamespace(name="PyTorch, mps", device=torch.device("mps"))
    expected = r"in.mp4: PyTorch, mps failed \(Trying to convert UInt16.*`device=cpu`"
    runs = SimpleNamespace(engine=engine)
    with pytest.raises(EngineError, match=expected), failure_named("in.mp4", runs):  # type: ignore[arg-type]
        raise TypeError(message)


def test_without_cuda_planes_are_handed_on_as_they_are() -> None:
    plane = torch.arange(6)
    direct = make_transfers(torch.device("cpu"))
    assert isinstance(direct, DirectTransfers)
    assert direct.upload((plane,))[0] is plane and direct.download((plane,))()[0] is plane


@pytest.mark.gpu
def test_on_a_gpu_a_graph_gives_what_the_first_run_gave() -> None:
    runner = CudaRunner(torch.device("cuda"))
    source, result = runner.zeros((1 << 20,), torch.float32), runner.zeros((1 << 20,), torch.float32)
    outs, replay = [], None
    for value in range(4):
        with runner.turn():
            source.fill_(value)
            if value == 1:
                replay = runner.capture(lambda: result.copy_(source * 2))
            if replay is None:
                result.copy_(source * 2)
            else:
                replay()
        outs.append(runner.copy_out(result))
    assert [out.unique().tolist() for out in outs] == [[0], [2], [4], [6]]
    runner.wait()


@pytest.mark.gpu
def test_on_a_gpu_planes_come_back_as_they_went() -> None:
    planes = tuple(torch.randint(0, 255, (2, 1, 64, 65), dtype=torch.uint8) for _ in range(3))
    moving = make_transfers(torch.device("cuda"))
    fetches = [moving.download(tuple(plane + 1 for plane in moving.upload(planes))) for _ in range(5)]
    for fetch in fetches:
        assert all(torch.equal(got, plane + 1) for got, plane in zip(fetch(), planes, strict=True))


def test_the_work_of_a_thread_is_queued_beside_the_default_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    entered: list[object] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(entered.append(stream)))
    engine._stream_of.cache_clear()
    for device in ("cuda:0", "cuda:1", "cuda:0", "cpu"):
        with engine.own_stream(torch.device(device)):
            pass
    engine._stream_of.cache_clear()
    assert entered == ["stream of cuda:0", "stream of cuda:1", "stream of cuda:0"]
    assert len(made) == 2, "one for each GPU, so that the work of a job follows on that of the one before"
