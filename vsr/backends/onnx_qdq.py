"""Insert layers of integers into ONNX: QuantizeLinear and DequantizeLinear around convolutions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from vsr.errors import EngineError
from vsr.models.quantization import QuantizedConv2d

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["insert_integers"]


def insert_integers(
    model: ModelProto, layers: Mapping[str, QuantizedConv2d], skips: Collection[str] = frozenset()
) -> None:
    """Make convolutions ones of integers, in place: each takes its input and its weights through int8.

    layers: by name, which the names of the model's nodes begin with. Symmetric and explicit: runtimes fold the
    pairs into convolutions of integers, and those that do not compute the same numbers in floats. Scales are of the
    type that the convolution had, float32 or float16, so that no cast stands between the layers.
    skips: names of blocks whose additions take the same integers as a convolution does, where one takes that tensor.
    Raises EngineError where a layer is not a convolution in the model.
    """
    if not layers:
        return
    from onnx import TensorProto

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found, nodes = set(), []
    for node in model.graph.node:
        layer = node.name.rpartition("/")[0]
        if node.op_type == "Conv" and layer in layers:
            found.add(layer)
            plain = weights[node.input[1]]
            model.graph.initializer.remove(plain)
            is_half = plain.data_type == TensorProto.FLOAT16
            before, tensors = _through_integers(node, layer, layers[layer], is_half)
            nodes += before
            model.graph.initializer.extend(tensors)
        nodes.append(node)
    _add_integers([node for node in nodes if node.op_type == "Add" and node.name.rpartition("/")[0] in skips], nodes)
    if missing := layers.keys() - found:
        raise EngineError(f"the ONNX has no convolution of its own for {', '.join(sorted(missing))}")
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _add_integers(additions: list[NodeProto], nodes: list[NodeProto]) -> None:
    """Let additions take tensors as their integers give them, where a convolution takes those."""
    integers = {node.input[0]: node.output[0] for node in nodes if node.op_type == "QuantizeLinear"}
    values = {node.input[0]: node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    for addition in additions:
        for position, name in enumerate(addition.input):
            if name in integers:
                addition.input[position] = values[integers[name]]


def _through_integers(
    node: NodeProto, name: str, layer: QuantizedConv2d, is_half: bool
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes to put before a convolution, whose inputs are changed to their outputs, and their constants."""
    from onnx import helper, numpy_helper

    scale, zero, scales, weight = (f"{name}.{part}" for part in ("input_scale", "zero", "weight_scale", "weight"))
    integers, values, filters = (f"{name}/{part}" for part in ("integers", "values", "filters"))
    dtype = np.float16 if is_half else np.float32
    steps = layer.weight_scales().cpu().numpy()
    if is_half:  # whose numbers below the least normal one, and zero, are no scales
        steps = np.maximum(steps, np.finfo(np.float16).tiny)
    tensors = [
        numpy_helper.from_array(layer.input_scale.detach().cpu().numpy().astype(dtype), scale),
        numpy_helper.from_array(np.array(0, np.int8), zero),
        numpy_helper.from_array(steps.astype(dtype), scales),
        numpy_helper.from_array(_integers_of(layer, steps.astype(dtype)), weight),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", [node.input[0], scale, zero], [integers], name=f"{name}/quantize"),
        helper.make_node("DequantizeLinear", [integers, scale, zero], [values], name=f"{name}/dequantize"),
        helper.make_node("DequantizeLinear", [weight, scales], [filters], name=f"{name}/filters", axis=0),
    ]
    node.input[0], node.input[1] = values, filters
    return nodes, tensors


def _integers_of(layer: QuantizedConv2d, scales: np.ndarray) -> np.ndarray:
    """Round a layer's weights to int8 by the scales of its output channels."""
    integers = layer.weight.detach().float().cpu().numpy() / scales.astype(np.float32)[:, None, None, None]
    return np.clip(np.rint(integers), -128, 127).astype(np.int8)
