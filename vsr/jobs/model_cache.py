"""Load the models of jobs, and keep the last one for the next job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from vsr.backends.installed import Backend
from vsr.backends.onnx_model import OnnxFile
from vsr.backends.select import Place
from vsr.errors import ModelError, OptionError
from vsr.events import Note, NoteCode, OnNote
from vsr.files import sha256_of
from vsr.jobs.plan import Footage, choose_model
from vsr.models.cards import ModelCard
from vsr.models.conventions import Stated
from vsr.models.fidelity import load_interpolated
from vsr.models.restoration import REAL_FORMS, clean_form, load_restored
from vsr.pipeline.loading import ModelOptions, load_card_and_net, upscaler_of_net
from vsr.pipeline.upscaler import Upscaler

__all__ = ["GivenModel", "ModelCache", "ModelChoice", "ModelSource"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that was chosen for a job, and where it runs.

    model: its name, or the path of its file.  fidelity: as in `ModelOptions`.
    title: the name on its card.  sha256: of its weights, or of its file; empty for interpolated weights.
    scale: output pixels per input pixel.  num_parameters: weights of the network.
    device, backend, accelerator: the place, in the words of `Place`.  precision, tile: as in `ModelOptions`.
    restore: as in `ModelOptions`.  stated: what the user states of a file of another project.
    others: devices that take batches in turn with `device`.
    """

    model: str
    fidelity: float | None
    title: str
    sha256: str
    scale: int
    num_parameters: int
    device: str
    backend: Backend
    accelerator: str
    precision: str
    tile: int | None
    restore: float | None
    stated: Stated
    others: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """The devices and the backend that run the network."""
        others = tuple(torch.device(name) for name in self.others)
        return Place(torch.device(self.device), self.backend, self.accelerator, others)


class ModelSource(Protocol):
    """Chooses a job's model and loads it."""

    def choose(self, options: ModelOptions, place: Place, footage: Footage, note: OnNote) -> ModelChoice: ...

    def load(self, choice: ModelChoice, num_pixels: float, note: OnNote) -> Upscaler: ...


class ModelCache:
    """Chooses and loads models, and keeps the last one for jobs that ask for the same.

    A kept model stands for all that makes it: the name or file, with its weights, the place, precision and tile. The
    precision is checked on the first batch of every job all the same.
    """

    def __init__(self) -> None:
        self._card_and_net: tuple[ModelCard, nn.Module | OnnxFile] | None = None
        self._net_key: tuple[object, ...] = ()
        self._upscaler: Upscaler | None = None
        self._choice: ModelChoice | None = None
        self._num_pixels = 0.0

    def choose(self, options: ModelOptions, place: Place, footage: Footage, note: OnNote) -> ModelChoice:
        """Choose the model for the footage, and note which it is and why."""
        if options.fidelity is not None:
            model, reason = "auto", "as asked"
        else:
            model, reason = choose_model(options, footage, place.device)
        if options.restore is not None and options.model == "auto":
            model = model if clean_form(model) else next(iter(REAL_FORMS))
        card, sha256 = self._read(model, options.fidelity, options.restore, options.stated)
        if card.recurrent and place.others:
            raise OptionError(
                f"`device={options.device}`: {card.name} goes from frame to frame and runs on one device; `workers="
                f"{1 + len(place.others)}` without `device` divides the video among GPUs, or take a `model` of stills"
            )
        note(Note(NoteCode.MODEL, f"model {card.name} ({reason})"))
        if card.assumptions:
            note(Note(NoteCode.MODEL, f"{card.name}: {card.assumptions}"))
        return _choice(card, sha256, model, options, place)

    def load(self, choice: ModelChoice, num_pixels: float, note: OnNote) -> Upscaler:
        """Load a model that was chosen, or give the one that is kept.

        num_pixels: input pixels of all frames of the job, by which "auto" weighs a backend's start; infinite where
            their number is not known. A model that was loaded for less is loaded again, as it may have been too short
            a job for the fastest backend.
        Raises ModelError where the weights are not those that were chosen.
        """
        if self._upscaler is not None and choice == self._choice and num_pixels <= self._num_pixels:
            for upscaler in (self._upscaler, *self._upscaler.others):
                upscaler.network.check_again()
            return self._upscaler
        self._upscaler = None  # before the next one takes memory
        card, sha256 = self._read(choice.model, choice.fidelity, choice.restore, choice.stated)
        if sha256 != choice.sha256:
            raise ModelError(f"{choice.model}: the weights are not those that the job was made with; make it again")
        assert self._card_and_net is not None
        self._upscaler = upscaler_of_net(
            card,
            self._card_and_net[1],
            ModelOptions(precision=choice.precision, tile=choice.tile),
            place=choice.place,
            num_pixels=num_pixels,
            note=note,
        )
        self._choice, self._num_pixels = choice, num_pixels
        return self._upscaler

    def forget(self) -> None:
        """Load anew next time, as after an error that may be the engine's."""
        self._upscaler = self._choice = self._card_and_net = None

    def _read(self, model: str, fidelity: float | None, restore: float | None, stated: Stated) -> tuple[ModelCard, str]:
        """Read a model, unless it is the one that was read last; return its card and checksum."""
        file = Path(model)
        digest = sha256_of(file) if fidelity is None and file.is_file() else ""
        key = (model, fidelity, restore, stated, digest)
        if self._card_and_net is None or key != self._net_key:
            self.forget()
            if fidelity is not None:
                self._card_and_net = load_interpolated(fidelity)
            elif restore is not None:
                self._card_and_net = load_restored(model, restore)
            else:
                self._card_and_net = load_card_and_net(model, stated)
            self._net_key = key
        card = self._card_and_net[0]
        return card, digest or card.sha256


class GivenModel:
    """Stands in for a `ModelCache` with a model that is loaded already, whatever is asked for."""

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler

    def choose(self, options: ModelOptions, place: Place, footage: Footage, note: OnNote) -> ModelChoice:
        """Describe the model that was given."""
        card = self._upscaler.card
        return _choice(card, card.sha256, options.model, options, Place(self._upscaler.device, place.backend))

    def load(self, choice: ModelChoice, num_pixels: float, note: OnNote) -> Upscaler:
        """Return the model that was given."""
        return self._upscaler


def _choice(card: ModelCard, sha256: str, model: str, options: ModelOptions, place: Place) -> ModelChoice:
    return ModelChoice(
        model,
        options.fidelity,
        card.name,
        sha256,
        card.scale,
        card.num_parameters,
        str(place.device),
        place.backend,
        place.accelerator,
        options.precision,
        options.tile,
        options.restore,
        options.stated,
        tuple(str(device) for device in place.others),
    )
