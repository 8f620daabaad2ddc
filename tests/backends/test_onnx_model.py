"""ONNX files of other projects as models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vsr.backends.onnx_model import read_onnx
from vsr.errors import MissingExtraError, ModelError, OptionError
from vsr.pipeline.loading import load_model

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
helper = pytest.importorskip("onnx.helper")

FLOAT, FLOAT16, INT64 = 1, 10, 7
OPEN = ["n", 3, "h", "w"]


def _save(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **weights: Any) -> Path:
    def values(ends: dict[str, Any]) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in ends.items()]

    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def _nearest(path: Path, scale: float = 2, shape: list[Any] = OPEN, kind: int = FLOAT) -> Path:
    resize = helper.make_node(
        "Resize", ["lr", "", "scales"], ["sr"], mode="nearest", coordinate_transformation_mode="asymmetric"
    )
    scales = np.array([1, 1, scale, scale], np.float32)
    return _save(path, [resize], {"lr": (kind, shape)}, {"sr": (kind, None)}, scales=scales)


def _convolved(path: Path, dilation: int = 1) -> Path:
    """Two convolutions of 5×5 and 3×3 and a shuffle, to ×3."""
    nodes = [
        helper.make_node("Conv", ["lr", "first"], ["a"], pads=[2 * dilation] * 4, dilations=[dilation] * 2),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["c"], ["sr"], blocksize=3, mode="CRD"),
    ]
    rng = np.random.default_rng(1)
    first, second = (rng.random(shape, np.float32) / 50 for shape in ((4, 1, 5, 5), (9, 4, 3, 3)))
    ends = {"lr": (FLOAT, ["n", 1, "h", "w"])}, {"sr": (FLOAT, None)}
    return _save(path, nodes, *ends, first=first, second=second)


def test_scale_and_colour_come_from_the_graph(tmp_path: Path) -> None:
    card, _ = read_onnx(_nearest(tmp_path / "up.onnx", 4))
    assert (card.name, card.scale, card.color, card.multiple_of) == ("up", 4, "rgb", 1)
    card, _ = read_onnx(_convolved(tmp_path / "net.onnx"))
    assert (card.scale, card.color, card.halo) == (3, "y", 3)
    assert read_onnx(_convolved(tmp_path / "net.onnx", dilation=4))[0].halo == 9


@pytest.mark.parametrize("kind", [FLOAT, FLOAT16])
def test_it_runs_as_a_model(tmp_path: Path, kind: int) -> None:
    upscaler = load_model(str(_nearest(tmp_path / "up.onnx", kind=kind)), precision="fp32")
    assert upscaler.engine.name.startswith("OpenVINO")
    x = torch.rand(3, 3, 15, 22)
    torch.testing.assert_close(upscaler.network(x)[0], F.interpolate(x, scale_factor=2), rtol=0, atol=1e-3)


def test_tiles_give_what_whole_frames_give(tmp_path: Path) -> None:
    path = str(_convolved(tmp_path / "net.onnx"))
    x = torch.rand(2, 1, 40, 52)
    whole = load_model(path, precision="fp32").network(x)[0]
    torch.testing.assert_close(load_model(path, precision="fp32", tile=16).network(x)[0], whole)


def test_sides_that_must_be_even_are_found(tmp_path: Path) -> None:
    """Halved and doubled again inside, and added to itself: odd sides do not fit."""
    nodes = [
        helper.make_node("MaxPool", ["lr"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode="nearest"),
        helper.make_node("Add", ["lr", "b"], ["sr"]),
    ]
    ends = {"lr": (FLOAT, OPEN)}, {"sr": (FLOAT, None)}
    path = _save(tmp_path / "net.onnx", nodes, *ends, scales=np.array([1, 1, 2, 2], np.float32))
    assert read_onnx(path)[0].multiple_of == 2
    assert load_model(str(path), precision="fp32").network(torch.rand(1, 3, 17, 21))[0].shape == (1, 3, 17, 21)


def _refuse(path: Path, *named: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_onnx(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and all(name in text for name in named), text


def test_other_networks_are_refused_with_their_inputs_and_outputs(tmp_path: Path) -> None:
    _refuse(_nearest(tmp_path / "a.onnx", shape=["n", 4, "h", "w"]), "1 or 3 channels", "input lr f32", "output sr")
    _refuse(_nearest(tmp_path / "b.onnx", 1.5), "whole number", "input lr")
    _refuse(_nearest(tmp_path / "c.onnx", 0.5), "whole number")
    mean = [helper.make_node("GlobalAveragePool", ["lr"], ["sr"])]
    _refuse(_save(tmp_path / "d.onnx", mean, {"lr": (FLOAT, OPEN)}, {"sr": (FLOAT, None)}), "whole number")
    both = {"lr": (FLOAT, OPEN), "noise": (FLOAT, OPEN)}
    add = [helper.make_node("Add", ["lr", "noise"], ["sr"])]
    _refuse(_save(tmp_path / "e.onnx", add, both, {"sr": (FLOAT, OPEN)}), "one input", "lr", "noise")
    same = [helper.make_node("Identity", ["lr"], ["sr"])]
    _refuse(_save(tmp_path / "f.onnx", same, {"lr": (INT64, OPEN)}, {"sr": (INT64, OPEN)}), "float", "i64")


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a network" * 9)
    _refuse(tmp_path / "a.onnx", "ONNX")
    _refuse(tmp_path / "missing.onnx", "no such")


def test_pytorch_cannot_run_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="OpenVINO"):
        load_model(str(_nearest(tmp_path / "up.onnx")), backend="pytorch")


def test_without_openvino_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"vsr-enhance\[cpu\]"):
        read_onnx(_nearest(tmp_path / "up.onnx"))
