"""Export networks as ONNX, in the precision they are to run in."""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vsr.backends.engine import PRECISIONS, Precision, Signature, converted
from vsr.backends.onnx_qdq import insert_integers
from vsr.errors import EngineError
from vsr.extras import importing
from vsr.models.quantization import QuantizedConv2d, rounded_skips, without_quantization
from vsr.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["export_onnx", "fingerprint", "largest_tensor"]

_OPSETS = {"int8": 20, "fp32": 20, "fp16": 20, "bf16": 22}  # 22: the first whose convolutions take bfloat16
_EXAMPLE = (2, 48, 64)  # batch, height, width of what is traced where they stay open; 1 would be taken as fixed
_LABELS = {"metadata_props", "doc_string", "producer_name", "producer_version", "value_info"}


def export_onnx(
    net: nn.Module,
    signature: Signature,
    *,
    shape: tuple[int, int, int] | None = None,
    precision: Precision = "fp32",
    beside_integers: Precision = "fp32",
) -> bytes:
    """Export a network as one ONNX file.

    The same network and options give the same bytes: nothing is left in them of the machine or the versions
    that made them. Raises MissingExtraError, and EngineError where the network cannot be exported.

    Args:
        signature: names of inputs and outputs, all float32 (N, C, H, W).
        shape: (batch, height, width) for fixed sizes; None leaves all three open.
        precision: the type that layers compute in, but for those the network keeps in float32; the types are in
            the graph, with casts where they change. Layers of `QuantizedConv2d` compute in int8, by
            QuantizeLinear and DequantizeLinear before them, under "int8", which takes such a network, and
            "fp32", and with all others in float32; without their rounding under "bf16" and "fp16".
        beside_integers: the type that all else computes in under "int8", "fp32" or "fp16".
    """
    with importing("the export to ONNX", "onnx", "onnx", "onnxscript"):
        import onnx  # noqa: F401 - whether it loads
        import onnxscript  # noqa: F401
    batch, height, width = shape or _EXAMPLE
    examples = tuple(torch.zeros(batch, channels, height, width) for _, channels in signature.inputs)
    dynamic = None if shape else (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),) * len(examples)
    integers = _integer_layers(net, precision)
    dtype = PRECISIONS[beside_integers if precision == "int8" else precision]
    module = _with_plain_slopes(converted(without_quantization(net), torch.device("cpu"), dtype))
    try:
        with _silence(), torch.inference_mode(False):
            program = torch.onnx.export(
                module,
                examples,
                input_names=list(signature.input_names),
                output_names=list(signature.outputs),
                opset_version=_OPSETS[precision],
                dynamic_shapes=dynamic,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises what its parts raise
        name = type(net).__name__
        raise EngineError(f"{name} cannot be exported to ONNX ({type(error).__name__}: {_one_line(error)})") from error
    if program is None:
        raise EngineError(f"{type(net).__name__} cannot be exported to ONNX by this version of PyTorch")
    return _cleaned(program.model_proto, integers, rounded_skips(net))


def _integer_layers(net: nn.Module, precision: Precision) -> dict[str, QuantizedConv2d]:
    """Return the layers that compute in int8 under a precision, by name. Raises EngineError for int8 without any."""
    if precision not in ("int8", "fp32"):
        return {}
    integers = {name: layer for name, layer in net.named_modules() if isinstance(layer, QuantizedConv2d)}
    if precision == "int8" and not integers:
        raise EngineError(f"{type(net).__name__} cannot be exported in int8: it is not quantized")
    return integers


def _with_plain_slopes(module: nn.Module) -> nn.Module:
    """Replace each PReLU of one slope by the LeakyReLU that computes the same, which engines fuse with convolutions.

    The module is changed in place.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            module.set_submodule(name, nn.LeakyReLU(layer.weight.item()))
    return module


def largest_tensor(onnx_bytes: bytes) -> int:
    """Return the number of elements of the largest tensor that a graph of fixed sizes computes, or takes."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(onnx_bytes), data_prop=True)
    graph = model.graph
    shapes = (value.type.tensor_type.shape for value in (*graph.input, *graph.value_info, *graph.output))
    return max(math.prod(int(dim.dim_value) for dim in shape.dim) for shape in shapes)


def fingerprint(net: nn.Module) -> str:
    """Return a SHA-256 of all that an export depends on: weights, structure, the networks' source and versions.

    Takes milliseconds where an export takes seconds: what was made of a network is found again by it.
    """
    digest = hashlib.sha256(f"{__version__} {torch.__version__} {net!r}".encode())
    for name, module in net.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (int, float, str, tuple))}
        plain.pop("training", None)
        digest.update(f"{name} {sorted(plain.items())}".encode())
    for path in sorted({_source_file(type(module)) for module in net.modules()} - {""}):
        digest.update(Path(path).read_bytes())
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _source_file(kind: type[nn.Module]) -> str:
    """Return the path of the source of a network's class; "" for PyTorch's own and for classes without a file."""
    if kind.__module__.startswith("torch."):
        return ""
    try:
        return inspect.getfile(kind)
    except (OSError, TypeError):
        return ""


@contextmanager
def _silence() -> Iterator[None]:
    """Silence the exporter's remarks on optional libraries and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _cleaned(model: ModelProto, integers: Mapping[str, QuantizedConv2d], skips: frozenset[str]) -> bytes:
    """Reduce a model to its graph, insert the layers of integers, name the open sizes, check and serialise it."""
    import onnx

    _name_by_layer(model)
    _strip(model)
    insert_integers(model, integers, skips)
    model.producer_name = "vsr"
    _name_open_sizes(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _name_open_sizes(model: ModelProto) -> None:
    """Call the open sizes of inputs and outputs batch, height and width."""
    names = {}
    for x in model.graph.input:
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            if symbol := x.type.tensor_type.shape.dim[axis].dim_param:
                names[symbol] = name
    for tensor in (*model.graph.input, *model.graph.output):
        for dim in tensor.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda match: names.get(match[0], match[0]), dim.dim_param)


def _name_by_layer(model: ModelProto) -> None:
    """Name nodes after the layers they come from, "body.0/conv2d", so that engines can tell layers apart."""
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        layer, function = ["", node.op_type, *ast.literal_eval(scopes)][-2:]
        name = f"{layer}/{function}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}.{taken[name]}"


def _strip(message: Any) -> None:
    """Clear what says where and by whom the graph was made, in a protobuf message and all below it."""
    for field, value in message.ListFields():
        if field.name in _LABELS:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if isinstance(value, (list, tuple)) or hasattr(value, "append") else (value,):
                _strip(part)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
