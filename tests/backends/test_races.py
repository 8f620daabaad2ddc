"""Races between streams, found without a GPU: which accesses happen before which, around the real transfers and runner.

A pretended `torch.cuda` gives each stream, and the host, a vector clock. Work that is queued on a stream happens after
what the stream has waited for, and the host's wait for an event after what the event marks. Each piece of work reads
and writes buffers; two accesses of which one writes, and neither happens before the other, are a race. Memory that
PyTorch gets back is written to by the next owner, on the stream that it was allocated for, at once: only
`record_stream` puts that off. Then every wait and every record is left out, one at a time, and must be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vsr.backends import cuda_runner, step_graph, transfers
from vsr.backends.cuda_runner import CudaRunner
from vsr.backends.step_graph import StepGraph
from vsr.backends.transfers import PinnedTransfers
from vsr.media.read import gpu_frames

Clock = dict[str, int]


class RaceError(Exception):
    pass


def _joined(a: Clock, b: Clock) -> Clock:
    return {name: max(a.get(name, 0), b.get(name, 0)) for name in a.keys() | b.keys()}


@dataclass
class Buffer:
    """Memory, and who has last written and read it: by stream, the stream's count at that time."""

    name: str
    owner: Stream | None  # the stream that it was allocated for; None for page-locked memory
    last_write: tuple[str, int] | None = None
    reads: Clock = field(default_factory=dict)
    recorded: list[Stream] = field(default_factory=list)

    def check_write(self, clock: Clock, what: str) -> None:
        accesses = [*self.reads.items(), *([self.last_write] if self.last_write else [])]
        for stream, count in accesses:
            if clock.get(stream, 0) < count:
                raise RaceError(f"{what} writes {self.name} while {stream} may be at it")

    def check_read(self, clock: Clock, what: str) -> None:
        if self.last_write and clock.get(self.last_write[0], 0) < self.last_write[1]:
            raise RaceError(f"{what} reads {self.name} before {self.last_write[0]} has written it")


class Model:
    """The pretended GPU. left_out: a call that has no effect, as "WHO waits for WHOM"."""

    def __init__(self, left_out: str = "") -> None:
        self.left_out, self.was_left_out = left_out, False
        self.host = Stream(self, "host")
        self.caller = self.current = Stream(self, "caller")
        self.default = Stream(self, "default")
        self.num_streams = 0
        self.graphs = list[Graph]()
        self.captured: list[Callable[[], None]] | None = None  # work, while it is captured

    def has_effect(self, call: str) -> bool:
        self.was_left_out = self.was_left_out or call == self.left_out
        return call != self.left_out

    def work(self, what: str, reads: tuple[Buffer, ...] = (), writes: tuple[Buffer, ...] = ()) -> None:
        """Queue work on the current stream, or write it down for a graph."""
        if self.captured is None:
            self.current.work(what, reads, writes)
        else:
            self.captured.append(lambda: self.current.work(what, reads, writes))

    def free(self, buffer: Buffer) -> None:
        """Give memory back: its next owner writes to it at once, on the stream that it is of."""
        assert buffer.owner is not None
        clock = _joined(buffer.owner.clock, self.host.clock)
        for stream in buffer.recorded:
            clock = _joined(clock, stream.clock)
        buffer.check_write(clock, "the next owner")

    def torch(self) -> SimpleNamespace:
        @contextmanager
        def on(stream: Stream) -> Iterator[None]:
            before, self.current = self.current, stream
            yield
            self.current = before

        def make_stream(device: Any) -> Stream:
            self.num_streams += 1
            return Stream(self, f"stream {self.num_streams}")

        @contextmanager
        def capture(graph: Graph, **options: Any) -> Iterator[None]:
            self.captured = graph.work
            yield
            self.captured = None

        def zeros(shape: Any, **options: Any) -> Plane:
            buffer = Buffer("a buffer of the graph", self.current)
            self.work("the zeros", (), (buffer,))
            return Plane(self, buffer)

        cuda = SimpleNamespace(
            CUDAGraph=lambda: Graph(self),
            graph=capture,
            Stream=make_stream,
            Event=lambda blocking=False: Event(self),
            stream=on,
            current_stream=lambda device: self.current,
            default_stream=lambda device: self.default,
            device=lambda device: nullcontext(),
            current_device=lambda: 0,
            is_available=lambda: True,
            get_device_capability=lambda device: (9, 0),
            get_device_name=lambda device: "Pretended GPU",
        )
        empty_like = lambda x, **options: Plane(self, Buffer("page-locked result", None))  # noqa: E731
        empty = lambda shape, **options: Plane(self, Buffer("page-locked frame", None))  # noqa: E731
        made = {"zeros": zeros, "empty_like": empty_like, "empty": empty}
        return SimpleNamespace(cuda=cuda, device=torch.device, Tensor=torch.Tensor, **made)


