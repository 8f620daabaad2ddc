"""A model in int8 without training: calibrated on pictures, and accepted if it costs little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from vsr.errors import EngineError, ModelError, OptionError
from vsr.media.images import find_images, read_rgb
from vsr.models.cards import ModelCard
from vsr.models.quantization import calibrate, quantized, without_quantization
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.quality.data_folder import evaluation_sets
from vsr.quality.metrics import luma_bt601
from vsr.quality.protocols import StillsBenchmark

__all__ = ["GATE_SET", "MAX_DROP_DB", "calibrated", "check_drop", "measure_drop"]

MAX_DROP_DB = 0.1  # on Set5, that int8 may cost
GATE_SET = "Set5"
_NUM_PICTURES = 32
_SIDE = 256  # input pixels of their middles that are looked at


def calibrated(card: ModelCard, net: nn.Module, folder: Path) -> nn.Module:
    """The network for int8, its scales set by pictures such as the model is to enlarge.

    folder: of the pictures; at most 32, spread evenly over all below it, are looked at.
    Raises InputError for a folder without pictures, ModelError for a network that int8 does not fit.
    """
    try:
        result = quantized(without_quantization(net))
    except ValueError as error:
        raise ModelError(f"model '{card.name}' cannot run in int8: {error}") from error
    calibrate(result, _inputs(card, find_images(folder)))
    return result


def _inputs(card: ModelCard, paths: list[Path]) -> Iterator[Tensor]:
    """(1, C, H, W) float32 as the network takes them."""
    for path in paths[:: -(-len(paths) // _NUM_PICTURES)]:
        picture = read_rgb(path)
        height, width = (min(side, _SIDE) // card.multiple_of * card.multiple_of for side in picture.shape[-2:])
        top, left = (picture.shape[-2] - height) // 2, (picture.shape[-1] - width) // 2
        middle = picture[None, :, top : top + height, left : left + width]
        if middle.numel() > 0:
            yield (luma_bt601(middle) if card.color == "y" else middle).float() / 255


def measure_drop(card: ModelCard, plain: nn.Module, integers: nn.Module, validation: Path | None = None) -> float:
    """What int8 costs on Set5, in dB, by the numbers of the integers.

    validation: the folder that holds Set5; $VSR_DATA/test unless given.
    Raises OptionError where Set5 is not there, or is not Set5, and where neither folder is named.
    """
    folder = evaluation_sets(validation, "`validation`")
    stills = StillsBenchmark(folder, card.scale, (GATE_SET,))
    if not stills.sets:
        raise OptionError(f"{folder}: no {GATE_SET}, by which int8 is judged; `validation` names its folder")
    stills.bicubic_gate()
    options = ModelOptions(device="cpu", precision="fp32", backend="pytorch")
    scores = [stills.score(upscaler_of_net(card, net, options))[GATE_SET] for net in (plain, integers)]
    return scores[0] - scores[1]


def check_drop(card: ModelCard, drop_db: float) -> None:
    """Raises EngineError where int8 costs more than it may, with what helps."""
    if not drop_db <= MAX_DROP_DB:  # nor for NaN
        raise EngineError(
            f"'{card.name}' loses {drop_db:.2f} dB on {GATE_SET} in int8, and {MAX_DROP_DB} dB are allowed: calibrate "
            "it on other pictures, train it for int8 as 'vsr train fast-int8' does, or take bf16 or fp16"
        )
