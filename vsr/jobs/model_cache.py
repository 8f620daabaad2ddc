"""Load the model of a job, and keep it for the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from torch import nn

from vsr.backends.onnx_model import OnnxFile
from vsr.backends.select import choose_place
from vsr.events import OnNote
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import choose_model
from vsr.models.cards import ModelCard
from vsr.models.fidelity import load_between
from vsr.pipeline.loading import load_card_and_net, upscaler_of_net
from vsr.pipeline.upscaler import Upscaler

__all__ = ["KeptModel", "LoadUpscaler", "load_upscaler"]


class LoadUpscaler(Protocol):
    """What `load_upscaler` does, or something in its place."""

    def __call__(
        self,
        options: JobOptions,
        width: int,
        height: int,
        note: OnNote,
        *,
        num_frames: int | None,
        is_picture: bool = False,
    ) -> Upscaler: ...


def load_upscaler(
    options: JobOptions, width: int, height: int, note: OnNote, *, num_frames: int | None, is_picture: bool = False
) -> Upscaler:
    """The model of a job's options, ready for frames of that size; says which it is and why.

    num_frames: how many are expected, which decides what is worth preparing; None where that is not known.
    """
    card: ModelCard
    net: nn.Module | OnnxFile
    if options.fidelity is not None:
        card, net = load_between(options.fidelity)
        reason = "as asked"
    else:
        device = choose_place(options.device, options.backend).device
        model, reason = choose_model(options, width, height, device, is_picture=is_picture)
        card, net = load_card_and_net(model)
    note(f"model {card.name} ({reason})")
    return upscaler_of_net(
        card,
        net,
        device=options.device,
        precision=options.precision,
        backend=options.backend,
        tile=options.tile,
        num_pixels=(math.inf if num_frames is None else num_frames) * width * height,
        note=note,
    )


class KeptModel:
    """Loads the models of jobs, and keeps the last one for the next job with frames of the same size.

    Takes the place of `load_upscaler`. The precision is checked on the first batch of every job all the same.
    """

    def __init__(self) -> None:
        self._upscaler: Upscaler | None = None
        self._use: tuple[object, ...] = ()

    def __call__(
        self,
        options: JobOptions,
        width: int,
        height: int,
        note: Callable[[str], None],
        *,
        num_frames: int | None,
        is_picture: bool = False,
    ) -> Upscaler:
        use = (width, height, is_picture)
        if self._upscaler is not None and use == self._use:
            self._upscaler.check_again()
            return self._upscaler
        self.forget()  # before the next one takes memory
        self._use = use
        self._upscaler = load_upscaler(options, width, height, note, num_frames=num_frames, is_picture=is_picture)
        return self._upscaler

    def forget(self) -> None:
        """Load anew next time, as after an error that may be the engine's."""
        self._upscaler = None
