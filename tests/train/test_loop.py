from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vsr.errors import EngineError, InputError, ModelError, OptionError, OutputError
from vsr.media.images import find_images
from vsr.models.weights import load_net, resolve
from vsr.train.command import run_training
from vsr.train.data import PatchBank
from vsr.train.loop import Budget, Trainer, train
from vsr.train.objective import TERMS
from vsr.train.recipes import RECIPES, Recipe, Stage, card_of
from vsr.train.record import RunRecord

TINY = Recipe(
    "tiny", "luma", {"features": 4, "depth": 1, "scale": 2}, "y", patch=8, batch=4, num_steps=8, learning_rate=1e-3
)
TINY_GAN = replace(
    TINY,
    name="tiny-gan",
    net="srresnet",
    options={"features": 4, "num_blocks": 1, "scale": 2},
    color="rgb",
    stages=(
        Stage(0.4, {"mse": 10.0, "perceptual": 1.0, "adversarial": 1e-3}),
        Stage(0.6, {"l1": 1.0, "fft": 0.1, "ldl": 0.1, "feature_matching": 1.0, "adversarial": 1e-2}),
    ),
    discriminator="vgg",
    adversarial="relativistic",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images with edges at every angle, as PNG."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(7)
    for index in range(3):
        image = np.full((96, 80, 3), 128, np.uint8)
        for _ in range(30):
            start, end = rng.integers(0, 96, 2), rng.integers(0, 96, 2)
            color = tuple(int(v) for v in rng.integers(0, 256, 3))
            cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), color, 3, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def run(images: Path, out: Path, steps: int, *, recipe: Recipe = TINY, resume: bool = False) -> dict[str, torch.Tensor]:
    path = train(recipe, images, out, Budget(steps=steps), resume=resume, bf16=False, log=lambda line: None)
    return load_file(path)


@pytest.mark.parametrize("recipe", [TINY, TINY_GAN], ids=lambda recipe: recipe.name)
def test_a_run_stopped_and_resumed_ends_at_the_weights_of_an_unbroken_one(
    images: Path, tmp_path: Path, recipe: Recipe
) -> None:
    unbroken = run(images, tmp_path / "a", 6, recipe=recipe)

    class Stop(Exception):
        pass

    reports: list[str] = []

    def interrupt(line: str) -> None:
        reports.append(line)
        if sum("step" in line for line in reports) == 3:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, images, tmp_path / "b", Budget(steps=6), bf16=False, log=interrupt, report_seconds=0.0)
    resumed = run(images, tmp_path / "b", 6, recipe=recipe, resume=True)
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)


