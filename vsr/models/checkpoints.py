"""Import checkpoints trained elsewhere, without executing anything in them, as a card and weights under our names."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vsr.errors import BrokenExtraError, MissingExtraError, ModelError, install_hint
from vsr.models import spandrel_net
from vsr.models.cards import ModelCard
from vsr.models.conventions import likeness_db
from vsr.models.layouts import recognise
from vsr.models.nets import NETS
from vsr.models.nets.layout import Layout, State

__all__ = ["SUFFIXES", "import_checkpoint", "read_checkpoint", "read_safetensors"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

Color = Literal["rgb", "y"]

# Where training code keeps the weights inside a checkpoint, best first: averaged before raw, generator first.
_CONTAINERS = (
    "params_ema",
    "params-ema",
    "ema_state_dict",
    "ema",
    "params",
    "generator",
    "generator_state_dict",
    "net_g",
    "netG",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
)
_DEEPEST = 4  # containers inside containers
_DEFAULT_SCALE = 4
_LUMA_NETS = ("luma", "vdsr", "srcnn", "espcn", "fsrcnn")
_NUM_LISTED = 6
_MOST_REPEATED_BYTES = 64 << 20  # of a tensor that repeats the few values that are in the file
_REMEDY = "load it where it comes from and save its weights alone: torch.save(model.state_dict(), ...)"


def import_checkpoint(path: Path, scale: int | None = None) -> tuple[ModelCard, State]:
    """Make a card and weights under our names from a foreign weights file, batch norms folded.

    The card names the layout that was recognised and lists all assumptions. A file that only spandrel knows gets the
    card's net `spandrel_net.NET` and keeps its weights as they are. Raises ModelError for a file that cannot be read
    safely, and for an unknown layout with a list of its tensors.

    Args:
        path: the file.
        scale: output pixels per input pixel for weights that serve several; by the file's name unless given.
    """
    state = read_checkpoint(path)
    named = _scale_in_name(path)
    found = recognise(state, scale or named or _DEFAULT_SCALE)
    if found is None:
        return _import_with_spandrel(path, state), state
    layout, options, weights = found
    if layout.alternatives:
        options, by = _choose_alternative(layout, options, weights, scale or named)
    with torch.device("meta"):
        net = NETS[layout.net](**options)
    color: Color = "y" if layout.net in _LUMA_NETS and options.get("channels", 1) == 1 else "rgb"
    text = f"weights in the layout of {layout.origin}"
    card = _card(path, net, layout.net, options, color, text)
    source = "as asked" if scale else "by the file's name" if named else ""
    assumptions = by if layout.alternatives else _describe_assumptions(layout, options, source)
    return replace(card, assumptions=assumptions), weights


@torch.inference_mode()
def _choose_alternative(
    layout: Layout, options: dict[str, Any], weights: State, scale: int | None
) -> tuple[dict[str, Any], str]:
    """Choose the arguments that weights do not determine: those by which the network enlarges a smooth image best.

    scale: as stated or named, which is taken without a test.  Returns the options, and a text that says why.
    """
    if scale is not None and "scale" in layout.alternatives[0]:
        return options | {"scale": scale}, f"×{scale} as asked, or by the file's name"
    scored = []
    for alternative in layout.alternatives:
        candidate = options | alternative
        net = NETS[layout.net](**candidate)
        net.load_state_dict(weights)
        net.eval()
        scored.append((likeness_db(net, options.get("channels", 3), candidate["scale"]), alternative))
    (best_db, best), (next_db, _), *_ = sorted(scored, key=lambda pair: pair[0], reverse=True)
    chosen = ", ".join(f"{name} {value}" for name, value in best.items())
    text = (
        f"{chosen} by a test ({best_db:.0f} dB against bicubic on a smooth image, {next_db:.0f} dB for the next best)"
    )
    return options | best, text


def read_checkpoint(path: Path) -> State:
    """Read the weights of a .safetensors file or PyTorch checkpoint, out of any containers around them.

    Pickles are read by PyTorch's weights-only reader, which builds tensors and plain containers and refuses everything
    else. Raises ModelError where the file is missing or cannot be read so.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; 'vsr models' lists the names there are")
    kind = _file_format(path)
    if kind == "safetensors":
        return read_safetensors(path)
    content = _read_pickled(path, kind)
    state = _unwrap(content)
    if not state:
        keys = f"; at its top: {_list_some(list(content))}" if isinstance(content, Mapping) else ""
        raise ModelError(f"{path}: holds no weights by name, but a {type(content).__name__}{keys}; {_REMEDY}")
    _check_sizes(path, state)
    return state


