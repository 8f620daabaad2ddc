from __future__ import annotations

import csv
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vsr.errors import EngineError, InputError
from vsr.models.weights import resolve
from vsr.pipeline.motion import taps_of, warp
from vsr.train.clip_bank import ClipBank, ClipMaker
from vsr.train.clip_gan import ClipGanTrainer, aligned_triplets
from vsr.train.clip_loop import HeldOutClips, clip_scores, train_on_clips
from vsr.train.clip_trainer import ClipTrainer
from vsr.train.clips import Clip, Footage, make_clip, turned
from vsr.train.footage import Material, find_material, read_footage
from vsr.train.motion_paths import synthetic_clip
from vsr.train.recipes import Stage
from vsr.train.rollout import sight_of, target_of, unroll
from vsr.train.row_warp import warp_rows
from vsr.train.run import NUM_WARMUP_STEPS, Budget, Pace
from vsr.train.video_degrade import bicubic_clip
from vsr.train.video_recipes import VIDEO_RECIPES, VideoGan, VideoRecipe, card_of_video

TINY = VideoRecipe(
    "tiny-video",
    {"features": 4, "blocks": 1, "scale": 4},
    patch=16,
    batch=2,
    lengths=((0.5, 3), (0.5, 4)),
    clips_per_shard=4,
    steps_per_shard=4,
)
BICUBIC = bicubic_clip


def still(seed: int, height: int = 200, width: int = 240) -> np.ndarray:
    """An image with structure at all sizes, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for side in (4, 12, 40, 100):
        small = rng.uniform(0, 255, (side, side, 3)).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) / 4
    return np.clip(total, 0, 255).astype(np.uint8)


def drifting(num_frames: int = 6, shift: tuple[int, int] = (6, 2)) -> Footage:
    """A window of 96 × 128 that moves over a still by (x, y) pixels a frame."""
    image = torch.from_numpy(still(5)).permute(2, 0, 1)
    x, y = shift
    frames = [image[:, 20 + y * t : 116 + y * t, 20 + x * t : 148 + x * t] for t in range(num_frames)]
    return Footage.of_one_scene(torch.stack(frames))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stills, a folder of numbered frames, and a video."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(2):
        cv2.imwrite(str(folder / f"still{seed * 7}.png"), still(seed))
    frames = [np.ascontiguousarray(frame.permute(1, 2, 0)) for frame in drifting().rgb]
    (folder / "walk").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / "walk" / f"{number:04d}.png"), np.ascontiguousarray(frame[..., ::-1]))
    with av.open(str(folder / "drift.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return folder


def quietly(line: str) -> None:
    pass


def run(
    data: Path, out: Path, steps: int, resume: bool = False, log: Callable[[str], None] = quietly
) -> dict[str, Tensor]:
    path = train_on_clips(
        TINY, [data], out, Budget(steps=steps), resume=resume, bf16=False, log=log, pace=Pace.every(0)
    )
    return load_file(path)


def alignment(clip: Clip) -> tuple[float, float]:
    """Mean absolute difference in codes of each frame's luma to its neighbours: warped, and as they are."""
    luma = clip.low_luma.float()
    warped = torch.cat((clip.previous[1:] * 255 - luma[1:], clip.following[:-1] * 255 - luma[:-1]))
    return float(warped.abs().mean()), float((luma[1:] - luma[:-1]).abs().mean())


@pytest.mark.parametrize("turn", range(16))
def test_warped_neighbours_are_closer_in_every_orientation(turn: int) -> None:
    clip = make_clip(turned(drifting(), turn), 4, BICUBIC, np.random.default_rng(0))
    warped, plain = alignment(clip)
    assert warped < plain / 3


