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
from vsr.models.conventions import Stated
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
    first, second = (rng.random(shape, np.float32) for shape in ((4, 1, 5, 5), (9, 4, 3, 3)))
    first, second = (kernel / kernel.sum((1, 2, 3), keepdims=True) for kernel in (first, second))  # keep brightness
    ends = {"lr": (FLOAT, ["n", 1, "h", "w"])}, {"sr": (FLOAT, None)}
    return _save(path, nodes, *ends, first=first, second=second)


def test_scale_and_colour_come_from_the_graph(tmp_path: Path) -> None:
    card, _ = read_onnx(_nearest(tmp_path / "up.onnx", 4))
    assert (card.name, card.scale, card.color, card.multiple_of) == ("up", 4, "rgb", 1)
    card, _ = read_onnx(_convolved(tmp_path / "net.onnx"))
    assert (card.scale, card.color, card.halo) == (3, "y", 3)
    assert read_onnx(_convolved(tmp_path / "net.onnx", dilation=4), Stated("0..1"))[0].halo == 9


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
    """Halved and doubled again inside, and averaged with itself: odd sides do not fit."""
    nodes = [
        helper.make_node("MaxPool", ["lr"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode="nearest"),
        helper.make_node("Add", ["lr", "b"], ["c"]),
        helper.make_node("Conv", ["c", "half"], ["sr"]),
    ]
    ends = {"lr": (FLOAT, OPEN)}, {"sr": (FLOAT, None)}
    half = np.eye(3, dtype=np.float32)[:, :, None, None] / 2
    path = _save(tmp_path / "net.onnx", nodes, *ends, scales=np.array([1, 1, 2, 2], np.float32), half=half)
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
    curve = [helper.make_node("Asinh", ["lr"], ["sr"])]
    _refuse(_save(tmp_path / "g.onnx", curve, {"lr": (FLOAT, OPEN)}, {"sr": (FLOAT, None)}), "no convolution")
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


# -- files that take images of some sizes only, or of other values --------------------------------------


def _smooth(channels: int, height: int, width: int) -> torch.Tensor:
    seed = torch.rand(2, channels, 4, 5, generator=torch.Generator().manual_seed(1))
    return F.interpolate(seed, (height, width), mode="bilinear")


@pytest.mark.parametrize(
    ("name", "scale", "channels"), [("fixed_224_luma_x3", 3, 1), ("valid_crop_x2", 2, 3), ("win24", 2, 3)]
)
@pytest.mark.parametrize("size", [(50, 61), (300, 331)])
def test_files_of_some_sizes_alone_enlarge_images_of_any(
    data_folder: Path, name: str, scale: int, channels: int, size: tuple[int, int]
) -> None:
    upscaler = load_model(str(data_folder / "faults" / "models" / f"{name}.onnx"), precision="fp32")
    x = _smooth(channels, *size)
    out = upscaler.network(x)[0]
    assert out.shape == (2, channels, scale * size[0], scale * size[1])
    expected = F.interpolate(x, scale_factor=scale, mode="bilinear")
    assert (out - expected)[..., 8:-8, 8:-8].abs().max() < 0.05  # no seam, and nothing out of place


def test_windows_give_what_the_whole_image_gives(tmp_path: Path) -> None:
    """The network cuts off borders, and takes one size: its windows are stitched without a seam."""
    conv = [helper.make_node("Conv", ["lr", "k"], ["sr"])]  # 5×5, unpadded
    kernel = np.random.default_rng(2).random((1, 1, 5, 5), np.float32)
    kernel /= kernel.sum()
    shape = [helper.make_node("Reshape", ["sr", "shape"], ["out"])]  # which holds the size
    path = _save(
        tmp_path / "net.onnx", conv + shape, {"lr": (FLOAT, [1, 1, 36, 44])}, {"out": (FLOAT, None)},
        k=kernel, shape=np.array([1, 1, 32, 40]),
    )  # fmt: skip
    card, file = read_onnx(path)
    assert (file.sides.fixed, file.sides.lost, card.scale) == ((36, 44), 4, 1)
    assert "44x36" in card.description and "4 pixels" in card.description
    x = torch.rand(2, 1, 90, 77)
    out = load_model(str(path), precision="fp32").network(x)[0]
    expected = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), torch.from_numpy(kernel))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


def test_channels_last(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["lr"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Resize", ["a", "", "scales"], ["b"], mode="nearest", coordinate_transformation_mode="asymmetric"
        ),
        helper.make_node("Transpose", ["b"], ["sr"], perm=[0, 2, 3, 1]),
    ]
    ends = {"lr": (FLOAT, ["n", "h", "w", 3])}, {"sr": (FLOAT, ["n", "H", "W", 3])}
    path = _save(tmp_path / "net.onnx", nodes, *ends, scales=np.array([1, 1, 2, 2], np.float32))
    x = torch.rand(2, 3, 15, 22)
    out = load_model(str(path), precision="fp32").network(x)[0]
    torch.testing.assert_close(out, F.interpolate(x, scale_factor=2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["bytes", "tanh", "bgr", "uint8"])
def test_other_values_are_found_and_converted(tmp_path: Path, kind: str) -> None:
    """Networks that enlarge by nearest neighbour, and clamp to the values they were made for."""
    low, high = {"bytes": (0, 255), "tanh": (0, 1), "bgr": (0, 1), "uint8": (0, 1)}[kind]
    nodes = [
        helper.make_node("Clip", ["lr", "low", "high"], ["a"]),
        helper.make_node(
            "Resize", ["a", "", "scales"], ["b"], mode="nearest", coordinate_transformation_mode="asymmetric"
        ),
    ]
    weights = {"low": np.float32(low), "high": np.float32(high), "scales": np.array([1, 1, 2, 2], np.float32)}
    out_kind = FLOAT
    if kind == "bgr":
        nodes.append(helper.make_node("Gather", ["b", "turned"], ["sr"], axis=1))
        weights["turned"] = np.array([2, 1, 0])
    elif kind == "uint8":
        nodes += [helper.make_node("Mul", ["b", "peak"], ["c"]), helper.make_node("Cast", ["c"], ["sr"], to=2)]
        weights["peak"], out_kind = np.float32(255), 2
    elif kind == "bytes":
        nodes.append(helper.make_node("Round", ["b"], ["sr"]))
    else:
        nodes += [helper.make_node("Mul", ["b", "two"], ["c"]), helper.make_node("Sub", ["c", "one"], ["sr"])]
        weights |= {"two": np.float32(2), "one": np.float32(1)}
    path = _save(tmp_path / "net.onnx", nodes, {"lr": (FLOAT, OPEN)}, {"sr": (out_kind, None)}, **weights)
    notes: list[str] = []
    x = torch.rand(2, 3, 15, 22)
    out = load_model(str(path), precision="fp32", note=notes.append).network(x)[0]
    torch.testing.assert_close(out, F.interpolate(x, scale_factor=2), rtol=0, atol=0.01)
    assert any("by a test" in note for note in notes)
