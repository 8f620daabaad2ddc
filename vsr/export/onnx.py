"""Run `vsr export`: write a model as an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from vsr.backends.engine import PRECISIONS, Precision, Signature
from vsr.backends.onnx_export import export_onnx
from vsr.backends.onnx_model import ONNX_SUFFIX
from vsr.errors import OptionError
from vsr.export.int8 import calibrated, check_drop, gate_set, measure_drop
from vsr.files import check_target, naming_output, write_file
from vsr.models.cards import ModelCard
from vsr.models.conventions import Stated
from vsr.models.nets.recurrent import RecurrentNet, WithImages
from vsr.models.quantization import without_quantization
from vsr.models.weights import load_int8_net, load_with_card
from vsr.pipeline.loading import signature_of

__all__ = ["export_model"]


def export_model(
    model: str,
    output: Path,
    *,
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    calibrate: Path | None = None,
    validation: Path | None = None,
    overwrite: bool = False,
    stated: Stated | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> str:
    """Write a model as ONNX, float32 (N, C, H, W), named as in `signature_of`; return a line that describes it.

    A recurrent network gives its images, too: "luma" and "chroma" before "next_state", as in `WithImages`.

    Args:
        model: name or file of the model.
        output: the file to write.
        precision: "fp32", or a lower one.
        size: (width, height) in pixels, for fixed sizes; all are open unless given.
        batch: images per batch, with `size`; 1 unless given.
        calibrate: a folder of images or clips like those to be enlarged, by which int8 is set up; the model's own
            weights for int8 unless given.
        validation: the folder that holds Set5, or Vid4 for a network with memory, on which int8 must not lose more
            than 0.1 dB; $VSR_DATA/test unless given.
        overwrite: replaces the output where it exists.
        stated: what is known of a file of another project; its values are converted, so that the output has ours.
        note: called with a line for each image of `calibrate` that cannot be read, and with what an import assumed.

    Raises ModelError, OptionError, OutputError, MissingExtraError, and EngineError where the model cannot be exported
    or loses more.
    """
    if batch is not None and size is None:
        raise OptionError("`batch`: is fixed together with the size; add `size`")
    if precision != "int8" and (calibrate is not None or validation is not None):
        raise OptionError('`calibrate`, `validation`: are for `precision="int8"`')
    _check_output(output, precision, overwrite)
    card, net = _loaded(model, stated, note)
    if size is not None and any(side % card.multiple_of for side in size):
        raise OptionError(f"`size`: '{card.name}' takes sides that are multiples of {card.multiple_of}")
    shape = None if size is None else (batch or 1, size[1], size[0])
    if precision == "int8":
        net = _integers(card, net, calibrate, validation, note)
    data = _exported(card, net, shape, precision)
    with naming_output(output):
        write_file(output, data)
    sizes = "any size" if shape is None else f"{shape[0]} frames of {shape[2]}x{shape[1]}"
    return f"{output}: {card.name}, {precision}, {_described(signature_of(card))}, {sizes}, {len(data) / 2**20:.1f} MiB"


def _exported(card: ModelCard, net: nn.Module, shape: tuple[int, int, int] | None, precision: Precision) -> bytes:
    """Export a network; a recurrent one together with the images that are in its state."""
    signature = signature_of(card)
    if isinstance(net, RecurrentNet):
        signature, net = replace(signature, outputs=("luma", "chroma", *signature.outputs)), WithImages(net)
    return export_onnx(net, signature, shape=shape, precision=precision)


def _loaded(model: str, stated: Stated | None, note: Callable[[str], None]) -> tuple[ModelCard, nn.Module]:
    if Path(model).suffix.lower() == ONNX_SUFFIX:
        raise OptionError(f"`model`: {model} is an ONNX file already; jobs take it as it is")
    card, net = load_with_card(model, stated)
    if card.assumptions:
        note(f"{card.name}: {card.assumptions}")
    return card, net


def _check_output(output: Path, precision: str, overwrite: bool) -> None:
    if precision not in PRECISIONS:
        raise OptionError(f'`precision="{precision}"`: there are {", ".join(PRECISIONS)}')
    if output.suffix.lower() != ONNX_SUFFIX:
        raise OptionError(f"{output}: vsr writes ONNX; name a file that ends in {ONNX_SUFFIX}")
    check_target(output, overwrite)


def _described(signature: Signature) -> str:
    if len(signature.inputs) == 1:
        return f"{signature.inputs[0][1]} channels"
    return " ".join(f"{name}:{channels}" for name, channels in signature.inputs)


def _integers(
    card: ModelCard, net: nn.Module, folder: Path | None, validation: Path | None, note: Callable[[str], None]
) -> nn.Module:
    """Make the int8 network, and check its loss of quality."""
    judge = gate_set(card)
    if folder is None and not card.quantized and {judge, f"{judge} int8"} <= card.figures.keys():
        integers = load_int8_net(card)
        drop_db = card.figures[judge] - card.figures[f"{judge} int8"]
    else:
        integers = calibrated(card, net, folder, note) if folder else net if card.quantized else load_int8_net(card)
        drop_db = measure_drop(card, without_quantization(net), integers, validation)
    check_drop(card, drop_db)
    return integers