def test_time_reversed_shows_the_last_frame_first_and_moves_back() -> None:
    footage = drifting()
    clip = make_clip(turned(footage, 8), 4, BICUBIC, np.random.default_rng(0))
    ahead = make_clip(footage, 4, BICUBIC, np.random.default_rng(0))
    assert torch.equal(clip.low_luma, ahead.low_luma.flip(0))
    # The window moves by 6 pixels to the right, and so the image by 1.5 low-resolution pixels to the left.
    assert ahead.to_previous[1:, 0, 4:-4, 6:-6, 0].float().mean() == pytest.approx(1.5, abs=0.2)
    assert clip.to_previous[1:, 0, 4:-4, 6:-6, 0].float().mean() == pytest.approx(-1.5, abs=0.2)


def test_a_cut_stays_where_it_is_when_time_is_reversed() -> None:
    first, second = drifting(4).rgb, torch.from_numpy(still(9)).permute(2, 0, 1)[None, :, :96, :128].repeat(2, 1, 1, 1)
    footage = Footage(torch.cat((first, second)), np.array([True, False, False, False, True, False]))
    assert turned(footage, 8).starts.tolist() == [True, False, True, False, False, False]


def test_a_cut_is_seen_and_nothing_is_warped_across_it() -> None:
    other = torch.from_numpy(255 - still(9)).permute(2, 0, 1)[None, :, :96, :128]
    footage = Footage.of_one_scene(torch.cat((drifting(3).rgb, other, other)))
    clip = make_clip(footage, 4, BICUBIC, np.random.default_rng(0))
    assert clip.starts[:, 0].tolist() == [True, False, False, True, False]
    sight = sight_of(clip)
    luma = clip.low_luma / 255
    assert torch.equal(sight.previous[3], luma[3]) and torch.allclose(sight.following[2], luma[2], atol=1e-3)


def test_state_does_not_cross_a_cut() -> None:
    trainer = tiny_trainer()
    trainer.net.tail.weight.data.normal_(std=0.1)
    clip = make_clip(drifting(4), 4, BICUBIC, np.random.default_rng(0))
    starts = clip.starts.clone()
    starts[2] = True
    cut = replace(clip, starts=starts)
    alone = cut.frames(slice(2, None))
    with torch.no_grad():
        whole = list(unroll(trainer.net, sight_of(cut)))[2:]
        apart = list(unroll(trainer.net, sight_of(alone)))
        carried = list(unroll(trainer.net, sight_of(clip)))[2:]
    assert all(torch.allclose(a[0], b[0], atol=1e-5) for a, b in zip(whole, apart, strict=True))
    assert not torch.allclose(carried[0][0], apart[0][0], atol=1e-4)


@pytest.mark.parametrize("length", [0.3, 4.0, 40.0])
def test_rows_are_warped_as_motion_warps_with_the_same_gradient(length: float) -> None:
    torch.manual_seed(0)
    flow = torch.randn(2, 9, 12, 2) * length
    x = torch.randn(2, 5, 9, 12, requires_grad=True)
    weight = torch.randn(2, 5, 9, 12)
    wanted, found = warp(x, taps_of(flow)), warp_rows(x, taps_of(flow))
    assert torch.allclose(wanted, found, atol=1e-4)
    gradients = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (wanted, found)]
    assert torch.allclose(*gradients, atol=1e-3)


def test_taps_of_many_frames_are_those_of_each() -> None:
    flow = torch.randn(3 * 2, 8, 8, 2) * 2
    x = torch.randn(2, 3, 8, 8)
    taps = taps_of(flow).split(3)[1]
    assert torch.allclose(warp_rows(x, taps), warp(x, taps_of(flow[2:4])), atol=1e-4)


def test_low_and_sharp_planes_show_the_same_place() -> None:
    clip = make_clip(drifting(), 4, BICUBIC, np.random.default_rng(0)).frames(slice(1, 4)).area(8, 6, 12)
    assert clip.high_luma.shape == (3, 1, 1, 48, 48) and clip.high_chroma.shape == (3, 1, 2, 24, 24)
    assert clip.low_chroma.shape == (3, 1, 2, 6, 6) and clip.starts[:, 0].tolist() == [True, False, False]
    shrunk = torch.nn.functional.avg_pool2d(clip.high_luma[:, 0].float(), 4)
    assert (shrunk - clip.low_luma[:, 0]).abs().mean() < 3


