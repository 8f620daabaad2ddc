"""A stand-in for TensorRT and for the GPU: it runs the exported ONNX on the CPU, at the addresses it is given.

`make_tensorrt` gives a module with the names and signatures of one version's Python API and no others, read
from `tensorrt_api/`: an unknown name is an AttributeError, a wrong argument a TypeError, as with the bindings.
`Device` is the GPU: its stream runs late, when somebody waits for it, so that whoever does not wait reads
what was there before. Where TensorRT would do something undefined, the double fails an assertion.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import json
import os
import re
import sys
import time
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from vsr.backends.cuda_runner import Gpu
from vsr.backends.engine import image_signature
from vsr.backends.onnx_export import largest_tensor

API = Path(__file__).parent / "tensorrt_api"
VERSIONS = ("10.16", "11.4")
STREAM = 0x5EED
SCRATCH_BYTES = 4096
MAGIC_ENGINE, MAGIC_CACHE = b"double engine\n", b"double cache\n"


def read_api(version: str) -> dict[str, Any]:
    return json.loads((API / f"{version}.json").read_text("utf-8"))


@dataclass
class Faults:
    """What goes wrong: reasons are TensorRT's words, "" for nothing."""

    parse: str = ""
    build: str = ""
    load: str = ""
    context: str = ""
    execute: str = ""
    capture: str = ""
    execute_in_capture: str = ""
    most_elements: int = 2**31 - 1
    null: str = ""  # "Class: reason" of a constructor that fails, of which bindings make a TypeError
    build_seconds: float = 0.0
    memory_bytes: int | None = None
    on_build: Callable[[], None] = lambda: None


# -- the GPU -------------------------------------------------------------------------------------------


