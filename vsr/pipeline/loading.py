"""Load a model by name or file, ready on a device."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vsr.backends.engine import Signature, image_signature
from vsr.backends.onnx_model import ONNX_SUFFIX, OnnxFile, read_onnx
from vsr.backends.select import EngineMaker, Place, choose_place
from vsr.errors import OptionError
from vsr.events import Note, NoteCode, OnNote
from vsr.models.cards import ModelCard
from vsr.models.conventions import Stated
from vsr.models.nets.recurrent import state_channels
from vsr.models.weights import load_int8_net, load_with_card
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.first_batch import peak_bytes
from vsr.pipeline.limits import LEAST_TILE
from vsr.pipeline.upscaler import Upscaler

__all__ = ["ModelOptions", "load_card_and_net", "load_model", "signature_of", "upscaler_of_net"]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The part of a job's options that says which network upscales, how far, and on what.

    model: "auto", a name that `vsr models` lists, or the path of a weights file.
    scale: output pixels per input pixel, 1 to 16; None for the network's own.
    size: "WIDTHxHEIGHT" in pixels, or "720p", "1080p", "1440p", "2k", "4k" or "8k", instead of a scale.
    fidelity: instead of a model, a point between `srgan` (0, sharp) and `srresnet` (1, faithful).
    device, precision, backend: see `load_model`; the device of a video also "cuda:0,cuda:1" and "all" GPUs.
    batch: frames per batch; None chooses by frame size.  tile: side in input pixels; None for whole frames.
    reuse: take over the parts of a frame that equal the frame before from its result; the bits are the same.
    restore: 0 (faithful) to 1 (rid of noise and of what codecs leave behind), for networks that have both forms.
    model_range, model_order, model_scale: what the user states of a file of another project; see `Stated`.
    square: make pixels square, where those of the input are not.
    """

    model: str = "auto"
    scale: float | None = None
    size: str | None = None
    fidelity: float | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    batch: int | None = None
    tile: int | None = None
    reuse: bool = True
    restore: float | None = None
    model_range: str | None = None
    model_order: str | None = None
    model_scale: int | None = None
    square: bool = False

    @property
    def stated(self) -> Stated:
        """Return what the user states of a file; a whole `scale` counts for weights that serve several."""
        scale = self.model_scale
        if scale is None and self.scale is not None and self.scale in (2, 3, 4, 8):
            scale = int(self.scale)
        return Stated(self.model_range, self.model_order, scale)


def load_model(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    precision: str = "auto",
    backend: str = "auto",
    tile: int | None = None,
    model_range: str | None = None,
    model_order: str | None = None,
    model_scale: int | None = None,
    note: OnNote = lambda line: None,
) -> Upscaler:
    """Load a model by name, or from a .safetensors or .onnx file, ready on a device.

    Raises ModelError, OptionError, and MissingExtraError and EngineError where a backend that was asked for is not
    there or cannot run the model.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps", or a device of PyTorch; with the backend "openvino" also
            "gpu", an Intel GPU.
        precision: "auto", "int8", "fp16", "bf16" or "fp32".
        backend: "auto", "tensorrt", "openvino" or "pytorch".
        tile: side of a tile in input pixels; None for whole frames.
        model_range, model_order, model_scale: what is known of a file of another project: "0..1", "0..255", "-1..1"
            or "-0.5..0.5"; "rgb" or "bgr"; output pixels per input pixel. By default they are found out by a test.
        note: called with one line where the engine has to fall back, and with what an import took for granted.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"`model`: is a name or a file, not of type {type(model).__name__}")
    model, device = os.fspath(model), str(device)
    if tile is not None and tile < LEAST_TILE:
        raise OptionError(f"`tile={tile}`: must be at least {LEAST_TILE}")
    options = ModelOptions(model, device=device, precision=precision, backend=backend, tile=tile)
    card, net = load_card_and_net(model, Stated(model_range, model_order, model_scale))
    if card.assumptions:
        note(Note(NoteCode.MODEL, f"{card.name}: {card.assumptions}"))
    return upscaler_of_net(card, net, options, note=note)


def load_card_and_net(model: str, stated: Stated | None = None) -> tuple[ModelCard, nn.Module | OnnxFile]:
    """Load a model by name or file: a network with its weights, or an ONNX file, which holds both.

    stated: what the user states of a file of another project.
    """
    if Path(model).suffix.lower() == ONNX_SUFFIX:
        return read_onnx(Path(model), stated)
    return load_with_card(model, stated)


def upscaler_of_net(
    card: ModelCard,
    net: nn.Module | OnnxFile,
    options: ModelOptions | None = None,
    *,
    place: Place | None = None,
    num_pixels: float | None = None,
    note: OnNote = lambda line: None,
) -> Upscaler:
    """Make a network that is in memory ready on a device; see `load_model`.

    Args:
        options: device, precision, backend and tile are used.
        place: devices and backend where they are chosen already.
        num_pixels: input pixels of all frames of the job, by which "auto" weighs a backend's start; None where that
            is not known.
    """
    options = options or ModelOptions()
    place = place or choose_place(options.device, options.backend)
    num_weights = sum(p.numel() for p in net.parameters()) if isinstance(net, nn.Module) else 1
    engines = EngineMaker(
        net,
        signature_of(card),
        place,
        label=card.name,
        work=None if num_pixels is None else num_pixels * num_weights,
        note=note,
        load_quantized=functools.partial(load_int8_net, card),
    )
    engines.is_int8_proven = card.is_int8_proven
    network = CheckedNetwork(
        card,
        engines.make,
        engines.choose_precision(options.precision),
        options.tile,
        note,
        make_reference=engines.make_reference,
        is_fixed=engines.is_fixed,
    )
    network.use_backend = engines.use_backend
    upscaler = Upscaler(network)
    if isinstance(net, nn.Module):
        upscaler.peak_bytes = _peak_of(net, signature_of(card), network)
    alike = replace(options, precision=network.precision)
    upscaler.others = tuple(
        upscaler_of_net(card, net, alike, place=each, num_pixels=num_pixels, note=note)
        for each in _other_places(place, note)
    )
    return upscaler


def _other_places(place: Place, note: OnNote) -> list[Place]:
    """List the places that take batches in turn with the first device of one, and note all."""
    if place.others:
        names = ", ".join(str(each) for each in (place.device, *place.others))
        note(Note(NoteCode.ENGINE, f"batches go in turn to {names}"))
    return [replace(place, device=each, others=()) for each in place.others]


def _peak_of(net: nn.Module, signature: Signature, network: CheckedNetwork) -> Callable[[int, int], int]:
    """Return what tells the bytes that a network holds for a frame of a height and width, in tiles if it has them."""

    def count(height: int, width: int) -> int:
        height, width = (min(side, network.tile or side) for side in (height, width))
        return peak_bytes(net, signature, height, width, network.precision)

    return count


def signature_of(card: ModelCard) -> Signature:
    """Return what the network of a card takes and gives; the images of a recurrent one are in its state."""
    if not card.recurrent:
        return image_signature(1 if card.color == "y" else 3)
    state = ("state", state_channels(**card.options))
    inputs = (("planes", 3), ("previous", 1), ("following", 1), state)
    return Signature(inputs, ("next_state",), (("state", "next_state"),))