def test_bicubic_chroma_lies_where_the_sharp_chroma_does() -> None:
    smooth = [torch.from_numpy(cv2.GaussianBlur(still(seed), (0, 0), 8)).permute(2, 0, 1) for seed in range(2)]
    clip = make_clip(Footage.of_one_scene(torch.stack(smooth)), 4, BICUBIC, np.random.default_rng(0))
    target = target_of(clip)
    sharp = target.bicubic + target.chroma
    errors = [
        float((target.bicubic.roll(shift, (-2, -1)) - sharp)[..., 4:-4, 4:-4].abs().mean())
        for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    assert errors[0] < min(errors[1:]) / 2  # which leaves the rounding of both


def test_a_made_clip_moves_smoothly_and_repeats() -> None:
    def film(seed: int) -> Footage:
        rng = np.random.default_rng(seed)
        return synthetic_clip(lambda: still(int(rng.integers(4))), 6, (96, 128), rng)

    assert torch.equal(film(1).rgb, film(1).rgb)
    assert film(1).rgb.shape == (6, 3, 96, 128)
    clips = [make_clip(film(seed), 4, BICUBIC, np.random.default_rng(0)) for seed in range(12)]
    one_scene = [alignment(clip) for clip in clips if int(clip.starts.sum()) == 1]
    moving = [(warped, plain) for warped, plain in one_scene if plain > 1]
    assert len(moving) >= 4
    assert np.mean([warped for warped, _ in moving]) < 0.6 * np.mean([plain for _, plain in moving])


def test_folders_hold_stills_frames_and_videos(data: Path) -> None:
    material = find_material([data], 6)
    assert [path.name for path in material.stills] == ["still0.png", "still7.png"]
    assert sorted(clip.path.name for clip in material.clips) == ["drift.mp4", "walk"]
    frames = {clip.path.name: read_footage(clip, 6, 8, np.random.default_rng(0)).rgb.float() for clip in material.clips}
    assert frames["walk"].shape == (6, 3, 96, 128)
    assert (frames["walk"] - frames["drift.mp4"]).abs().mean() < 4


def test_bad_files_are_left_out_and_named(data: Path, tmp_path: Path) -> None:
    for name in ("drift.mp4", "still0.png"):
        (tmp_path / name).symlink_to(data / name)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "._still0.png").write_bytes(b"Mac OS X")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    lines: list[str] = []
    run(tmp_path, tmp_path / "run", 2, log=lines.append)
    named = [line for line in lines if line.startswith("left out")]
    for name in ("broken.mp4", "._still0.png", "gone.png"):
        assert any(name in line for line in named)


