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
from vsr.quality.protocols import StillsBenchmark, upscale_with, vid4_bi

FP16_COST_DB = 0.01  # weights are stored in fp16 where that costs less


def measure(
    card: ModelCard, path: Path, data: Path, names: tuple[str, ...], precision: str = "fp32"
) -> dict[str, float]:
    upscaler = upscaler_of_net(card, load_net(card, path), ModelOptions(device="cpu", precision=precision))
    stills = StillsBenchmark(data, card.scale, names)
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
    data = data_folder() / "test"
    card = replace(read_card(weights), name=name, description=description, recipe=recipe, data=data_used)
    card = replace(card, weights=f"{name}.safetensors")
    SHIPPED.mkdir(exist_ok=True)
    target = SHIPPED / card.weights
    state = load_net(card, weights).state_dict()
    exact = measure(card, weights, data, ("Set5",))["Set5"]
    save_model_file(target, card, {k: v.half() for k, v in state.items()})
    if exact - measure(card, target, data, ("Set5",))["Set5"] >= FP16_COST_DB:
        save_model_file(target, card, state)
    # As users get it: in the precision that "auto" takes, which the tests compare with fp32.
    figures = measure(card, target, data, ("Set5", "Set14", "BSD100"), "auto")
    upscaler = upscaler_of_net(card, load_net(card, target), ModelOptions(device="cpu"))
    figures["Vid4 BI"] = fmean(vid4_bi(data / "Vid4", card.scale, upscale_with(upscaler)).values())
    figures = {key: round(value, 3) for key, value in figures.items()}
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    (SHIPPED / f"{name}.json").write_text(replace(card, figures=figures, sha256=digest).to_json(), "utf-8")
    click.echo(f"{name}: {figures}")
    if (SHIPPED / f"{name}.int8.safetensors").is_file():
        click.echo(f"its weights for int8 are those of the network before: python scripts/ship_int8.py {name} ...")


if __name__ == "__main__":
    main()
