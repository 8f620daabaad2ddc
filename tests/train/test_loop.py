from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vsr.errors import InputError, ModelError, OptionError
from vsr.models.weights import load_net, resolve
from vsr.train.command import run_training
from vsr.train.data import PatchBank, find_images
from vsr.train.loop import Budget, train
from vsr.train.recipes import Recipe

TINY = Recipe("tiny", "luma", {"features": 4, "depth": 1, "scale": 2}, "y", patch=8, batch=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures with edges at every angle, as PNG."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    for index in range(3):
        picture = np.full((96, 80, 3), 128, np.uint8)
        for _ in range(30):
            start, end = rng.integers(0, 96, 2), rng.integers(0, 96, 2)
            color = tuple(int(v) for v in rng.integers(0, 256, 3))
            cv2.line(picture, tuple(map(int, start)), tuple(map(int, end)), color, 3, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    return folder


def run(pictures: Path, out: Path, steps: int, *, resume: bool = False) -> dict[str, torch.Tensor]:
    path = train(TINY, pictures, out, Budget(steps=steps), resume=resume, bf16=False, log=lambda line: None)
    return load_file(path)


def test_a_run_stopped_and_resumed_ends_at_the_weights_of_an_unbroken_one(pictures: Path, tmp_path: Path) -> None:
    unbroken = run(pictures, tmp_path / "a", 8)

    class Stop(Exception):
        pass

    losses: list[str] = []

    def interrupt(line: str) -> None:
        losses.append(line)
        if len(losses) == 3:
            raise Stop

    with pytest.raises(Stop):
        train(TINY, pictures, tmp_path / "b", Budget(steps=8), bf16=False, log=interrupt, report_seconds=0.0)
    resumed = run(pictures, tmp_path / "b", 8, resume=True)
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)


def test_training_beats_the_start(pictures: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    train(TINY, pictures, tmp_path, Budget(steps=150), bf16=False, log=lines.append, report_seconds=0.0)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines[:-1]]
    l1_part = losses[: int(len(losses) * 0.75)]
    assert np.mean(l1_part[-20:]) < 0.97 * np.mean(l1_part[:20])


def test_weights_of_a_run_are_a_model_that_can_be_used(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path, 2)
    card, path = resolve(str(tmp_path / "weights.safetensors"))
    assert (card.name, card.scale, card.color) == ("tiny", 2, "y")
    assert load_net(card, path)(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 10, 14)


def test_a_run_is_not_overwritten_by_accident(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path, 1)
    with pytest.raises(OptionError, match="--resume"):
        run(pictures, tmp_path, 1)


def test_resuming_nothing_is_an_error(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        run(pictures, tmp_path / "none", 1, resume=True)


def test_starting_from_weights_of_another_network_is_an_error(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        train(TINY, pictures, tmp_path, Budget(steps=1), init="fast", log=lambda line: None)


@pytest.mark.parametrize(("steps", "minutes"), [(None, None), (3, 1.0), (0, None), (None, -1.0)])
def test_length_is_some_steps_or_some_minutes(steps: int | None, minutes: float | None) -> None:
    with pytest.raises(OptionError):
        Budget(steps, minutes)


def test_unknown_recipe_names_the_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="fast-x2"):
        run_training("nonsense", tmp_path, tmp_path, log=lambda line: None, steps=1)


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        find_images(tmp_path)


def test_patches_of_both_sizes_show_the_same_place(pictures: Path) -> None:
    bank = PatchBank(find_images(pictures), scale=2, patch=8)
    low, high = bank.sample(16, np.random.default_rng(0))
    assert low.shape == (16, 3, 8, 8) and high.shape == (16, 3, 16, 16)
    shrunk = torch.nn.functional.avg_pool2d(high.float(), 2)
    # Away from the patch's border, bicubic reduction and averaging differ by little; a shift would not.
    difference = (shrunk - low.float()).abs()[..., 1:-1, 1:-1].mean()
    shifted = (shrunk[..., 1:, :] - low.float()[..., :-1, :]).abs()[..., 1:-1, 1:-1].mean()
    assert difference < 4 < shifted


def test_sampling_is_repeatable(pictures: Path) -> None:
    bank = PatchBank(find_images(pictures), scale=2, patch=8)
    first = bank.sample(4, np.random.default_rng(3))
    second = bank.sample(4, np.random.default_rng(3))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