def read_safetensors(path: Path) -> State:
    """Read the tensors of a .safetensors file. Raises ModelError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file ({' '.join(str(error).split())})") from error


# -- reading -----------------------------------------------------------------------------------------------


def _file_format(path: Path) -> str:
    """Tell a file's format by its first bytes: "safetensors", "zip", "pickle" or "tar"."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[8:9] == b"{":  # before the pickles, whose first bytes can be the length of a header
        return "safetensors"
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "pickle"
    if start[257:262] == b"ustar":
        return "tar"
    if path.suffix == ".safetensors":
        return "safetensors"
    raise ModelError(f"{path}: neither a safetensors file nor a PyTorch checkpoint")


def _read_pickled(path: Path, kind: str) -> Any:
    if kind == "tar":
        raise ModelError(f"{path}: a checkpoint of PyTorch before 0.1.10, which cannot be read safely; {_REMEDY}")
    if kind == "zip" and _is_torchscript(path):
        raise ModelError(f"{path}: a TorchScript program, not weights; it was not executed; {_REMEDY}")
    try:
        # Pass an open file: from a path PyTorch would choose its reader by the suffix.
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(_harmless_types()):
            warnings.simplefilter("ignore")  # it warns of pickles of other versions; a failure is an error below
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        what = _printable(name[1]) if name else "or is damaged"
        raise ModelError(f"{path}: holds pickled code ({what}), which was not executed; {_REMEDY}") from None
    except Exception as error:  # a damaged or hostile file can break the reader at any point
        raise ModelError(f"{path}: not a PyTorch checkpoint, or a damaged one ({_printable(str(error))})") from error


