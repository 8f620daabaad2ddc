"""The command line. Commands are thin: they read options, call the package and print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vsr.errors import VsrError
from vsr.terminal import ProgressPrinter
from vsr.version import __version__

if TYPE_CHECKING:
    from vsr.bench.results import Report

__all__ = ["main"]

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_AUDIO = ["copy", "aac", "opus", "none"]
_PRECISIONS = ["auto", "int8", "fp16", "bf16", "fp32"]
_BACKENDS = ["auto", "tensorrt", "openvino", "pytorch"]


_FILE = click.Path(path_type=Path)


class _Terminated(BaseException):
    """SIGTERM, which stops a job as Ctrl-C does but ends with its own exit code."""


_interrupts: list[int] = []


def _on_sigint(number: int, frame: object) -> NoReturn:
    _interrupts.append(number)  # an import may swallow the exception; see enhance
    raise KeyboardInterrupt


def _on_sigterm(number: int, frame: object) -> NoReturn:
    raise _Terminated


class _Seconds(click.ParamType[Fraction]):
    """A time in seconds (12.5) or as HH:MM:SS.mmm, as ffmpeg takes it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        if isinstance(value, Fraction):
            return value
        try:
            parts = [Fraction(part) for part in str(value).split(":")]
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a time; give seconds or HH:MM:SS", param, ctx)
        if len(parts) > 3:
            self.fail(f"{value!r} is not a time; give seconds or HH:MM:SS", param, ctx)
        seconds = Fraction(0)
        for part in parts:
            seconds = seconds * 60 + part
        return seconds


