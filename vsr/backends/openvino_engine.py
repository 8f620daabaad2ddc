"""Run networks with OpenVINO: on CPUs and Intel GPUs.

A network comes as ONNX, which takes seconds to make, and is kept as OpenVINO's own format in the folder of
engines. On a CPU it is compiled once for images of any size; on a GPU once per size, and kept by OpenVINO.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vsr.backends.engine import PRECISIONS, Engine, Precision, Signature
from vsr.backends.engine_store import engines_folder
from vsr.backends.onnx_export import export_onnx, fingerprint
from vsr.backends.onnx_model import OnnxFile
from vsr.backends.openvino_library import import_openvino
from vsr.backends.tuning import Division
from vsr.backends.windows import ANY_SIDES, Sides, WindowedEngine
from vsr.errors import EngineError, MissingExtraError, OptionError
from vsr.files import write_file
from vsr.models.quantization import QuantizedConv2d, is_quantized

__all__ = [
    "OpenVINOEngine",
    "is_prepared",
    "list_devices",
    "load_openvino",
    "make_openvino_engine",
    "openvino_device",
]

_TYPES: dict[str, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_STATE_TYPES = {"bf16": torch.bfloat16, "f16": torch.float16}  # that states are kept in
_CAPABILITIES: dict[str, str] = {"int8": "INT8", "fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
_BESIDE_INT8: dict[str, tuple[Precision, ...]] = {"CPU": ("bf16",), "GPU": ("fp16",)}  # of the other layers
_WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
_MAX_SIZES = 8  # of images that a GPU keeps compiled networks for
# That a CPU keeps: those of some eight sizes of a network of twenty layers; every image of a folder may
# have a size of its own.
_MOST_KERNELS = 160
_CORES_PER_FRAME = 8
_FRAMES_ON_GPU = 2  # at a time: one computes while the other is copied
_PROBE = 48  # side of the input from which the scale factors of the outputs are inferred
_SUFFIX = ".openvino"
# The CPU plugin's own choice, brgconv, takes half as long again for narrow layers of 8 bit integers, and for the
# single channel of a picture. A CPU that lacks these instructions passes them over.
_INTEGER_KERNELS, _FLOAT_KERNELS = "cpu:jit_avx512_amx", "cpu:jit_avx512"
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "CL_OUT_OF", "CL_MEM_OBJECT_ALLOCATION_FAILURE", "Exceeded max size")


def load_openvino() -> Any:
    """Import the library. Raises MissingExtraError where it is not there, EngineError where it does not load."""
    try:
        return import_openvino()
    except ModuleNotFoundError as error:
        raise MissingExtraError("OpenVINO", "cpu") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"OpenVINO does not load ({_one_line(error)})") from error


@functools.cache
def _core() -> Any:
    try:
        return load_openvino().Core()
    except RuntimeError as error:
        raise EngineError(f"OpenVINO does not start ({_one_line(error)})") from error


def list_devices() -> list[str]:
    """List OpenVINO's devices, as the option `device` names them. Raises MissingExtraError, EngineError."""
    return [name.lower().replace(".", ":") for name in _core().available_devices]


def openvino_device(asked: str) -> str:
    """Return OpenVINO's name of a device that is there: "CPU", or "GPU" and "GPU.1" for "gpu" and "gpu:1".

    Raises OptionError where the machine lacks it, and MissingExtraError.
    """
    name = asked.upper().replace(":", ".")
    available = list_devices()
    if any(asked == device or asked == device.removesuffix(":0") for device in available):
        return name
    raise OptionError(f"`device={asked}`: not there; OpenVINO sees {', '.join(available)}")