@dataclass
class Device:
    """A GPU of which a `DeviceRunner` is made. log: what was asked of it, in order."""

    faults: Faults = field(default_factory=Faults)
    log: list[str] = field(default_factory=list)
    gpu: Gpu = field(default_factory=lambda: Gpu("Double GPU", "9.0"))
    is_active: bool = False
    in_turn: bool = False
    current_stream: int = 0
    queue: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    broken: set[int] = field(default_factory=set)  # streams of captures that failed
    blocks: list[weakref.ref[Tensor]] = field(default_factory=list)

    def make_runner(self, device: torch.device) -> Runner:
        return Runner(self, device)

    def allocate(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        block = torch.zeros(tuple(shape), dtype=dtype)
        self.blocks = [ref for ref in self.blocks if ref() is not None]
        used = sum(other.nbytes for ref in self.blocks if (other := ref()) is not None)
        if self.faults.memory_bytes is not None and used + block.nbytes > self.faults.memory_bytes:
            raise torch.OutOfMemoryError("out of memory on the double")
        self.blocks.append(weakref.ref(block))
        return block

    def check_address(self, address: int, num_bytes: int) -> None:
        """torch owns the memory: an address is the beginning of a block that is alive and large enough."""
        blocks = [block for ref in self.blocks if (block := ref()) is not None]
        assert any(block.data_ptr() == address and block.nbytes >= num_bytes for block in blocks), "not torch's memory"

    def enqueue(self, stream: int, operation: Callable[[], None]) -> None:
        assert stream >= STREAM, "not an engine's stream"
        assert stream not in self.broken, "queued on a stream of a capture that failed"
        assert self.in_turn, "queued while nobody waits for the caller's stream"
        assert stream == self.current_stream, "queued beside the work of the turn"
        (self.queue if self.captured is None else self.captured).append(operation)

    def flush(self) -> None:
        while self.queue:
            self.queue.pop(0)()


class Runner:
    """The `DeviceRunner` of a `Device`."""

    def __init__(self, double: Device, device: torch.device) -> None:
        self._double, self.device, self.gpu = double, device, double.gpu
        self.stream_handle = STREAM

    def renew(self) -> None:
        self.stream_handle += 1
        self._double.queue.clear()  # what a broken stream was given never runs

    @contextmanager
    def active(self) -> Iterator[None]:
        assert not self._double.is_active
        self._double.is_active = True
        try:
            yield
        finally:
            self._double.is_active = False

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self._double.allocate(shape, dtype)

    @contextmanager
    def turn(self) -> Iterator[None]:
        assert not self._double.in_turn
        self._double.in_turn, self._double.current_stream = True, self.stream_handle
        try:
            yield
        finally:
            self._double.in_turn = False
            self._double.flush()

    def copy_out(self, output: Tensor) -> Tensor:
        assert not self._double.in_turn, "copied on the engine's stream"
        return output.clone()

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        double = self._double
        assert self.stream_handle not in double.broken, "the stream is in a capture that failed"
        assert double.in_turn and not double.queue, "work before the capture would become part of it"
        if double.faults.capture:
            double.broken.add(self.stream_handle)
            raise RuntimeError(double.faults.capture)
        operations: list[Callable[[], None]] = []
        double.captured = operations
        try:
            launch()
        except BaseException:
            double.broken.add(self.stream_handle)
            raise
        finally:
            double.captured = None
        double.log.append("capture")

        def replay() -> None:
            double.log.append("replay")
            assert double.in_turn
            double.queue.extend(operations)

        return replay

    def wait(self) -> None:
        self._double.flush()

    def free_unused(self) -> None:
        self._double.log.append("free unused")


# -- the shape of the bindings -------------------------------------------------------------------------


class Enum:
    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def __int__(self) -> int:
        return self.value


class Bound:
    """An object of the bindings: only the API's names can be read or set from outside."""

    api: ClassVar[dict[str, Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in type(self).api:
            raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and type(self).api.get(name) != "property":
            raise AttributeError(f"'{type(self).__name__}' has no property '{name}'")
        object.__setattr__(self, name, value)


class HostMemory(bytes):
    """`IHostMemory`: read through the buffer protocol."""

    @property
    def nbytes(self) -> int:
        return len(self)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "str": str,
    "bool": bool,
    "typing_extensions.Buffer": (bytes, bytearray, memoryview),
}


@functools.cache
def _parameters(signature: str) -> list[tuple[str, str, bool]]:
    """(name, type, whether it must be given) of a signature's parameters, `self` left out."""
    inside = re.fullmatch(r"\w+\((.*)\) -> .*", signature)
    assert inside, signature
    parameters = []
    for text in re.split(r", (?=\w+: )", inside[1])[1:]:
        name, _, rest = text.partition(": ")
        kind, _, default = rest.partition(" = ")
        parameters.append((name, kind, not default))
    return parameters


def _fits(signature: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    parameters = _parameters(signature)
    given = dict(zip([name for name, _, _ in parameters], args, strict=False)) | kwargs
    known = {name for name, _, _ in parameters}
    if len(args) > len(parameters) or not given.keys() <= known:
        return False
    if any(needed and name not in given for name, _, needed in parameters):
        return False
    kinds = {name: kind for name, kind, _ in parameters}
    return all(_is_of(value, kinds[name]) for name, value in given.items())


def _is_of(value: Any, kind: str) -> bool:
    if kind in _TYPES:
        return isinstance(value, _TYPES[kind])
    if not re.fullmatch(r"[A-Z]\w+", kind):
        return True
    return any(base.__name__ == kind for base in type(value).__mro__)


def _bound_method(method: Callable[..., Any], signatures: list[str]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(_fits(signature, args, kwargs) for signature in signatures):
            raise TypeError(f"incompatible arguments {args} {kwargs}; there are {signatures}")
        return method(self, *args, **kwargs)

    return call


def _enum(name: str, members: dict[str, Any]) -> type:
    values = {key: member["enum"] for key, member in members.items() if isinstance(member, dict)}
    made = type(name, (Enum,), {})
    for key, value in values.items():
        setattr(made, key, made(key, value))
    return made


# -- the module ----------------------------------------------------------------------------------------


def make_tensorrt(version: str, device: Device) -> types.ModuleType:
    """The module `tensorrt` of a version ("10.16" or "11.4"), bound to a pretended GPU."""
    api = read_api(version)
    trt = types.ModuleType("tensorrt")
    trt.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # torch's tracer asks for it
    trt.__version__ = api["__version__"]  # type: ignore[attr-defined]
    for name, members in api["classes"].items():
        if any(isinstance(member, dict) for member in members.values()):
            setattr(trt, name, _enum(name, members))
    for made in (_logger_class(), _monitor_class()):
        setattr(trt, made.__name__, made)
    namespace = _Classes(trt, device)
    for name in ("Builder", "OnnxParser", "Runtime"):
        setattr(trt, name, namespace.bind(name, api["classes"][name]))
    namespace.rest = {
        name: namespace.bind(name, api["classes"][name])
        for name in (
            "INetworkDefinition",
            "IBuilderConfig",
            "ITimingCache",
            "ParserError",
            "ICudaEngine",
            "IExecutionContext",
        )
    }
    return trt


def _logger_class() -> type:
    severities = {name: Enum(name, value) for value, name in enumerate(["INTERNAL_ERROR", "ERROR", "WARNING"])}

    def begin(self: Any) -> None:
        self._is_begun = True

    return type("ILogger", (), {"__init__": begin, **severities})


def _monitor_class() -> type:
    def begin(self: Any) -> None:
        self._is_begun = True

    return type("IProgressMonitor", (), {"__init__": begin})


class _Classes:
    """The classes of one module, made from `_IMPLEMENTED` and the API."""

    def __init__(self, trt: types.ModuleType, device: Device) -> None:
        self.trt, self.device, self.rest = trt, device, {}

    def bind(self, name: str, members: dict[str, Any]) -> type:
        body: dict[str, Any] = {"api": members, "_double": self}
        for key, value in _IMPLEMENTED[name].__dict__.items():
            if key == "__init__" or key.startswith("_"):
                body[key] = value
            else:
                assert key in members, f"the double invents {name}.{key}"
                body[key] = value if isinstance(value, property) else _bound_method(value, members[key])
        body.pop("__dict__", None)
        body.pop("__weakref__", None)
        return type(name, (Bound,), body)

    def make(self, name: str, *args: Any) -> Any:
        return self.rest[name](*args)

    def check_logger(self, logger: Any) -> None:
        assert isinstance(logger, self.trt.ILogger) and logger._is_begun  # type: ignore[attr-defined]

    def refuse_null(self, name: str, logger: Any) -> None:
        if self.device.faults.null.startswith(f"{name}: "):
            self.complain(logger, self.device.faults.null.removeprefix(f"{name}: "))
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def complain(self, logger: Any, text: str) -> None:
        logger.log(self.trt.ILogger.WARNING, "a warning, which is not the reason")  # type: ignore[attr-defined]
        logger.log(self.trt.ILogger.ERROR, text)  # type: ignore[attr-defined]
        logger.log(self.trt.ILogger.ERROR, "something that follows from it")  # type: ignore[attr-defined]


class _Builder:
    def __init__(self, logger: Any) -> None:
        self._double.check_logger(logger)
        assert self._double.device.is_active, "the device is not the current one"
        self._double.refuse_null("Builder", logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        flag = 1 << int(self._double.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert self._double.trt.__version__.startswith("11") or flags & flag, "10.x would ignore the ONNX's types"
        assert not flags & ~flag
        return self._double.make("INetworkDefinition")

    def create_builder_config(self) -> Any:
        return self._double.make("IBuilderConfig", self._logger)

    def build_serialized_network(self, network: Any, config: Any) -> HostMemory | None:
        device, faults = self._double.device, self._double.device.faults
        assert network._onnx, "an empty network"
        assert config._cache is not None, "no timing cache"
        onnx_input = onnx.load_from_string(network._onnx).graph.input[0]
        shape = [dimension.dim_value for dimension in onnx_input.type.tensor_type.shape.dim]
        assert all(shape), "dynamic shapes need an optimisation profile"
        if largest_tensor(network._onnx) > faults.most_elements:
            self._double.complain(self._logger, "volume of the tensor exceeds INT32_MAX")
            return None
        device.log.append("build with timings" if config._cache._entries else "build from nothing")
        time.sleep(faults.build_seconds)
        faults.on_build()
        if config.progress_monitor is not None:
            assert config.progress_monitor._is_begun
            config.progress_monitor.phase_start("building", None, 1)
            if not config.progress_monitor.step_complete("building", 0):
                self._double.complain(self._logger, "the build was stopped")
                return None
        if faults.build:
            self._double.complain(self._logger, faults.build)
            return None
        config._cache._entries += 1
        header = {"tensorrt": self._double.trt.__version__, "gpu": device.gpu.name, "tf32": config._tf32}
        return HostMemory(MAGIC_ENGINE + json.dumps(header).encode() + b"\n" + network._onnx)


class _Network:
    def __init__(self) -> None:
        self._onnx = b""


class _Parser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._double.check_logger(logger)
        self._double.refuse_null("OnnxParser", logger)
        self._network, self._reason = network, ""

    def parse(self, model: bytes, path: str | None = None) -> bool:
        self._reason = self._double.device.faults.parse
        try:
            onnx.checker.check_model(onnx.load_from_string(bytes(model)))
        except Exception as error:
            self._reason = str(error)
        if not self._reason:
            self._network._onnx = bytes(model)
        return not self._reason

    @property
    def num_errors(self) -> int:
        return int(bool(self._reason))

    def get_error(self, index: int) -> Any:
        return self._double.make("ParserError", self._reason)


class _ParserError:
    def __init__(self, reason: str) -> None:
        self._reason = reason

    def desc(self) -> str:
        return self._reason


class _Config:
    def __init__(self, logger: Any) -> None:
        self._logger, self._cache, self._tf32 = logger, None, True
        self.builder_optimization_level, self.progress_monitor = 3, None

    def clear_flag(self, flag: Any) -> None:
        assert flag is self._double.trt.BuilderFlag.TF32
        self._tf32 = False

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        data = bytes(serialized_timing_cache)
        if data and not data.startswith(MAGIC_CACHE):
            self._double.complain(self._logger, "the timing cache cannot be read")
            return None
        here = [self._double.trt.__version__, self._double.device.gpu.name]
        of, entries = json.loads(data.removeprefix(MAGIC_CACHE)) if data else (here, 0)
        return self._double.make("ITimingCache", of, entries)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._of != [self._double.trt.__version__, self._double.device.gpu.name]:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class _TimingCache:
    def __init__(self, of: list[str], entries: int) -> None:
        self._of, self._entries = of, entries

    def serialize(self) -> HostMemory:
        return HostMemory(MAGIC_CACHE + json.dumps([self._of, self._entries]).encode())


class _Runtime:
    def __init__(self, logger: Any) -> None:
        self._double.check_logger(logger)
        assert self._double.device.is_active, "the device is not the current one"
        self._double.refuse_null("Runtime", logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        data = bytes(serialized_engine)
        reason = self._double.device.faults.load
        header: dict[str, str] = {}
        if not reason and data.startswith(MAGIC_ENGINE):
            line, _, data = data.removeprefix(MAGIC_ENGINE).partition(b"\n")
            header = json.loads(line)
        if not reason and header.get("tensorrt") != self._double.trt.__version__:
            reason = "the engine is damaged, or of another version"
        if reason:
            self._double.complain(self._logger, reason)
            return None
        return self._double.make("ICudaEngine", data, self._logger)


class _CudaEngine:
    def __init__(self, data: bytes, logger: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._logger = logger
        tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors}
        self._types = {tensor.name: tensor.type for tensor in tensors}

    @property
    def num_io_tensors(self) -> int:
        return len(self._shapes)

    @property
    def device_memory_size_v2(self) -> int:
        return SCRATCH_BYTES

    def get_tensor_name(self, index: int) -> str:
        return list(self._shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
        return getattr(self._double.trt.DataType, kinds[self._types[name]])

    def create_execution_context(self, strategy: Any) -> Any:
        assert strategy is self._double.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._double.device.faults.context:
            self._double.complain(self._logger, self._double.device.faults.context)
            return None
        return self._double.make("IExecutionContext", self)


class _Context:
    def __init__(self, engine: Any) -> None:
        self._engine, self._addresses, self._scratch, self._has_run = engine, {}, 0, False
        self._stream = 0  # that it runs on

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= SCRATCH_BYTES
        self._double.device.check_address(memory, size)
        self._scratch = memory

    def set_tensor_address(self, name: str, memory: int) -> bool:
        num_bytes = 4 * int(np.prod(self._engine._shapes[name]))
        self._double.device.check_address(memory, num_bytes)
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        device = self._double.device
        assert self._scratch and self._addresses.keys() == self._engine._shapes.keys(), "an address is missing"
        assert stream_handle != 0, "the default stream"
        reason = device.faults.execute if device.captured is None else device.faults.execute_in_capture
        if reason:
            self._double.complain(self._engine._logger, reason)
            return False
        if device.captured is not None:
            assert self._has_run, "a capture needs a run before it"
        assert self._stream in (0, stream_handle), "a context on two streams"
        self._stream = stream_handle
        self._has_run = True
        device.log.append("execute")
        addresses = dict(self._addresses)  # as a graph does, keep what they are now
        device.enqueue(stream_handle, lambda: self._run(addresses))
        return True

    def _run(self, addresses: dict[str, int]) -> None:
        views = {}
        for name, shape in self._engine._shapes.items():
            self._double.device.check_address(addresses[name], 4 * int(np.prod(shape)))
            block = (ctypes.c_float * int(np.prod(shape))).from_address(addresses[name])
            views[name] = np.frombuffer(block, np.float32).reshape(shape)
        inputs = {tensor.name: views[tensor.name].copy() for tensor in self._engine._session.get_inputs()}
        outputs = self._engine._session.run(None, inputs)
        for tensor, output in zip(self._engine._session.get_outputs(), outputs, strict=True):
            views[tensor.name][:] = output


_IMPLEMENTED: dict[str, type] = {
    "Builder": _Builder,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "Runtime": _Runtime,
    "INetworkDefinition": _Network,
    "IBuilderConfig": _Config,
    "ITimingCache": _TimingCache,
    "ICudaEngine": _CudaEngine,
    "IExecutionContext": _Context,
}


# -- a process of its own, for the test of two builders --------------------------------------------------


def build_in_a_process(version: str, folder: Path, log: Path, model: Path, start: Any) -> None:
    """Install the double, wait at the barrier `start`, run a network, write a line to `log` for each build."""
    from vsr.backends import tensorrt_builder, tensorrt_engine

    def on_build() -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")

    device = Device(Faults(build_seconds=1.0, on_build=on_build))
    sys.modules["tensorrt"] = make_tensorrt(version, device)
    tensorrt_builder.export_onnx = lambda *arguments, **options: model.read_bytes()
    os.environ["VSR_ENGINES"] = str(folder)
    engine = tensorrt_engine.make_tensorrt_engine(
        torch.nn.Identity(),
        image_signature(1),
        precision="fp32",
        device=torch.device("cpu"),
        make_runner=device.make_runner,
    )
    start.wait(600)
    (out,) = engine(torch.rand(1, 1, 12, 14))
    assert out.shape == (1, 1, 24, 28) and torch.isfinite(out).all()