class _Size(click.ParamType[tuple[int, int]]):
    """A size in pixels, as WIDTHxHEIGHT."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        width, _, height = str(value).partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
            self.fail(f"{value!r} is not WIDTHxHEIGHT", param, ctx)
        return int(width), int(height)


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        pairs[key] = rest
    return pairs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vsr")
def cli() -> None:
    """Video super-resolution that loses nothing on the way.

    Exit codes: 0 done, 2 bad input or usage, 3 output cannot be written, 4 wrong option, 5 model,
    6 engine, 7 the output failed its check, 8 loss under --strict, 9 missing extra, 130 interrupted.
    """


@cli.command(no_args_is_help=True)
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--model", default="auto", show_default=True, help="auto, a name ('vsr models'), or a weights file.")
@click.option("--scale", type=float, help="Output pixels per input pixel; default: the model's.")
@click.option("--size", help="WIDTHxHEIGHT, 1080p, 1440p, 4k or 8k, instead of a scale.")
@click.option("--fidelity", type=float, help="0..1 instead of a model: from sharp (srgan) to faithful (srresnet).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps; gpu: by OpenVINO.")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(_PRECISIONS), help="Of the network.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(_BACKENDS), help="What runs it.")
@click.option("--batch", type=int, help="Frames per batch.  [default: by frame size]")
@click.option("--tile", type=int, help="Side of a tile in input pixels.  [default: whole frames]")
@click.option("--reuse/--no-reuse", default=True, help="Take over what is as in the frame before.  [default: on]")
@click.option(
    "--hwaccel", type=click.Choice(["none", "auto", "cuda"]), default="none", help="What decodes: CPU or GPU."
)
@click.option("--codec", "-c:v", help="Video encoder, in ffmpeg's words.  [default: by container]")
@click.option("--crf", "-crf", type=float, help="Quality of the encoder, lower is better.  [default: 18 for libx264]")
@click.option("--preset", "-preset", help="Speed preset of the encoder.")
@click.option("--pix-fmt", "-pix_fmt", help="Pixel format.  [default: the source's, or the closest]")
@click.option("--encoder-option", multiple=True, callback=_pairs, metavar="K=V", help="Any option of the encoder.")
@click.option("--audio", type=click.Choice(_AUDIO), default="copy", show_default=True, help="What to do with audio.")
@click.option("--deinterlace", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--start", "-ss", type=_Seconds(), help="Where to start: seconds or HH:MM:SS.")
@click.option("--duration", "-t", type=_Seconds(), help="How much to enhance: seconds or HH:MM:SS.")
@click.option("--report", type=_FILE, help="Write what the job did to this file, as JSON.")
@click.option("--reference", type=_FILE, help="What OUTPUT should look like: PSNR of every frame in the report.")
@click.option("--overwrite", "-y", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--strict", is_flag=True, help="Make everything that would be lost an error.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--progress", type=click.Choice(["bar", "json", "none"]), default="bar", show_default=True)
@click.option("--verify/--no-verify", default=True, help="Check frames, timestamps and streams of the output.")
def enhance(source: Path, output: Path, **values: Any) -> None:
    """Upscale INPUT to OUTPUT: a video to a video, or a picture to a picture.

    Frames, timestamps, audio, subtitles, chapters, colour and metadata stay those of the input.
    """
    from vsr.pipeline.job import enhance_file
    from vsr.pipeline.plan import JobOptions

    if _interrupts:
        raise KeyboardInterrupt
    quiet, progress = values.pop("quiet"), values.pop("progress")
    values["start_seconds"], values["duration_seconds"] = values.pop("start"), values.pop("duration")
    values["encoder_options"] = values.pop("encoder_option")
    printer = ProgressPrinter("none" if quiet else progress, quiet)
    try:
        report = enhance_file(source, output, JobOptions(**values), note=printer.note, on_progress=printer.update)
    finally:
        printer.close()
    printer.report(report)


@cli.command(no_args_is_help=True)
@click.argument("sources", metavar="A B [C]...", nargs=-1, required=True, type=_FILE)
@click.argument("output", type=_FILE)
@click.option("--layout", type=click.Choice(["side", "split"]), default="side", show_default=True, help="Of two files.")
@click.option("--label", "labels", multiple=True, help="Of A, B and so on, '' for none.  [default: the files' names]")
@click.option("--codec", "-c:v", help="Video encoder, in ffmpeg's words.  [default: by container]")
@click.option("--crf", "-crf", type=float, help="Quality of the encoder, lower is better.  [default: 18 for libx264]")
@click.option("--preset", "-preset", help="Speed preset of the encoder.")
@click.option("--encoder-option", multiple=True, callback=_pairs, metavar="K=V", help="Any option of the encoder.")
@click.option("--overwrite", "-y", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def compare(sources: tuple[Path, ...], output: Path, quiet: bool, **values: Any) -> None:
    """Show videos, or pictures, beside each other in OUTPUT, or two on both sides of a moving line (split).

    Frames belong together by their time. Sound, colour and samples are those of A.
    """
    from vsr.bench.compare import write_comparison

    values["encoder_options"] = values.pop("encoder_option")
    printer = ProgressPrinter("none" if quiet else "bar", quiet)
    try:
        done = write_comparison(sources, output, note=printer.note, on_progress=printer.update, **values)
    finally:
        printer.close()
    frames = f"{done.num_frames} frame{'s' if done.num_frames != 1 else ''}"
    printer.note(f"{done.output}: {frames} at {done.width}x{done.height}")


@cli.command()
def models() -> None:
    """List the models that come with vsr, and what they were measured to do."""
    from vsr.models.cards import shipped_cards

    click.echo(f"{'name':<14}{'scale':<7}{'works on':<10}{'parameters':<12}figures (luma PSNR in dB)")
    for card in shipped_cards().values():
        figures = "  ".join(f"{name} {value:.2f}" for name, value in card.figures.items())
        color = "luma" if card.color == "y" else "RGB"
        click.echo(f"{card.name:<14}×{card.scale:<6}{color:<10}{card.num_parameters:<12,}{figures}")
        click.echo(f"{'':<14}{card.description}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def info(file: Path) -> None:
    """Show what vsr sees in FILE."""
    from vsr.inspection import describe_file

    click.echo(describe_file(file))


@cli.command()
def doctor() -> None:
    """Show versions, devices, encoders, missing parts, and what 'auto' would pick."""
    from vsr.inspection import describe_machine

    click.echo(describe_machine())


@cli.command()
@click.argument("recipe")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of sharp pictures.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--minutes", type=float, help="Length of the training in minutes.")
@click.option("--steps", type=int, help="Length of the training in steps.  [default: the recipe's]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--init", help="Start from a model or file, or from 'none'.  [default: the recipe's]")
@click.option("--vgg", type=_FILE, help="VGG19 in torchvision's layout, for the perceptual loss.")
@click.option("--squeezenet", type=_FILE, help="SqueezeNet 1.1 for the perceptual loss, where there is no --vgg.")
@click.option("--patch", type=click.IntRange(4), help="Side of a low-resolution patch.  [default: the recipe's]")
@click.option("--batch", type=click.IntRange(1), help="Patches per step.  [default: the recipe's]")
@click.option("--learning-rate", type=float, help="[default: the recipe's]")
@click.option("--validation", type=click.Path(path_type=Path), help="Folder that holds Set5 and Set14.")
@click.option("--device", default="auto", show_default=True)
@click.option("--fp32", is_flag=True, help="Train in fp32 instead of bf16 autocast.")
@click.option("--seed", type=int, default=0, show_default=True)
def train(recipe: str, data: Path, out: Path, **values: Any) -> None:
    """Train the network of RECIPE on pictures: nano, fast, srresnet, srgan and others ('vsr models').

    Writes OUT/weights.safetensors, which 'vsr enhance --model' takes, OUT/checkpoint.pt, from which
    --resume goes on, log.csv, recipe.json and TensorBoard curves. Ctrl-C saves first.
    """
    from vsr.train.command import run_training

    run_training(recipe, data, out, log=click.echo, **values)


@cli.group()
def engine() -> None:
    """Build, list and remove TensorRT engines. A job builds what it needs by itself, too."""


@engine.command("build")
@click.argument("model")
@click.option("--size", required=True, help="WIDTHxHEIGHT of the input frames.")
@click.option("--batch", type=click.IntRange(1), help="Frames per batch.  [default: by frame size, as a job]")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(_PRECISIONS), help="Of the network.")
@click.option("--device", default="auto", show_default=True, help="auto, cuda or cuda:N.")
def engine_build(model: str, size: str, **values: Any) -> None:
    """Build the engine that a job with MODEL will load: once for a size, a batch and a GPU."""
    from vsr.pipeline.engines import build_engine

    build_engine(model, size, note=lambda line: click.echo(f"vsr: {line}", err=True), **values)


@engine.command("list")
def engine_list() -> None:
    """List the engines there are, and which are damaged."""
    from vsr.pipeline.engines import describe_engines

    click.echo(describe_engines())


@engine.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove every engine and timing cache.")
def engine_prune(everything: bool) -> None:
    """Remove engines that are damaged, or of a TensorRT or GPU that is not here."""
    from vsr.pipeline.engines import prune_engines

    click.echo(prune_engines(everything=everything))


@cli.command()
@click.argument("model")
@click.argument("output", metavar="OUT.onnx", type=_FILE)
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(_PRECISIONS[1:]))
@click.option("--size", type=_Size(), help="WIDTHxHEIGHT of the input.  [default: any]")
@click.option("--batch", type=click.IntRange(1), help="Frames, with --size.  [default: 1]")
@click.option("--calibrate", type=_FILE, help="For int8: folder of pictures, where the model has no weights for it.")
@click.option("--validation", type=_FILE, help="For int8: folder that holds Set5, by which it is judged.")
@click.option("--overwrite", "-y", is_flag=True, help="Replace OUT.onnx if it exists.")
def export(model: str, output: Path, **values: Any) -> None:
    """Write MODEL as ONNX: input "x" and output "y", float32 (N, C, H, W) with values from 0 to 1."""
    from vsr.pipeline.exporting import export_model

    click.echo(f"vsr: {export_model(model, output, **values)}", err=True)


class _Benchmarks(click.Group):
    """Takes the name of a set or a folder for 'quality' on it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = ["quality", *args]
        return super().resolve_command(ctx, args)


