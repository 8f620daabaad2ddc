"""The TensorRT engine, for TensorRT 10 and 11: one built engine, one set of buffers, one CUDA graph per shape.

Only names of the Python API that both versions have are used; a test reads this file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vsr.backends.cuda_runner import CudaRunner, DeviceRunner
from vsr.backends.engine import PRECISIONS, Precision
from vsr.backends.engine_store import EngineKey, EngineStore, Target
from vsr.backends.onnx_export import export_onnx, fingerprint
from vsr.errors import EngineError, MissingExtraError
from vsr.events import OnNote

__all__ = ["INPUT", "OUTPUT", "TensorRTEngine", "load_tensorrt", "make_tensorrt_engine"]

INPUT, OUTPUT = "x", "y"  # tensor names of the exported network
SUPPORTED_MAJORS = (10, 11)
OPTIMIZATION_LEVEL = 3  # of 0 to 5: above, builds take several times as long for a few per cent
LONGEST_REASON = 200  # characters

Shape = tuple[int, int, int, int]  # (N, C, H, W)


def make_tensorrt_engine(
    net: nn.Module,
    *,
    channels: int,
    precision: Precision,
    device: torch.device,
    note: OnNote = lambda line: None,
    label: str = "",
    make_runner: Callable[[torch.device], DeviceRunner] = CudaRunner,
    store: EngineStore | None = None,
) -> TensorRTEngine:
    """A network on TensorRT. Engines are loaded, or built and kept, when a shape is first seen.

    channels: of the input.  note: called with a line when an engine is built, and where one is damaged.
    label: the model's name, for `vsr engine list`.
    Raises EngineError, in one line, where the library, a supported version of it or a GPU is missing.
    """
    runner = make_runner(device)
    try:
        trt = load_tensorrt()
    except MissingExtraError as error:
        raise EngineError(str(error)) from error
    return TensorRTEngine(trt, net, channels, precision, runner, store or EngineStore(), note, label)


def load_tensorrt() -> Any:
    """The library. Raises MissingExtraError where it is not there, EngineError for one that cannot be used."""
    try:
        trt = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise MissingExtraError("TensorRT", "tensorrt") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"TensorRT does not load ({_one_line(str(error))})") from error
    version = str(getattr(trt, "__version__", "unknown"))
    if version.partition(".")[0] not in map(str, SUPPORTED_MAJORS):
        raise EngineError(f"TensorRT {version} is not supported; versions 10 and 11 are")
    return trt


class TensorRTEngine:
    """See `Engine`. Safe to call from several threads, one at a time.

    A batch smaller than one that is ready for the same picture size runs inside that one: a clip's last
    few frames are not worth a build of their own. Out of memory (torch.OutOfMemoryError) lets go of
    everything, so that the next, smaller call finds room. Anything else that fails is an EngineError.
    """

    def __init__(
        self,
        trt: Any,
        net: nn.Module,
        channels: int,
        precision: Precision,
        runner: DeviceRunner,
        store: EngineStore,
        note: OnNote,
        label: str = "",
    ) -> None:
        self.device, self.dtype = runner.device, PRECISIONS[precision]
        self.name = f"TensorRT {trt.__version__}, {runner.gpu.name}, {precision}"
        self._trt, self._net, self._channels, self._precision = trt, net, channels, precision
        self._runner, self._store, self._note, self._label = runner, store, note, label
        self._target = Target(str(trt.__version__), runner.gpu.name, runner.gpu.compute_capability)
        self._plans: dict[Shape, _Plan] = {}
        self._noted: set[str] = set()
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        batch, channels, height, width = x.shape
        with self._lock, self._runner.active(), self._errors_named():
            return (self._plan((batch, channels, height, width)).run(x),)

    @torch.inference_mode()
    def prepare(self, shape: Shape) -> None:
        """Load or build the engine for a shape, (N, C, H, W). Raises what a call raises."""
        with self._lock, self._runner.active(), self._errors_named():
            if shape not in self._plans:
                self._plans[shape] = self._new_plan(shape)

    def _plan(self, shape: Shape) -> _Plan:
        larger = [other for other in self._plans if other[1:] == shape[1:] and other[0] >= shape[0]]
        if larger:
            return self._plans[min(larger)]
        self._plans[shape] = self._new_plan(shape)
        return self._plans[shape]

    def _new_plan(self, shape: Shape) -> _Plan:
        if shape[1] != self._channels:
            raise EngineError(f"the network takes {self._channels} channels, not {shape[1]}")
        return _Plan(self._trt, self._built_engine(shape), self._runner, shape, self._note_once)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except MissingExtraError as error:  # of the export
            raise EngineError(str(error)) from error
        except (RuntimeError, AttributeError, TypeError, ValueError, ImportError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
                self._runner.wait()
                self._plans.clear()
                raise
            # What the bindings raise by themselves, say where an early 10.x lacks a name of the API.
            raise EngineError(f"TensorRT {self._target.tensorrt}: {_one_line(str(error))}") from error

    def _note_once(self, subject: str, line: str) -> None:
        if subject not in self._noted:
            self._noted.add(subject)
            self._note(line)

    # -- from the network to an engine ---------------------------------------------------------------

    def _built_engine(self, shape: Shape) -> Any:
        """TensorRT's engine for a shape: from its file where that is sound, else built, by one process."""
        source = hashlib.sha256(f"{fingerprint(self._net)} {shape} {self._precision}".encode()).hexdigest()
        known = self._store.known_export(source)
        engine, _ = self._from_file(self._key(known, shape)) if known else (None, "")
        if engine is not None:
            return engine
        onnx = self._export(shape, source)
        key = self._key(hashlib.sha256(onnx).hexdigest(), shape)
        with ExitStack() as stack:
            try:
                waiting = "another process builds this engine: waiting for it"
                stack.enter_context(self._store.building(key, lambda: self._note(waiting)))
            except OSError as error:
                self._note_not_kept(error)
            return self._from_file_or_builder(key, onnx)

    def _export(self, shape: Shape, source: str) -> bytes:
        batch, channels, height, width = shape
        with torch.inference_mode(False):  # the exporter traces, which inference tensors refuse
            onnx = export_onnx(self._net, channels=channels, shape=(batch, height, width), precision=self._precision)
        try:
            self._store.remember_export(source, hashlib.sha256(onnx).hexdigest())
        except OSError as error:
            self._note_not_kept(error)
        return onnx

    def _key(self, onnx_sha256: str, shape: Shape) -> EngineKey:
        options = (("optimization_level", OPTIMIZATION_LEVEL), ("tf32", int(self._precision != "fp32")))
        return EngineKey(onnx_sha256, self._target, shape, self._precision, options)

    def _from_file_or_builder(self, key: EngineKey, onnx: bytes) -> Any:
        # While this process waited for its turn, another may have built the engine.
        engine, problem = self._from_file(key)
        if engine is not None:
            return engine
        if problem:
            self._note(f"{self._store.path(key).name} {problem}: building it again")
        begun = time.perf_counter()
        data = self._build(key, onnx)
        seconds = time.perf_counter() - begun
        try:
            engine = self._load(data, key)
        except EngineError as error:
            raise EngineError(f"the TensorRT engine that was just built {error}") from error
        try:
            self._store.write(key, data, label=self._label or type(self._net).__name__, build_seconds=seconds)
        except OSError as error:
            self._note_not_kept(error)
        self._note(f"built the TensorRT engine in {seconds:.0f} s ({len(data) / 2**20:.1f} MiB)")
        return engine

    def _note_not_kept(self, error: OSError) -> None:
        line = f"{self._store.folder}: engines cannot be kept there ({error.strerror or error})"
        self._note_once("not kept", line)

    def _from_file(self, key: EngineKey) -> tuple[Any, str]:
        """(engine, ""), or (None, what is wrong with its file, "" where there is none)."""
        data, problem = self._store.read(key)
        if data is None:
            return None, problem
        try:
            return self._load(data, key), ""
        except EngineError as error:
            return None, str(error)

    def _load(self, data: bytes, key: EngineKey) -> Any:
        """Deserialise and check. Raises EngineError, and torch.OutOfMemoryError where the GPU is full."""
        logger = _fresh_logger(self._trt)
        runtime = self._trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            _raise_if_out_of_memory(logger)
            raise EngineError(f"does not load ({logger.reason()})")
        float32 = self._trt.DataType.FLOAT
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if found != {INPUT, OUTPUT} or tuple(engine.get_tensor_shape(INPUT)) != key.shape:
            raise EngineError("is of another network or shape")
        if any(engine.get_tensor_dtype(name) != float32 for name in found):
            raise EngineError("does not take and give float32")
        return engine

    # -- the builder -----------------------------------------------------------------------------------

    def _build(self, key: EngineKey, onnx: bytes) -> bytes:
        """Compile the network for this GPU: seconds to minutes. Raises EngineError with the first complaint."""
        batch, _, height, width = key.shape
        what = f"the TensorRT engine for {width}x{height}, batch {batch}, {key.precision}"
        self._note(f"building {what}; this is done once")
        self._runner.free_unused()
        trt, logger = self._trt, _fresh_logger(self._trt)
        builder = trt.Builder(logger)
        # 10.x obeys the types of the ONNX only under this flag; 11.x always does, and takes the flag.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)  # holds the weights: it must outlive the build
        if not parser.parse(onnx):
            first = parser.get_error(0).desc() if parser.num_errors else logger.reason()
            raise EngineError(f"{what} cannot be built: the network is refused ({_one_line(first)})")
        config = builder.create_builder_config()
        config.builder_optimization_level = OPTIMIZATION_LEVEL
        if key.precision == "fp32":
            config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is what other precisions are measured against
        self._use_timing_cache(config)
        with _signals_held_back() as signals:
            monitor = _monitor(trt, signals)  # named, so that it lives as long as the build
            config.progress_monitor = monitor
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(f"{what} cannot be built ({logger.reason()})")
        self._keep_timing_cache(config)
        return bytes(plan)

    def _use_timing_cache(self, config: Any) -> None:
        """Start from the measurements of earlier builds; a cache that cannot be used is left, with a line."""
        name = self._store.timing_cache_path(self._target).name
        try:
            data, problem = self._store.read_timing_cache(self._target)
        except OSError as error:
            data, problem = None, f"cannot be read ({error.strerror or error})"
        if data is not None:
            timing_cache = config.create_timing_cache(data)
            if timing_cache is not None and config.set_timing_cache(timing_cache, False):
                return
            problem = "is refused by TensorRT"
        if problem:
            self._note(f"{name} {problem}: measuring anew")
        config.set_timing_cache(config.create_timing_cache(b""), False)

    def _keep_timing_cache(self, config: Any) -> None:
        timing_cache = config.get_timing_cache()
        if timing_cache is None:
            return
        try:
            self._store.write_timing_cache(self._target, bytes(timing_cache.serialize()))
        except OSError as error:
            self._note_not_kept(error)