def _harmless_types() -> list[Any]:
    """List what checkpoints hold beside weights and what does nothing when it is built.

    These are options, numbers and arrays of NumPy, plain containers and the names of files.
    """
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]  # the function that unpickles a number
    array = np.zeros(0).__reduce__()[0]  # and the one of an array
    kinds = [np.dtype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    modules = ("numpy.core", "numpy._core")
    named = [(scalar, f"{module}.multiarray.scalar") for module in modules]
    named += [(array, f"{module}.multiarray._reconstruct") for module in modules]
    for module in ("pathlib", "pathlib._local"):  # a path of another system cannot be built as one that opens files
        named += [(PurePosixPath, f"{module}.PosixPath"), (PureWindowsPath, f"{module}.WindowsPath")]
    named.append((_plain_dict, "collections.defaultdict"))  # PyTorch's reader fills plain ones alone
    plain = [argparse.Namespace, list, dict, int, float, set]
    return [*plain, np.dtype, np.ndarray, *{type(kind) for kind in kinds}, *named]


def _plain_dict(factory: Any = None) -> dict[Any, Any]:
    """Stand in for `defaultdict`."""
    return {}


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False  # the reader reports the damage


def _unwrap(content: Any, depth: int = 0) -> State:
    """Find the tensors by name inside a checkpoint's containers; return {} where there are none."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    for key in _CONTAINERS:
        inner = _unwrap(content.get(key), depth + 1)
        if inner:
            return inner
    numbers = {k: torch.from_numpy(v) for k, v in content.items() if isinstance(v, np.ndarray) and _is_numeric(v)}
    values = {**content, **numbers}
    return {k: v for k, v in values.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _is_numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiub" and array.dtype.isnative and array.flags.writeable


def _check_sizes(path: Path, state: State) -> None:
    """Refuse tensors that claim more values than the file holds, before anything converts them."""
    for key, value in state.items():
        claimed = value.numel() * value.element_size()
        if claimed > max(value.untyped_storage().nbytes(), _MOST_REPEATED_BYTES):
            raise ModelError(
                f"{path}: is damaged or hostile: '{_printable(key)}' claims {claimed / 2**30:.0f} GiB and the file "
                f"holds {value.untyped_storage().nbytes()} bytes of it"
            )


# -- cards and errors --------------------------------------------------------------------------------------


def _card(path: Path, net: Any, name: str, options: dict[str, Any], color: Color, text: str) -> ModelCard:
    return ModelCard(
        name=path.stem.removesuffix(".pth"),
        net=name,
        options=options,
        scale=net.scale,
        color=color,
        halo=net.halo,
        multiple_of=getattr(net, "multiple_of", 1),
        license="unknown: see its authors",
        description=f"imported from {path.name}: {text}",
        data="unknown",
        num_parameters=sum(parameter.numel() for parameter in net.parameters()),
    )


def _scale_in_name(path: Path) -> int | None:
    """Read the scale from a file name that has it as a separate word: srcnn_x2.pth, 2x-vdsr.pth."""
    match = re.search(r"(?<![a-z0-9])(?:x([2348])|([2348])x)(?![a-z0-9])", path.name.lower())
    return int(match[1] or match[2]) if match else None


def _describe_assumptions(layout: Layout, options: dict[str, Any], source: str) -> str:
    """Describe, for the card, the values that the weights do not determine.

    Args:
        layout: the layout that was recognised.
        options: of our network.
        source: of the scale; "" where it is assumed.
    """
    if layout.any_scale and source:
        return f"×{options['scale']} {source}"
    if layout.any_scale:
        return f"×{options['scale']} assumed, since such weights serve any scale: `model_scale` states another"
    if layout.net == "edsr":
        return f"residual scale {options['residual_scale']} assumed, the paper's for so many features"
    return ""


def _import_with_spandrel(path: Path, state: State) -> ModelCard:
    try:
        net = spandrel_net.build_spandrel_net(state)
    except BrokenExtraError as error:  # the file may be sound: what is at fault comes first
        raise ModelError(f"{path}: of no layout that vsr knows itself: {error}") from error
    except MissingExtraError as error:
        raise ModelError(f"{_describe_unknown(path, state)}; for more layouts: {install_hint('spandrel')}") from error
    except ValueError as error:
        raise ModelError(f"{_describe_unknown(path, state)}; {error}") from error
    text = f"{net.architecture}, by spandrel; tiles overlap by {net.halo} pixels, which may not be all it sees"
    return _card(path, net, spandrel_net.NET, {}, "y" if net.channels == 1 else "rgb", text)


def _describe_unknown(path: Path, state: State) -> str:
    """Describe a file of unknown layout by its first tensors, for a message."""
    file = "safetensors file" if _file_format(path) == "safetensors" else "PyTorch checkpoint"
    listing = _list_some([f"{key} {'×'.join(map(str, value.shape)) or 'scalar'}" for key, value in state.items()])
    return f"{path}: vsr does not know the layout of this {file} with {len(state)} tensors: {listing}"


def _list_some(items: list[Any]) -> str:
    more = f" and {len(items) - _NUM_LISTED} more" if len(items) > _NUM_LISTED else ""
    return ", ".join(_printable(str(item)) for item in items[:_NUM_LISTED]) + more


def _printable(text: str) -> str:
    """Make text from a file fit to print in one line of a message."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:120]
