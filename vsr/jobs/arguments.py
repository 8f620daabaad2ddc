"""Read the values that Python callers give as options and images; refuse all others in one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["image_array", "like_image", "plain_options"]

_NUMBERS = ("scale", "fidelity", "restore", "crf")
_COUNTS = ("batch", "tile", "model_scale")
_TEXTS = ("device", "backend", "precision", "codec", "preset", "pix_fmt", "format", "audio", "model", "size", "purpose")
_HIGHEST_FLOAT = 1.01  # of an image from 0 to 1 that was rounded or resized


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the values of options into those that a job has: numbers of NumPy, a size as a pair, a device of PyTorch.

    Raises TypeError, which names the option, for a value of another kind.
    """
    return {name: _plain(name, value) for name, value in options.items()}


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _NUMBERS:
        return _number(name, value)
    if name in _COUNTS:
        return _count(name, value)
    if name == "size" and isinstance(value, (tuple, list)) and len(value) == 2:
        return "x".join(str(_count(name, side)) for side in value)
    if name == "model" and isinstance(value, os.PathLike):
        return os.fspath(value)
    if name == "device" and isinstance(value, torch.device):
        return str(value)
    if name in _TEXTS and not isinstance(value, str):
        wanted = 'WIDTHxHEIGHT, as in "640x360"' if name == "size" else "a string"
        raise TypeError(f"`{name}`: is {wanted}, not {_described(value)}")
    return value


def _number(name: str, value: Any) -> float:
    """Return a real number, also from NumPy, PyTorch and text; Python's own come out as they are."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, (Fraction, np.floating, np.integer)):
        return float(value)
    if isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0:
        return float(value)
    try:
        if isinstance(value, str):
            return float(value)
    except ValueError:
        pass
    raise TypeError(f"`{name}`: is a number, not {_described(value)}")


def _count(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != number // 1:
        raise TypeError(f"`{name}`: is a whole number, not {_described(value)}")
    return int(number)


def _described(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else '...'} ({type(value).__name__})"


def image_array(image: Any) -> np.ndarray:
    """Return an image, or a batch, as a NumPy array of uint8 or uint16: of an array, a tensor, or an image of PIL.

    Floats from 0 to 1 become uint16. Raises TypeError for anything else, ValueError for floats beyond 0 to 1.
    """
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    elif not isinstance(image, np.ndarray) and hasattr(image, "__array_interface__"):
        image = np.array(image)  # an image of PIL, for one, whose own memory is not to be written
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image is an array, a tensor or an image of PIL, not {_described(image)}")
    if image.dtype.kind != "f":
        return image
    lowest, highest = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if not (lowest >= 1 - _HIGHEST_FLOAT and highest <= _HIGHEST_FLOAT):  # nor if they are not numbers
        raise ValueError(f"an image of floats is from 0 to 1, and this one from {lowest:g} to {highest:g}")
    return (image.astype(np.float32).clip(0, 1) * 65535 + 0.5).astype(np.uint16)


def like_image(result: np.ndarray, image: Any) -> np.ndarray | Tensor:
    """Turn a result into what the image was: an array or tensor, of floats or integers."""
    kind = image.numpy(force=True).dtype if isinstance(image, Tensor) else getattr(image, "dtype", None)
    if kind is not None and kind.kind == "f":
        result = (result.astype(np.float32) / 65535).astype(kind)
    return torch.from_numpy(result) if isinstance(image, Tensor) else result
