"""Read networks from ONNX files, as other projects export them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.openvino_library import import_openvino
from vsr.backends.windows import ANY_SIDES, Sides, WindowedEngine
from vsr.errors import ModelError
from vsr.extras import importing
from vsr.models.cards import ModelCard
from vsr.models.conventions import RANGES, USUAL, Convention, Stated, find_convention

__all__ = ["ONNX_SUFFIX", "OnnxFile", "read_onnx"]

ONNX_SUFFIX = ".onnx"

_SIDE = 64  # at least, of the images on which scale and channels are tried
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 5, 7, 9, 10, 14, 18, 20, 28, 36, 40, 56, 60)  # of input sides
_LARGEST_HALO = 64  # input pixels; deeper networks see next to nothing beyond
_FLOATS = ("f32", "f16")
_CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "FakeQuantize")


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """Hold a super-resolution network in a file: one float input, one output, of 1 or 3 channels.

    Args:
        path: the file.
        channels_last: True where its images are (N, H, W, C).
        convention: the values it takes and gives.
        sides: the images it takes.
        scale: output pixels per input pixel.
        halo: distance in input pixels within which an output pixel depends on the input.
    """

    path: Path
    channels_last: bool = False
    convention: Convention = USUAL
    sides: Sides = ANY_SIDES
    scale: int = 1
    halo: int = 0

    def read(self) -> Any:
        """Load it as a model of OpenVINO: (N, C, H, W) float32 in and out, in [0, 1] RGB. Raises ModelError."""
        openvino = _openvino()
        try:
            model = openvino.Core().read_model(self.path)
        except RuntimeError as error:
            raise ModelError(f"{self.path}: not an ONNX file that can be read ({_last_line(error)})") from error
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise _refused(self.path, model, "one input and one output are needed")
        if model.input(0).get_element_type().get_type_name() not in _FLOATS:
            raise _refused(self.path, model, "images are float")
        try:
            return self._prepared(openvino, model)
        except RuntimeError as error:
            raise _refused(self.path, model, f"its images cannot be converted ({_last_line(error)})") from error

    def _prepared(self, openvino: Any, model: Any) -> Any:
        """Put the conversions of types, layout, range and order around a model."""
        low, high = RANGES[self.convention.takes.range]
        preparation = openvino.preprocess.PrePostProcessor(model)
        given, result = preparation.input(), preparation.output()
        given.tensor().set_element_type(openvino.Type.f32).set_layout(openvino.Layout("NCHW"))
        result.tensor().set_element_type(openvino.Type.f32)
        own = openvino.Layout("NHWC" if self.channels_last else "NCHW")
        given.model().set_layout(own)
        steps = given.preprocess()
        if self.convention.takes.order == "bgr":
            steps = steps.reverse_channels()
        if (low, high) != (0.0, 1.0):
            steps.mean(-low / (high - low)).scale(1 / (high - low))
        if self.channels_last:
            result.model().set_layout(own)
            result.tensor().set_layout(openvino.Layout("NCHW"))
        if self.convention.gives != USUAL.gives:
            result.postprocess().convert_element_type(openvino.Type.f32).custom(self._to_unit)
        return preparation.build()

    def _to_unit(self, output: Any) -> Any:
        """Convert an output of a graph to RGB or luma in [0, 1]."""
        opset = importlib.import_module("openvino.opset13")
        low, high = RANGES[self.convention.gives.range]
        values = opset.multiply(opset.subtract(output, np.float32(low)), np.float32(1 / (high - low)))
        if self.convention.gives.order == "bgr":
            axis = 3 if self.channels_last else 1
            values = opset.gather(values, np.array([2, 1, 0]), np.int64(axis))
        return values.output(0)


def read_onnx(path: Path, stated: Stated | None = None) -> tuple[ModelCard, OnnxFile]:
    """Make a card for an ONNX file: scale, channels, layout and sides from its graph, values by a test image.

    Three channels are taken to be RGB and one luma. Raises ModelError, with the inputs and outputs there are, for
    other networks, and MissingExtraError.

    Args:
        path: the file.
        stated: what the user states of it.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; 'vsr models' lists the names there are")
    channels, file = _measured(path)
    convention, why = find_convention(_runner(file), channels, file.scale, stated or Stated(), str(path))
    file = replace(file, convention=convention)
    layout = "(N, H, W, C)" if file.channels_last else "(N, C, H, W)"
    facts = [f"ONNX, {layout}, {'luma' if channels == 1 else 'RGB'}, ×{file.scale}"]
    if file.sides.fixed is not None:
        size = f"{file.sides.fixed[1]}x{file.sides.fixed[0]}"
        facts.append(f"images of {size} alone: others run as overlapping windows of that size")
    if file.sides.lost:
        facts.append(f"{file.sides.lost} pixels of its output are cut off: borders are filled up before")
    card = ModelCard(
        name=path.stem,
        net="onnx",
        options={},
        scale=file.scale,
        color="y" if channels == 1 else "rgb",
        halo=file.halo,
        multiple_of=1 if file.sides.fixed else file.sides.multiple,
        license="",
        description="; ".join(facts),
        assumptions=why,
    )
    return card, file