class _Plan:
    """An engine with its buffers, ready for one shape. The first run is plain, the second becomes a graph.

    TensorRT needs one run before a capture; and a shape that is seen once needs no graph. Input, output
    and scratch memory are torch's, at addresses that stay as long as the plan.
    """

    def __init__(
        self, trt: Any, engine: Any, runner: DeviceRunner, shape: Shape, note: Callable[[str, str], None]
    ) -> None:
        logger = _fresh_logger(trt)
        self._runner, self._note, self._reason = runner, note, logger.reason
        self._input = runner.zeros(shape, torch.float32)
        self._output = runner.zeros(tuple(engine.get_tensor_shape(OUTPUT)), torch.float32)
        # At least a byte, so that there is an address.
        self._scratch = runner.zeros((max(1, engine.device_memory_size_v2),), torch.uint8)
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            _raise_if_out_of_memory(logger)
            raise EngineError(f"TensorRT gives no execution context ({logger.reason()})")
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
        for name, buffer in ((INPUT, self._input), (OUTPUT, self._output)):
            if not context.set_tensor_address(name, buffer.data_ptr()):
                raise EngineError(f"TensorRT refuses the buffer of '{name}' ({logger.reason()})")
        self._context = context
        self._has_run = False
        self._replay: Callable[[], None] | None = None

    def run(self, x: Tensor) -> Tensor:
        """(n, C, H, W), n at most the batch of the shape; any strides. The result is the caller's to keep."""
        with self._runner.turn():
            self._input[: x.shape[0]].copy_(x)
            if self._has_run and self._replay is None:
                self._replay = self._captured()
            (self._replay or self._launch)()
            self._has_run = True
        return self._runner.copy_out(self._output[: x.shape[0]])

    def _captured(self) -> Callable[[], None]:
        try:
            return self._runner.capture(self._launch)
        except (RuntimeError, EngineError) as error:
            self._note("no graph", f"TensorRT runs without a CUDA graph, and slower ({_one_line(str(error))})")
            return self._launch

    def _launch(self) -> None:
        if not self._context.execute_async_v3(self._runner.stream_handle):
            raise EngineError(f"TensorRT does not run the engine ({self._reason()})")


# -- TensorRT calls these back -------------------------------------------------------------------------


@functools.cache  # TensorRT wants one logger per process
def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps what goes wrong, for `reason`; TensorRT would write it to stderr."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)

        def reason(self) -> str:
            """The first complaint, from which the others follow."""
            return _one_line(self.errors[0]) if self.errors else "TensorRT gives no reason"

    return Logger()


def _fresh_logger(trt: Any) -> Any:
    """The logger, without the complaints about what went before."""
    logger = _logger(trt)
    logger.errors.clear()
    return logger


def _monitor(trt: Any, signals: list[int]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Ends a build as soon as a signal has come."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            pass

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not signals

    return Monitor()


@contextmanager
def _signals_held_back() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM are noted inside, and act afterwards: no exception may pass through TensorRT.

    What is ignored, as Ctrl-C is in a shell's background jobs, stays ignored.
    """
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # no other may ask for signals
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            handlers[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _raise_if_out_of_memory(logger: Any) -> None:
    text = " ".join(logger.errors)
    if "out of memory" in text.lower() or "OutOfMemory" in text:
        raise torch.OutOfMemoryError(f"out of memory in TensorRT ({logger.reason()})")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
