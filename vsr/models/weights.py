"""Load networks with their weights: checksums verified, keys strictly matched, pickles never executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vsr.errors import ModelError, OptionError
from vsr.files import partial_file
from vsr.models import spandrel_net
from vsr.models.cards import CARD_KEY, SHIPPED, ModelCard, card_from_json, find_card, shipped_cards
from vsr.models.checkpoints import SUFFIXES, import_checkpoint, read_checkpoint, read_safetensors
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
        card = read_card(path) if _has_card(path) else import_checkpoint(path)[0]
        return card, path
    card = find_card(model)
    return card, SHIPPED / card.weights


def load_with_card(model: str) -> tuple[ModelCard, nn.Module]:
    """Load a network, with its card, by name or by the path of a file, which is read once.

    Raises ModelError as `resolve` and `load_net` do.
    """
    path = Path(model)
    if (path.suffix in SUFFIXES or path.is_file()) and not _has_card(path):
        card, state = import_checkpoint(path)
        return card, _build_with_weights(card, state, path)
    card, path = resolve(model)
    return card, load_net(card, path)


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
    """Write weights with their card inside, completely or not at all."""
    metadata = {CARD_KEY: replace(card, sha256="").to_json()}
    with partial_file(path) as partial:
        save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata)


def _has_card(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return CARD_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
