"""Run networks with TensorRT 10 and 11: one built engine, one set of buffers, one CUDA graph per shape.

Only names of the Python API that both versions have are used; a test reads this file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vsr.backends.cuda_runner import CudaRunner, DeviceRunner
from vsr.backends.engine import PRECISIONS, Launch, Precision, Signature
from vsr.backends.engine_store import EngineStore
from vsr.backends.tensorrt_builder import (
    EngineBuilder,
    Shape,
    Source,
    fresh_logger,
    load_tensorrt,
    one_line,
    raise_if_out_of_memory,
)
from vsr.errors import EngineError, MissingExtraError
from vsr.events import Note, NoteCode, OnNote

__all__ = ["TensorRTEngine", "make_tensorrt_engine"]


def make_tensorrt_engine(
    net: nn.Module,
    signature: Signature,
    *,
    precision: Precision,
    device: torch.device,
    note: OnNote = lambda line: None,
    label: str = "",
    make_runner: Callable[[torch.device], DeviceRunner] = CudaRunner,
) -> TensorRTEngine:
    """Make an engine for a network; for each shape it is loaded, or built and kept, when the shape is first seen.

    Raises EngineError, in one line, where the library, a supported version of it or a GPU is missing.

    Args:
        note: called with a line when an engine is built, and where one is damaged.
        label: the model's name, for `vsr engine list`.
    """
    runner = make_runner(device)
    try:
        trt = load_tensorrt()
    except MissingExtraError as error:
        raise EngineError(str(error)) from error
    maker = EngineBuilder(trt, Source(net, signature, precision, label), runner, EngineStore(), note)
    return TensorRTEngine(maker, runner, note)


class TensorRTEngine:
    """See `Engine`. Safe to call from several threads, one at a time.

    A batch smaller than one that is ready for the same image size runs inside that one: a clip's last
    few frames are not worth a build of their own. Out of memory (torch.OutOfMemoryError) lets go of
    everything, so that the next, smaller call finds room. Anything else that fails is an EngineError.
    """

    def __init__(self, maker: EngineBuilder, runner: DeviceRunner, note: OnNote) -> None:
        self.precision = precision = maker.source.precision
        self.device, self.dtype = runner.device, PRECISIONS[precision]
        self.name = f"TensorRT {maker.trt.__version__}, {runner.gpu.name}, {precision}"
        self._builder, self._runner, self._note = maker, runner, note
        self._plans: dict[Shape, _Plan] = {}
        self._lent: dict[Shape, Any] = {}  # engines, without buffers here, of `make_launch`
        self._has_graphs = True
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for (name, channels), x in zip(self._builder.source.signature.inputs, inputs, strict=True):
            if x.shape[1] != channels:
                raise EngineError(f"the network takes {channels} channels as {name}, not {x.shape[1]}")
        batch, channels, height, width = inputs[0].shape
        with self._lock, self._runner.active(), self._errors_named():
            try:
                return self._plan((batch, channels, height, width)).run(inputs)
            except _CaptureError as error:
                self._give_up_graphs(str(error))
            return self._plan((batch, channels, height, width)).run(inputs)

    @torch.inference_mode()
    def prepare(self, shape: Shape) -> None:
        """Load or build the engine for a shape, (N, C, H, W) of the first input. Raises what a call raises."""
        with self._lock, self._runner.active(), self._errors_named():
            if shape not in self._plans:
                self._plans[shape] = self._new_plan(shape)

    @torch.inference_mode()
    def make_launch(self, runner: DeviceRunner, shape: Shape) -> Launch:
        """See `make_launch`: a call enqueues the engine, in an execution context and buffers of its own.

        They take the place of those that are here, which go; calls may follow all the same, and make them anew. The
        first call of the result must be no part of a capture.
        """
        with self._lock, self._runner.active(), self._errors_named():
            self._runner.wait()
            plan = self._plans.pop(shape, None)
            self._lent[shape] = self._loaded(shape) if plan is None else plan.engine
            del plan
            return _Plan(self._builder, self._lent[shape], runner, shape, has_graph=False).launch

    def build_nothing(self) -> None:
        """Use engines that are kept, and raise EngineError for other shapes: for jobs that are over before a build."""
        self._builder.may_build = False

    def release(self) -> None:
        """Let go of all buffers; smaller batches follow, which would run padded inside the plans of larger ones."""
        with self._lock, self._runner.active():
            self._runner.wait()
            self._let_go()

    def _plan(self, shape: Shape) -> _Plan:
        larger = [other for other in self._plans if other[1:] == shape[1:] and other[0] >= shape[0]]
        if larger:
            return self._plans[min(larger)]
        self._plans[shape] = self._new_plan(shape)
        return self._plans[shape]

    def _new_plan(self, shape: Shape) -> _Plan:
        return _Plan(self._builder, self._loaded(shape), self._runner, shape, has_graph=self._has_graphs)

    def _loaded(self, shape: Shape) -> Any:
        return self._lent[shape] if shape in self._lent else self._builder.engine(shape)

    def _let_go(self) -> None:
        self._plans.clear()
        self._lent.clear()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except MissingExtraError as error:  # of the export
            raise EngineError(str(error)) from error
        except (RuntimeError, AttributeError, TypeError, ValueError, ImportError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
                self._runner.wait()
                self._let_go()
                raise
            # What the bindings raise by themselves, say where an early 10.x lacks a name of the API.
            raise EngineError(f"TensorRT {self._builder.trt.__version__}: {one_line(str(error))}") from error

    def _give_up_graphs(self, why: str) -> None:
        """Let go of all that a failed capture may have left in an unknown state: engines, buffers, the stream."""
        self._note(Note(NoteCode.ENGINE, f"TensorRT runs without a CUDA graph, and slower ({why})"))
        self._has_graphs = False
        self._let_go()
        self._runner.renew()


class _CaptureError(Exception):
    """A CUDA graph cannot be captured; the stream of the capture is not to be used any more."""


class _Plan:
    """An engine with its buffers, ready for one shape. The first run is plain, the second becomes a graph.

    TensorRT needs one run before a capture; and a shape that is seen once needs no graph. Inputs, outputs
    and scratch memory are torch's, at addresses that stay as long as the plan.
    """

    def __init__(
        self,
        maker: EngineBuilder,
        engine: Any,
        runner: DeviceRunner,
        shape: Shape,
        *,
        has_graph: bool,
    ) -> None:
        trt, logger = maker.trt, fresh_logger(maker.trt)
        self.engine = engine
        self._runner, self._has_graph, self._reason = runner, has_graph, logger.reason
        inputs = {name: runner.zeros(shape, torch.float32) for name, shape in maker.input_shapes(shape).items()}
        outputs = {
            name: runner.zeros(tuple(engine.get_tensor_shape(name)), torch.float32)
            for name in maker.source.signature.outputs
        }
        self._inputs, self._outputs = tuple(inputs.values()), tuple(outputs.values())
        # At least a byte, so that there is an address.
        self._scratch = runner.zeros((max(1, engine.device_memory_size_v2),), torch.uint8)
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise_if_out_of_memory(logger)
            raise EngineError(f"TensorRT gives no execution context ({logger.reason()})")
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
        for name, buffer in (inputs | outputs).items():
            if not context.set_tensor_address(name, buffer.data_ptr()):
                raise EngineError(f"TensorRT refuses the buffer of '{name}' ({logger.reason()})")
        self._context = context
        self._has_run = False
        self._replay: Callable[[], None] | None = None

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute n frames, n at most the batch of the shape; any strides. The results are the caller's to keep.

        Raises _CaptureError; the plan is then not to be used any more.
        """
        num_frames = inputs[0].shape[0]
        with self._runner.turn():
            for buffer, x in zip(self._inputs, inputs, strict=True):
                buffer[:num_frames].copy_(x)
            if self._has_run and self._has_graph and self._replay is None:
                self._replay = self._captured()
            (self._replay or self._enqueue)()
            self._has_run = True
        return tuple(self._runner.copy_out(buffer[:num_frames]) for buffer in self._outputs)

    def launch(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Queue the engine on the runner's stream, which is the current one; the next call overwrites the outputs."""
        for buffer, x in zip(self._inputs, inputs, strict=True):
            buffer.copy_(x)
        self._enqueue()
        return self._outputs

    def _captured(self) -> Callable[[], None]:
        try:
            return self._runner.capture(self._enqueue)
        except (RuntimeError, EngineError) as error:
            raise _CaptureError(one_line(str(error))) from error

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._runner.stream_handle):
            raise EngineError(f"TensorRT does not run the engine ({self._reason()})")
