"""Build TensorRT engines of networks, for TensorRT 10 and 11, and keep them.

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
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import Precision, Signature, TooLargeError
from vsr.backends.engine_store import EngineKey, EngineStore, Target
from vsr.backends.onnx_export import export_onnx, fingerprint, largest_tensor
from vsr.errors import EngineError, MissingExtraError, reason
from vsr.events import Note, NoteCode, OnNote

__all__ = ["EngineBuilder", "Shape", "Source", "fresh_logger", "load_tensorrt", "one_line", "raise_if_out_of_memory"]

SUPPORTED_MAJORS = (10, 11)
OPTIMIZATION_LEVEL = 3  # of 0 to 5: above, builds take several times as long for a few per cent
LONGEST_REASON = 200  # characters
MOST_ELEMENTS = 2**31 - 1  # of a tensor: TensorRT refuses convolutions beyond, with a reason that varies

Shape = tuple[int, int, int, int]  # (N, C, H, W) of the first input; the others share N, H and W


@dataclass(frozen=True, slots=True)
class Source:
    """A network to build engines of. label: the model's name, for `vsr engine list`."""

    net: nn.Module
    signature: Signature
    precision: Precision
    label: str = ""


def load_tensorrt() -> Any:
    """Import the library. Raises MissingExtraError where it is not there, EngineError for one that cannot be used."""
    try:
        trt = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise MissingExtraError("TensorRT", "tensorrt") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"TensorRT does not load ({one_line(str(error))})") from error
    version = str(getattr(trt, "__version__", "unknown"))
    if version.partition(".")[0] not in map(str, SUPPORTED_MAJORS):
        raise EngineError(f"TensorRT {version} is not supported; versions 10 and 11 are")
    return trt


