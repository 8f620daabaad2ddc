"""The command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vsr.cli.options import FILE
from vsr.cli.spelling import Command, as_typed

__all__ = ["train"]


@click.command(cls=Command)
@click.argument("recipe")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of sharp pictures; for video networks also of videos and of folders of frames. May be repeated.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--minutes", type=float, help="Length of the training in minutes (of CPU time for clips on a CPU).")
@click.option("--steps", type=int, help="Length of the training in steps.  [default: the recipe's]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--init", help="Start from a model or file, or from 'none'.  [default: the recipe's]")
@click.option("--vgg", type=FILE, help="VGG19 in torchvision's layout, for the perceptual loss.")
@click.option("--squeezenet", type=FILE, help="SqueezeNet 1.1 for the perceptual loss, where there is no --vgg.")
@click.option("--patch", type=click.IntRange(4), help="Side of a low-resolution patch.  [default: the recipe's]")
@click.option("--batch", type=click.IntRange(1), help="Patches per step.  [default: the recipe's]")
@click.option("--learning-rate", type=float, help="[default: the recipe's]")
@click.option("--validation", type=click.Path(path_type=Path), help="Folder that holds Set5, Set14 and Vid4.")
@click.option("--device", default="auto", show_default=True)
@click.option("--fp32", is_flag=True, help="Train in fp32 instead of bf16 autocast.")
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch.  [default: 1 for clips, else all]")
@click.option("--seed", type=int, default=0, show_default=True)
def train(recipe: str, data: tuple[Path, ...], out: Path, **values: Any) -> None:
    """Train the network of RECIPE on pictures: nano, fast, srresnet, srgan and others ('vsr models').

    The recipes video-fast, video, video-bd, video-real, video-real-fast and
    video-gan train on clips.

    Writes OUT/weights.safetensors, which 'vsr enhance --model' takes, OUT/checkpoint.pt, from which
    --resume goes on, log.csv, recipe.json and TensorBoard curves. Ctrl-C saves first.
    """
    from vsr.train.command import run_training

    run_training(recipe, data, out, log=lambda line: click.echo(as_typed(line)), **values)
