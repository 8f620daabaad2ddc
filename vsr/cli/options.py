"""Options that several commands share, the types of their values, and how --help lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from vsr.cli.ffmpeg_args import parse_seconds, translated
from vsr.cli.spelling import Command
from vsr.errors import InputError
from vsr.events import Note, NoteCode

__all__ = [
    "BACKENDS",
    "BitRate",
    "FILE",
    "PRECISIONS",
    "FfmpegCommand",
    "check_exist",
    "Rate",
    "Seconds",
    "Size",
    "deinterlace_option",
    "encoder_options",
    "in_section",
    "model_options",
    "pairs",
    "take_purpose",
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

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


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
            hint = "; --recursive takes the folders inside a folder" if Path(value).is_dir() else ""
            self.fail(f"{value!r} is not a frame rate; give 25, 23.976 or 30000/1001{hint}", param, ctx)


class BitRate(click.ParamType[int]):
    """Bits a second: 192000, 192k or 1M."""

    name = "bitrate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        scale = {"k": 1000, "K": 1000, "M": 1_000_000}.get(text[-1:], 1)
        number = text[:-1] if scale > 1 else text
        if not number.isdecimal():
            self.fail(f"{value!r} is not a bit rate; give 192k or 192000", param, ctx)
        return int(number) * scale


class Size(click.ParamType[tuple[int, int]]):
    """A size in pixels, as WIDTHxHEIGHT."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        width, _, height = str(value).partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not WIDTHxHEIGHT", param, ctx)
        return int(width), int(height)


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Turn KEY=VALUE options into a dictionary."""
    found = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        found[key] = rest
    return found


class _SectionOption(click.Option):
    """An option that --help lists under a heading."""

    def __init__(self, *names: Any, section: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.section = section


def in_section(section: str) -> Callable[..., Decorator]:
    """Make a `click.option` whose options --help lists under a heading."""
    return partial(click.option, cls=_SectionOption, section=section)


class FfmpegCommand(Command):
    """A command that takes ffmpeg's option names beside its own, and lists its options under headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spellings = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        own = {name: not p.is_flag for p in spellings for name in (*p.opts, *p.secondary_opts)}
        return super().parse_args(ctx, translated(args, own))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "Other options"), []).append(record)
        sections["Other options"] = sections.pop("Other options")  # to the end; there is --help at least
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def _all_of(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_model, _speed, _encoding = in_section("Model and size"), in_section("Device and speed"), in_section("Encoding")

deinterlace_option = in_section("Input")(
    "--deinterlace",
    type=click.Choice(["auto", "on", "off", "double"]),
    default="auto",
    show_default=True,
    help="Make whole frames of interlaced video; auto: where the video says that it is; double: one of each field.",
)


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of models, or else files: bash takes one or the other."""
    from vsr.models.cards import shipped_cards

    names = [name for name in ("auto", *shipped_cards()) if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


model_options = _all_of(
    _model(
        "--model",
        metavar="NAME|FILE",
        shell_complete=complete_model,
        default="auto",
        show_default=True,
        help="Network that upscales: a name that 'vsr models' lists, or a weights file (.safetensors, .pth, .onnx). "
        "auto chooses by scale, frame size and device.",
    ),
    _model("--scale", type=float, metavar="N", help="Output pixels per input pixel, 1 to 16.  [default: the model's]"),
    _model("--size", metavar="WxH", help="Size of OUTPUT instead of a scale: 1920x1080, 480p ... 1440p, 4k or 8k."),
    _model("--square", is_flag=True, help="Make pixels square where those of INPUT are not, as on DVDs."),
    _model(
        "--fidelity",
        type=float,
        metavar="0..1",
        help="Instead of a model: 0 invents sharp detail (srgan), 1 stays closest to the input (srresnet).",
    ),
    _model(
        "--restore",
        type=float,
        metavar="0..1",
        help="Between faithful to every pixel (0) and rid of noise and of what codecs leave behind (1).",
    ),
    _model(
        "--for",
        "purpose",
        type=click.Choice(["old-video", "phone", "web", "clean", "screen", "anime"]),
        help="Model, restoration, deinterlacing and size by one word for what INPUT is; says what it stands for.",
    ),
    _model("--model-range", metavar="RANGE", help="Values of a foreign network: 0..1, 0..255, -1..1; IN:OUT if two."),
    _model("--model-order", metavar="ORDER", help="Channels of a foreign network: rgb or bgr; IN:OUT if two."),
    _model("--model-scale", type=int, metavar="N", help="Scale of a foreign network whose weights serve several."),
    _speed(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, cuda:N, mps; cuda:0,cuda:1 or all: GPUs of one kind, which take the batches of a video "
        "in turn; or gpu, an Intel GPU, with --backend openvino.",
    ),
    _speed(
        "--backend",
        default="auto",
        show_default=True,
        type=click.Choice(BACKENDS),
        help="Library that runs the network; auto takes the fastest that is installed for the device.",
    ),
    _speed(
        "--precision",
        default="auto",
        show_default=True,
        type=click.Choice(PRECISIONS),
        help="Number format that the network computes in; auto takes the fastest that shows no difference from fp32.",
    ),
    _speed("--batch", type=int, metavar="N", help="Frames that the network takes at once.  [default: by frame size]"),
    _speed(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="Cut frames into tiles of this side, in input pixels, to save memory.  [default: whole frames]",
    ),
    _speed(
        "--reuse/--no-reuse",
        default=True,
        help="Compute only the parts of a frame that differ from the frame before; the output is the same.  "
        "[default: --reuse]",
    ),
    _speed(
        "--hwaccel",
        type=click.Choice(["none", "auto", "cuda"]),
        default="none",
        show_default=True,
        help="Decode INPUT on the CPU (none), on a CUDA GPU (cuda), or on the GPU that runs the network (auto).",
    ),
    deinterlace_option,
)


def check_exist(files: Sequence[Path]) -> None:
    """Refuse missing files at once; PyTorch takes seconds to load. Patterns, pipes and addresses pass."""
    for file in files:
        is_plain = not any(sign in str(file) for sign in "%*?[") and "://" not in str(file) and ":" not in str(file)[:8]
        if is_plain and str(file) != "-" and not file.exists() and not file.is_symlink():
            raise InputError(f"{file}: no such file")


def take_purpose(values: dict[str, Any], note: Callable[[Note], None]) -> None:
    """Replace --for by the options that it stands for, and say which."""
    word = values.pop("purpose")
    if word is None:
        return
    from vsr.jobs.purposes import describe_purpose, options_for

    chosen = options_for(word, values)
    values.update(chosen)
    note(Note(NoteCode.MODEL, describe_purpose(word, chosen)))


encoder_options = _all_of(
    _encoding(
        "--codec", "-c:v", metavar="NAME", help="Video encoder, by ffmpeg's name: libx264 ...  [default: by container]"
    ),
    _encoding(
        "--crf",
        "-crf",
        type=float,
        metavar="N",
        help="Quality of the video: lower is better and larger.  [default: 18 for libx264, 20 for libx265]",
    ),
    _encoding("--preset", "-preset", metavar="NAME", help="Speed of the encoder: ultrafast ... veryslow for libx264."),
    _encoding(
        "--encoder-option",
        "encoder_options",
        multiple=True,
        callback=pairs,
        metavar="KEY=VALUE",
        help="Any other option of the encoder, such as tune=film; may be repeated.",
    ),
)