class Stream:
    def __init__(self, model: Model, name: str) -> None:
        self._model, self.name, self.clock = model, name, {name: 0}

    def work(self, what: str, reads: tuple[Buffer, ...], writes: tuple[Buffer, ...]) -> None:
        self.clock = _joined(self.clock, self._model.host.clock)  # the host has queued it
        for buffer in reads:
            buffer.check_read(self.clock, what)
        for buffer in writes:
            buffer.check_write(self.clock, what)
        self.clock[self.name] += 1
        for buffer in reads:
            buffer.reads[self.name] = self.clock[self.name]
        for buffer in writes:
            buffer.last_write, buffer.reads = (self.name, self.clock[self.name]), {}

    def wait_stream(self, other: Stream) -> None:
        if self._model.has_effect(f"{self.name} waits for {other.name}"):
            self.clock = _joined(self.clock, other.clock)

    def wait_event(self, event: Event) -> None:
        if self._model.has_effect(f"{self.name} waits for an event"):
            self.clock = _joined(self.clock, event.clock)

    def synchronize(self) -> None:
        if self._model.has_effect(f"the host waits for {self.name}"):
            self._model.host.clock = _joined(self._model.host.clock, self.clock)


class Graph:
    """Work that is queued again at each replay, on the current stream."""

    def __init__(self, model: Model) -> None:
        self._model, self.work = model, list[Callable[[], None]]()
        self._last: tuple[str, int] | None = None
        model.graphs.append(self)

    def replay(self) -> None:
        for queue in self.work:
            queue()
        self._last = (self._model.current.name, self._model.current.clock[self._model.current.name])

    def destroy(self) -> None:
        if self._last and self._model.host.clock.get(self._last[0], 0) < self._last[1]:
            raise RaceError("a graph goes while it may still run")


class Event:
    def __init__(self, model: Model) -> None:
        self._model, self.clock = model, Clock()

    def record(self, stream: Stream) -> None:
        if self._model.has_effect(f"an event is recorded on {stream.name}"):
            self.clock = dict(stream.clock)

    def synchronize(self) -> None:
        if self._model.has_effect("the host waits for an event"):
            self._model.host.clock = _joined(self._model.host.clock, self.clock)


class Plane:
    """A tensor of the pretended GPU."""

    is_cuda, shape, dtype, device = True, (2, 3), torch.uint8, torch.device("cuda")

    def __init__(self, model: Model, buffer: Buffer) -> None:
        self._model, self.buffer = model, buffer

    def pin_memory(self) -> Plane:
        pinned = Buffer("page-locked upload", None)
        self._model.host.work("the host", (self.buffer,), (pinned,))
        return Plane(self._model, pinned)

    def to(self, device: Any, non_blocking: bool = False) -> Plane:
        moved = Buffer("uploaded plane", self._model.current)
        self._model.work("the upload", (self.buffer,), (moved,))
        return Plane(self._model, moved)

    def copy_(self, source: Plane, non_blocking: bool = False) -> None:
        self._model.work("the download", (source.buffer,), (self.buffer,))

    def zero_(self) -> None:
        self._model.work("the zeros", (), (self.buffer,))

    def is_contiguous(self) -> bool:
        return False

    def permute(self, *order: int) -> Plane:
        return self

    def __getitem__(self, part: object) -> Plane:
        return self

    def new_empty(self, shape: Any) -> Plane:
        return Plane(self._model, Buffer("a result", self._model.current))

    def clone(self) -> Plane:
        copy = Buffer("copy of the output", self._model.current)
        self._model.work("the copy", (self.buffer,), (copy,))
        return Plane(self._model, copy)

    def record_stream(self, stream: Stream) -> None:
        if self._model.has_effect(f"{self.buffer.name} is recorded for {stream.name}"):
            self.buffer.recorded.append(stream)


def _move_planes(model: Model) -> None:
    """Run batches with one in flight: upload, compute, download, let go; then read the result of the one before."""
    moving: Any = PinnedTransfers(torch.device("cpu"))
    waiting: list[Callable[[], tuple[Plane, ...]]] = []
    for _ in range(4):
        (moved,) = moving.upload((Plane(model, Buffer("decoded plane", None)),))
        out = Buffer("upscaled plane", model.current)
        model.work("the network", (moved.buffer,), (out,))
        waiting.append(moving.download((Plane(model, out),)))
        model.free(moved.buffer)
        model.free(out)
        if len(waiting) > 1:
            _read(model, waiting.pop(0))
    _read(model, waiting.pop())


def _read(model: Model, fetch: Callable[[], tuple[Plane, ...]]) -> None:
    (fetched,) = fetch()
    model.host.work("the encoder", (fetched.buffer,), ())


