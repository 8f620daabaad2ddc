"""The command that enhances."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsr.cli.options import FILE, FfmpegCommand, Rate, Seconds, encoder_options, model_options
from vsr.cli.progress import FfmpegProgress, ProgressPrinter
from vsr.cli.signals import stop_if_interrupted
from vsr.errors import OptionError

if TYPE_CHECKING:
    from vsr.jobs.model_cache import KeptModel
    from vsr.jobs.options import JobOptions

__all__ = ["enhance"]

_AUDIO = ["copy", "aac", "opus", "none"]
_STDOUT = ("-", "pipe:", "pipe:1")


@click.command(cls=FfmpegCommand, no_args_is_help=True)
@click.argument("files", metavar="INPUT... OUTPUT", nargs=-1, type=FILE)
@model_options
@encoder_options
@click.option("--input-format", help="What INPUT is: rawvideo, nut ...  [default: what it looks like]")
@click.option("--video-size", "-video_size", help="WIDTHxHEIGHT of raw video.")
@click.option("--pixel-format", "-pixel_format", help="Of raw video.")
@click.option("--framerate", "-framerate", "-r", type=Rate(), help="Of raw video and of pictures: 24, 30000/1001 ...")
@click.option("--format", "-f", help="Container of OUTPUT: nut, mp4 ...  [default: by its suffix; y4m for a pipe]")
@click.option("--pix-fmt", "-pix_fmt", help="Pixel format.  [default: the source's, or the closest]")
@click.option("--audio", type=click.Choice(_AUDIO), default="copy", show_default=True, help="What to do with audio.")
@click.option("--map", "-map", "maps", multiple=True, help="Streams to take: 0:v, 0:a:1, -0:s ...  [default: all]")
@click.option("--start", "-ss", type=Seconds(), help="Where to start: seconds or HH:MM:SS.")
@click.option("--duration", "-t", type=Seconds(), help="How much to enhance: seconds or HH:MM:SS.")
@click.option("--to", "-to", type=Seconds(), help="Where to stop in INPUT, instead of a duration.")
@click.option("--output-dir", type=FILE, help="Folder for the outputs of several inputs, or of a folder of them.")
@click.option("--suffix", help="Behind the names of the outputs in --output-dir: _4x.")
@click.option("--container", help="Of the videos in --output-dir: mkv, mp4 ...  [default: each input's own]")
@click.option("--report", type=FILE, help="Write what the job did to this file, as JSON.")
@click.option("--reference", type=FILE, help="What OUTPUT should look like: PSNR of every frame in the report.")
@click.option("--overwrite/--no-overwrite", "-y/-n", default=False, help="Replace OUTPUT if it exists.  [default: no]")
@click.option(
    "--resume/--no-resume",
    default=None,
    help="Go on with a job that was stopped; by itself where the job will take more than ten minutes.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and how long it might take; write nothing.")
@click.option("--strict", is_flag=True, help="Make everything that would be lost an error.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--progress", type=click.Choice(["bar", "json", "none"]), default="bar", show_default=True)
@click.option("--progress-to", "-progress", metavar="FILE", help="Also ffmpeg's key=value lines: to FILE, '-', pipe:N.")
@click.option("--verify/--no-verify", default=True, help="Check frames, timestamps and streams of the output.")
def enhance(
    files: tuple[Path, ...],
    output_dir: Path | None,
    suffix: str | None,
    container: str | None,
    dry_run: bool,
    **values: Any,
) -> int | None:
    """Upscale INPUT to OUTPUT: a video to a video, or a picture to a picture.

    Frames, timestamps, audio, subtitles, chapters, colour and metadata stay those of the input.

    With --output-dir, every INPUT, and every video and picture in a folder, goes there under its own name. Those that
    are there already are skipped, one that fails does not keep the others from it, and the exit code is then that of
    the first failure.

    A line of ffmpeg's works with its verb changed, where vsr does the same: -i, -c:v, -c:a, -an, -sn, -map, -ss, -to,
    -t, -f, -r, -tune, -b:v, -loglevel, -progress and others. What vsr does not do is refused.
    """
    from vsr.jobs.batch import enhance_each, make_folder, name_outputs
    from vsr.jobs.dry_run import describe_job
    from vsr.jobs.model_cache import KeptModel

    stop_if_interrupted()
    _check_files(files, output_dir, suffix, container)
    printer = _printer(values, files)
    options = _job_options(values)
    if output_dir is not None and (options.report is not None or options.reference is not None):
        raise OptionError("--report and --reference: are of one file; name one INPUT and one OUTPUT")
    kept = KeptModel()
    enhance_one = partial(describe_job, on_line=click.echo) if dry_run else partial(_enhance_one, printer, kept)
    try:
        if output_dir is None:
            source, output = files
            enhance_one(source, output, options)
            return None
        named = name_outputs(files, output_dir, suffix or "", container)
        if not dry_run:
            make_folder(output_dir)
        outcome = enhance_each(named, options, enhance_one, kept, note=printer.note, complain=printer.complain)
        if not dry_run:
            printer.summary(outcome)
        return outcome.exit_code
    finally:
        printer.end()


def _enhance_one(printer: ProgressPrinter, load: KeptModel, source: Path, output: Path, options: JobOptions) -> None:
    from vsr.jobs.job import enhance_file

    try:
        report = enhance_file(source, output, options, note=printer.note, on_progress=printer.update, load=load)
    finally:
        printer.close()
    printer.report(report)


def _check_files(files: Sequence[Path], output_dir: Path | None, suffix: str | None, container: str | None) -> None:
    if output_dir is not None:
        if not files:
            raise click.UsageError("Missing argument 'INPUT'.")
        return
    if suffix is not None or container is not None:
        raise click.UsageError("--suffix and --container name the outputs in --output-dir; give that, too.")
    if len(files) < 2:
        raise click.UsageError(f"Missing argument '{'OUTPUT' if files else 'INPUT'}'.")
    if len(files) > 2:
        raise click.UsageError(f"Several inputs ({', '.join(map(str, files[:2]))} ...) need --output-dir.")


def _printer(values: dict[str, Any], files: Sequence[Path]) -> ProgressPrinter:
    """What shows how the job goes; takes its options out of `values`."""
    quiet, style, target = values.pop("quiet"), values.pop("progress"), values.pop("progress_to")
    if target in _STDOUT and files[-1] == Path("-"):
        raise OptionError(f"-progress {target}: OUTPUT goes to stdout; write the progress to a file or pipe:2")
    ffmpeg = None if target is None else FfmpegProgress(target)
    return ProgressPrinter("none" if quiet else style, quiet, ffmpeg)


def _job_options(values: dict[str, Any]) -> JobOptions:
    """The options of the command line, under the names that a job has for them."""
    from vsr.jobs.options import JobOptions

    start, duration, end = values.pop("start"), values.pop("duration"), values.pop("to")
    if duration is None and end is not None:
        duration = end - (start or Fraction(0))
        if duration <= 0:
            raise OptionError(f"-to {float(end):g}: must lie after -ss {float(start or 0):g}")
    encoder = values.pop("encoder_option")
    return JobOptions(start_seconds=start, duration_seconds=duration, encoder_options=encoder, **values)
