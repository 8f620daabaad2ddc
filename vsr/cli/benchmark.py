"""The commands below `vsr benchmark`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsr.cli.options import BACKENDS, FILE, PRECISIONS, Size
from vsr.cli.progress import ProgressPrinter
from vsr.cli.spelling import Group
from vsr.events import Note, NoteCode
from vsr.files import check_target, naming_output, write_file

if TYPE_CHECKING:
    from vsr.bench.results import Report

__all__ = ["benchmark"]


class _Benchmarks(Group):
    """Takes the name of a set or a folder for 'quality' on it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = ["quality", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Benchmarks)
def benchmark() -> None:
    """Measure what vsr does here: 'vsr benchmark vid4 --model fast', 'vsr benchmark speed' and others."""


@benchmark.command()
@click.argument("dataset")
@click.option("--model", "models", multiple=True, help="A name ('vsr models') or a weights file; may be repeated.")
@click.option("--opencv", type=FILE, multiple=True, help="A .pb of OpenCV's dnn_superres; may be repeated.")
@click.option("--degradation", type=click.Choice(["bi", "bd"]), default="bi", show_default=True, help="Of clips.")
@click.option("--scale", type=click.IntRange(2), help="[default: the models', or 4]")
@click.option("--data", type=FILE, help="Folder that holds Vid4, Set5, Set14, BSD100.  [default: $VSR_DATA/test]")
@click.option("--out", type=FILE, help="Folder for a page, plots, strips, CSV and JSON.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace an earlier benchmark in OUT.")
@click.option("--lpips", type=FILE, help="Weights of LPIPS on SqueezeNet, to measure it too.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(PRECISIONS), help="Of the networks.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS), help="What runs them.")
@click.option("--quiet", is_flag=True, help="Print the table and errors only.")
def quality(
    dataset: str,
    models: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """PSNR, SSIM and more of every MODEL on vid4, set5, set14, bsd100 or a folder of pictures or clips.

    'quality' need not be said. Bicubic and Lanczos are measured along; where bicubic does not give the figures
    on record, the run stops.
    """
    from vsr.bench.quality import measure_quality

    _measure(partial(measure_quality, dataset, models, data=data, **values), out, overwrite, quiet)


@benchmark.command()
@click.argument("reference", type=FILE)
@click.argument("distorted", type=FILE)
@click.option("--crop", type=click.IntRange(0), default=0, show_default=True, help="Pixels at each edge to leave out.")
@click.option("--skip", type=click.IntRange(0), default=0, show_default=True, help="Frames at both ends to leave out.")
@click.option("--out", type=FILE, help="Folder for a page, a plot, CSV and JSON.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace an earlier benchmark in OUT.")
@click.option("--lpips", type=FILE, help="Weights of LPIPS on SqueezeNet, to measure it too.")
@click.option("--quiet", is_flag=True, help="Print the table and errors only.")
def video(reference: Path, distorted: Path, out: Path | None, overwrite: bool, quiet: bool, **values: Any) -> None:
    """PSNR, SSIM and more of DISTORTED against REFERENCE: two videos, frame by frame by their time.

    Two folders of pictures are compared in the order of their names.
    """
    from vsr.bench.video import compare_files

    _measure(partial(compare_files, reference, distorted, **values), out, overwrite, quiet)


def _measure(measure: Callable[..., Report], out: Path | None, overwrite: bool, quiet: bool) -> None:
    """Measure under a progress bar; the table to stdout, and all of it to a folder."""
    from vsr.bench.report import prepare_folder, table, write_report

    printer = ProgressPrinter("none" if quiet else "bar", quiet)
    if out is not None:
        prepare_folder(out, overwrite)
    try:
        report = measure(on_progress=printer.update, note=printer.note)
    finally:
        printer.close()
    click.echo(table(report))
    if out is not None:
        write_report(report, out, overwrite=overwrite)
        printer.note(Note(NoteCode.OUTPUT, f"{out / 'index.html'}"))


@benchmark.command()
@click.option("--model", "models", multiple=True, default=["fast"], show_default=True, help="May be repeated.")
@click.option("--backend", "backends", multiple=True, default=["auto"], show_default=True, help="May be repeated.")
@click.option("--precision", "precisions", multiple=True, default=["auto"], show_default=True, help="May be repeated.")
@click.option(
    "--size", "sizes", type=Size(), multiple=True, default=["640x360"], show_default=True, help="Of the input."
)
@click.option("--batch", type=click.IntRange(1), help="Frames per batch.  [default: by frame size, as a job]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "output", type=FILE, help="Write all that was measured to this file, too.")
def speed(models: tuple[str, ...], rounds: int, output: Path | None, **values: Any) -> None:
    """Frames per second of every MODEL, backend, precision and size, alone and in whole jobs, taking turns."""
    from vsr.bench.speed import cases, measure, table, to_json

    if output is not None:
        check_target(output, overwrite=True)
    speeds = measure(cases(models, **values), rounds=rounds)
    click.echo(table(speeds))
    if output is not None:
        with naming_output(output):
            write_file(output, to_json(speeds))
