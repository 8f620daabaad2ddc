"""Networks with their weights: checked, strictly matched, never pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from vsr.errors import ModelError
from vsr.models.cards import CARD_KEY, SHIPPED, ModelCard, card_from_json, find_card
from vsr.models.nets import NETS

__all__ = ["build_net", "fold_batch_norm", "load_model_file", "load_net", "read_card", "resolve", "save_model_file"]


def resolve(model: str) -> tuple[ModelCard, Path]:
    """A model by name, or by the path of a .safetensors file, as its card and its weights' file."""
    path = Path(model)
    if path.suffix == ".safetensors" or path.is_file():
        return read_card(path), path
    card = find_card(model)
    return card, SHIPPED / card.weights


def load_net(card: ModelCard, path: Path) -> nn.Module:
    """The network of a card with the weights of a file: float32, on the CPU, in eval mode.

    Raises ModelError where the file is missing, fails its checksum, or does not fit the network.
    """
    if not path.is_file():
        raise ModelError(f"{path}: the weights of '{card.name}' are missing; install vsr again")
    if card.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != card.sha256:
        raise ModelError(f"{path}: the weights of '{card.name}' fail their checksum; install vsr again")
    return load_model_file(card, path)


def load_model_file(card: ModelCard, path: Path) -> nn.Module:
    """Like `load_net`, for a file that has no checksum on record."""
    net = build_net(card)
    state = fold_batch_norm(_read_tensors(path), net)
    try:
        net.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise ModelError(f"{path}: does not fit the network '{card.net}' ({_one_line(error)})") from error
    return net.eval().requires_grad_(False)


def build_net(card: ModelCard) -> nn.Module:
    """The network of a card with fresh weights."""
    if card.net not in NETS:
        raise ModelError(f"model '{card.name}' needs the network '{card.net}'; there are {', '.join(NETS)}")
    try:
        return NETS[card.net](**card.options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"model '{card.name}': the network '{card.net}' refuses its options ({error})") from error


def read_card(path: Path) -> ModelCard:
    """The card inside a .safetensors file that `vsr train` wrote."""
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
    """Write weights with their card inside, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    save_file({k: v.contiguous() for k, v in state.items()}, partial, {CARD_KEY: replace(card, sha256="").to_json()})
    partial.replace(path)


def fold_batch_norm(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Fold the batch norms of a checkpoint into the convolutions before them.

    Wherever `state` has running statistics `<prefix>bn<n>` that `net` has no module for, they go into
    `<prefix>conv<n>` (`fuse_bn` into `fuse`), as at inference both are one linear map.
    """
    wanted = net.state_dict().keys()
    folded = dict(state)
    for key in state:
        norm, dot, last = key.rpartition(".")
        if last != "running_mean" or key in wanted:
            continue
        conv = norm.removesuffix("_bn") if norm.endswith("_bn") else norm.replace(".bn", ".conv")
        weight, bias = fuse_conv_bn_weights(
            state[f"{conv}.weight"],
            state.get(f"{conv}.bias"),
            state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"],
            1e-5,
            state[f"{norm}.weight"],
            state[f"{norm}.bias"],
        )
        folded[f"{conv}.weight"], folded[f"{conv}.bias"] = weight, bias
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            folded.pop(f"{norm}{dot}{part}", None)
    return folded


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({_one_line(error)})") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
