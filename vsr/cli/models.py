"""The commands of models: list them, build their engines, export them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsr.cli.options import FILE, PRECISIONS, Size
from vsr.cli.spelling import Command, Group, as_typed

if TYPE_CHECKING:
    from vsr.models.cards import ModelCard

__all__ = ["engine", "export", "foreign_options", "models"]


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print the cards of all models as JSON.")
def models(as_json: bool) -> None:
    """List the models that come with vsr, and what they were measured to do."""
    from vsr.models.cards import shipped_cards

    if as_json:
        click.echo(json.dumps([asdict(card) for card in shipped_cards().values()], indent=2, ensure_ascii=False))
        return
    click.echo(f"{'name':<16}{'scale':<7}{'works on':<10}{'parameters':<12}figures (luma PSNR in dB)")
    for title, is_recurrent in (("video: networks that carry what they saw before", True), ("stills and video", False)):
        click.echo(f"\n{title}")
        for card in shipped_cards().values():
            if card.recurrent == is_recurrent:
                click.echo(_row(card))
                click.echo(f"{'':<16}{card.description}")


def _row(card: ModelCard) -> str:
    figures = "  ".join(f"{name} {value:.2f}" for name, value in card.figures.items())
    color = {"y": "luma", "rgb": "RGB", "yuv": "YCbCr"}[card.color]
    return f"{card.name:<16}×{card.scale:<6}{color:<10}{card.num_parameters:<12,}{figures}"


def foreign_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that state what is known of a file of another project."""
    for option in (
        click.option("--model-scale", type=int, metavar="N", help="Scale of a foreign network that serves several."),
        click.option("--model-order", metavar="ORDER", help="Channels of a foreign network: rgb or bgr."),
        click.option("--model-range", metavar="RANGE", help="Values of a foreign network: 0..1, 0..255, -1..1."),
    ):
        command = option(command)
    return command


def _states(command: Callable[..., None]) -> Callable[..., None]:
    """Add these options, and hand them on as `stated`."""

    @functools.wraps(command)
    def wrapped(
        *args: Any, model_range: str | None, model_order: str | None, model_scale: int | None, **kw: Any
    ) -> None:
        from vsr.models.conventions import Stated

        command(*args, stated=Stated(model_range, model_order, model_scale), **kw)

    return foreign_options(wrapped)


@click.group(cls=Group)
def engine() -> None:
    """Build, list and prune TensorRT engines, and measure CPUs. A job does what it needs of that by itself, too."""


@engine.command("build")
@click.argument("model")
@click.option("--size", required=True, help="WIDTHxHEIGHT of the input frames.")
@click.option("--batch", type=click.IntRange(1), help="Frames per batch.  [default: by frame size, as a job]")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(PRECISIONS), help="Of the network.")
@click.option("--device", default="auto", show_default=True, help="auto, cuda or cuda:N.")
@_states
def engine_build(model: str, size: str, **values: Any) -> None:
    """Build the engine that a job with MODEL will load: once for a size, a batch and a GPU."""
    from vsr.export.engines import build_engine

    build_engine(model, size, note=lambda line: click.echo(f"vsr: {as_typed(line)}", err=True), **values)


@engine.command("tune")
@click.argument("models", nargs=-1)
def engine_tune(models: tuple[str, ...]) -> None:
    """Measure anew what 'auto' takes for MODELS on this CPU: backends and precisions, on a few tiles each."""
    from vsr.export.engines import tune_models

    for line in tune_models(models, note=lambda line: click.echo(f"vsr: {as_typed(line)}", err=True)):
        click.echo(line)


@engine.command("list")
def engine_list() -> None:
    """List the engines there are, and which are damaged."""
    from vsr.export.engines import describe_engines

    click.echo(describe_engines())


@engine.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove every engine and timing cache.")
def engine_prune(everything: bool) -> None:
    """Remove engines that are damaged, or of a TensorRT or GPU that is not here."""
    from vsr.export.engines import prune_engines

    click.echo(prune_engines(everything=everything))


@click.command(cls=Command)
@click.argument("model")
@click.argument("output", metavar="OUT.onnx", type=FILE)
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(PRECISIONS[1:]))
@click.option("--size", type=Size(), help="WIDTHxHEIGHT of the input.  [default: any]")
@click.option("--batch", type=click.IntRange(1), help="Frames, with --size.  [default: 1]")
@click.option("--calibrate", type=FILE, help="For int8: pictures or clips, where the model has no weights for it.")
@click.option("--validation", type=FILE, help="For int8: folder that holds Set5 or Vid4, by which it is judged.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace OUT.onnx if it exists.")
@_states
def export(model: str, output: Path, **values: Any) -> None:
    """Write MODEL as ONNX: input "x" and output "y", float32 (N, C, H, W) with values from 0 to 1."""
    from vsr.export.onnx import export_model

    def note(line: str) -> None:
        click.echo(f"vsr: {line}", err=True)

    note(export_model(model, output, note=note, **values))
