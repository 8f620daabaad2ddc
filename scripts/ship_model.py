"""Measure trained weights and put them, with their card, where the package finds them.

python scripts/ship_model.py runs/fast/weights.safetensors --name fast --recipe "..." --description "..."
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click

from vsr.models.cards import SHIPPED, ModelCard
from vsr.models.weights import load_net, read_card, save_model_file
from vsr.pipeline.loading import ModelOptions, upscaler_of_net
from vsr.quality.data_folder import data_folder
from vsr.quality.protocols import Degradation, StillsBenchmark, upscale_frames_with, vid4_psnr
from vsr.train.video_recipes import VIDEO_RECIPES

FP16_COST_DB = 0.01  # weights are stored in fp16 where that costs less


def measure_stills(
    card: ModelCard, path: Path, data: Path, precision: str, names: tuple[str, ...] = ("Set5",)
) -> dict[str, float]:
    """Measure weights on sets of images: luma PSNR in dB by set. The bicubic gates come first."""
    upscaler = upscaler_of_net(card, load_net(card, path), ModelOptions(device="cpu", precision=precision))
    stills = StillsBenchmark(data, card.scale, names)
    click.echo(f"bicubic gate: {stills.bicubic_gate()}")
    return stills.score(upscaler)


def measure_clips(card: ModelCard, path: Path, data: Path, precision: str) -> dict[str, float]:
    """Measure weights on Vid4 BI, and on BD where they were trained on that: luma PSNR in dB."""
    upscaler = upscaler_of_net(card, load_net(card, path), ModelOptions(device="cpu", precision=precision))
    degradations: list[Degradation] = ["bi", "bd"] if VIDEO_RECIPES[card.name].degradation == "gaussian" else ["bi"]
    upscale = upscale_frames_with(upscaler)
    return {
        f"Vid4 {degradation.upper()}": fmean(vid4_psnr(data / "Vid4", card.scale, upscale, degradation).values())
        for degradation in degradations
    }


@click.command()
@click.argument("weights", type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True)
@click.option("--description", required=True)
@click.option("--recipe", required=True, help="The command, its length and the machine.")
@click.option("--data-used", required=True, help="What it was trained on.")
def main(weights: Path, name: str, description: str, recipe: str, data_used: str) -> None:
    """Ship WEIGHTS as model NAME."""
    data = data_folder() / "test"
    card = replace(read_card(weights), name=name, description=description, recipe=recipe, data=data_used)
    card = replace(card, weights=f"{name}.safetensors")
    SHIPPED.mkdir(exist_ok=True)
    target = SHIPPED / card.weights
    state = load_net(card, weights).state_dict()
    measure = measure_clips if card.recurrent else measure_stills
    exact = measure(card, weights, data, "fp32")
    save_model_file(target, card, {k: v.half() for k, v in state.items()})
    stored = measure(card, target, data, "fp32")
    if any(exact[name] - stored[name] >= FP16_COST_DB for name in exact):
        save_model_file(target, card, state)
    # As users get it: in the precision that "auto" takes, which the tests compare with fp32.
    figures = measure_clips(card, target, data, "auto")
    if not card.recurrent:
        figures = measure_stills(card, target, data, "auto", ("Set5", "Set14", "BSD100")) | figures
    figures = {key: round(value, 3) for key, value in figures.items()}
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    (SHIPPED / f"{name}.json").write_text(replace(card, figures=figures, sha256=digest).to_json(), "utf-8")
    click.echo(f"{name}: {figures}")
    if (SHIPPED / f"{name}.int8.safetensors").is_file():
        click.echo(f"its weights for int8 are those of the network before: python scripts/ship_int8.py {name} ...")


if __name__ == "__main__":
    main()
