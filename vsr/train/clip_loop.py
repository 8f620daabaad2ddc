"""Train recurrent networks on clips, by backpropagation through time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets.recurrent import RecurrentNet
from vsr.quality.lpips import LPIPS
from vsr.train.clip_bank import ClipBank, ClipMaker, held_out_clips
from vsr.train.clip_gan import ClipGanTrainer
from vsr.train.clip_trainer import ClipTrainer
from vsr.train.clips import Clip
from vsr.train.codec import missing_codecs
from vsr.train.footage import Material, find_material
from vsr.train.objective import PerceptualFeatures
from vsr.train.record import RunRecord
from vsr.train.rollout import sight_of, target_of, unroll
from vsr.train.run import WEIGHTS, Budget, Pace, Reporter, check_folder, run
from vsr.train.video_degrade import CLIP_DEGRADATIONS
from vsr.train.video_recipes import VideoRecipe

__all__ = ["HeldOutClips", "clip_scores", "train_on_clips"]

HIGHEST_DB = 100.0  # of an exact frame, so that means stay finite


class HeldOutClips:
    """Score networks on clips that are kept from training; this chooses the best weights.

    Args:
        lpips: also scores the luma of each clip's last frame.
    """

    def __init__(self, clips: Sequence[Clip], device: torch.device, bf16: bool, lpips: LPIPS | None = None) -> None:
        self._clips, self._device, self._bf16, self._lpips = clips, device, bf16, lpips

    def scores(self, net: nn.Module) -> dict[str, float]:
        """Compute the mean PSNR in dB over the clips, of luma ("held out") and of chroma; LPIPS where it is known."""
        found = [clip_scores(net, clip, self._device, self._bf16) for clip in self._clips]
        means = {"held out": fmean(luma for luma, _ in found), "held out chroma": fmean(chroma for _, chroma in found)}
        if self._lpips is not None:
            means["held out LPIPS"] = fmean(self._distance(self._lpips, net, clip) for clip in self._clips)
        return means

    @torch.inference_mode()
    def _distance(self, lpips: LPIPS, net: nn.Module, clip: Clip) -> float:
        batch = clip.to(self._device)
        *_, (luma, _) = unroll(_recurrent(net), sight_of(batch))
        images = (x.clamp(0, 1).expand(-1, 3, -1, -1) for x in (luma, batch.high_luma[-1].float() / 255))
        return float(lpips(*images))

    @torch.inference_mode()
    def images(self, net: nn.Module) -> Tensor:
        """Show middle frames of four clips: bicubic, output and truth side by side; (1, H, W) in [0, 1]."""
        side = min(min(clip.low_luma.shape[-2:]) for clip in self._clips[:4])
        rows = []
        for clip in self._clips[:4]:
            batch = clip.frames(slice(0, clip.num_frames // 2 + 1)).area(0, 0, side // 2 * 2).to(self._device)
            *_, (out, _) = unroll(_recurrent(net), sight_of(batch))
            low, high = batch.low_luma[-1].float() / 255, batch.high_luma[-1].float() / 255
            rows.append(torch.cat((F.interpolate(low, high.shape[-2:], mode="bicubic"), out, high), 3)[0])
        return torch.cat(rows, 1).clamp(0, 1).cpu()


def _recurrent(net: nn.Module) -> RecurrentNet:
    assert isinstance(net, RecurrentNet)
    return net


@torch.inference_mode()
def clip_scores(net: nn.Module, clip: Clip, device: torch.device, bf16: bool, crop: int = 0) -> tuple[float, float]:
    """Run a whole clip from its first frame; return the mean PSNR in dB of its frames' 8 bit luma and chroma.

    Args:
        net: the recurrent network.
        clip: low-resolution clip and truth.
        device: device to run on.
        bf16: runs the convolutions in bfloat16.
        crop: pixels at each edge of the luma that do not count.
    """
    batch = clip.to(device)
    target = target_of(batch)
    luma_db, chroma_db = [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for frame, (luma, chroma) in enumerate(unroll(_recurrent(net), sight_of(batch))):
            codes = (luma * 255, (target.bicubic[frame] + chroma) * 255 + 128)
            luma_db.append(_psnr_db(codes[0], batch.high_luma[frame], crop))
            chroma_db.append(_psnr_db(codes[1], batch.high_chroma[frame], crop // 2))
    return fmean(luma_db), fmean(chroma_db)


def _psnr_db(codes: Tensor, truth: Tensor, crop: int) -> float:
    """Compute the PSNR in dB of (1, C, H, W) codes, rounded and clamped to 8 bit."""
    height, width = truth.shape[-2:]
    error = (codes.float().round().clamp(0, 255) - truth)[..., crop : height - crop, crop : width - crop]
    mean_square = float(error.square().mean())
    # min() would give the highest score to a frame that is not a number.
    return mean_square if math.isnan(mean_square) else min(HIGHEST_DB, 10 * math.log10(255**2 / max(mean_square, 1e-9)))


def train_on_clips(
    recipe: VideoRecipe,
    data: Sequence[Path],
    out: Path,
    budget: Budget,
    *,
    resume: bool = False,
    init: str | None = None,
    device: torch.device | None = None,
    bf16: bool = True,
    seed: int = 0,
    features: PerceptualFeatures | None = None,
    validate: Callable[[nn.Module], dict[str, float]] = lambda net: {},
    log: Callable[[str], None] = print,
    pace: Pace | None = None,
) -> Path:
    """Train and return the path of the averaged weights; options as in `loop.train`.

    best.safetensors is chosen by luma PSNR on clips held out of `data` (`footage.find_material`), and not kept for a
    recipe with a discriminator, which no PSNR can judge.
    """
    check_folder(out, resume)
    chosen = device or torch.device("cpu")
    cv2.setNumThreads(1)  # the threads of OpenCV would take the cores that train
    training, held_out = _material(recipe, data, log).split()
    maker = _clip_maker(recipe, training, seed)
    lpips = features if isinstance(features, LPIPS) else None
    judge = HeldOutClips(held_out_clips(held_out, maker), chosen, bf16, lpips)
    log(f"{len(training.clips)} clips and {len(training.stills)} stills; held out: {held_out.describe()}")
    with ClipBank(maker, recipe.steps_per_shard, log) as bank:
        trainer = _trainer(recipe, bank, chosen, seed, bf16, features)
        start = init or recipe.init
        if resume:
            trainer.load(out)
        elif start and start != "none":
            log(trainer.start_from(start))
        record = RunRecord(out, trainer.num_steps, log)
        arguments = {"data": [str(path) for path in data], "seed": seed, "bf16": bf16, "init": start}
        record.start(recipe, {**arguments, "device": str(chosen), **asdict(budget)})
        bank.seek(trainer.num_steps)  # what a first shard takes to make is not training time
        with contextlib.closing(record):
            reporter = Reporter(trainer, record, judge, validate, pace or Pace(longest=600, times_between=30))
            run(trainer, budget, reporter, out, log)
    return out / WEIGHTS


def _clip_maker(recipe: VideoRecipe, material: Material, seed: int) -> ClipMaker:
    return ClipMaker(
        material,
        CLIP_DEGRADATIONS[recipe.degradation],
        recipe.clips_per_shard,
        recipe.max_frames + 1,
        recipe.scale,
        recipe.patch,
        seed,
    )


def _trainer(
    recipe: VideoRecipe,
    bank: ClipBank,
    device: torch.device,
    seed: int,
    bf16: bool,
    features: PerceptualFeatures | None,
) -> ClipTrainer:
    if recipe.gan is None:
        return ClipTrainer(recipe, bank, device, seed, bf16)
    return ClipGanTrainer(recipe, bank, device, seed, bf16, features)


def _material(recipe: VideoRecipe, data: Sequence[Path], log: Callable[[str], None]) -> Material:
    """Find the training material, and log the files that are left out."""
    material = find_material(data, recipe.max_frames + 1)
    for text in material.unreadable.values():
        log(f"left out: {text}")
    if recipe.degradation == "codecs" and missing_codecs():
        log(f"PyAV cannot encode {', '.join(missing_codecs())}: training without")
    return material