def test_a_folder_without_material(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images, folders of frames or videos"):
        find_material([tmp_path], 6)


def test_scenes_are_held_out_whole(tmp_path: Path) -> None:
    material = find_material([tmp_path_with_names(tmp_path)], 6)
    training, held_out = material.split()
    assert held_out.clips and training.clips
    assert not {clip.scene for clip in training.clips} & {clip.scene for clip in held_out.clips}


def tmp_path_with_names(folder: Path) -> Path:
    for name in range(30):
        (folder / f"scene{name}").mkdir()
        for number in range(5):
            (folder / f"scene{name}" / f"{number}.png").write_bytes(b"")
    return folder


def tiny_trainer(data: Path | None = None, recipe: VideoRecipe = TINY) -> ClipTrainer:
    material = find_material([data], 5) if data else Material()
    maker = ClipMaker(material, BICUBIC, TINY.clips_per_shard, 5, 4, TINY.patch, 0)
    return ClipTrainer(recipe, ClipBank(maker, 1000, quietly), torch.device("cpu"), bf16=False)


def test_training_learns(data: Path) -> None:
    trainer = tiny_trainer(data, replace(TINY, learning_rate=1e-2, ema_decay=0.9))
    clip = make_clip(drifting(), 4, BICUBIC, np.random.default_rng(0))
    judge = HeldOutClips([clip], trainer.device, bf16=False)
    before = judge.scores(trainer.ema)
    trainer.num_steps = NUM_WARMUP_STEPS  # at once with the full learning rate
    with trainer.bank:
        for _ in range(200):
            trainer.step(0.3)
    after = judge.scores(trainer.ema)
    assert after["held out"] > before["held out"] + 0.3


def test_muon_moves_the_trunk_and_adam_the_rest(data: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, optimizer="muon", learning_rate=1e-2)
    unbroken, resumed = (tiny_trainer(data, recipe) for _ in range(2))
    plain = tiny_trainer(data, replace(recipe, optimizer="adam"))
    before = {name: value.clone() for name, value in unbroken.net.state_dict().items()}
    for trainer in (unbroken, plain):
        trainer.num_steps = NUM_WARMUP_STEPS
        trainer.step(0.0)
    steps = {name: value - before[name] for name, value in unbroken.net.state_dict().items()}
    singular_values = torch.linalg.svdvals(steps["body.0.first.weight"].flatten(1))
    assert singular_values[0] < 2 * singular_values[-1]
    assert torch.allclose(unbroken.net.tail.weight, plain.net.tail.weight, atol=1e-6)
    unbroken.save(tmp_path)
    resumed.load(tmp_path)
    for trainer in (unbroken, resumed):
        trainer.step(0.0)
    pairs = zip(unbroken.net.state_dict().values(), resumed.net.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_gradients_that_stay_not_finite_end_the_run_and_nothing_is_saved(data: Path, tmp_path: Path) -> None:
    wild = replace(TINY, stages=(Stage(1.0, {"charbonnier": float("nan")}),))
    with pytest.raises(EngineError, match=r"step 20: .*not finite for 20 steps.*nothing was saved.*`learning_rate`"):
        train_on_clips(wild, [data], tmp_path, Budget(steps=100), bf16=False, log=quietly)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_frame_that_is_not_a_number_has_no_score(data: Path) -> None:
    trainer = tiny_trainer(data)
    with trainer.bank, torch.no_grad():
        trainer.net.tail.weight.fill_(float("nan"))
        clip = make_clip(drifting(), 4, BICUBIC, np.random.default_rng(0))
    assert math.isnan(clip_scores(trainer.net, clip, torch.device("cpu"), False)[0])


KILLED_RUN = """
import sys
from pathlib import Path
from vsr.train.run import NUM_WARMUP_STEPS, Budget, Pace
from vsr.train.clip_loop import train_on_clips
from tests.train.test_clip_training import TINY
data, out = Path(sys.argv[1]), Path(sys.argv[2])
resume = "resume" in sys.argv
pace = Pace.every(1000 if resume else 0)
train_on_clips(TINY, [data], out, Budget(steps=8), resume=resume, bf16=False, pace=pace)
"""


def test_a_run_that_was_killed_ends_at_the_weights_of_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    # In a process of its own, too: sums depend on the number of threads, which other tests may have set here.
    root = Path(__file__).parents[2]
    whole = [sys.executable, "-c", KILLED_RUN, str(data), str(tmp_path / "a"), "unbroken"]
    subprocess.run(whole, cwd=root, check=True, stdout=subprocess.DEVNULL)
    unbroken = load_file(tmp_path / "a" / "weights.safetensors")
    command = [sys.executable, "-c", KILLED_RUN, str(data), str(tmp_path / "b")]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, bufsize=1) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if "step 3 " in line:
                killed.kill()
                break
    assert killed.returncode == -signal.SIGKILL
    subprocess.run([*command, "resume"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    resumed = load_file(tmp_path / "b" / "weights.safetensors")
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
    with (tmp_path / "b" / "log.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps)) and steps[-1] == 8


def test_a_run_leaves_a_model_with_its_card_and_scores(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, 2)
    card, _ = resolve(str(tmp_path / "weights.safetensors"))
    assert card.name == f"{tmp_path.name}/weights"
    assert (card.net, card.color, card.recurrent, card.window) == ("recurrent", "yuv", True, 3)
    assert (tmp_path / "best.safetensors").is_file()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(20 < float(row["held out"]) < 60 and 20 < float(row["held out chroma"]) < 60 for row in rows)


def test_a_network_without_the_next_frame_can_start_one_with_it(data: Path, tmp_path: Path) -> None:
    narrow = replace(TINY, name="narrow", options={**TINY.options, "uses_next": False})
    train_on_clips(narrow, [data], tmp_path, Budget(steps=1), bf16=False, log=quietly)
    trainer = tiny_trainer(data)
    trainer.start_from(str(tmp_path / "weights.safetensors"))
    started = load_file(tmp_path / "weights.safetensors")["pixels.weight"]
    assert torch.equal(trainer.net.pixels.weight[:, :4], started)
    assert not trainer.net.pixels.weight[:, 4].any()


def test_there_and_back_is_a_clip_like_any_other() -> None:
    first, second = drifting(4).rgb, torch.from_numpy(still(9)).permute(2, 0, 1)[None, :, :96, :128].repeat(2, 1, 1, 1)
    clip = make_clip(Footage.of_one_scene(torch.cat((first, second))), 4, BICUBIC, np.random.default_rng(0))
    both = clip.there_and_back()
    played = torch.cat((torch.cat((first, second)), torch.cat((first, second)).flip(0)[1:]))
    wanted = make_clip(Footage.of_one_scene(played), 4, BICUBIC, np.random.default_rng(0))
    for name in ("low_luma", "high_chroma", "previous", "following", "to_previous", "to_following", "starts"):
        assert torch.equal(getattr(both, name), getattr(wanted, name)), name


def test_what_a_discriminator_sees_stands_still_where_motion_is_followed() -> None:
    clip = make_clip(drifting(), 4, BICUBIC, np.random.default_rng(0))
    luma = clip.high_luma.float() / 255
    before, middle, after = aligned_triplets(luma, clip)[..., 16:-16, 32:-32].split(1, 1)
    unmoved = (luma[:-2] - luma[1:-1])[..., 16:-16, 32:-32].abs().mean()
    assert max((before - middle).abs().mean(), (after - middle).abs().mean()) < unmoved / 4
    cut = replace(clip, starts=torch.ones_like(clip.starts))
    assert torch.equal(*aligned_triplets(luma, cut)[:, :2].split(1, 1))


GAN = replace(TINY, name="tiny-gan", lengths=((1.0, 4),), stages=(Stage(1.0, {"l1": 1.0}),), gan=VideoGan(begins=0.5))


def test_a_discriminator_is_learned_and_listened_to_in_its_time(data: Path) -> None:
    trainer = ClipGanTrainer(GAN, tiny_trainer(data).bank, torch.device("cpu"))
    assert not trainer.is_judged_by_psnr
    first = trainer.step(0.0)
    assert "discriminator" in first and "adversarial" not in first
    assert trainer.step(0.6)["adversarial"] > 0
    losses = [float(trainer.step(0.6)["ping-pong"]) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)


def test_a_network_with_a_discriminator_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    unbroken, resumed = (ClipGanTrainer(GAN, tiny_trainer(data).bank, torch.device("cpu"), bf16=False) for _ in "ab")
    for _ in range(2):
        unbroken.step(0.6)
    unbroken.save(tmp_path)
    resumed.load(tmp_path)
    for trainer in (unbroken, resumed):
        trainer.step(0.6)
    assert resumed.num_steps == 3
    for net, other in ((unbroken.net, resumed.net), (unbroken.adversary.net, resumed.adversary.net)):
        pairs = zip(net.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", VIDEO_RECIPES)
def test_every_recipe_is_sound(name: str) -> None:
    recipe = VIDEO_RECIPES[name]
    assert sum(stage.share for stage in recipe.stages) == pytest.approx(1)
    assert sum(share for share, _ in recipe.lengths) == pytest.approx(1)
    assert recipe.patch % 2 == 0
    card = card_of_video(recipe)
    assert card.recurrent and card.num_parameters < 1_000_000
    assert not recipe.init or recipe.init in VIDEO_RECIPES
