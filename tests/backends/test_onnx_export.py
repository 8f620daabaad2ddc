"""The ONNX of every network, run by onnxruntime: a second opinion on what TensorRT is given."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vsr.backends.engine import Precision, Signature, image_signature
from vsr.backends.onnx_export import export_onnx
from vsr.errors import EngineError, MissingExtraError
from vsr.models.nets import NETS
from vsr.models.nets.recurrent import RecurrentNet, WithImages
from vsr.models.weights import load_net, resolve

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OPTIONS: dict[str, dict[str, Any]] = {
    "luma": {"features": 6, "depth": 1, "scale": 3},
    "srresnet": {"features": 6, "num_blocks": 1, "scale": 2, "tail": "classic", "residual": False},
    "msrresnet": {"features": 6, "num_blocks": 1},
    "edsr": {"features": 6, "num_blocks": 1, "scale": 2},
    "rrdb": {"features": 6, "num_blocks": 1, "growth": 4, "scale": 2, "unshuffle": 2},
    "srvgg": {"features": 6, "depth": 1},
    "vdsr": {"features": 6, "depth": 3, "scale": 2},
    "srcnn": {"kernels": (9, 1, 5), "scale": 2},
    "fsrcnn": {"features": 6, "shrunk": 4, "depth": 1, "scale": 2},
    "espcn": {"features": (6, 4), "scale": 2},
    "imdn": {"features": 8, "num_blocks": 1, "scale": 2, "aside": 2, "reduced": 4},
    "rfdn": {"features": 8, "num_blocks": 1, "scale": 2, "aside": 4, "reduced": 4},
    "rlfn": {"features": 8, "num_blocks": 1, "scale": 2, "middle": 8, "reduced": 4},
}
LUMA = ("luma", "vdsr", "srcnn", "fsrcnn", "espcn")


def _net(name: str) -> tuple[nn.Module, int]:
    """A small network of each kind, and its input channels."""
    torch.manual_seed(3)
    return NETS[name](**OPTIONS[name]).eval().requires_grad_(False), 1 if name in LUMA else 3


def _picture(channels: int, batch: int = 3, height: int = 18, width: int = 26) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(2))


def _run(model: bytes, x: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x.numpy()})
    return torch.from_numpy(y)


def _types(model: bytes) -> dict[str, int]:
    """Element types of the weights, by name."""
    return {tensor.name: tensor.data_type for tensor in onnx.load_from_string(model).graph.initializer}


def test_every_network_is_tried() -> None:
    assert OPTIONS.keys() | {"recurrent"} == NETS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_open_sizes_in_fp32_give_what_the_network_gives(name: str) -> None:
    net, channels = _net(name)
    model = export_onnx(net, image_signature(channels))
    for x in (_picture(channels), _picture(channels, 1, 30, 16)):
        torch.testing.assert_close(_run(model, x), net(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_fixed_sizes_in_fp16_stay_within_two_code_values(name: str) -> None:
    net, channels = _net(name)
    x = _picture(channels, 2)
    model = export_onnx(net, image_signature(channels), shape=(2, 18, 26), precision="fp16")
    out = _run(model, x)
    assert out.dtype is torch.float32
    assert (out.clamp(0, 1) - net(x).clamp(0, 1)).abs().max() < 2 / 255
    types = {kind for name, kind in _types(model).items() if name.endswith("weight")}
    assert types == {onnx.TensorProto.FLOAT16}  # layers stay in float32 beside bf16 alone


def test_a_shipped_network_in_fp16_is_within_two_code_values() -> None:
    net = load_net(*resolve("fast"))
    x = nn.functional.interpolate(_picture(1, 1, 8, 9), (64, 72), mode="bicubic").clamp(0, 1)
    model = export_onnx(net, image_signature(1), precision="fp16")
    assert (_run(model, x).clamp(0, 1) - net(x).clamp(0, 1)).abs().max() < 2 / 255


def test_bf16_is_in_the_types_and_valid_onnx() -> None:
    net, channels = _net("luma")
    model = onnx.load_from_string(export_onnx(net, image_signature(channels), precision="bf16"))
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["body.0.weight"] == onnx.TensorProto.FLOAT
    assert types["tail.weight"] == onnx.TensorProto.BFLOAT16


@pytest.mark.parametrize("shape", [None, (4, 20, 36)])
def test_input_and_output_are_float32_and_named(shape: tuple[int, int, int] | None) -> None:
    net, channels = _net("luma")
    graph = onnx.load_from_string(export_onnx(net, image_signature(channels), shape=shape, precision="fp16")).graph
    ends = {"x": graph.input, "y": graph.output}
    sizes = {}
    for name, (end,) in ends.items():
        assert end.name == name and end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        sizes[name] = [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim]
    if shape is None:
        assert sizes == {"x": ["batch", 1, "height", "width"], "y": ["batch", 1, "3*height", "3*width"]}
    else:
        assert sizes == {"x": [4, 1, 20, 36], "y": [4, 1, 60, 108]}


def test_the_bytes_depend_on_network_and_options_alone() -> None:
    net, channels = _net("luma")
    first = export_onnx(net, image_signature(channels), precision="fp16")
    export_onnx(_net("srresnet")[0], image_signature(3), shape=(1, 8, 8))
    with torch.inference_mode():  # as engines are called
        assert export_onnx(net, image_signature(channels), precision="fp16") == first
    with torch.no_grad():
        next(net.parameters())[0] += 0.5
    assert export_onnx(net, image_signature(channels), precision="fp16") != first


def test_nothing_of_the_machine_is_in_the_file() -> None:
    net, channels = _net("luma")
    model = export_onnx(net, image_signature(channels))
    for trace in (b".py", b"site-packages", b"vsr.models", torch.__version__.encode()):
        assert trace not in model


def test_the_network_is_left_as_it_was() -> None:
    net, channels = _net("srvgg")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export_onnx(net, image_signature(channels), precision="bf16")
    for name, value in net.state_dict().items():
        assert value.dtype is torch.float32 and torch.equal(value, before[name])


class _Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x.mean(float(x.sum()))  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("precision", ["fp32"])
def test_a_network_that_cannot_be_exported_is_an_engine_error_of_one_line(precision: Precision) -> None:
    with pytest.raises(EngineError, match="_Untraceable cannot be exported") as caught:
        export_onnx(_Untraceable(), image_signature(1), precision=precision)
    assert "\n" not in str(caught.value)


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"vsr-enhance\[onnx\]"):
        export_onnx(_net("luma")[0], image_signature(1))


def test_a_recurrent_network_has_named_inputs_and_outputs_that_share_their_sizes() -> None:
    torch.manual_seed(3)
    net = RecurrentNet(features=6, blocks=1).eval().requires_grad_(False)
    nn.init.normal_(net.tail.weight, std=0.1)
    inputs = (("planes", 3), ("previous", 1), ("following", 1), ("state", net.state_channels))
    signature = Signature(inputs, ("luma", "chroma", "next_state"), (("state", "next_state"),))
    whole = WithImages(net)
    model = export_onnx(whole, signature)
    graph = onnx.load_from_string(model).graph
    sizes = {
        tensor.name: [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.input, *graph.output)
    }
    assert sizes == {
        **{name: ["batch", channels, "height", "width"] for name, channels in inputs},
        "luma": ["batch", 1, "4*height", "4*width"],
        "chroma": ["batch", 2, "2*height", "2*width"],
        "next_state": ["batch", net.state_channels, "height", "width"],
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 20, 26), (3, 16, 31)):
        xs = [_picture(channels, batch, height, width) for _, channels in inputs]
        outs = session.run(signature.outputs, dict(zip(signature.input_names, (x.numpy() for x in xs), strict=True)))
        for out, expected in zip(outs, whole(*xs), strict=True):
            torch.testing.assert_close(torch.from_numpy(out), expected, rtol=0, atol=1e-4)