@cli.group(cls=_Benchmarks)
def benchmark() -> None:
    """Measure what vsr does here: 'vsr benchmark vid4 --model fast', 'vsr benchmark speed' and others."""


@benchmark.command()
@click.argument("dataset")
@click.option("--model", "models", multiple=True, help="A name ('vsr models') or a weights file; may be repeated.")
@click.option("--opencv", type=_FILE, multiple=True, help="A .pb of OpenCV's dnn_superres; may be repeated.")
@click.option("--degradation", type=click.Choice(["bi", "bd"]), default="bi", show_default=True, help="Of clips.")
@click.option("--scale", type=click.IntRange(2), help="[default: the models', or 4]")
@click.option("--data", type=_FILE, help="Folder that holds Vid4, Set5, Set14, BSD100.  [default: $VSR_DATA/test]")
@click.option("--out", type=_FILE, help="Folder for a page, plots, strips, CSV and JSON.")
@click.option("--overwrite", "-y", is_flag=True, help="Replace an earlier benchmark in OUT.")
@click.option("--lpips", type=_FILE, help="Weights of LPIPS on SqueezeNet, to measure it too.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(_PRECISIONS), help="Of the networks.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(_BACKENDS), help="What runs them.")
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
    from vsr.bench.datasets import default_data_folder
    from vsr.bench.quality import measure_quality

    folder = data or default_data_folder()
    _measure(partial(measure_quality, dataset, models, data=folder, **values), out, overwrite, quiet)


