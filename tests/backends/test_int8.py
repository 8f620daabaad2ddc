"""int8 from the network to the engines: the exported graph, who computes it, and what happens where none can."""

from __future__ import annotations

import copy
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorrt_double import VERSIONS, Device
from torch import Tensor, nn

from vsr.backends import openvino_engine
from vsr.backends.engine import Precision, Signature, image_signature, safer_precisions
from vsr.backends.onnx_export import export_onnx
from vsr.backends.onnx_model import OnnxFile
from vsr.backends.select import EngineMaker, Place
from vsr.backends.tensorrt_engine import make_tensorrt_engine
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import EngineError, OptionError
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet
from vsr.models.nets.recurrent import RecurrentNet
from vsr.models.quantization import QuantizedConv2d, calibrate, quantized, without_quantization
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.loading import signature_of
from vsr.pipeline.upscaler import Upscaler

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

CPU = torch.device("cpu")
CARD = ModelCard("small", "luma", {}, 2, "y", halo=4)
STEP = 1 / 255
_RECURRENT = signature_of(
    ModelCard("seeing", "recurrent", {"features": 8, "blocks": 2, "scale": 2}, 2, "yuv", 6, recurrent=True)
)


def _plain() -> LumaNet:
    torch.manual_seed(2)
    net = LumaNet(8, 2, 2)
    nn.init.normal_(net.tail.weight, std=0.05)
    return net.eval().requires_grad_(False)


def _picture(num: int = 2, height: int = 24, width: int = 33) -> Tensor:
    x = torch.rand(num, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(6))
    return nn.functional.interpolate(x, (height, width), mode="bicubic").clamp(0, 1)


@functools.cache
def _integers() -> nn.Module:
    net = quantized(_plain())
    calibrate(net, [_picture()])
    return net


@functools.cache
def _coarse() -> nn.Module:
    """The network with layers whose input is rounded to few steps: that shows, and its integers are small.

    A CPU without instructions for int8 adds products in 16 bits, which larger integers exceed.
    """
    net = copy.deepcopy(_integers())
    for layer in net.modules():
        if isinstance(layer, QuantizedConv2d):
            layer.input_scale.mul_(8)
    return net


@functools.cache
def _exported() -> bytes:
    return export_onnx(_integers(), image_signature(1), precision="int8")


def _run(model: bytes, x: Tensor) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])


def _maker(place: Place, notes: list[str], net: nn.Module | OnnxFile | None = None, **options: Any) -> EngineMaker:
    more = {"work": math.inf, "load_quantized": _integers} | options
    return EngineMaker(net or _plain(), image_signature(1), place, label="small", note=notes.append, **more)


# -- the graph -------------------------------------------------------------------------------------------


def test_onnxruntime_computes_what_the_network_does() -> None:
    onnx.checker.check_model(onnx.load_from_string(_exported()), full_check=True)
    for x in (_picture(), _picture(1, 17, 40)):
        expected = _integers()(x)
        difference = (_run(_exported(), x) - expected).abs()
        assert difference.max() < STEP / 2  # one input of a layer on the verge may fall to the other side
        assert difference.mean() < STEP / 200
        assert (expected - _plain()(x)).abs().mean() > STEP / 200  # which the rounding itself far exceeds


def test_inner_weights_are_int8_and_all_others_float32() -> None:
    graph = onnx.load_from_string(_exported()).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer if tensor.name.endswith(".weight")}
    inner = {"body.2.weight", "body.4.weight"}
    assert {name for name, kind in types.items() if kind == onnx.TensorProto.INT8} == inner
    assert {types[name] for name in ("body.0.weight", "tail.weight")} == {onnx.TensorProto.FLOAT}
    makers = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Conv" and node.name.rpartition("/")[0] + ".weight" in inner:
            assert [makers[name] for name in node.input[:2]] == ["DequantizeLinear", "DequantizeLinear"]
    zeros = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith(".zero")]
    assert len(zeros) == 2 and not any(zeros)  # symmetric, as TensorRT takes it