KILLED_RUN = """
import os, sys
print(os.getpid(), flush=True)
from pathlib import Path
from vsr.train.loop import Budget, train
from tests.train.test_loop import TINY_GAN
images, out, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
train(TINY_GAN, images, out, Budget(steps=12), resume="resume" in sys.argv, bf16=False, report_seconds=seconds)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_at_the_weights_of_an_unbroken_one(
    images: Path, tmp_path: Path, warm_python: str
) -> None:
    root = Path(__file__).parents[2]

    def start(out: str, *more: str) -> subprocess.Popen[str]:
        command = [warm_python, "-c", KILLED_RUN, str(images), str(tmp_path / out), *more]
        return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, bufsize=1)

    assert start("a", "1000").wait(timeout=120) == 0
    killed = start("b", "0")
    assert killed.stdout is not None
    process = int(killed.stdout.readline())
    for line in killed.stdout:
        if "step 5 " in line:
            os.kill(process, signal.SIGKILL)
            break
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert start("b", "1000", "resume").wait(timeout=120) == 0
    unbroken, resumed = (load_file(tmp_path / out / "weights.safetensors") for out in ("a", "b"))
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
    with (tmp_path / "b" / "log.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps)) and steps[-1] == 12


def test_ctrl_c_saves_and_ends_with_130(images: Path, tmp_path: Path, warm_python: str) -> None:
    command = [warm_python, "-m", "vsr.cli", "train", "nano", "--data", str(images), "--out", str(tmp_path / "r")]
    command += ["--steps", "100000", "--patch", "8", "--batch", "2", "--validation", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("r/recipe.json")) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "vsr: interrupted")
    saved = int(out.split("saved at step ")[1].split(";")[0])
    trainer = torch.load(tmp_path / "r" / "checkpoint.pt", weights_only=True)
    assert trainer["num_steps"] == saved > 0


def test_training_beats_the_start(images: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, learning_rate=1e-2)

    def held_out_db(steps: int) -> float:
        lines: list[str] = []
        train(recipe, images, tmp_path / str(steps), Budget(steps=steps), bf16=False, log=lines.append)
        return float(lines[-1].split("held out ")[1].split()[0])

    assert held_out_db(400) > held_out_db(1) + 0.5


def test_weights_of_a_run_are_a_model_that_can_be_used(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, 2)
    card, path = resolve(str(tmp_path / "weights.safetensors"))
    assert (card.scale, card.color) == (2, "y")
    assert load_net(card, path)(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 10, 14)


def test_a_model_of_ones_own_is_named_by_its_file(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "mine", 1)
    assert resolve(str(tmp_path / "mine" / "weights.safetensors"))[0].name == "mine/weights"
    (tmp_path / "mine" / "weights.safetensors").rename(tmp_path / "film.safetensors")
    assert resolve(str(tmp_path / "film.safetensors"))[0].name == "film"


def test_a_run_is_not_overwritten_by_accident(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, 1)
    with pytest.raises(OptionError, match="`resume=True`"):
        run(images, tmp_path, 1)


def test_resuming_nothing_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        run(images, tmp_path / "none", 1, resume=True)


def test_starting_from_weights_of_another_network_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        train(TINY, images, tmp_path, Budget(steps=1), init="fast", log=lambda line: None)


@pytest.mark.parametrize(("steps", "minutes"), [(None, None), (3, 1.0), (0, None), (None, -1.0)])
def test_length_is_some_steps_or_some_minutes(steps: int | None, minutes: float | None) -> None:
    with pytest.raises(OptionError):
        Budget(steps, minutes)


def test_unknown_recipe_names_the_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="fast-x2"):
        run_training("nonsense", tmp_path, tmp_path, log=lambda line: None, steps=1)


def test_a_run_leaves_recipe_log_curves_and_the_best_weights(images: Path, tmp_path: Path) -> None:
    train(TINY, images, tmp_path, Budget(steps=3), bf16=False, log=lambda line: None, report_seconds=0.0)
    recorded = json.loads((tmp_path / "recipe.json").read_text())
    assert recorded["recipe"]["net"] == "luma" and recorded["recipe"]["stages"][0]["losses"] == {"l1": 1.0}
    assert recorded["starts"][0]["steps"] == 3 and recorded["starts"][0]["data"] == str(images)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "3"]
    best = max(float(row["held out"]) for row in rows)
    assert json.loads((tmp_path / "best.json").read_text())["held_out_psnr_db"] == pytest.approx(best)
    assert load_net(*resolve(str(tmp_path / "best.safetensors")))


def test_a_slow_validation_takes_no_more_than_a_share_of_the_time(images: Path, tmp_path: Path) -> None:
    def validate(net: nn.Module) -> dict[str, float]:
        time.sleep(1.0)
        return {"Set5": 30.0}

    settings: Any = {"bf16": False, "log": lambda line: None, "report_seconds": 0.0}
    train(TINY, images, tmp_path, Budget(steps=8), validate=validate, **settings)
    with (tmp_path / "log.csv").open() as file:
        scored = [bool(row["Set5"]) for row in csv.DictReader(file)]
    assert scored[0] and scored[-1]
    assert sum(scored) < len(scored) / 2


def test_tensorboard_shows_losses_psnr_and_images(images: Path, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(TINY, images, tmp_path, Budget(steps=2), bf16=False, log=lambda line: None, report_seconds=0.0)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss/l1", "score/held out"} <= set(events.Tags()["scalars"])
    (tag,) = events.Tags()["images"]
    image = events.Images(tag)[0]
    assert (image.width, image.height) == (3 * 16, 4 * 16)


def test_missing_tensorboard_is_said_and_names_the_extra(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    lines: list[str] = []
    train(TINY, images, tmp_path, Budget(steps=1), bf16=False, log=lines.append)
    assert any("vsr-enhance[train]" in line for line in lines)


def test_another_recipe_cannot_go_on_with_a_run(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, 1)
    with pytest.raises(OptionError, match="another recipe"):
        run(images, tmp_path, 2, recipe=replace(TINY, learning_rate=1e-4), resume=True)


def test_a_network_with_the_same_trunk_can_start_another(images: Path, tmp_path: Path) -> None:
    recipe = RECIPES["edsr"]
    trainer = Trainer(recipe, PatchBank(find_images(images), 4, 8), torch.device("cpu"))
    line = trainer.start_from("srresnet")
    assert "srresnet" in line
    trunk = load_net(*resolve("srresnet")).get_parameter("blocks.7.conv2.weight")
    assert torch.equal(trainer.net.get_parameter("blocks.7.conv2.weight"), trunk)
    assert torch.equal(trainer.ema.get_parameter("blocks.7.conv2.weight"), trunk)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_sound(name: str) -> None:
    recipe = RECIPES[name]
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1)
    assert {term for stage in recipe.stages for term in stage.losses} <= set(TERMS)
    assert card_of(recipe).scale == recipe.scale
    if recipe.discriminator is None:
        assert all("adversarial" not in stage.losses for stage in recipe.stages)
    assert not recipe.init or recipe.init in RECIPES


def test_per_pix_weights_follow_its_schedule() -> None:
    recipe = RECIPES["srgan-perpix"]
    weights = [tuple(recipe.losses_at(step / 35_000).values()) for step in (0, 14_999, 15_001, 19_999, 20_001, 34_999)]
    first, second, third = (10.0, 1.0, 1e-3), (10.0, 10.0, 1e-3), (1.0, 10.0, 1e-3)
    assert weights == [first, first, second, second, third, third]


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        find_images(tmp_path)


def test_patches_of_both_sizes_show_the_same_place(images: Path) -> None:
    bank = PatchBank(find_images(images), scale=2, patch=8)
    low, high = bank.sample(16, np.random.default_rng(0))
    assert low.shape == (16, 3, 8, 8) and high.shape == (16, 3, 16, 16)
    shrunk = torch.nn.functional.avg_pool2d(high.float(), 2)
    # Away from the patch's border, bicubic reduction and averaging differ by little; a shift would not.
    difference = (shrunk - low.float()).abs()[..., 1:-1, 1:-1].mean()
    shifted = (shrunk[..., 1:, :] - low.float()[..., :-1, :]).abs()[..., 1:-1, 1:-1].mean()
    assert difference < 4 < shifted


def test_sampling_is_repeatable(images: Path) -> None:
    bank = PatchBank(find_images(images), scale=2, patch=8)
    first = bank.sample(4, np.random.default_rng(3))
    second = bank.sample(4, np.random.default_rng(3))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# -- training that diverges --------------------------------------------------------------------------------


def test_a_training_that_diverges_ends_and_keeps_the_last_good_state(images: Path, tmp_path: Path) -> None:
    good = run(images, tmp_path, 5)
    state = (tmp_path / "checkpoint.pt").read_bytes()
    wild = replace(TINY, stages=(Stage(1.0, {"l1": float("nan")}),))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:  # the recipe is the same to the run, as a learning rate that fails later is
        patch.setattr("vsr.train.run.identity", lambda recipe: "the same")
        torch.save(torch.load(tmp_path / "checkpoint.pt") | {"recipe": "the same"}, tmp_path / "checkpoint.pt")
        state = (tmp_path / "checkpoint.pt").read_bytes()
        with pytest.raises(EngineError, match=r"step 25: .* 20 steps in a row.*checkpoint.pt is from before.*learning"):
            run(images, tmp_path, 60, recipe=wild, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == state
    assert all(torch.equal(load_file(tmp_path / "weights.safetensors")[key], good[key]) for key in good)


@pytest.mark.parametrize("recipe", [TINY, TINY_GAN], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("steps", [6, 60])
def test_too_high_a_learning_rate_is_an_error_at_any_length(
    images: Path, tmp_path: Path, recipe: Recipe, steps: int
) -> None:
    with pytest.raises(EngineError, match=r"diverges; nothing was saved.*`learning_rate` than 1e\+06"):
        run(images, tmp_path, steps, recipe=replace(recipe, learning_rate=1e6))
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_single_step_that_is_not_finite_does_no_harm(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descend = Trainer.descend
    monkeypatch.setattr(
        Trainer,
        "descend",
        lambda self, loss, limit: descend(self, loss * float("nan") if self.num_steps == 3 else loss, limit),
    )
    weights = run(images, tmp_path, 5)
    assert all(value.isfinite().all() for value in weights.values())


# -- folders and numbers that cannot be used ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "checkpoint.pt", "deeper/run"])
def test_a_run_folder_that_is_a_file_is_said_before_the_work(images: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file; name a folder for the run"):
        run(images, tmp_path / "file" / name, 1)


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", b"PK\x03\x04 cut", None], ids=["empty", "text", "cut", "other"]
)
def test_a_checkpoint_that_is_damaged_or_foreign_is_named(images: Path, tmp_path: Path, content: bytes | None) -> None:
    run(images, tmp_path, 1)
    if content is None:
        torch.save({"params": {"weight": torch.zeros(3)}}, tmp_path / "checkpoint.pt")
    else:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pt: is damaged, or no checkpoint of such a run"):
        run(images, tmp_path, 2, resume=True)


def test_a_checkpoint_without_a_part_is_named(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, 1)
    state = torch.load(tmp_path / "checkpoint.pt")
    del state["optimizer"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt: is damaged.*optimizer"):
        run(images, tmp_path, 2, resume=True)


@pytest.mark.parametrize("name", ["recipe.json", "best.json", "log.csv"])
def test_records_of_a_run_that_are_damaged_are_named(images: Path, tmp_path: Path, name: str) -> None:
    run(images, tmp_path, 1)
    (tmp_path / name).write_bytes(b'step\nnone\n\xff{"half": ')
    with pytest.raises(InputError, match=rf"{name}: is damaged"):
        run(images, tmp_path, 2, resume=True)


def test_a_full_disk_is_an_error_of_the_output(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(RunRecord, "start", lambda *arguments: None)  # whose file is written before
    with pytest.raises(OutputError, match=r"checkpoint\.pt: writing failed \(.*; make room there, or write to another"):
        run(images, tmp_path, 1)
    assert not (tmp_path / "checkpoint.pt").exists()


class _FullDisk:
    """Stands in for TensorBoard's writer, every call of which fails once its thread has ended."""

    def __getattr__(self, name: str) -> Any:
        def fail(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return fail


def test_curves_for_which_there_is_no_room_are_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunRecord, "_tensorboard", lambda record, num_steps: _FullDisk())
    with pytest.raises(OutputError, match=r"tensorboard: writing failed \(.*; make room there"):
        run(images, tmp_path, 1)
    assert (tmp_path / "checkpoint.pt").is_file()  # which the next run goes on from


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", 0.0),
        ("seed", -1),
        ("minutes", float("nan")),
        ("minutes", float("inf")),
        ("minutes", -1.0),
        ("steps", 0),
        ("batch", 0),
        ("patch", 0),
        ("threads", 0),
    ],
)
def test_numbers_that_no_training_can_use_are_named(images: Path, tmp_path: Path, name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(OptionError, match=f"`{name}="):
        run_training("fast", images, tmp_path / "out", log=lambda line: None, **options)
    assert not (tmp_path / "out").exists()