@benchmark.command()
@click.argument("reference", type=_FILE)
@click.argument("distorted", type=_FILE)
@click.option("--crop", type=click.IntRange(0), default=0, show_default=True, help="Pixels at each edge to leave out.")
@click.option("--skip", type=click.IntRange(0), default=0, show_default=True, help="Frames at both ends to leave out.")
@click.option("--out", type=_FILE, help="Folder for a page, a plot, CSV and JSON.")
@click.option("--overwrite", "-y", is_flag=True, help="Replace an earlier benchmark in OUT.")
@click.option("--lpips", type=_FILE, help="Weights of LPIPS on SqueezeNet, to measure it too.")
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
        printer.note(f"{out / 'index.html'}")


@benchmark.command()
@click.option("--model", "models", multiple=True, default=["fast"], show_default=True, help="May be repeated.")
@click.option("--backend", "backends", multiple=True, default=["auto"], show_default=True, help="May be repeated.")
@click.option("--precision", "precisions", multiple=True, default=["auto"], show_default=True, help="May be repeated.")
@click.option(
    "--size", "sizes", type=_Size(), multiple=True, default=["640x360"], show_default=True, help="Of the input."
)
@click.option("--batch", type=click.IntRange(1), help="Frames per batch.  [default: by frame size, as a job]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "output", type=_FILE, help="Write all that was measured to this file, too.")
def speed(models: tuple[str, ...], rounds: int, output: Path | None, **values: Any) -> None:
    """Network frames per second of every MODEL, backend, precision and size, taking turns."""
    from vsr.bench.speed import cases, measure, table, to_json

    speeds = measure(cases(models, **values), rounds=rounds)
    click.echo(table(speeds))
    if output is not None:
        output.write_text(to_json(speeds), "utf-8")


def main() -> NoReturn:
    """Run the command line: one line on stderr and a documented exit code for every error."""
    # OpenMP threads that spin while they wait take the cores from the encoder; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to stderr by itself: errors only
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
        signal.signal(signal.SIGINT, _on_sigint)
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted", EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "vsr"
        _fail(f"{error.format_message()} See '{command} --help'.", error.exit_code)
    except _Terminated:
        _fail("terminated", EXIT_TERMINATED)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except VsrError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.exit(0)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"vsr: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
