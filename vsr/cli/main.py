"""The command line. Commands are thin: they read options, call the package and print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from vsr.cli.benchmark import benchmark
from vsr.cli.enhance import enhance, preview
from vsr.cli.options import FILE, PRECISIONS, Size, encoder_options
from vsr.cli.progress import ProgressPrinter
from vsr.cli.signals import Terminated, handle_signals
from vsr.errors import VsrError
from vsr.version import __version__

__all__ = ["main"]

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_READER_GONE = 141  # 128 + SIGPIPE: whoever reads stdout has gone, which is no error of ours


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vsr")
def cli() -> None:
    """Video super-resolution that loses nothing on the way.

    Exit codes: 0 done, 2 bad input or usage, 3 output cannot be written, 4 wrong option, 5 model,
    6 engine, 7 the output failed its check, 8 loss under --strict, 9 missing extra, 130 interrupted, 143 terminated,
    141 nobody reads stdout any more.
    Of several inputs, the code of the first that failed.
    """


@cli.command(no_args_is_help=True)
@click.argument("sources", metavar="A B [C]...", nargs=-1, required=True, type=FILE)
@click.argument("output", type=FILE)
@click.option("--layout", type=click.Choice(["side", "split"]), default="side", show_default=True, help="Of two files.")
@click.option("--label", "labels", multiple=True, help="Of A, B and so on, '' for none.  [default: the files' names]")
@encoder_options
@click.option("--overwrite", "-y", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def compare(sources: tuple[Path, ...], output: Path, quiet: bool, **values: Any) -> None:
    """Show videos, or pictures, beside each other in OUTPUT, or two on both sides of a moving line (split).

    Frames belong together by their time. Sound, colour and samples are those of A.
    """
    from vsr.compare.compare import write_comparison

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
    from vsr.cli.info import describe_file

    click.echo(describe_file(file))


@cli.command()
def doctor() -> None:
    """Show versions, devices, encoders, missing parts, and what 'auto' would pick."""
    from vsr.cli.info import describe_machine

    click.echo(describe_machine())


@cli.command()
@click.argument("recipe")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of sharp pictures.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--minutes", type=float, help="Length of the training in minutes.")
@click.option("--steps", type=int, help="Length of the training in steps.  [default: the recipe's]")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--init", help="Start from a model or file, or from 'none'.  [default: the recipe's]")
@click.option("--vgg", type=FILE, help="VGG19 in torchvision's layout, for the perceptual loss.")
@click.option("--squeezenet", type=FILE, help="SqueezeNet 1.1 for the perceptual loss, where there is no --vgg.")
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
@click.option("--precision", default="auto", show_default=True, type=click.Choice(PRECISIONS), help="Of the network.")
@click.option("--device", default="auto", show_default=True, help="auto, cuda or cuda:N.")
def engine_build(model: str, size: str, **values: Any) -> None:
    """Build the engine that a job with MODEL will load: once for a size, a batch and a GPU."""
    from vsr.export.engines import build_engine

    build_engine(model, size, note=lambda line: click.echo(f"vsr: {line}", err=True), **values)


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


@cli.command()
@click.argument("model")
@click.argument("output", metavar="OUT.onnx", type=FILE)
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(PRECISIONS[1:]))
@click.option("--size", type=Size(), help="WIDTHxHEIGHT of the input.  [default: any]")
@click.option("--batch", type=click.IntRange(1), help="Frames, with --size.  [default: 1]")
@click.option("--calibrate", type=FILE, help="For int8: folder of pictures, where the model has no weights for it.")
@click.option("--validation", type=FILE, help="For int8: folder that holds Set5, by which it is judged.")
@click.option("--overwrite", "-y", is_flag=True, help="Replace OUT.onnx if it exists.")
def export(model: str, output: Path, **values: Any) -> None:
    """Write MODEL as ONNX: input "x" and output "y", float32 (N, C, H, W) with values from 0 to 1."""
    from vsr.export.onnx import export_model

    click.echo(f"vsr: {export_model(model, output, **values)}", err=True)


cli.add_command(enhance)
cli.add_command(preview)
cli.add_command(benchmark)


def main() -> NoReturn:
    """Run the command line: one line on stderr and a documented exit code for every error."""
    # OpenMP threads that spin while they wait take the cores from the encoder; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to stderr by itself: errors only
    try:
        handle_signals()
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
    except Terminated:
        _fail("terminated", EXIT_TERMINATED)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except VsrError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.exit(EXIT_READER_GONE)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"vsr: {line}", err=True)
    sys.exit(code)
