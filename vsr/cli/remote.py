"""`vsr remote`: use a service as a device."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from vsr.cli.options import FILE, PRECISIONS, Seconds, deinterlace_option, in_section
from vsr.cli.progress import ProgressPrinter
from vsr.cli.spelling import Group
from vsr.extras import importing

__all__ = ["remote"]

_model, _input, _encoding = in_section("Model and size"), in_section("Input"), in_section("Encoding")
_files, _messages = in_section("Output files"), in_section("Messages")


@click.group(cls=Group)
@click.argument("url")
@click.pass_context
def remote(context: click.Context, url: str) -> None:
    """Let the service at URL do the work: vsr remote http://host:5000 enhance in.mp4 out.mp4.

    The token that the service asks for is taken from the environment variable VSR_TOKEN.
    """
    with importing("a service as a device", "remote", "httpx"):
        import httpx  # noqa: F401 - whether it loads
    context.obj = url


@remote.command()
@click.argument("source", type=FILE)
@click.argument("output", type=FILE)
@_model("--model", default="auto", show_default=True, help="A name that 'vsr models' lists.")
@_model("--scale", type=float, metavar="N", help="Output pixels per input pixel, 1 to 16.  [default: the model's]")
@_model("--size", metavar="WxH", help="Size of OUTPUT instead of a scale: 1920x1080, 720p, 1080p, 1440p, 4k or 8k.")
@_model("--fidelity", type=float, metavar="0..1", help="Instead of a model: 0 invents detail, 1 stays close.")
@_model("--precision", type=click.Choice(PRECISIONS), help="Number format of the network.  [default: the service's]")
@_input("-ss", "--start", "start_seconds", type=Seconds(), help="Begin at this time: seconds or HH:MM:SS.")
@_input("-t", "--duration", "duration_seconds", type=Seconds(), help="Upscale so much: seconds or HH:MM:SS.")
@_input("-map", "--map", "maps", multiple=True, metavar="STREAM", help="Streams to take, as ffmpeg names them.")
@deinterlace_option
@_input("--preview", "preview_seconds", type=float, metavar="SECONDS", help="Upscale the most detailed seconds alone.")
@_encoding("-c:v", "--codec", metavar="NAME", help="Video encoder, by ffmpeg's name.  [default: by container]")
@_encoding("-crf", "--crf", type=float, metavar="N", help="Quality of the video: lower is better and larger.")
@_encoding("-preset", "--preset", metavar="NAME", help="Speed of the encoder: ultrafast ... veryslow for libx264.")
@_encoding("--audio", type=click.Choice(["copy", "aac", "opus", "none"]), default="copy", show_default=True,
           help="Copy audio as it is, transcode it, or leave it out.")  # fmt: skip
@_files("-y/-n", "--overwrite/--no-overwrite", "overwrite", help="Replace OUTPUT if it exists.  [default: no]")
@_files("--strict", is_flag=True, help="Fail, rather than warn, where OUTPUT cannot hold a part of SOURCE.")
@_messages("--quiet", is_flag=True, help="Print errors only.")
@_messages("--progress", type=click.Choice(["bar", "json", "none"]), default="bar", show_default=True,
           help="Show progress on stderr as a bar, as one JSON object a line, or not at all.")  # fmt: skip
@click.pass_obj
def enhance(url: str, /, source: Path, output: Path, quiet: bool, progress: Any, **values: Any) -> None:
    """Upscale the video SOURCE to OUTPUT at the service.

    An upload that breaks off, and a job that is interrupted, go on with the same command. The source goes there whole,
    each part with its checksum; the service compares the result with the source before it is fetched.
    """
    from vsr.serve.client import RemoteService

    printer = ProgressPrinter("none" if quiet else progress, quiet)
    preview_seconds, overwrite = values.pop("preview_seconds"), values.pop("overwrite")
    options = {name: _plain(value) for name, value in values.items() if value not in (None, ())}
    try:
        with RemoteService(url, os.environ.get("VSR_TOKEN") or None, note=printer.note) as service:
            report = service.enhance(
                source,
                output,
                options,
                preview_seconds=preview_seconds,
                overwrite=overwrite,
                on_progress=printer.update,
            )
    finally:
        printer.close()
    printer.report(report)


def _plain(value: Any) -> Any:
    """Turn a value into one that JSON has."""
    if isinstance(value, Fraction):
        return float(value)
    return list(value) if isinstance(value, tuple) else value
