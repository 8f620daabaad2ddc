"""`vsr export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from vsr.cli import cli
from vsr.errors import OptionError, OutputError
from vsr.models.weights import load_net, resolve
from vsr.pipeline.exporting import export_model

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


def test_sizes_can_be_fixed(tmp_path: Path) -> None:
    output = tmp_path / "fast.onnx"
    arguments = ["export", "fast", str(output), "--size", "32x24", "--batch", "3", "--precision", "fp16"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    (x,) = onnx.load(output).graph.input
    assert [dim.dim_value for dim in x.type.tensor_type.shape.dim] == [3, 1, 24, 32]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"precision": "int4"}, "int4"), ({"batch": 2}, "--size")],
)
def test_options_that_do_not_fit_are_errors(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        export_model("fast", tmp_path / "fast.onnx", **options)


def test_a_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "fast.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="-y"):
        export_model("fast", tmp_path / "fast.onnx")
    assert (tmp_path / "fast.onnx").read_bytes() == b"mine"


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        export_model("fast", tmp_path / "none" / "fast.onnx")


def test_a_size_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["export", "fast", str(tmp_path / "a.onnx"), "--size", "32"]).exit_code == 2
