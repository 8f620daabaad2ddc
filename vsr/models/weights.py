"""Load networks with their weights: checksums verified, keys strictly matched, pickles never executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vsr.errors import ModelError, OptionError
from vsr.files import write_file
from vsr.models import spandrel_net
from vsr.models.cards import CARD_KEY, SHIPPED, ModelCard, card_from_json, find_card, shipped_cards
from vsr.models.checkpoints import SUFFIXES, import_checkpoint, read_checkpoint, read_safetensors
from vsr.models.conventions import USUAL, AdaptedNet, Stated, find_convention
from vsr.models.layouts import fold_batch_norm
from vsr.models.nets import NETS
from vsr.models.quantization import quantized

__all__ = [
    "build_net",
    "fold_batch_norm",
    "load_int8_net",
    "load_model_file",
    "load_net",
    "load_with_card",
    "read_card",
    "resolve",
    "save_model_file",
]


def resolve(model: str) -> tuple[ModelCard, Path]:
    """Find a model by name or by the path of a file; return its card and its weights file.

    A file that `vsr train` wrote has its card inside; a checkpoint trained elsewhere is imported.
    """
    path = Path(model)
    if path.suffix in SUFFIXES or path.is_file():
        if _has_card(path):
            return replace(read_card(path), name=_name_of(path)), path
        return import_checkpoint(path)[0], path
    card = find_card(model)
    return card, SHIPPED / card.weights


def load_with_card(model: str, stated: Stated | None = None) -> tuple[ModelCard, nn.Module]:
    """Load a network, with its card, by name or by the path of a file, which is read once.

    A checkpoint trained elsewhere is tried on a smooth image; the network takes and gives values from 0 to 1 in any
    case. Raises ModelError as `resolve` and `load_net` do, and for a network that does not enlarge that image.

    Args:
        model: name or path.
        stated: what the user states of a checkpoint trained elsewhere.
    """
    path = Path(model)
    if (path.suffix in SUFFIXES or path.is_file()) and not _has_card(path):
        stated = stated or Stated()
        card, state = import_checkpoint(path, stated.scale)
        return _with_convention(card, _build_with_weights(card, state, path), stated, path)
    card, path = resolve(model)
    return card, load_net(card, path)


@torch.inference_mode()
def _with_convention(card: ModelCard, net: nn.Module, stated: Stated, path: Path) -> tuple[ModelCard, nn.Module]:
    """Find out which values a foreign network takes and gives, and convert them where they are not ours."""
    channels = 1 if card.color == "y" else 3
    multiple = card.multiple_of

    def run(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        out: Tensor = net(padded)
        return out[..., : height * card.scale, : width * card.scale]

    convention, why = find_convention(run, channels, card.scale, stated, str(path))
    card = replace(card, assumptions="; ".join(filter(None, (card.assumptions, why))))
    return card, net if convention == USUAL else AdaptedNet(net, convention).eval().requires_grad_(False)


def load_net(card: ModelCard, path: Path) -> nn.Module:
    """Load the network of a card with the weights of a file: float32, on the CPU, in eval mode.

    Raises ModelError where the file is missing, fails its checksum, or does not fit the network.
    """
    if not path.is_file():
        raise ModelError(f"{path}: the weights of '{card.name}' are missing; install vsr again")
    if card.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
        raise ModelError(f"{path}: the weights of '{card.name}' fail their checksum; install vsr again")
    return load_model_file(card, path)


def load_int8_net(card: ModelCard) -> nn.Module:
    """Load the int8 network of a shipped card: `quantization.quantized` with the int8 weights.

    Raises OptionError for a model that has none, and all errors of `load_net`.
    """
    if not card.int8_weights:
        names = ", ".join(other.name for other in shipped_cards().values() if other.int8_weights)
        raise OptionError(
            f"`precision=\"int8\"`: '{card.name}' has no weights for it ({names or 'no model'} has); 'vsr export "
            f"{card.name} OUT.onnx --precision int8 --calibrate FOLDER' makes a file that `model` takes"
        )
    own = replace(card, weights=card.int8_weights, sha256=card.int8_sha256, quantized=True)
    return load_net(own, SHIPPED / card.int8_weights)


def load_model_file(card: ModelCard, path: Path) -> nn.Module:
    """Load a network as `load_net` does, from a file without a checksum on record."""
    if card.net == spandrel_net.NET:
        return _build_with_weights(card, read_checkpoint(path), path)
    return _build_with_weights(card, read_safetensors(path) if _has_card(path) else import_checkpoint(path)[1], path)


def _name_of(path: Path) -> str:
    """Return the name of a model by its file: "best" of a run in `mine` is "mine/best"."""
    return f"{path.absolute().parent.name}/{path.stem}" if path.stem in ("weights", "best") else path.stem


def _build_with_weights(card: ModelCard, state: dict[str, Tensor], path: Path) -> nn.Module:
    """Build the network of a card and load weights into it, batch norms folded.

    Args:
        card: the model card.
        state: weights by key.
        path: their file, for messages.
    """
    if card.net == spandrel_net.NET:
        try:
            return spandrel_net.build_spandrel_net(state).eval().requires_grad_(False)
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error
    net = build_net(card)
    state = fold_batch_norm(state, net)
    try:
        net.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise ModelError(f"{path}: does not fit the network '{card.net}' ({_one_line(error)})") from error
    return net.eval().requires_grad_(False)


def build_net(card: ModelCard) -> nn.Module:
    """Build the network of a card with fresh weights."""
    if card.net not in NETS:
        raise ModelError(f"model '{card.name}' needs the network '{card.net}'; there are {', '.join(NETS)}")
    try:
        net = NETS[card.net](**card.options)
        return quantized(net) if card.quantized else net
    except (TypeError, ValueError) as error:
        raise ModelError(f"model '{card.name}': the network '{card.net}' refuses its options ({error})") from error


def read_card(path: Path) -> ModelCard:
    """Read the card inside a .safetensors file that `vsr train` wrote."""
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; 'vsr models' lists the names there are")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({_one_line(error)})") from error
    if CARD_KEY not in metadata:
        raise ModelError(f"{path}: has no model card in it; only files written by 'vsr train' are understood")
    return card_from_json(metadata[CARD_KEY], str(path))


def save_model_file(path: Path, card: ModelCard, state: Mapping[str, Tensor]) -> None:
    """Write weights with their card inside, completely or not at all. Raises OSError."""
    metadata = {CARD_KEY: replace(card, sha256="").to_json()}
    write_file(path, save({k: v.contiguous() for k, v in state.items()}, metadata))


def _has_card(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return CARD_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