class EngineBuilder:
    """Give TensorRT's engine of a network for a shape: from its file where that is sound, else built, and kept.

    may_build: set it to False where a build, of seconds to minutes, is not worth it: then only files are used.
    """

    may_build = True

    def __init__(self, trt: Any, source: Source, runner: DeviceRunner, store: EngineStore, note: OnNote) -> None:
        """note: called with a line when an engine is built, and where its file is damaged or cannot be kept."""
        self.trt, self.source = trt, source
        self._runner, self._store, self._note = runner, store, note
        self._target = Target(str(trt.__version__), runner.gpu.name, runner.gpu.compute_capability)
        self._is_folder_noted = False

    def engine(self, shape: Shape) -> Any:
        """Load or build the engine for a shape; of several processes that need it, one builds.

        Raises TooLargeError, before anything is built, where a tensor would have 2³¹ elements or more.
        """
        net, signature = self.source.net, self.source.signature
        source = hashlib.sha256(f"{fingerprint(net)} {signature} {shape} {self.source.precision}".encode()).hexdigest()
        known = self._store.known_export(source)
        engine, _ = self._from_file(self._key(known, shape)) if known else (None, "")
        if engine is not None:
            return engine
        if not self.may_build:
            what = f"{shape[3]}x{shape[2]}, batch {shape[0]}, {self.source.precision}"
            raise EngineError(f"no TensorRT engine is kept for {what}, and the job is too short to build one")
        onnx = self._export(shape, source)
        _check_elements(onnx, shape)
        key = self._key(hashlib.sha256(onnx).hexdigest(), shape)
        with ExitStack() as stack:
            try:
                waiting = "another process builds this engine: waiting for it"
                stack.enter_context(self._store.building(key, lambda: self._note(Note(NoteCode.ENGINE, waiting))))
            except OSError as error:
                self._note_not_kept(error)
            return self._from_file_or_builder(key, onnx)

    def input_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the shape of every input by its name, from that of the first."""
        batch, _, height, width = shape
        return {name: (batch, channels, height, width) for name, channels in self.source.signature.inputs}

    def _export(self, shape: Shape, source: str) -> bytes:
        batch, _, height, width = shape
        net, signature, precision = self.source.net, self.source.signature, self.source.precision
        with torch.inference_mode(False):  # the exporter traces, which inference tensors refuse
            onnx = export_onnx(
                net, signature, shape=(batch, height, width), precision=precision, beside_integers="fp16"
            )
        try:
            self._store.remember_export(source, hashlib.sha256(onnx).hexdigest())
        except OSError as error:
            self._note_not_kept(error)
        return onnx

    def _key(self, onnx_sha256: str, shape: Shape) -> EngineKey:
        options = (("optimization_level", OPTIMIZATION_LEVEL), ("tf32", 0))
        return EngineKey(onnx_sha256, self._target, shape, self.source.precision, options)

    def _from_file_or_builder(self, key: EngineKey, onnx: bytes) -> Any:
        # While this process waited for its turn, another may have built the engine.
        engine, problem = self._from_file(key)
        if engine is not None:
            return engine
        if problem:
            self._note(Note(NoteCode.ENGINE, f"{self._store.path(key).name} {problem}: building it again"))
        begun = time.perf_counter()
        data = self._build(key, onnx)
        seconds = time.perf_counter() - begun
        try:
            engine = self._load(data, key)
        except EngineError as error:
            raise EngineError(f"the TensorRT engine that was just built {error}") from error
        try:
            label = self.source.label or type(self.source.net).__name__
            self._store.write(key, data, label=label, build_seconds=seconds)
        except OSError as error:
            self._note_not_kept(error)
        self._note(Note(NoteCode.ENGINE, f"built the TensorRT engine in {seconds:.0f} s ({len(data) / 2**20:.1f} MiB)"))
        return engine

    def _note_not_kept(self, error: OSError) -> None:
        if not self._is_folder_noted:
            self._is_folder_noted = True
            text = f"{self._store.folder}: engines cannot be kept there ({reason(error)})"
            self._note(Note(NoteCode.ENGINE, text))

    def _from_file(self, key: EngineKey) -> tuple[Any, str]:
        """Return (engine, ""), or None and what is wrong with its file, "" where there is none."""
        data, problem = self._store.read(key)
        if data is None:
            return None, problem
        try:
            return self._load(data, key), ""
        except EngineError as error:
            return None, str(error)

    def _load(self, data: bytes, key: EngineKey) -> Any:
        """Deserialise and check. Raises EngineError, and torch.OutOfMemoryError where the GPU is full."""
        logger = fresh_logger(self.trt)
        runtime = _made("runtime", lambda: self.trt.Runtime(logger), logger)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise_if_out_of_memory(logger)
            raise EngineError(f"does not load ({logger.reason()})")
        float32 = self.trt.DataType.FLOAT
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        shapes = self.input_shapes(key.shape)
        if found != {*shapes, *self.source.signature.outputs}:
            raise EngineError("is of another network")
        if any(tuple(engine.get_tensor_shape(name)) != shape for name, shape in shapes.items()):
            raise EngineError("is of another network or shape")
        if any(engine.get_tensor_dtype(name) != float32 for name in found):
            raise EngineError("does not take and give float32")
        return engine

    def _build(self, key: EngineKey, onnx: bytes) -> bytes:
        """Compile the network for this GPU: seconds to minutes. Raises EngineError with the first complaint."""
        batch, _, height, width = key.shape
        what = f"the TensorRT engine for {width}x{height}, batch {batch}, {key.precision}"
        self._note(Note(NoteCode.ENGINE, f"building {what}; this is done once"))
        self._runner.free_unused()
        trt, logger = self.trt, fresh_logger(self.trt)
        builder = _made("builder", lambda: trt.Builder(logger), logger)
        # 10.x obeys the types of the ONNX only under this flag; 11.x always does, and takes the flag.
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = _made("network", lambda: builder.create_network(flags), logger)
        # Holds the weights: it must outlive the build.
        parser = _made("parser", lambda: trt.OnnxParser(network, logger), logger)
        if not parser.parse(onnx):
            first = parser.get_error(0).desc() if parser.num_errors else logger.reason()
            raise EngineError(f"{what} cannot be built: the network is refused ({one_line(first)})")
        config = _made("configuration", builder.create_builder_config, logger)
        config.builder_optimization_level = OPTIMIZATION_LEVEL
        # What is float32 in the graph is so for its exactness: a whole network as reference, or layers of the image.
        config.clear_flag(trt.BuilderFlag.TF32)
        self._use_timing_cache(config)
        with _signals_held_back() as signals:
            monitor = _monitor(trt, signals)  # named, so that it lives as long as the build
            config.progress_monitor = monitor
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise_if_out_of_memory(logger)
            raise EngineError(f"{what} cannot be built ({logger.reason()})")
        self._keep_timing_cache(config)
        return bytes(plan)

    def _use_timing_cache(self, config: Any) -> None:
        """Start from the measurements of earlier builds; a cache that cannot be used is left, with a line."""
        name = self._store.timing_cache_path(self._target).name
        try:
            data, problem = self._store.read_timing_cache(self._target)
        except OSError as error:
            data, problem = None, f"cannot be read ({reason(error)})"
        if data is not None:
            timing_cache = config.create_timing_cache(data)
            if timing_cache is not None and config.set_timing_cache(timing_cache, False):
                return
            problem = "is refused by TensorRT"
        if problem:
            self._note(Note(NoteCode.ENGINE, f"{name} {problem}: measuring anew"))
        config.set_timing_cache(config.create_timing_cache(b""), False)

    def _keep_timing_cache(self, config: Any) -> None:
        timing_cache = config.get_timing_cache()
        if timing_cache is None:
            return
        try:
            self._store.write_timing_cache(self._target, bytes(timing_cache.serialize()))
        except OSError as error:
            self._note_not_kept(error)


def _check_elements(onnx: bytes, shape: Shape) -> None:
    """Refuse a graph with a tensor that TensorRT cannot count the elements of."""
    most = largest_tensor(onnx)
    if most > MOST_ELEMENTS:
        batch, _, height, width = shape
        text = f"{width}x{height}, batch {batch}, makes tensors of {most / 2**31:.2f} · 2³¹ elements; TensorRT takes 1"
        raise TooLargeError(text, MOST_ELEMENTS // -(-most // batch))


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
            """Return the first complaint, from which the others follow."""
            return one_line(self.errors[0]) if self.errors else "TensorRT gives no reason"

    return Logger()


def fresh_logger(trt: Any) -> Any:
    """Return the logger, without complaints about earlier calls."""
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
    """Hold Ctrl-C and SIGTERM back until afterwards: no exception may pass through TensorRT.

    Signals that are ignored, as Ctrl-C is in a shell's background jobs, stay ignored.
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


# Of the GPU while an engine is built, loaded and made ready; the words depend on the part that runs out.
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "could not be allocated", "cudaerrormemoryallocation")


def _made(what: str, make: Callable[[], Any], logger: Any) -> Any:
    """Call one of TensorRT's constructors, which give nothing where they fail: bindings make a TypeError of that."""
    try:
        made = make()
    except TypeError as error:
        raise_if_out_of_memory(logger)
        why = logger.reason() if logger.errors else one_line(str(error))
        raise EngineError(f"TensorRT makes no {what} ({why})") from error
    if made is None:
        raise_if_out_of_memory(logger)
        raise EngineError(f"TensorRT makes no {what} ({logger.reason()})")
    return made


def raise_if_out_of_memory(logger: Any) -> None:
    """Raise torch.OutOfMemoryError where one of the complaints is of memory."""
    text = " ".join(logger.errors).lower()
    if any(sign in text for sign in _OUT_OF_MEMORY):
        raise torch.OutOfMemoryError(f"out of memory in TensorRT ({logger.reason()})")


def one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
