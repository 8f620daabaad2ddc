"""What several commands read from their command lines: types of values, and options that belong together."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from vsr.cli.ffmpeg_args import parse_seconds, translated

__all__ = [
    "BACKENDS",
    "FILE",
    "PRECISIONS",
    "Rate",
    "FfmpegCommand",
    "Seconds",
    "Size",
    "encoder_options",
    "model_options",
    "pairs",
]

PRECISIONS = ["auto", "int8", "fp16", "bf16", "fp32"]
BACKENDS = ["auto", "tensorrt", "openvino", "pytorch"]
FILE = click.Path(path_type=Path)
_NAMED_RATES = {
    "ntsc": Fraction(30000, 1001),
    "pal": Fraction(25),
    "film": Fraction(24),
    "ntsc-film": Fraction(24000, 1001),
}

Command = Callable[..., Any]


class Seconds(click.ParamType[Fraction]):
    """A time in seconds (12.5) or as HH:MM:SS.mmm, as ffmpeg takes it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        if isinstance(value, Fraction):
            return value
        try:
            return parse_seconds(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time; give seconds or HH:MM:SS", param, ctx)


class Rate(click.ParamType[Fraction]):
    """Frames a second: 25, 23.976, 30000/1001, or one of ffmpeg's names."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return _NAMED_RATES.get(value) or Fraction(value)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a frame rate; give 25, 23.976 or 30000/1001", param, ctx)


class Size(click.ParamType[tuple[int, int]]):
    """A size in pixels, as WIDTHxHEIGHT."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        width, _, height = str(value).partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not WIDTHxHEIGHT", param, ctx)
        return int(width), int(height)


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE options as a dictionary."""
    found = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        found[key] = rest
    return found


class FfmpegCommand(click.Command):
    """A command that takes ffmpeg's words beside its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spellings = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        own = {name: not p.is_flag for p in spellings for name in (*p.opts, *p.secondary_opts)}
        return super().parse_args(ctx, translated(args, own))


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_options = _all_of(
    click.option("--model", default="auto", show_default=True, help="auto, a name ('vsr models'), or a weights file."),
    click.option("--scale", type=float, help="Output pixels per input pixel; default: the model's."),
    click.option("--size", help="WIDTHxHEIGHT, 1080p, 1440p, 4k or 8k, instead of a scale."),
    click.option("--fidelity", type=float, help="0..1 instead of a model: from sharp (srgan) to faithful (srresnet)."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps; gpu: by OpenVINO."),
    click.option(
        "--precision", default="auto", show_default=True, type=click.Choice(PRECISIONS), help="Of the network."
    ),
    click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS), help="What runs it."),
    click.option("--batch", type=int, help="Frames per batch.  [default: by frame size]"),
    click.option("--tile", type=int, help="Side of a tile in input pixels.  [default: whole frames]"),
    click.option("--reuse/--no-reuse", default=True, help="Take over what is as in the frame before.  [default: on]"),
    click.option(
        "--hwaccel", type=click.Choice(["none", "auto", "cuda"]), default="none", help="What decodes: CPU or GPU."
    ),
    click.option("--deinterlace", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True),
)

encoder_options = _all_of(
    click.option("--codec", "-c:v", help="Video encoder, in ffmpeg's words.  [default: by container]"),
    click.option(
        "--crf", "-crf", type=float, help="Quality of the encoder, lower is better.  [default: 18 for libx264]"
    ),
    click.option("--preset", "-preset", help="Speed preset of the encoder."),
    click.option("--encoder-option", multiple=True, callback=pairs, metavar="K=V", help="Any option of the encoder."),
)