def _measured(path: Path) -> tuple[int, OnnxFile]:
    """Return channels and layout, scale and sides, by shape inference or runs at several sizes."""
    file = OnnxFile(path)
    file.read()  # raises ModelError for a file that is not one network from image to image
    model = _openvino().Core().read_model(path)
    given = model.input(0).partial_shape
    if given.rank.is_dynamic or len(given) != 4:
        raise _refused(path, model, "the input must be (N, C, H, W) or (N, H, W, C)")
    fixed_channels = [given[axis].get_length() if given[axis].is_static else None for axis in (1, 3)]
    for channels_last, count in _layouts(fixed_channels):
        file = replace(file, channels_last=channels_last)
        prepared = file.read()
        found = _sides(prepared, count)
        if found is None:
            continue
        sides, scale = found
        if scale == 1 and not any(op.get_type_name() in _CONVOLUTIONS for op in prepared.get_ordered_ops()):
            raise _refused(path, model, "it has no convolution, and enlarges nothing")
        return count, replace(file, sides=sides, scale=scale, halo=min(_LARGEST_HALO, _reach(prepared)))
    if fixed_channels[0] not in (1, 3, None) and fixed_channels[1] not in (1, 3):
        raise _refused(path, model, "the input must have 1 or 3 channels")
    raise _refused(path, model, "the output must be the input's size times a whole number")


def _layouts(fixed_channels: list[int | None]) -> Iterator[tuple[bool, int]]:
    """Yield the layouts, channels last or not, and numbers of channels that fit the second and fourth dimension."""
    first, last = fixed_channels
    if first in (1, 3):
        yield False, first or 0
    if last in (1, 3) and first not in (1, 3):
        yield True, last or 0
    if first is None:
        yield from ((False, count) for count in (3, 1))
    if last is None and first is None:
        yield from ((True, count) for count in (3, 1))


def _sides(model: Any, channels: int) -> tuple[Sides, int] | None:
    """Return the sides that a model (N, C, H, W) takes, and its scale; None where the output does not fit."""
    height, width = (model.input(0).partial_shape[axis] for axis in (2, 3))
    is_fixed = height.is_static and width.is_static
    # Most files of one size are networks that take any; where the size is part of the graph, others fail.
    for multiple in _MULTIPLES[:1] if is_fixed else _MULTIPLES:
        first = -(-_SIDE // multiple) * multiple + multiple
        second = first + 2 * multiple
        shape = _inferred(model, [1, channels, first, second])
        if shape is None or len(shape) != 4 or shape[1] != channels or (shape[3] - shape[2]) % (second - first):
            continue
        scale = (shape[3] - shape[2]) // (second - first)
        lost = scale * first - shape[2]
        if scale >= 1 and 0 <= lost < scale * first // 2:
            return Sides(None, multiple, lost), scale
    return _fixed_sides(model, channels, (height.get_length(), width.get_length())) if is_fixed else None


def _fixed_sides(model: Any, channels: int, size: tuple[int, int]) -> tuple[Sides, int] | None:
    """Return the sides of a model that takes images of one size, given as (height, width)."""
    shape = _inferred(model, [1, channels, *size])
    if shape is None or len(shape) != 4 or shape[1] != channels:
        return None
    scale = -(-shape[2] // size[0])
    lost = [scale * side - out for side, out in zip(size, shape[2:], strict=True)]
    if lost[0] != lost[1] or not 0 <= lost[0] < scale * min(size) // 2:
        return None
    return Sides(size, 1, lost[0]), scale


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


class _Probe:
    """Run a model frame by frame on the CPU, compiled anew for each call; see `Engine`."""

    name, device, dtype = "probe", torch.device("cpu"), torch.float32

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        self._model.reshape([1, *x.shape[1:]])
        compiled = _openvino().Core().compile_model(self._model, "CPU")
        return (
            torch.cat(
                [torch.from_numpy(compiled(frame.numpy())[0].copy()) for frame in torch.split(x.contiguous(), 1)]
            ),
        )


def _runner(file: OnnxFile) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a file's network on (1, C, H, W) of its own values, of any size."""
    engine = WindowedEngine(_Probe(file.read()), file.sides, file.scale, file.halo)

    def run(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        multiple = file.sides.multiple
        out = engine(F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate"))[0]
        return out[..., : height * file.scale, : width * file.scale]

    return run


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
    with importing("an ONNX model", "cpu", "openvino"):
        return import_openvino()


def _last_line(error: BaseException) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1][:200]