def test_for_tensorrt_all_beside_the_integers_is_fp16_without_casts_between_layers() -> None:
    model = export_onnx(_integers(), image_signature(1), precision="int8", beside_integers="fp16")
    graph = onnx.load_from_string(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    scales = [kind for name, kind in types.items() if name.endswith("scale")]
    assert len(scales) == 4 and set(scales) == {onnx.TensorProto.FLOAT16}
    assert types["body.2.weight"] == onnx.TensorProto.INT8
    assert types["body.0.weight"] == types["tail.weight"] == onnx.TensorProto.FLOAT16
    assert [node.op_type for node in graph.node].count("Cast") <= 2, "of the image, and of the result"
    difference = (_run(model, _picture()) - _integers()(_picture())).abs()
    assert difference.max() < 2 * STEP and difference.mean() < STEP / 20


@pytest.mark.parametrize("beside", ["fp32", "fp16"])
def test_the_blocks_of_a_recurrent_network_add_the_integers_that_their_convolutions_take(beside: Precision) -> None:
    torch.manual_seed(4)
    net = quantized(RecurrentNet(8, 2, 2).eval().requires_grad_(False))
    inputs = (
        torch.cat((_picture(1), torch.zeros(1, 2, 24, 33)), 1),
        _picture(1),
        _picture(1),
        torch.zeros(1, 14, 24, 33),
    )
    calibrate(net, [inputs])
    for layer in net.modules():
        if isinstance(layer, QuantizedConv2d):
            layer.input_scale.mul_(4)  # so that the rounding shows
    model = export_onnx(net, _RECURRENT, precision="int8", beside_integers=beside)
    graph = onnx.load_from_string(model).graph
    nodes = {(node.name.rpartition("/")[0], node.op_type): node for node in graph.node}
    makers = {output: node for node in graph.node for output in node.output}
    for block in ("body.0", "body.1"):
        (taken,) = (x for x in nodes[block, "Add"].input if makers[x].op_type == "DequantizeLinear")
        assert nodes[f"{block}.first", "Conv"].input[0] == taken, "the same integers"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = dict(zip(_RECURRENT.input_names, (x.numpy() for x in inputs), strict=True))
    (found,), wanted = session.run(None, given), net(*inputs)
    by_rounding = (wanted - without_quantization(net)(*inputs)).abs().mean()
    assert by_rounding > STEP / 10
    assert (torch.from_numpy(found) - wanted).abs().mean() < by_rounding / (20 if beside == "fp32" else 3)


def test_a_scale_that_fp16_cannot_hold_becomes_its_least() -> None:
    net = copy.deepcopy(_integers())
    net.get_submodule("body.2").weight.data[0] = 0  # a channel that gives its bias alone
    model = onnx.load_from_string(export_onnx(net, image_signature(1), precision="int8", beside_integers="fp16"))
    (scales,) = (t for t in model.graph.initializer if t.name == "body.2.weight_scale")
    assert onnx.numpy_helper.to_array(scales).min() == np.finfo(np.float16).tiny


def test_the_bytes_are_the_same_each_time() -> None:
    assert export_onnx(_integers(), image_signature(1), precision="int8") == _exported()


def test_sizes_can_be_fixed() -> None:
    model = export_onnx(_integers(), image_signature(1), shape=(2, 24, 33), precision="int8")
    assert (_run(model, _picture()) - _integers()(_picture())).abs().max() < STEP / 2


def test_fp16_goes_without_the_rounding() -> None:
    model = onnx.load_from_string(export_onnx(_integers(), image_signature(1), precision="fp16"))
    assert "QuantizeLinear" not in {node.op_type for node in model.graph.node}


def test_a_network_that_is_not_quantized_is_refused() -> None:
    with pytest.raises(EngineError, match="not quantized"):
        export_onnx(_plain(), image_signature(1), precision="int8")
    with pytest.raises(EngineError, match="quantized"):
        openvino_engine.make_openvino_engine(_plain(), image_signature(1), precision="int8")


# -- engines ---------------------------------------------------------------------------------------------


def test_openvino_computes_what_the_network_does_in_integers() -> None:
    engine = openvino_engine.make_openvino_engine(_coarse(), image_signature(1), precision="int8")
    assert engine.name.endswith("int8")
    expected = _coarse()(_picture())
    difference = (engine(_picture())[0] - expected).abs()
    rounding = (expected - _plain()(_picture())).abs()
    assert difference.max() < STEP and difference.mean() < rounding.mean() / 3


def test_openvino_is_given_int8_for_the_inner_layers_and_float32_for_the_others() -> None:
    """Which instructions then multiply is OpenVINO's choice, by the CPU."""
    engine = openvino_engine.make_openvino_engine(_integers(), image_signature(1), precision="int8")
    ops = {(op.get_type_name(), op.get_friendly_name()): op for op in engine._model.get_ordered_ops()}
    types = {key: op.get_element_type().get_type_name() for key, op in ops.items()}
    weights = {layer: types["Constant", f"{layer}.weight"] for layer in ("body.0", "body.2", "body.4", "tail")}
    assert weights == {"body.0": "f32", "body.2": "i8", "body.4": "i8", "tail": "f32"}
    assert [name for (kind, name), type_ in types.items() if (kind, type_) == ("Convert", "i8")] == [
        "body.2/quantize",
        "body.4/quantize",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_gets_the_same_graph(
    version: str, tmp_path: Path, install_tensorrt: Callable[[str], Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = install_tensorrt(version)
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path / "engines"))
    engine = make_tensorrt_engine(
        _integers(),
        image_signature(1),
        precision="int8",
        device=CPU,
        note=lambda line: None,
        label="small",
        make_runner=device.make_runner,
    )
    assert (engine(_picture())[0] - _integers()(_picture())).abs().max() < STEP / 2


# -- the choice ------------------------------------------------------------------------------------------


def test_a_short_job_in_int8_runs_on_openvino_too() -> None:
    notes: list[str] = []
    maker = _maker(Place(CPU, "auto"), notes, work=1.0)
    assert maker.choose_precision("int8") == "int8"
    assert maker.make("int8").name.startswith("OpenVINO") and notes == []


def test_pytorch_alone_refuses_int8_and_names_who_has_it() -> None:
    with pytest.raises(OptionError, match="OpenVINO"):
        _maker(Place(CPU, "pytorch"), []).choose_precision("int8")


def test_without_openvino_auto_says_so_and_takes_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    notes: list[str] = []
    maker = _maker(Place(CPU, "auto"), notes)
    precision = maker.choose_precision("int8")
    (note,) = [note for note in notes if "int8" in note]
    assert precision in ("bf16", "fp32") and "vsr-enhance[cpu]" in note
    assert isinstance(maker.make(precision), TorchEngine)


def test_a_model_without_integers_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="no weights"):
        _maker(Place(CPU, "auto"), [], load_quantized=None).choose_precision("int8")


def test_an_onnx_file_is_run_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(export_onnx(_coarse(), image_signature(1), precision="int8"))
    file = OnnxFile(tmp_path / "a.onnx")
    with pytest.raises(OptionError, match="ONNX"):
        _maker(Place(CPU, "openvino"), [], file).choose_precision("int8")
    engine = _maker(Place(CPU, "openvino"), [], file).make("fp32")
    assert (engine(_picture())[0] - _coarse()(_picture())).abs().max() < STEP / 2


def test_a_file_of_integers_runs_in_int8_by_itself() -> None:
    assert _maker(Place(CPU, "openvino"), [], _integers()).choose_precision() == "int8"
    assert _maker(Place(CPU, "pytorch"), [], _integers()).choose_precision() == "fp32"
    engine = _maker(Place(CPU, "pytorch"), [], _integers()).make("fp32")
    assert torch.equal(engine(_picture())[0], _integers()(_picture()))


def test_when_openvino_fails_auto_goes_on_in_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise EngineError("it broke")

    monkeypatch.setattr(openvino_engine, "make_openvino_engine", fail)
    notes: list[str] = []
    engine = _maker(Place(CPU, "auto"), notes).make("int8")
    assert isinstance(engine, TorchEngine) and engine.precision == safer_precisions("int8")[0]
    assert "it broke" in notes[0] and any("int8" in line and engine.precision in line for line in notes)


# -- the precision gate ----------------------------------------------------------------------------------


def _upscaler(maker: EngineMaker, notes: list[str]) -> Upscaler:
    return Upscaler(
        CheckedNetwork(
            CARD, maker.make, "int8", None, notes.append, make_reference=maker.make_reference, is_fixed=maker.is_fixed
        )
    )


def test_int8_is_measured_against_its_own_integers() -> None:
    notes: list[str] = []
    upscaler = _upscaler(_maker(Place(CPU, "openvino"), notes, load_quantized=_coarse), notes)
    out = upscaler.network(_picture())[0]
    assert upscaler.precision == "int8" and notes == []
    assert (out - _coarse()(_picture())).abs().max() < 2 * STEP


def test_an_engine_that_miscalculates_the_integers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    real = openvino_engine.make_openvino_engine

    def make(net: nn.Module, signature: Signature, **options: Any) -> Any:
        engine = real(net, signature, **options)
        if options["precision"] != "int8":
            return engine

        class Wrong:
            name, device, dtype = engine.name, engine.device, engine.dtype

            def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
                return (engine(x)[0] + 4 * STEP,)

        return Wrong()

    monkeypatch.setattr(openvino_engine, "make_openvino_engine", make)
    notes: list[str] = []
    upscaler = _upscaler(_maker(Place(CPU, "openvino"), notes), notes)
    out = upscaler.network(_picture())[0]
    assert upscaler.precision == safer_precisions("int8")[0] and len(notes) == 1 and notes[0].startswith("int8 differs")
    assert (out - _plain()(_picture())).abs().max() < 2 * STEP  # measured against the plain network, which it is now
