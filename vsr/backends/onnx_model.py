"""Read networks from ONNX files, as other projects export them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vsr.errors import MissingExtraError, ModelError
from vsr.models.cards import ModelCard

__all__ = ["ONNX_SUFFIX", "OnnxFile", "read_onnx"]

ONNX_SUFFIX = ".onnx"

_SIDE = 64  # of the image on which scale and channels are tried
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # of which input sides may have to be
_LARGEST_HALO = 64  # input pixels; deeper networks see next to nothing beyond
_FLOATS = ("f32", "f16")


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A super-resolution network in a file: one float input (N, C, H, W), C 1 or 3, in [0, 1]; one output."""

    path: Path

    def read(self) -> Any:
        """Load it as a model of OpenVINO with open sizes, float32 in and out. Raises ModelError."""
        openvino = _openvino()
        try:
            model = openvino.Core().read_model(self.path)
        except RuntimeError as error:
            raise ModelError(f"{self.path}: not an ONNX file that can be read ({_last_line(error)})") from error
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise _refused(self.path, model, "one input and one output are needed")
        if model.input(0).get_element_type().get_type_name() not in _FLOATS:
            raise _refused(self.path, model, "images are float")
        preparation = openvino.preprocess.PrePostProcessor(model)
        preparation.input().tensor().set_element_type(openvino.Type.f32)
        preparation.output().tensor().set_element_type(openvino.Type.f32)
        return preparation.build()


def read_onnx(path: Path) -> tuple[ModelCard, OnnxFile]:
    """Make a card for an ONNX file: scale, channels and sides from its graph.

    Values are taken to be in [0, 1], three channels to be RGB and one luma. Raises ModelError, with the
    inputs and outputs there are, for other networks, and MissingExtraError.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; 'vsr models' lists the names there are")
    file = OnnxFile(path)
    model = file.read()
    channels, scale, multiple = _measured(path, model)
    card = ModelCard(
        name=path.stem,
        net="onnx",
        options={},
        scale=scale,
        color="y" if channels == 1 else "rgb",
        halo=min(_LARGEST_HALO, _reach(model)),
        multiple_of=multiple,
        license="",
        description="an ONNX file, taken to work on values from 0 to 1",
    )
    return card, file


def _measured(path: Path, model: Any) -> tuple[int, int, int]:
    """Return (channels, scale, multiple of which sides must be), by shape inference at two sizes."""
    given = model.input(0).partial_shape
    if given.rank.is_dynamic or len(given) != 4:
        raise _refused(path, model, "the input must be (N, C, H, W)")
    channels = [given[1].get_length()] if given[1].is_static else [3, 1]
    if channels[0] not in (1, 3):
        raise _refused(path, model, "the input must have 1 or 3 channels")
    for count in channels:
        for multiple in _MULTIPLES:
            first, second = _SIDE + multiple, _SIDE + 3 * multiple
            shape = _inferred(model, [1, count, first, second])
            if shape is None or len(shape) != 4 or shape[1] != count or shape[2] % first:
                continue
            scale = shape[2] // first
            if scale >= 1 and shape[3] == second * scale:
                return count, scale, multiple
    raise _refused(path, model, "the output must be the input's size times a whole number, for any input size")


def _inferred(model: Any, shape: list[int]) -> list[int] | None:
    """Return the output's shape for an input's, by a run where it must be; None if it does not fit."""
    probe = model.clone()
    try:
        probe.reshape(shape)
        if probe.output(0).partial_shape.is_static:
            return [int(side) for side in probe.output(0).partial_shape.to_shape()]
        compiled = _openvino().Core().compile_model(probe, "CPU")
        return list(compiled(np.zeros(shape, np.float32))[0].shape)
    except RuntimeError:
        return None


def _reach(model: Any) -> int:
    """Return the most input pixels that an output pixel can depend on: the longest path through the kernels."""
    reach: dict[str, float] = {}
    for op in model.get_ordered_ops():
        sources = [reach.get(value.get_node().get_friendly_name(), 0.0) for value in op.input_values()]
        reach[op.get_friendly_name()] = max(sources, default=0.0) + _radius(op)
    return round(max(reach.values()))


def _radius(op: Any) -> float:
    kind = op.get_type_name()
    if kind in ("Convolution", "GroupConvolution"):
        kernel = op.input_value(1).get_partial_shape()[-1].get_length()
        return float((kernel - 1) // 2 * max(op.get_attributes()["dilations"]))
    return 2.0 if kind == "Interpolate" else 0.0


def _refused(path: Path, model: Any, why: str) -> ModelError:
    ends = [
        f"{kind} {_described(end)}"
        for kind, many in (("input", model.inputs), ("output", model.outputs))
        for end in many
    ]
    return ModelError(f"{path}: is not used as a super-resolution network: {why}; it has {', '.join(ends)}")


def _described(end: Any) -> str:
    name = next(iter(sorted(end.get_names())), "without a name")
    return f"{name} {end.get_element_type().get_type_name()} {end.partial_shape}"


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        raise MissingExtraError("an ONNX model", "cpu") from error


def _last_line(error: BaseException) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1][:200]
