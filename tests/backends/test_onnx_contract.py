"""What TensorRT asks of a graph, held by the shipped networks at the batch that a job on 720p chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vsr.backends.engine import Precision, Signature
from vsr.backends.onnx_export import largest_tensor
from vsr.backends.tensorrt_builder import MOST_ELEMENTS
from vsr.jobs.plan import choose_batch
from vsr.models.cards import ModelCard, shipped_cards
from vsr.models.weights import load_int8_net, load_with_card
from vsr.pipeline.loading import signature_of
from vsr.pipeline.tiles import SMALLEST_TILE

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

WIDTH, HEIGHT = 1280, 720
# All of TensorRT's parser, and of its fusions: element-wise, convolution, shuffle, concatenation.
ALLOWED = {
    "Add", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "DequantizeLinear", "Div", "Floor", "LeakyRelu", "Mul",
    "PRelu", "Pad", "QuantizeLinear", "Relu", "Resize", "Slice", "Split", "Sub", "Tanh",
}  # fmt: skip
CASES: list[tuple[str, Precision]] = [
    ("edsr", "fp16"),
    ("fast", "fp16"),
    ("fast", "int8"),
    ("fast-x2", "fp16"),
    ("fast-x2", "int8"),
    ("nano", "fp16"),
    ("nano", "int8"),
    ("srgan", "fp16"),
    ("srcnn", "fp16"),
    ("srcnn-x2", "fp16"),
    ("vdsr", "fp16"),
    ("vdsr-x2", "fp16"),
    ("video", "fp16"),
    ("video-fast", "fp16"),
    ("video-fast", "int8"),
]


def _with_sizes(model: Any, signature: Signature, batch: int, height: int, width: int) -> bytes:
    """Fill the open sizes of an export in, as one of fixed sizes has them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.input:
        for axis, length in ((0, batch), (2, height), (3, width)):
            tensor.type.tensor_type.shape.dim[axis].dim_value = length
    for tensor in copy.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    return bytes(copy.SerializeToString())


def _structure(card: ModelCard, precision: Precision) -> tuple[object, ...]:
    """All that a graph depends on but for its weights."""
    return card.net, sorted(card.options.items()), card.color, precision


def test_every_shipped_network_has_its_structure_here() -> None:
    cards = shipped_cards()
    held = [_structure(cards[name], precision) for name, precision in CASES]
    wanted = [_structure(card, "fp16") for card in cards.values()]
    wanted += [_structure(card, "int8") for card in cards.values() if card.int8_weights]
    assert all(each in held for each in wanted)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_shipped_network_is_what_tensorrt_takes(
    name: str, precision: Precision, export_once: Callable[..., bytes]
) -> None:
    card, net = load_with_card(name)
    net = load_int8_net(card) if precision == "int8" else net
    signature = signature_of(card)
    model = onnx.load_from_string(export_once(net, signature, precision=precision, beside_integers="fp16"))
    batch = 1 if card.recurrent else choose_batch(None, WIDTH, HEIGHT, torch.device("cuda"))
    per_frame = largest_tensor(_with_sizes(model, signature, 1, HEIGHT, WIDTH))
    planned = largest_tensor(_with_sizes(model, signature, batch, HEIGHT, WIDTH))
    assert planned == per_frame * batch >= batch * HEIGHT * WIDTH, "every size is known, so none is overlooked"
    fitting = min(batch, MOST_ELEMENTS // per_frame)
    assert fitting >= 1 and per_frame * fitting < 2**31, "a job caps its batch by this, and one frame of 720p fits"
    assert (name in ("edsr", "srcnn", "vdsr")) == (fitting < batch), "these were over, at batches of 4"
    assert set(signature.input_names) == {tensor.name for tensor in model.graph.input}
    assert list(signature.outputs) == [tensor.name for tensor in model.graph.output]
    assert largest_tensor(_with_sizes(model, signature, 1, SMALLEST_TILE * 2, SMALLEST_TILE * 2)) < 2**24
    _check_operators(model, precision)


def _check_operators(model: Any, precision: Precision) -> None:
    kinds = {node.op_type for node in model.graph.node}
    assert kinds <= ALLOWED, kinds - ALLOWED
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    slopes = [constants[node.input[1]].dims for node in model.graph.node if node.op_type == "PRelu"]
    assert all(max(dims) > 1 for dims in slopes), "one slope is LeakyRelu's, which is fused with the convolution"
    if precision == "fp16":  # but for the fixed kernel by which VDSR and SRCNN enlarge the image itself
        layers = [node for node in model.graph.node if node.op_type == "Conv" and not node.name.startswith("up/")]
        assert {constants[node.input[1]].data_type for node in layers} == {onnx.TensorProto.FLOAT16}
    consumers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            consumers.setdefault(tensor, []).append(node)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].data_type == onnx.TensorProto.INT8
            assert [each.op_type for each in consumers[node.output[0]]] == ["DequantizeLinear"]
        if node.op_type == "DequantizeLinear":
            assert constants[node.input[1]].data_type == onnx.TensorProto.FLOAT16, "no cast stands in the way"
            kinds = {each.op_type for each in consumers[node.output[0]]}
            assert kinds in ({"Conv"}, {"Conv", "Add"}), "nothing in between, so that it fuses"
        if node.op_type == "Add" and node.name.startswith("body."):
            quantized = [x for x in node.input if x.endswith("/values")]
            assert len(quantized) == (precision == "int8"), "a block's input is read once, as integers"
