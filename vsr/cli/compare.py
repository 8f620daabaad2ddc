"""The commands that compare: files beside each other, and before and after."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from vsr.cli.options import FILE, FfmpegCommand, Rate, Seconds, encoder_options, model_options, take_purpose
from vsr.cli.progress import ProgressPrinter
from vsr.cli.signals import stop_if_interrupted
from vsr.cli.spelling import Command
from vsr.events import Note, NoteCode

__all__ = ["compare", "preview"]


@click.command(cls=Command, no_args_is_help=True)
@click.argument("sources", metavar="A B [C]...", nargs=-1, required=True, type=FILE)
@click.argument("output", type=FILE)
@click.option("--layout", type=click.Choice(["side", "split"]), default="side", show_default=True, help="Of two files.")
@click.option("--label", "labels", multiple=True, help="Of A, B and so on, '' for none.  [default: the files' names]")
@encoder_options
@click.option("-y", "--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def compare(sources: tuple[Path, ...], output: Path, quiet: bool, **values: Any) -> None:
    """Show videos, or pictures, beside each other in OUTPUT, or two on both sides of a moving line (split).

    Frames belong together by their time. Sound, colour and samples are those of A.
    """
    from vsr.compare.compare import write_comparison
    from vsr.jobs.options import taken
    from vsr.media.write.options import EncodingOptions

    encoding = EncodingOptions(**taken(values, EncodingOptions))
    printer = ProgressPrinter("none" if quiet else "bar", quiet)
    try:
        done = write_comparison(
            sources, output, encoding=encoding, note=printer.note, on_progress=printer.update, **values
        )
    finally:
        printer.close()
    frames = f"{done.num_frames} frame{'s' if done.num_frames != 1 else ''}"
    printer.note(Note(NoteCode.OUTPUT, f"{done.output}: {frames} at {done.width}x{done.height}"))


@click.command(cls=FfmpegCommand, no_args_is_help=True)
@click.argument("source", metavar="INPUT", type=FILE)
@click.argument("output", required=False, type=FILE)
@click.option("--at", "--start", "-ss", type=Seconds(), default=Fraction(0), help="Where to look.")
@click.option("--duration", "-t", type=Seconds(), default=Fraction(5), help="How much of it.  [default: 5 seconds]")
@click.option("--framerate", "-framerate", "-r", type=Rate(), help="Of pictures: 24, 30000/1001 ...")
@model_options
@encoder_options
@click.option(
    "-y/-n",
    "--overwrite/--no-overwrite",
    "overwrite",
    default=False,
    help="Replace OUTPUT if it exists.  [default: no]",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def preview(source: Path, output: Path | None, quiet: bool, **values: Any) -> None:
    """Show a few seconds of INPUT before and after, left and right of a moving line.

    Left lies INPUT, enlarged bicubically, and right what vsr makes of it. OUTPUT is INPUT's name with _preview.mp4
    behind it, in the current folder, unless it is given.
    """
    from vsr.compare.preview import preview_path, write_preview
    from vsr.jobs.options import JobOptions

    stop_if_interrupted()
    at, duration = values.pop("at"), values.pop("duration")
    printer = ProgressPrinter("none" if quiet else "bar", quiet)
    take_purpose(values, printer.note)
    options = JobOptions.of(**values)
    try:
        done = write_preview(
            source,
            output or preview_path(source),
            options,
            at_seconds=at,
            duration_seconds=duration,
            note=printer.note,
            on_progress=printer.update,
        )
    finally:
        printer.close()
    printer.note(Note(NoteCode.OUTPUT, f"{done.output}: {done.num_frames} frames at {done.width}x{done.height}"))
