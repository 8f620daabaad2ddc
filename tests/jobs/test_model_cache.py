"""The model that is kept from job to job is the one asked for."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vsr.backends.select import Place
from vsr.errors import ModelError
from vsr.events import Note, NoteCode
from vsr.jobs import model_cache
from vsr.jobs.model_cache import ModelCache, ModelChoice
from vsr.jobs.plan import Footage
from vsr.models.cards import SHIPPED, find_card
from vsr.pipeline.loading import ModelOptions
from vsr.pipeline.upscaler import Upscaler

PLACE = Place(torch.device("cpu"), "pytorch")
NUM_PIXELS = 64 * 48 * 10.0


@pytest.fixture
def cache() -> ModelCache:
    return ModelCache()


def _choose(cache: ModelCache, options: ModelOptions, notes: list[str] | None = None) -> ModelChoice:
    note = (lambda line: None) if notes is None else notes.append
    return cache.choose(options, PLACE, Footage(64, 48), note)


def _load(cache: ModelCache, num_pixels: float = NUM_PIXELS, **options: object) -> Upscaler:
    choice = _choose(cache, ModelOptions(**options))  # type: ignore[arg-type]
    return cache.load(choice, num_pixels, lambda line: None)


def test_another_model_for_frames_of_the_same_size_is_loaded(cache: ModelCache) -> None:
    assert _load(cache, model="fast").card.name == "fast"
    assert _load(cache, model="nano").card.name == "nano"


def test_the_same_model_is_loaded_once_whatever_the_size(cache: ModelCache) -> None:
    first = _load(cache, model="nano")
    assert _load(cache, NUM_PIXELS / 2, model="nano") is first


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"tile": 32}, {"fidelity": 0.5}, {"fidelity": 0.25}])
def test_all_that_makes_a_model_counts(cache: ModelCache, change: dict[str, object]) -> None:
    options = {"model": "nano", "precision": "fp32"} if "fidelity" not in change else {"fidelity": 0.75}
    first = _load(cache, **options)
    assert _load(cache, **(options | change)) is not first


def test_a_file_with_other_weights_under_its_name_is_read_again(tmp_path: Path, cache: ModelCache) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(SHIPPED / find_card("nano").weights, path)
    assert _load(cache, model=str(path)).card.num_parameters == find_card("nano").num_parameters
    shutil.copy(SHIPPED / find_card("fast").weights, path)
    assert _load(cache, model=str(path)).card.num_parameters == find_card("fast").num_parameters


def test_a_model_that_was_loaded_for_a_short_job_is_loaded_again_for_a_long_one(cache: ModelCache) -> None:
    """As for a short one "auto" may have left out a backend that takes long to start."""
    first = _load(cache, model="nano")
    endless = _load(cache, math.inf, model="nano")
    assert endless is not first
    assert _load(cache, model="nano") is endless


def test_forgetting_loads_anew(cache: ModelCache) -> None:
    first = _load(cache, model="nano")
    cache.forget()
    assert _load(cache, model="nano") is not first


def test_a_choice_that_does_not_fit_the_weights_is_refused(cache: ModelCache) -> None:
    choice = replace(_choose(cache, ModelOptions(model="nano")), sha256="0" * 64)
    with pytest.raises(ModelError, match="nano: the weights are not those that the job was made with"):
        cache.load(choice, NUM_PIXELS, lambda line: None)


def test_the_choice_is_noted_with_its_reason(cache: ModelCache) -> None:
    notes: list[str] = []
    _choose(cache, ModelOptions(), notes)
    (note,) = notes
    assert isinstance(note, Note) and note.code is NoteCode.MODEL
    assert note == "model video-fast (auto: for ×4, video of 64x48 on cpu)"


def test_choosing_and_loading_read_the_weights_once(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    read = model_cache.load_card_and_net
    models: list[str] = []
    monkeypatch.setattr(
        model_cache, "load_card_and_net", lambda model, stated: models.append(model) or read(model, stated)
    )
    _load(cache, model="nano")
    _load(cache, model="nano")
    assert models == ["nano"]
