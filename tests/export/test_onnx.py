"""`vsr export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vsr.cli.main import cli
from vsr.errors import EngineError, InputError, ModelError, OptionError, OutputError
from vsr.export import onnx as exporting
from vsr.export.int8 import calibrated, check_drop, measure_drop
from vsr.export.onnx import export_model
from vsr.models.cards import ModelCard, find_card
from vsr.models.nets import SRVGG
from vsr.models.nets.recurrent import WithImages
from vsr.models.quantization import QuantizedConv2d, is_quantized, quantized_layers
from vsr.models.weights import build_net, load_int8_net, load_net, resolve

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def test_a_shipped_model_runs_elsewhere(tmp_path: Path) -> None:
    output = tmp_path / "fast.onnx"
    result = CliRunner().invoke(cli, ["export", "fast", str(output)])
    assert result.exit_code == 0 and "fast, fp32, 1 channels, any size" in result.stderr
    x = torch.rand(2, 1, 14, 21)
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    out = torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])
    torch.testing.assert_close(out, load_net(*resolve("fast"))(x), rtol=0, atol=1e-4)
    assert list(tmp_path.iterdir()) == [output]


def test_the_values_of_a_foreign_network_are_converted(tmp_path: Path) -> None:
    """What is written takes and gives values from 0 to 1, whatever the network was trained on."""
    net, x = SRVGG(8, 2, 2).eval(), torch.rand(1, 3, 14, 21)
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    arguments = ["export", str(tmp_path / "theirs.pth"), str(tmp_path / "out.onnx"), "--model-range", "0..255:-1..1"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0 and "0 to 255, giving -1 to 1 as stated" in result.stderr
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    out = torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])
    with torch.inference_mode():
        torch.testing.assert_close(out, (net(x * 255) + 1) / 2, rtol=1e-4, atol=1e-3)


def test_an_onnx_file_is_not_exported_again(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="ONNX file already"):
        export_model(str(tmp_path / "theirs.onnx"), tmp_path / "out.onnx")


def test_sizes_can_be_fixed(tmp_path: Path) -> None:
    output = tmp_path / "fast.onnx"
    arguments = ["export", "fast", str(output), "--size", "32x24", "--batch", "3", "--precision", "fp16"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    (x,) = onnx.load(output).graph.input
    assert [dim.dim_value for dim in x.type.tensor_type.shape.dim] == [3, 1, 24, 32]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": "int4"}, "int4"),
        ({"batch": 2}, "`size`"),
        ({"calibrate": Path()}, "`precision=.int8.`"),
        ({"validation": Path(), "precision": "fp16"}, "`precision=.int8.`"),
    ],
)
def test_options_that_do_not_fit_are_errors(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        export_model("fast", tmp_path / "fast.onnx", **options)


def test_a_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "fast.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="`overwrite=True`"):
        export_model("fast", tmp_path / "fast.onnx")
    assert (tmp_path / "fast.onnx").read_bytes() == b"mine"


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; make it first"):
        export_model("fast", tmp_path / "none" / "fast.onnx")


def test_a_size_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["export", "fast", str(tmp_path / "a.onnx"), "--size", "32"]).exit_code == 2


# -- int8 ------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three small images."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(3):
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def _integer_weights(path: Path) -> list[str]:
    tensors = onnx.load(path).graph.initializer
    return sorted(t.name.removesuffix(".weight") for t in tensors if t.data_type == onnx.TensorProto.INT8 and t.dims)


def test_a_model_that_has_weights_for_int8_needs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSR_DATA", str(tmp_path / "none"))
    line = export_model("fast", tmp_path / "fast.onnx", precision="int8")
    assert "fast, int8, 1 channels" in line
    net = load_int8_net(find_card("fast"))
    assert _integer_weights(tmp_path / "fast.onnx") == sorted(quantized_layers(load_net(*resolve("fast"))))
    session = onnxruntime.InferenceSession(str(tmp_path / "fast.onnx"), providers=["CPUExecutionProvider"])
    x = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 7), (48, 56), mode="bicubic").clamp(0, 1)
    difference = (torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0]) - net(x)).abs()
    assert difference.max() < 1 / 255 and difference.mean() < 0.1 / 255


def test_others_are_calibrated_on_images(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Any] = []

    def measure(card: Any, plain: Any, integers: Any, validation: Any) -> float:
        judged.append((card.name, is_quantized(plain), is_quantized(integers), validation))
        return 0.02

    monkeypatch.setattr(exporting, "measure_drop", measure)
    options = {"calibrate": images, "validation": tmp_path}
    export_model("nano", tmp_path / "nano.onnx", precision="int8", **options)  # type: ignore[arg-type]
    assert judged == [("nano", False, True, tmp_path)]
    assert _integer_weights(tmp_path / "nano.onnx") == sorted(quantized_layers(load_net(*resolve("nano"))))


def test_what_costs_too_much_is_refused_and_not_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "measure_drop", lambda *arguments: 0.131)
    with pytest.raises(EngineError, match=r"'fast' loses 0.13 dB on Set5.*vsr train"):
        export_model("fast", tmp_path / "fast.onnx", precision="int8", calibrate=images)
    assert not (tmp_path / "fast.onnx").exists()
    check_drop(find_card("fast"), 0.1)
    for drop_db in (0.101, float("nan")):
        with pytest.raises(EngineError):
            check_drop(find_card("fast"), drop_db)


def test_a_model_without_weights_for_int8_names_the_way(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--calibrate FOLDER"):
        export_model("srgan", tmp_path / "srgan.onnx", precision="int8")


def test_without_set5_int8_is_not_judged(images: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="`validation`"):
        export_model("nano", tmp_path / "a.onnx", precision="int8", calibrate=images, validation=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        export_model("nano", tmp_path / "a.onnx", precision="int8", calibrate=tmp_path / "empty")


def test_damaged_images_are_left_out_of_a_calibration(images: Path) -> None:
    card, path = resolve("fast")
    (images / "b.png").write_bytes(b"")
    notes: list[str] = []
    calibrated(card, load_net(card, path), images, notes.append)
    assert len(notes) == 1 and "b.png" in notes[0]
    for image in images.glob("[0-9].png"):
        image.unlink()
    with pytest.raises(InputError, match="none of its images"):
        calibrated(card, load_net(card, path), images)


@pytest.mark.parametrize("name", ["x.txt", "x", "x.onnx.gz"])
def test_a_name_that_is_not_of_onnx_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"ends in \.onnx"):
        export_model("nano", tmp_path / name)


def test_a_network_too_small_for_int8_is_a_model_error(images: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 1, 3))
    with pytest.raises(ModelError, match="'fast' cannot run in int8"):
        calibrated(find_card("fast"), net, images)


def test_shipped_integers_lose_at_most_a_tenth_of_a_decibel_on_set5(data_folder: Path) -> None:
    card, path = resolve("fast")
    drop_db = measure_drop(card, load_net(card, path), load_int8_net(card), data_folder / "test")
    assert drop_db <= 0.1
    assert abs(drop_db - (card.figures["Set5"] - card.figures["Set5 int8"])) < 0.02


@pytest.mark.slow
def test_calibration_alone_serves_fast_as_well(data_folder: Path) -> None:
    card, path = resolve("fast")
    net = load_net(card, path)
    assert measure_drop(card, net, calibrated(card, net, data_folder / "train" / "bsds400"), data_folder / "test") < 0.1


def test_a_network_that_sees_time_has_its_state_among_inputs_and_outputs(tmp_path: Path) -> None:
    output = tmp_path / "video-fast.onnx"
    result = CliRunner().invoke(cli, ["export", "video-fast", str(output)])
    assert result.exit_code == 0, result.stderr
    net: Any = load_net(*resolve("video-fast"))
    planes = torch.rand(1, 3, 14, 21)
    inputs = (planes, planes[:, :1], planes[:, 1:2], torch.rand_like(net.initial_state(planes)))
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    names = ["planes", "previous", "following", "state"]
    found = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    for out, wanted in zip(found, WithImages(net)(*inputs), strict=True):
        torch.testing.assert_close(torch.from_numpy(out), wanted, rtol=0, atol=1e-4)


def test_a_network_with_memory_is_calibrated_along_clips_and_keeps_its_state_in_floats(tmp_path: Path) -> None:
    options = {"features": 4, "blocks": 1, "scale": 2}
    card = ModelCard("m", "recurrent", options, 2, "yuv", 4, recurrent=True, restart_interval=8, warm_up=2)
    net = build_net(card).eval().requires_grad_(False)
    with pytest.raises(InputError, match="none of its clips"):
        calibrated(card, net, tmp_path)
    (tmp_path / "clip.mp4").symlink_to(Path("samples/sample.mp4").absolute())
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    notes: list[str] = []
    integers = calibrated(card, net, tmp_path, notes.append)
    layers = {name: layer for name, layer in integers.named_modules() if isinstance(layer, QuantizedConv2d)}
    assert layers.keys() == {"body.0.first", "body.0.second"}
    assert all(0 < float(layer.input_scale) < 1 for layer in layers.values())
    assert len(notes) == 1 and "broken.mp4" in notes[0]
