"""Measure trained weights and put them, with their card, where the package finds them.

python scripts/ship_model.py runs/fast/weights.safetensors --name fast --recipe "..." --description "..."
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import click
import torch

from vsr.metrics import luma_bt601, psnr_db
from vsr.models.cards import SHIPPED, ModelCard
from vsr.models.weights import load_net, read_card, save_model_file
from vsr.pipeline.upscaler import Upscaler, upscaler_of_net
from vsr.train.command import StillsValidation
from vsr.train.data import find_images, read_rgb
from vsr.train.degrade import bicubic, mod_crop

FP16_COST_DB = 0.01  # weights are stored in fp16 where that costs less


def vid4_bi(folder: Path, upscaler: Upscaler) -> float:
    """Vid4 BI: luma PSNR of all frames, no crop; the mean of the four clips' means, in dB."""
    means = []
    for clip in sorted(p for p in folder.iterdir() if p.is_dir()):
        scores = []
        for path in find_images(clip):
            high = mod_crop(read_rgb(path), upscaler.card.scale)
            low = bicubic(high, upscaler.card.scale).permute(1, 2, 0).numpy()
            out = torch.from_numpy(upscaler.upscale_image(low)).permute(2, 0, 1)[None]
            scores.append(psnr_db(luma_bt601(out), luma_bt601(high[None])))
        means.append(sum(scores) / len(scores))
    return sum(means) / len(means)


def measure(card: ModelCard, path: Path, data: Path, names: tuple[str, ...]) -> dict[str, float]:
    upscaler = upscaler_of_net(card, load_net(card, path), device="cpu", precision="fp32")
    stills = StillsValidation(data, card.scale, names)
    click.echo(f"bicubic gate: {stills.bicubic_gate()}")
    return stills.score(upscaler)


@click.command()
@click.argument("weights", type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True)
@click.option("--description", required=True)
@click.option("--recipe", required=True, help="The command, its length and the machine.")
@click.option("--data-used", required=True, help="What it was trained on.")
def main(weights: Path, name: str, description: str, recipe: str, data_used: str) -> None:
    """Ship WEIGHTS as model NAME."""
    data = Path(os.environ.get("VSR_DATA", "../shared/data")) / "test"
    card = replace(read_card(weights), name=name, description=description, recipe=recipe, data=data_used)
    card = replace(card, weights=f"{name}.safetensors")
    SHIPPED.mkdir(exist_ok=True)
    target = SHIPPED / card.weights
    state = load_net(card, weights).state_dict()
    exact = measure(card, weights, data, ("Set5",))["Set5"]
    save_model_file(target, card, {k: v.half() for k, v in state.items()})
    if exact - measure(card, target, data, ("Set5",))["Set5"] >= FP16_COST_DB:
        save_model_file(target, card, state)
    figures = measure(card, target, data, ("Set5", "Set14", "BSD100"))
    upscaler = upscaler_of_net(card, load_net(card, target), device="cpu", precision="fp32")
    figures["Vid4 BI"] = vid4_bi(data / "Vid4", upscaler)
    figures = {key: round(value, 3) for key, value in figures.items()}
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    (SHIPPED / f"{name}.json").write_text(replace(card, figures=figures, sha256=digest).to_json(), "utf-8")
    click.echo(f"{name}: {figures}")


if __name__ == "__main__":
    main()