def make_openvino_engine(
    net: nn.Module | OnnxFile,
    signature: Signature,
    *,
    precision: Precision,
    accelerator: str = "CPU",
    division: Division | None = None,
) -> Engine:
    """Make an engine for a network, or for one that lies in an ONNX file.

    Raises MissingExtraError, and EngineError with the reason, in one line, where OpenVINO cannot run it.

    Args:
        precision: "int8" needs a quantized network, and takes bf16 or, on a GPU, fp16 for the layers that are not,
            where there is that.
        accelerator: see `openvino_device`.
        division: of the CPU's cores; by their number unless given.
    """
    core = _core()
    capabilities = core.get_property(accelerator, "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES[precision] not in capabilities:
        raise EngineError(f"OpenVINO does not compute in {precision} on this {accelerator}")
    if precision == "int8" and not (isinstance(net, nn.Module) and is_quantized(net)):
        raise EngineError("int8 needs a quantized network")
    others: Precision = precision
    if precision == "int8":
        others = next((name for name in _BESIDE_INT8[accelerator[:3]] if _CAPABILITIES[name] in capabilities), "fp32")
    try:
        model = _model(core, net, signature)
        if isinstance(net, OnnxFile):
            engine = OpenVINOEngine(core, model, signature, precision, accelerator, others, net.sides)
            engine.division = division
            return engine if net.sides == ANY_SIDES else WindowedEngine(engine, net.sides, net.scale, net.halo)
        engine = OpenVINOEngine(core, model, signature, precision, accelerator, others)
        engine.division = division
        return engine
    except RuntimeError as error:  # all that OpenVINO raises
        raise EngineError(f"OpenVINO cannot run the network ({_one_line(error)})") from error


def is_prepared(net: nn.Module | OnnxFile, signature: Signature) -> bool:
    """Tell whether an engine is made without the export, which takes seconds."""
    return isinstance(net, OnnxFile) or _path(net, signature).is_file()


class OpenVINOEngine:
    """See `Engine`. Safe to call from several threads, one at a time.

    Each frame is a request of its own. Up to `_CORES_PER_FRAME` cores share one: two frames side by side on
    two cores take up to twice as long, as they push each other out of the caches. Frames are read and written
    where torch has them; states are channels last, in the type that the layers compute in. Out of memory is a
    MemoryError; anything else that fails is an EngineError.
    division: of the CPU's cores, to be set before the first call where it is known; None goes by their number.
    state_dtype: the type that states come in and go out in.
    """

    def __init__(
        self,
        core: Any,
        model: Any,
        signature: Signature,
        precision: Precision,
        accelerator: str,
        others: Precision | None = None,
        sides: Sides = ANY_SIDES,
    ) -> None:
        """others: the precision of layers that are not quantized; `precision` unless given.

        sides: of the images that the model takes.
        """
        self.device, self.dtype = torch.device("cpu"), PRECISIONS[precision]
        version = load_openvino().__version__.split("-")[0]
        self.name = f"OpenVINO {version}, {accelerator.lower()}, {precision}"
        self._core, self._model, self._signature = core, model, signature
        self._type, self._accelerator = _TYPES[others or precision], accelerator
        self.state_dtype = _STATE_TYPES.get(self._type, torch.float32)
        self._inputs = _positions(model.inputs, signature.input_names)
        self._outputs = _positions(model.outputs, signature.outputs)
        self._sides = sides
        side = -(-_PROBE // sides.multiple) * sides.multiple
        height, width = sides.fixed or (side, side)
        probe = self._reshaped(height, width)
        shapes = [probe.output(position).partial_shape.to_shape() for position in self._outputs]
        self._out_channels = [int(shape[1]) for shape in shapes]
        self._factors = [Fraction(int(shape[2]) + sides.lost, height) for shape in shapes]
        self._requests: dict[tuple[int, int], list[Any]] = {}
        self._lock = threading.Lock()
        self.division: Division | None = None

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for (name, channels), x in zip(self._signature.inputs, inputs, strict=True):
            if x.shape[1] != channels:
                raise EngineError(f"the network takes {channels} channels as {name}, not {x.shape[1]}")
        inputs = tuple(self._taken(x, name) for (name, _), x in zip(self._signature.inputs, inputs, strict=True))
        batch, height, width = (inputs[0].shape[axis] for axis in (0, 2, 3))
        outs = self._empty_outputs(batch, height, width)
        try:
            with self._lock:
                requests = self._requests_for(batch, height, width)
                _run(
                    requests, dict(zip(self._inputs, inputs, strict=True)), dict(zip(self._outputs, outs, strict=True))
                )
        except RuntimeError as error:
            if any(sign in str(error) for sign in _OUT_OF_MEMORY):
                self._requests.clear()
                raise MemoryError(f"out of memory in OpenVINO ({_one_line(error)})") from error
            raise EngineError(f"{self.name} fails ({_one_line(error)})") from error
        names = self._signature.outputs
        return tuple(x.permute(0, 3, 1, 2) if self._is_state(n) else x for n, x in zip(names, outs, strict=True))

    def _is_state(self, name: str) -> bool:
        return any(name in pair for pair in self._signature.states)

    def _taken(self, x: Tensor, name: str) -> Tensor:
        """Bring an input to its type and layout: (N, C, H, W) float32, or for a state (N, H, W, C)."""
        if not self._is_state(name):
            return x.to(torch.float32).contiguous()
        return x.to(self.state_dtype).permute(0, 2, 3, 1).contiguous()

    def _empty_outputs(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Allocate the outputs, in type and layout like the inputs."""
        lost, outs = self._sides.lost, []
        for name, channels, factor in zip(self._signature.outputs, self._out_channels, self._factors, strict=True):
            sides = (int(height * factor) - lost, int(width * factor) - lost)
            if self._is_state(name):
                outs.append(torch.empty(batch, *sides, channels, dtype=self.state_dtype))
            else:
                outs.append(torch.empty(batch, channels, *sides))
        return tuple(outs)

    def _requests_for(self, batch: int, height: int, width: int) -> list[Any]:
        """Return as many requests as frames are worth running at a time; compiled when first needed."""
        # The CPU plugin is as fast with open sizes, so that tiles and other clips compile nothing anew. Not so for
        # states: only where it knows the size, it takes them channels last without a copy.
        is_open = self._accelerator == "CPU" and self._sides.fixed is None and not self._signature.states
        size = (-1, -1) if is_open else (height, width)
        at_a_time = self._division().frames if self._accelerator == "CPU" else _FRAMES_ON_GPU
        num_streams = min(batch, at_a_time)
        requests = self._requests.pop(size, [])
        if len(requests) <= num_streams:
            requests = self._compiled(size, num_streams)
        self._requests[size] = requests  # last of the dict: used most recently
        if len(self._requests) > _MAX_SIZES:
            del self._requests[next(iter(self._requests))]
        return requests

    def _division(self) -> Division:
        return self.division or Division(max(1, _num_threads() // _CORES_PER_FRAME), _num_threads())

    def _compiled(self, size: tuple[int, int], num_streams: int) -> list[Any]:
        model = self._with_states_as_kept(self._reshaped(*size))
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": self._type,
            "NUM_STREAMS": num_streams,
        }
        if self._accelerator == "CPU":
            # Not pinned: decoder and encoder run on the same cores, and a pinned thread waits for its own.
            options |= {
                "INFERENCE_NUM_THREADS": self._division().threads,
                "ENABLE_CPU_PINNING": False,
                "CPU_RUNTIME_CACHE_CAPACITY": _MOST_KERNELS,
            }
        else:
            options["CACHE_DIR"] = str(engines_folder() / "openvino")
        compiled = self._core.compile_model(model, self._accelerator, options)
        # One more than run, so that the next frame waits in the queue and not for Python.
        return [compiled.create_infer_request() for _ in range(num_streams + 1)]

    def _with_states_as_kept(self, model: Any) -> Any:
        """Let a model take and give states channels last and in their own type."""
        if not self._signature.states:
            return model
        openvino = load_openvino()
        kind = getattr(openvino.Type, self._type if self._type in _STATE_TYPES else "f32")
        for position, name in zip(self._outputs, self._signature.outputs, strict=True):
            if self._is_state(name) and self._type in _STATE_TYPES:
                _convert_before_joining(model, position, kind)
        steps = importlib.import_module("openvino.preprocess").PrePostProcessor(model)
        ports = [*zip(self._inputs, self._signature.input_names, [steps.input] * len(self._inputs), strict=True)]
        ports += zip(self._outputs, self._signature.outputs, [steps.output] * len(self._outputs), strict=True)
        for position, name, port in ports:
            if self._is_state(name):
                port(position).model().set_layout(openvino.Layout("NCHW"))
                port(position).tensor().set_layout(openvino.Layout("NHWC")).set_element_type(kind)
        return steps.build()

    def _reshaped(self, height: int, width: int) -> Any:
        """Copy the model for single frames of a size; -1 leaves a side open."""
        model = self._model.clone()
        channels = [channels for _, channels in self._signature.inputs]
        model.reshape({p: [1, c, height, width] for p, c in zip(self._inputs, channels, strict=True)})
        return model


def _convert_before_joining(model: Any, position: int, kind: Any) -> None:
    """Convert the parts of an output that a Concat joins, where they are made, and not once more all together.

    The plugin computes in that type anyway, and copies an output whose type is converted last.
    """
    joined = model.outputs[position].get_node().input_value(0).get_node()
    if joined.get_type_name() == "Concat":
        operations, names = importlib.import_module("openvino.opset10"), joined.output(0).get_names()
        parts = [operations.convert(part, kind.get_type_name()) for part in joined.input_values()]
        whole = operations.concat(parts, joined.get_attributes()["axis"])
        joined.output(0).replace(whole.output(0))
        whole.output(0).set_names(names)
        model.validate_nodes_and_infer_types()


def _positions(ports: list[Any], names: tuple[str, ...]) -> list[int]:
    """Find a model's inputs or outputs by name; a single one has any name, as in the ONNX files of others."""
    found = {name: position for position, port in enumerate(ports) for name in port.get_names()}
    if len(ports) == len(names) == 1:
        return [0]
    try:
        return [found[name] for name in names]
    except KeyError as error:
        raise EngineError(f"the network has {', '.join(sorted(found))}, and not {error}") from error


def _num_threads() -> int:
    """Return torch's number of threads, less some of many for the decoder and the encoder."""
    num_threads = torch.get_num_threads()
    return num_threads - num_threads // 8


def _run(requests: list[Any], inputs: dict[int, Tensor], outputs: dict[int, Tensor]) -> None:
    """Compute frame by frame from `inputs` into `outputs`, both by position; return when no request runs any more."""
    try:
        for frame in range(next(iter(inputs.values())).shape[0]):
            request = requests[frame % len(requests)]
            request.wait()
            for position, x in inputs.items():
                request.set_input_tensor(position, _shared(x[frame : frame + 1]))
            for position, out in outputs.items():
                request.set_output_tensor(position, _shared(out[frame : frame + 1]))
            request.start_async()
    finally:
        failures = list(_failures(requests))
    if failures:
        raise failures[0]


def _shared(x: Tensor) -> Any:
    """Show OpenVINO a tensor where torch has it."""
    openvino = load_openvino()
    if x.dtype in _STATE_TYPES.values():  # NumPy has no bfloat16
        kind = getattr(openvino.Type, next(name for name, dtype in _STATE_TYPES.items() if dtype is x.dtype))
        return openvino.Tensor(x.view(torch.uint16).numpy(), openvino.Shape(x.shape), kind)
    return openvino.Tensor(x.numpy(), shared_memory=True)


def _failures(requests: list[Any]) -> Iterator[RuntimeError]:
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            yield error


# -- from the network to OpenVINO's format -------------------------------------------------------------


def _model(core: Any, net: nn.Module | OnnxFile, signature: Signature) -> Any:
    """Load the network with open sizes, from its file where that is sound."""
    if isinstance(net, OnnxFile):
        return net.read()
    path = _path(net, signature)
    content = _read_checked(path)
    if content is None:
        content = _converted(core, net, signature)
        _write_checked(path, content)
    length = int.from_bytes(content[:8], "little")
    return core.read_model(content[8 : 8 + length], content[8 + length :])


def _converted(core: Any, net: nn.Module, signature: Signature) -> bytes:
    """Convert to OpenVINO's format: the length of the description in 8 bytes, the description, the weights."""
    model = core.read_model(export_onnx(net, signature))  # a quantized one's integers are in it
    _use_old_forms(model)
    names = _kept_in_float32(model, tuple(getattr(net, "keep_float32", ())))
    wanted = dict.fromkeys(getattr(net, "keep_float32", ()), _FLOAT_KERNELS)
    wanted |= {name: _INTEGER_KERNELS for name, layer in net.named_modules() if isinstance(layer, QuantizedConv2d)}
    with tempfile.TemporaryDirectory() as folder:
        description, weights = Path(folder, "net.xml"), Path(folder, "net.bin")
        load_openvino().serialize(model, str(description), str(weights))
        root = ET.fromstring(description.read_bytes())
        for layer in root.iter("layer"):
            if layer.get("name") in names:
                _mark(layer, "precise")  # as `ov::disable_fp16_compression` does; Python cannot, on the model itself
            if layer.get("type") == "Convolution" and (kernels := wanted.get(layer.get("name", "").partition("/")[0])):
                _mark(layer, "primitives_priority", value=kernels)
        text = ET.tostring(root)
        return len(text).to_bytes(8, "little") + text + weights.read_bytes()


def _kept_in_float32(model: Any, layers: tuple[str, ...]) -> set[str]:
    """Name the operations of the layers that stay in float32, and those that carry the image to them or past them.

    Under a hint of bfloat16 the lot would be converted; an image rounded to 8 bits of mantissa is off by
    half a code value before the network begins, and again where it is added to the network's output.
    """
    prefixes = tuple(layer + end for layer in layers for end in "/.")
    ops = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    inputs = {name: [value.get_node().get_friendly_name() for value in op.input_values()] for name, op in ops.items()}
    kept = {name for name in ops if prefixes and name.startswith(prefixes)}
    image: dict[str, int] = {}  # operations computed from inputs by layers in float32 alone: number of these
    for name, op in ops.items():
        is_layer = op.get_type_name() in _WEIGHTED
        sources = [source for source in inputs[name] if ops[source].get_type_name() != "Constant"]
        if op.get_type_name() == "Parameter":
            image[name] = 0
        elif sources and all(source in image for source in sources) and (name in kept or not is_layer):
            image[name] = max(image[source] for source in sources) + is_layer
    kept |= {name for name, num_layers in image.items() if num_layers == 0}
    for name in reversed(ops):
        if name in kept:
            kept.update(source for source in inputs[name] if source in image)
    return kept


def _use_old_forms(model: Any) -> None:
    """Replace the newer forms of Interpolate and Pad, which the CPU plugin does by itself, losing their marks.

    It replaces Subtract, too, and a sum with the negative is Subtract to it. A difference of halves has the same bits.
    """
    operations = importlib.import_module("openvino.opset10")  # the last to have both
    for op in model.get_ordered_ops():
        kind, options = f"{op.get_type_name()} {op.get_type_info().version_id}", op.get_attributes()
        values = op.input_values()
        if kind == "Interpolate opset11":
            sizes, scales = np.zeros(4, np.int64), values[1]
            if options["shape_calculation_mode"] == "sizes":
                sizes, scales = values[1], np.zeros(4, np.float32)
            axes = values[2] if len(values) > 2 else np.arange(4)
            old = operations.interpolate(values[0], sizes, scales, axes=axes, **options)
        elif kind == "Pad opset12":
            old = operations.pad(*values[:3], options["pad_mode"], *values[3:])
        elif kind == "Subtract opset1" and _differ_as_images(*values):
            halves = [operations.multiply(x, np.float32(half)) for x, half in zip(values, (0.5, -0.5), strict=True)]
            old = operations.multiply(operations.add(*halves), np.float32(2))
        else:
            continue
        old.set_friendly_name(op.get_friendly_name())
        op.output(0).replace(old.output(0))


def _differ_as_images(one: Any, other: Any) -> bool:
    """Tell a difference of images from that of sizes, or of an image and a constant, such as integers' zero point."""
    return bool(one.get_element_type().is_real()) and other.get_node().get_type_name() not in ("Constant", "Convert")


def _mark(layer: ET.Element, name: str, **values: str) -> None:
    """Give an operation a mark that the CPU plugin looks at."""
    info = layer.find("rt_info")
    if info is None:
        info = ET.Element("rt_info")
        layer.insert(0 if layer.find("data") is None else 1, info)
    ET.SubElement(info, "attribute", {"name": name, "version": "0", **values})


def _path(net: nn.Module, signature: Signature) -> Path:
    version = importlib.metadata.version("openvino")  # without the import, which takes a while
    digest = hashlib.sha256(f"{fingerprint(net)} {signature} {version}".encode()).hexdigest()
    return engines_folder() / f"{type(net).__name__.lower()}-{digest[:16]}{_SUFFIX}"


def _read_checked(path: Path) -> bytes | None:
    """Read a file of `_write_checked`; None for one that is not there or fails its checksum, which comes first."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _write_checked(path: Path, content: bytes) -> None:
    """Whole or not at all; where it cannot be kept, the next job makes it again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, hashlib.sha256(content).digest() + content)


def _one_line(error: BaseException) -> str:
    """Return OpenVINO's own words, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from src", "Check '"))] or lines
    return (told[-1] if told else type(error).__name__)[:200]
