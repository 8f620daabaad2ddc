"""Prepare the contenders of a benchmark: plain interpolation, models by name or file, and networks of OpenCV."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor

from vsr.bench.opencv_peer import load_opencv_peer
from vsr.errors import OptionError
from vsr.events import OnNote
from vsr.pipeline.loading import load_model
from vsr.quality.protocols import (
    Upscale,
    UpscaleFrames,
    upscale_bicubic,
    upscale_each,
    upscale_frames_with,
    upscale_with,
)

__all__ = ["BICUBIC", "Contender", "contenders"]

BICUBIC = "bicubic"  # on which the gates stand
_DEFAULT_SCALE = 4


@dataclass(frozen=True, slots=True)
class Contender:
    """Upscale images by one method of a comparison.

    Args:
        name: its name in results.
        scale: output pixels per input pixel in each direction; None for methods that take any.
        upscale_frames: the method, on the frames of a clip or on stills.
        facts: returns what a reader wants to know of it; called at the end, when an engine may have fallen back.
        restart_interval: frames after which a network with memory begins anew; 0 for methods that see one image.
    """

    name: str
    scale: int | None
    upscale_frames: UpscaleFrames
    facts: Callable[[], dict[str, object]]
    restart_interval: int = 0


def contenders(
    models: Iterable[str],
    opencv: Iterable[Path] = (),
    *,
    scale: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    note: OnNote = lambda line: None,
) -> tuple[list[Contender], int]:
    """List bicubic and Lanczos, then the models, then OpenCV's networks; return them with their common scale.

    Args:
        models: names or files.
        opencv: files of OpenCV's dnn_superres.
        scale: the scale of all; the networks' unless given, or 4 without any.
        device, precision, backend: as in `load_model`.
        note: called with one line for each note of loading.

    Raises OptionError where two networks differ in scale or share a name, and the errors of `load_model`.
    """
    networks = [_model(name, device, precision, backend, note) for name in models]
    networks += [_opencv(path) for path in opencv]
    chosen = scale or next((network.scale for network in networks if network.scale), _DEFAULT_SCALE)
    for network in networks:
        if network.scale != chosen:
            raise OptionError(f"{network.name} upscales by {network.scale} and not {chosen}: one scale at a time")
    names = [BICUBIC, "lanczos", *(network.name for network in networks)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"two models are called '{twice[0]}': rename a file")
    return [*_interpolations(chosen), *networks], chosen


def _interpolations(scale: int) -> list[Contender]:
    bicubic = {"kind": "interpolation", "description": "Keys' cubic, a = -1/2, as MATLAB's imresize"}
    lanczos = {"kind": "interpolation", "description": "OpenCV's INTER_LANCZOS4 (8×8)"}
    return [
        Contender(BICUBIC, None, upscale_each(upscale_bicubic(scale)), lambda: dict(bicubic)),
        Contender("lanczos", None, upscale_each(_lanczos(scale)), lambda: dict(lanczos)),
    ]


def _lanczos(scale: int) -> Upscale:
    def upscale(low: Tensor) -> Tensor:
        size = (low.shape[2] * scale, low.shape[1] * scale)
        image = low.permute(1, 2, 0).contiguous().numpy()
        return torch.from_numpy(cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4)).permute(2, 0, 1)

    return upscale


def _model(model: str, device: str, precision: str, backend: str, note: OnNote) -> Contender:
    upscaler = load_model(model, device=device, precision=precision, backend=backend, note=note)
    path, card = Path(model), upscaler.card
    name = path.stem if path.is_file() else card.name

    def facts() -> dict[str, object]:
        return {
            "kind": "model",
            "description": card.description,
            "parameters": card.num_parameters or None,
            "sha256": _sha256(path) if path.is_file() else card.sha256,
            "engine": upscaler.engine.name,
            **({"restart_interval": card.restart_interval, "warm_up": card.warm_up} if card.recurrent else {}),
        }

    upscale = upscale_frames_with(upscaler) if card.recurrent else upscale_each(upscale_with(upscaler))
    return Contender(name, card.scale, upscale, facts, card.restart_interval)


def _opencv(path: Path) -> Contender:
    upscale, scale = load_opencv_peer(path)
    facts = {
        "kind": "opencv",
        "description": f"{path.name}, as dnn_superres runs it",
        "sha256": _sha256(path),
        "engine": f"OpenCV {cv2.__version__} on the CPU",
    }
    return Contender(path.stem, scale, upscale_each(upscale), lambda: dict(facts))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
