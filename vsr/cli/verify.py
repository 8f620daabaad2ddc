"""`vsr verify`: compare an output with its source."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Literal

import click

from vsr.cli.options import FILE, Seconds
from vsr.cli.spelling import Command
from vsr.errors import VerificationError

__all__ = ["verify"]


@click.command(cls=Command)
@click.argument("source", type=FILE)
@click.argument("output", type=FILE)
@click.option("-ss", "--start", "start_seconds", type=Seconds(), help="Start of the part that OUTPUT was made of.")
@click.option("-t", "--duration", "duration_seconds", type=Seconds(), help="Duration of that part.")
@click.option("-map", "--map", "maps", multiple=True, help="Streams that OUTPUT was made of, as ffmpeg names them.")
@click.option(
    "--deinterlace",
    type=click.Choice(["auto", "off", "double"]),
    default="auto",
    show_default=True,
    help="double: OUTPUT has a frame for each field; off: for each frame; auto: as its number of frames says.",
)
@click.option("--ignore", multiple=True, metavar="CODE", help="Pass over differences with this code; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(
    source: Path,
    output: Path,
    start_seconds: Fraction | None,
    duration_seconds: Fraction | None,
    maps: tuple[str, ...],
    deinterlace: Literal["auto", "off", "double"],
    ignore: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare OUTPUT, which any tool may have made, with its SOURCE.

    Compares frames, timestamps, audio, subtitles and other streams, chapters, colour, shape, rotation and metadata.
    Another size and another video codec are expected. Each difference has a code and a text.

    Exit codes: 0 nothing is lost, 7 there is a difference.
    """
    import vsr

    report = vsr.verify(
        source,
        output,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        maps=maps,
        deinterlace=deinterlace,
        ignore=ignore,
        note=lambda line: click.echo(f"vsr: {line}", err=True),
    )
    click.echo(report.to_json() if as_json else str(report))
    if not report.is_same:
        sys.exit(VerificationError.exit_code)