def _run_engine(model: Model) -> None:
    """Run one engine, whose buffers stay, for two callers on streams of their own."""
    runner, other = CudaRunner(torch.device("cuda")), Stream(model, "another caller")
    inside, outside = Buffer("the engine's input", None), Buffer("the engine's output", None)
    for caller in (model.caller, other, model.caller, other):
        model.current = caller
        x = Buffer("the caller's input", caller)
        model.work("the caller", (), (x,))
        with runner.turn():
            model.work("the engine's copy", (x,), (inside,))
            model.work("the engine", (inside,), (outside,))
        copy: Any = runner.copy_out(Plane(model, outside))  # type: ignore[arg-type]
        model.free(x)
        model.work("the caller", (copy.buffer,), ())
        model.free(copy.buffer)


def _run_steps(model: Model) -> None:
    """Run passages of a recurrent network as a graph, each from the state of the one before; then let the graph go."""

    def step(*inputs: Any) -> Any:
        outputs = tuple(Buffer(f"the graph's {name}", model.current) for name in ("image", "state", "flag"))
        model.work("the step", tuple(x.buffer for x in inputs), outputs)
        return tuple(Plane(model, buffer) for buffer in outputs)

    def frames() -> Any:
        model.work("the caller", (), (made := Buffer("the caller's frames", model.caller),))
        return Plane(model, made)

    graph, state = StepGraph(CudaRunner(torch.device("cuda")), step, (frames(),), (1, 2, 3, 4), torch.uint8), None
    for _ in range(3):
        before, x = state, frames()
        done: Any = graph.run([(x,), (x,)], [True, True], state)
        model.work("the caller", (done.images[0].buffer, done.are_finite.buffer), ())
        for let_go in (x, *done.images, done.are_finite, *([] if before is None else [before])):
            model.free(let_go.buffer)
        state = done.state
    graph.close()
    for each in model.graphs:
        each.destroy()


def _fetch_frames(model: Model) -> None:
    """Decode to one surface again and again, on the default stream; the frame before is with the reader by then."""
    surface = Buffer("the decoder's surface", None)
    for _ in range(3):
        model.default.work("the decoder", (), (surface,))
        planes: Any = [Plane(model, surface)]
        (held,) = gpu_frames.copied(planes)
        fetched: Any = held
        model.host.work("the reader", (fetched.buffer,), ())
        model.caller.work("the network", (), (Buffer("what it computes", None),))


# The first stream that transfers make is for uploads, the second for downloads; a runner makes one.
MUTATIONS = [
    (_move_planes, "caller waits for stream 1"),
    (_move_planes, "uploaded plane is recorded for caller"),
    (_move_planes, "stream 2 waits for caller"),
    (_move_planes, "upscaled plane is recorded for stream 2"),
    (_move_planes, "an event is recorded on stream 2"),
    (_move_planes, "the host waits for an event"),
    (_fetch_frames, "an event is recorded on default"),
    (_fetch_frames, "the host waits for an event"),
    (_run_steps, "stream 1 waits for caller"),
    (_run_steps, "caller waits for stream 1"),
    (_run_steps, "the host waits for stream 1"),
    (_run_engine, "stream 1 waits for caller"),
    (_run_engine, "stream 1 waits for an event"),
    (_run_engine, "caller waits for stream 1"),
    (_run_engine, "an event is recorded on caller"),
]

# What a runner does for engines, whose outputs are copied after a turn; steps are copied within it.
NOT_NEEDED = {(_run_steps, "stream 1 waits for an event")}
RUNS = [_move_planes, _fetch_frames, _run_engine, _run_steps]


def _model(monkeypatch: pytest.MonkeyPatch, left_out: str = "") -> Model:
    model = Model(left_out)
    for module in (cuda_runner, transfers, gpu_frames):
        monkeypatch.setattr(module, "torch", model.torch())
    monkeypatch.setattr(step_graph, "torch", SimpleNamespace(empty_like=lambda x: x.new_empty(x.shape)))
    return model


@pytest.mark.parametrize("run", RUNS)
def test_no_two_accesses_race(run: Callable[[Model], None], monkeypatch: pytest.MonkeyPatch) -> None:
    run(_model(monkeypatch))


@pytest.mark.parametrize(("run", "left_out"), MUTATIONS)
def test_each_wait_and_each_record_is_needed(
    run: Callable[[Model], None], left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(monkeypatch, left_out)
    with pytest.raises(RaceError):
        run(model)
    assert model.was_left_out


@pytest.mark.parametrize("run", RUNS)
def test_no_wait_or_record_is_forgotten_here(run: Callable[[Model], None], monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(monkeypatch)
    calls = set[str]()
    monkeypatch.setattr(model, "has_effect", lambda call: not calls.add(call))  # type: ignore[func-returns-value]
    run(model)
    tried = {call for tried_run, call in (*MUTATIONS, *NOT_NEEDED) if tried_run is run}
    mirrored = {call.replace("another caller", "caller") for call in calls}
    assert mirrored == tried
