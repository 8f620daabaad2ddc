"""Collect what a network with memory sees along clips, by which its int8 form is calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vsr.backends.torch_engine import TorchEngine
from vsr.color.pixel_formats import FORMATS
from vsr.errors import InputError
from vsr.frames import FrameBatch
from vsr.media.endpoints import File
from vsr.media.formats import VIDEO_SUFFIXES
from vsr.media.read.reader import VideoReader
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.temporal import TemporalProcessor

__all__ = ["find_clips", "steps_along_clips"]

_NUM_FRAMES = 8  # of each clip, of which the last counts: by then the state has settled
_SIDE = 256  # pixels of their middles that are looked at


def find_clips(folder: Path) -> list[Path]:
    """List the video files below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)


def steps_along_clips(
    card: ModelCard, net: nn.Module, paths: list[Path], note: Callable[[str], None]
) -> list[tuple[Tensor, ...]]:
    """Return a network's inputs at the eighth frame of each clip, state and all, (1, C, H, W) float32.

    note: called with a line for each clip that cannot be read.
    """
    engine = _Recorder(net)
    network = CheckedNetwork(card, lambda precision: engine, "fp32")
    found = []
    for path in paths:
        try:
            with VideoReader(File(path)) as reader:
                batch = _middle(reader.first_batch(_NUM_FRAMES))
        except InputError as error:
            note(f"left out: {error}")
            continue
        height, width = (side * card.scale for side in batch.planes[0].shape[-2:])
        processor = TemporalProcessor(network, Target(width, height, FORMATS["yuv420p"], batch.color))
        processor.push(batch)
        for result in processor.flush():
            result()
        found.append(engine.inputs)
    return found


class _Recorder:
    """See `Engine`: remember the inputs of the last call."""

    def __init__(self, net: nn.Module) -> None:
        self._engine = TorchEngine(net, torch.device("cpu"), "fp32")
        self.name, self.device, self.dtype = self._engine.name, self._engine.device, self._engine.dtype
        self.inputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.inputs = inputs
        return self._engine(*inputs)


def _middle(batch: FrameBatch) -> FrameBatch:
    """Crop frames to their middles, at even places so that chroma stays with its luma."""
    height, width = batch.planes[0].shape[-2:]
    planes = []
    for plane in batch.planes:
        rows, columns = (
            slice(start * part // whole, (start + min(whole, _SIDE)) * part // whole)
            for part, whole, start in (
                (plane.shape[-2], height, _even_start(height)),
                (plane.shape[-1], width, _even_start(width)),
            )
        )
        planes.append(plane[..., rows, columns])
    return replace(batch, planes=tuple(planes))


def _even_start(side: int) -> int:
    return max(0, side - _SIDE) // 4 * 2
