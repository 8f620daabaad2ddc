"""Convert a model to int8 without training: calibrate it on images, and check its loss of quality."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

from torch import Tensor, nn

from vsr.errors import EngineError, InputError, ModelError, OptionError
from vsr.export.int8_clips import find_clips, steps_along_clips
from vsr.media.images import find_images, read_rgb, sort_out_damaged
from vsr.models.cards import ModelCard
from vsr.models.quantization import calibrate, quantized, without_quantization
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.data_folder import evaluation_sets
from vsr.quality.metrics import luma_bt601
from vsr.quality.protocols import StillsBenchmark, upscale_frames_with, vid4_psnr

__all__ = ["GATE_SET", "MAX_DROP_DB", "calibrated", "check_drop", "gate_set", "measure_drop", "vid4_bi_db"]

MAX_DROP_DB = 0.1  # on Set5, that int8 may cost
GATE_SET = "Set5"
_NUM_IMAGES = 32
_SIDE = 256  # input pixels of their middles that are looked at


def calibrated(
    card: ModelCard, net: nn.Module, folder: Path, note: Callable[[str], None] = lambda line: None
) -> nn.Module:
    """Make the int8 network, its scales set by sample images.

    Args:
        card: the model's card.
        net: the network in float32.
        folder: images like those to be enlarged, or clips for a network with memory; at most 32, spread evenly over
            all below it, are used.
        note: called with a line for each that cannot be read, and is left out.

    Raises InputError for a folder without usable ones, ModelError for a network that int8 does not fit.
    """
    try:
        result = quantized(without_quantization(net))
    except ValueError as error:
        raise ModelError(f"model '{card.name}' cannot run in int8: {error}") from error
    if card.recurrent:
        inputs = steps_along_clips(card, net, _spread(find_clips(folder)), note)
    else:
        paths, unusable = sort_out_damaged(find_images(folder))
        for text in unusable.values():
            note(f"left out: {text}")
        inputs = list(_inputs(card, _spread(paths), note))
    if not inputs:
        raise InputError(f"{folder}: none of its {'clips' if card.recurrent else 'images'} can be used")
    calibrate(result, inputs)
    return result


def _spread(paths: list[Path]) -> list[Path]:
    """Take some of them, evenly spread."""
    return paths[:: max(1, -(-len(paths) // _NUM_IMAGES))]


def _inputs(card: ModelCard, paths: list[Path], note: Callable[[str], None]) -> Iterator[tuple[Tensor, ...]]:
    """Yield the network's input of each image, (1, C, H, W) float32."""
    for path in paths:
        try:
            image = read_rgb(path)
        except InputError as error:
            note(f"left out: {error}")
            continue
        height, width = (min(side, _SIDE) // card.multiple_of * card.multiple_of for side in image.shape[-2:])
        top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
        middle = image[None, :, top : top + height, left : left + width]
        if middle.numel() > 0:
            yield ((luma_bt601(middle) if card.color == "y" else middle).float() / 255,)


def measure_drop(card: ModelCard, plain: nn.Module, integers: nn.Module, validation: Path | None = None) -> float:
    """Measure the loss of PSNR by int8 on Set5, or for a network with memory on Vid4, in dB, on integer arithmetic.

    Args:
        card: the model's card.
        plain: the network in float32.
        integers: the network in int8.
        validation: the folder that holds the set; $VSR_DATA/test unless given.

    Raises OptionError where the set is missing or is another, and where neither folder is named.
    """
    folder = evaluation_sets(validation, "`validation`")
    options = ModelOptions(device="cpu", precision="fp32", backend="pytorch")
    if card.recurrent:
        if not (folder / "Vid4").is_dir():
            raise OptionError(f"{folder}: no Vid4, by which int8 is judged; `validation` names its folder")
        plain_db, integers_db = (vid4_bi_db(folder, upscaler_of_net(card, net, options)) for net in (plain, integers))
        return plain_db - integers_db
    stills = StillsBenchmark(folder, card.scale, (GATE_SET,))
    if not stills.sets:
        raise OptionError(f"{folder}: no {GATE_SET}, by which int8 is judged; `validation` names its folder")
    stills.bicubic_gate()
    scores = [stills.score(upscaler_of_net(card, net, options))[GATE_SET] for net in (plain, integers)]
    return scores[0] - scores[1]


def vid4_bi_db(folder: Path, upscaler: Upscaler) -> float:
    """Measure the luma PSNR on Vid4 under BI, in dB; the mean of the clips' means."""
    return fmean(vid4_psnr(folder / "Vid4", upscaler.card.scale, upscale_frames_with(upscaler)).values())


def gate_set(card: ModelCard) -> str:
    """Name the set that int8 is judged by, as a card's figures do."""
    return "Vid4 BI" if card.recurrent else GATE_SET


def check_drop(card: ModelCard, drop_db: float) -> None:
    """Raise EngineError, with remedies, where int8 loses more than is allowed."""
    if not drop_db <= MAX_DROP_DB:  # nor for NaN
        raise EngineError(
            f"'{card.name}' loses {drop_db:.2f} dB on {gate_set(card)} in int8, and {MAX_DROP_DB} dB are allowed: "
            "calibrate it on other images, train it for int8 as 'vsr train fast-int8' does, or take bf16 or fp16"
        )
