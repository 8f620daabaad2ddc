"""The command `vsr enhance`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsr.cli.log import LogFile, describe_versions
from vsr.cli.options import (
    FILE,
    BitRate,
    FfmpegCommand,
    Rate,
    Seconds,
    check_exist,
    encoder_options,
    in_section,
    model_options,
    take_purpose,
)
from vsr.cli.progress import FfmpegProgress, ProgressPrinter
from vsr.cli.signals import stop_if_interrupted
from vsr.cli.spelling import as_typed
from vsr.cli.workers import Workers
from vsr.errors import OptionError
from vsr.events import Note, NoteCode
from vsr.jobs.ranges import check_ranges

if TYPE_CHECKING:
    from vsr.jobs.model_cache import ModelCache
    from vsr.jobs.options import JobOptions

__all__ = ["enhance"]

_AUDIO = ["copy", "aac", "opus", "none"]
_STDOUT = ("-", "pipe:", "pipe:1")
_EXAMPLES = """\b
Examples:
  vsr enhance in.mp4 out.mp4                          four times as wide and high
  vsr enhance in.mkv out.mkv --size 4k --crf 16       to 2160 lines, finer
  vsr enhance in.mp4 out.mp4 -ss 0:30 -t 10 --dry-run what ten seconds would take
  vsr enhance photo.jpg photo_4x.png                  an image
  vsr enhance videos/ --output-dir large/             a folder of videos
  ffmpeg -i in.avi -f nut - | vsr enhance - out.mp4   from a pipe
"""

_input, _encoding = in_section("Input"), in_section("Encoding")
_speed = in_section("Device and speed")
_files, _messages = in_section("Output files"), in_section("Messages")


@click.command(cls=FfmpegCommand, no_args_is_help=True, epilog=_EXAMPLES, context_settings={"max_content_width": 100})
@click.argument("files", metavar="INPUT... OUTPUT", nargs=-1, type=FILE)
@model_options
@_input("--start", "-ss", "start_seconds", type=Seconds(), help="Begin at this time of INPUT: seconds or HH:MM:SS.")
@_input("--duration", "-t", "duration_seconds", type=Seconds(), help="Upscale so much: seconds or HH:MM:SS.")
@_input("--to", "-to", type=Seconds(), help="End at this time of INPUT, instead of a duration.")
@_input(
    "-map",
    "--map",
    "maps",
    multiple=True,
    metavar="STREAM",
    help="Streams to take, as ffmpeg names them: 0:v, 0:a:1, -0:s ...; may be repeated.  [default: all]",
)
@_input("--input-format", metavar="NAME", help="Format of INPUT, where it cannot be recognised: rawvideo, nut ...")
@_input("--video-size", "-video_size", metavar="WxH", help="Frame size of raw video, which does not hold it.")
@_input("--pixel-format", "-pixel_format", metavar="NAME", help="Pixel format of raw video: yuv420p ...")
@_input(
    "--framerate",
    "-framerate",
    "-r",
    type=Rate(),
    help="Frames a second of raw video and of images: 24, 30000/1001 ...  [default for images: 25]",
)
@encoder_options
@_encoding("--pix-fmt", "-pix_fmt", metavar="NAME", help="Pixel format of OUTPUT.  [default: INPUT's, or the closest]")
@_encoding(
    "--format", "-f", metavar="NAME", help="Container of OUTPUT: mp4, nut ...  [default: by suffix; y4m for a pipe]"
)
@_encoding(
    "--audio",
    type=click.Choice(_AUDIO),
    default="copy",
    show_default=True,
    help="Copy audio as it is, transcode it to AAC or Opus, or leave it out.",
)
@_encoding(
    "--audio-bitrate",
    "-b:a",
    "audio_bitrate",
    type=BitRate(),
    help="Bits a second of audio that is transcoded: 192k ...  [default: the encoder's own]",
)
@_speed(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Make segments of the video side by side, in N processes on all GPUs, or on shares of the cores; see "
    "docs/cluster.md.",
)
@_speed(
    "--cluster",
    metavar="ADDRESS",
    help="Make them on a Ray cluster: auto for the one of this machine, ray://HOST:PORT, HOST:PORT.",
)
@_speed("--storage", type=FILE, metavar="FOLDER", help="Folder that all machines of the cluster see by this name.")
@_files("-y/-n", "--overwrite/--no-overwrite", "overwrite", help="Replace OUTPUT if it exists.  [default: no]")
@_files("--output-dir", type=FILE, help="Write the outputs of several inputs, or of a folder, into this folder.")
@_files(
    "--recursive", "-R", is_flag=True, help="Take folders inside an INPUT folder, too; they are kept in --output-dir."
)
@_files("--suffix", metavar="TEXT", help="Add this to the names of the outputs in --output-dir: _4x.")
@_files(
    "--container", metavar="NAME", help="Container of the videos in --output-dir: mkv ...  [default: as each input]"
)
@_files(
    "--resume/--no-resume",
    default=None,
    help="Keep what is done when the job is stopped, and go on from there with the same command; --no-resume starts "
    "anew.  [default: --resume for jobs of more than ten minutes]",
)
@_files("--strict", is_flag=True, help="Fail, rather than warn, where OUTPUT cannot hold a part of INPUT.")
@_files(
    "--verify/--no-verify",
    default=True,
    help="Read OUTPUT back and compare its frames, timestamps and streams with INPUT's.  [default: --verify]",
)
@_files("--report", type=FILE, help="Write the figures of the job to this file, as JSON.")
@_files("--reference", type=FILE, help="Sharp original, to which the report gives every frame's PSNR.")
@_messages("--dry-run", is_flag=True, help="Say what would be done, how long it might take, and how large it gets.")
@_messages("--quiet", is_flag=True, help="Print errors only.")
@_messages("--verbose", is_flag=True, help="Print versions and what INPUT is, too; -v debug does the same.")
@_messages("--log", metavar="FILE", type=FILE, help="Append notes, progress and errors, with their times, to FILE.")
@_messages(
    "--progress",
    type=click.Choice(["bar", "json", "none"]),
    default="bar",
    show_default=True,
    help="Show progress on stderr as a bar, as one JSON object a line, or not at all.",
)
@_messages(
    "--progress-to", "-progress", metavar="FILE", help="Also write ffmpeg's key=value progress to FILE, '-' or pipe:N."
)
def enhance(
    files: tuple[Path, ...],
    output_dir: Path | None,
    suffix: str | None,
    container: str | None,
    recursive: bool,
    dry_run: bool,
    **values: Any,
) -> int | None:
    """Upscale a video to a video, or an image to an image.

    INPUT and OUTPUT are files; '-' is stdin or stdout. A numbered pattern (%06d.png), a glob pattern ('*.png') or a
    folder of images stands for a video of these frames.

    Frames, timestamps, audio, subtitles, chapters, colour and metadata stay those of INPUT. What OUTPUT cannot hold
    is named in a warning.

    With --output-dir, every INPUT, and every video and image in a folder, is written there under its own name. Those
    that exist already are skipped; one that fails does not stop the others, and the exit code is then that of the
    first failure.

    A line of ffmpeg works with 'ffmpeg' replaced by 'vsr enhance', as far as vsr does the same: -i, -c:v, -c:a, -an,
    -sn, -map, -ss, -to, -t, -f, -r, -tune, -b:v, -loglevel, -progress and others. Options that vsr lacks are refused.
    """
    stop_if_interrupted()
    _check_files(files, output_dir, suffix, container)
    printer = _printer(values, files)
    printer.wait("vsr: loading ...")
    log, is_verbose = values.pop("log"), values.pop("verbose")
    asked = (values.pop("workers"), values.pop("cluster"), values.pop("storage"))
    workers = Workers(*asked, values["device"], values["backend"])
    many = None if output_dir is None else (output_dir, suffix or "", container, recursive)
    with workers, LogFile(log) if log is not None else nullcontext() as printer.log:
        try:
            if many is None:
                check_exist(files[:1])
            check_ranges(values)  # at once: importing PyTorch takes seconds
            if is_verbose:
                _introduce(printer, files, output_dir)
            return _enhance_all(printer, workers, files, many, dry_run, values)
        finally:
            printer.end()


def _introduce(printer: ProgressPrinter, files: Sequence[Path], output_dir: Path | None) -> None:
    """Print the versions, and what each input is."""
    from vsr.cli.info import describe_file

    printer.note(Note(NoteCode.INPUT, describe_versions()))
    for file in files if output_dir is not None else files[:1]:
        if file.is_file():
            for line in describe_file(file).splitlines():
                printer.note(Note(NoteCode.INPUT, line))


def _enhance_all(
    printer: ProgressPrinter,
    workers: Workers,
    files: Sequence[Path],
    many: tuple[Path, str, str | None, bool] | None,
    dry_run: bool,
    values: dict[str, Any],
) -> int | None:
    """Enhance one file or several. many: folder, suffix, container and depth of several outputs; None for one."""
    from vsr.jobs.batch import enhance_each, make_folder, name_outputs
    from vsr.jobs.model_cache import ModelCache

    take_purpose(values, printer.note)
    options = _job_options(values)
    if many is not None and (options.policy.report is not None or options.policy.reference is not None):
        raise OptionError("`report` and `reference`: are of one file; name one INPUT and one OUTPUT")
    models = ModelCache()
    enhance_one = partial(_describe_one, printer) if dry_run else partial(_enhance_one, printer, workers, models)
    if many is None:
        source, output = files
        enhance_one(source, output, options)
        return None
    output_dir, suffix, container, recursive = many
    named = name_outputs(files, output_dir, suffix, container, recursive=recursive)
    if not dry_run:
        make_folder(output_dir)
        enhance_one = partial(_make_folder_first, enhance_one)
    if workers.are_wanted and not dry_run:
        outcome = workers.enhance_each(named, options, models, printer)
    else:
        outcome = enhance_each(named, options, enhance_one, models, note=printer.note, complain=printer.complain)
    if not dry_run:
        printer.summary(outcome)
    return outcome.exit_code


def _make_folder_first(
    enhance_one: Callable[[Path, Path, JobOptions], None], source: Path, output: Path, options: JobOptions
) -> None:
    """Enhance a file of a folder inside a folder, whose output needs one as well."""
    from vsr.jobs.batch import make_folder

    make_folder(output.parent)
    enhance_one(source, output, options)


def _describe_one(printer: ProgressPrinter, source: Path, output: Path, options: JobOptions) -> None:
    from vsr.jobs.dry_run import describe_job

    printer.close()
    describe_job(source, output, options, lambda line: click.echo(as_typed(line)))


def _enhance_one(
    printer: ProgressPrinter, workers: Workers, models: ModelCache, source: Path, output: Path, options: JobOptions
) -> None:
    try:
        report = workers.enhance_file(
            source, output, options, note=printer.note, on_progress=printer.update, models=models
        )
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
    """Make the printer of the job's messages; take its options out of all values."""
    quiet, style, target = values.pop("quiet"), values.pop("progress"), values.pop("progress_to")
    if target in _STDOUT and files[-1] == Path("-"):
        raise OptionError(f"-progress {target}: OUTPUT goes to stdout; write the progress to a file or pipe:2")
    ffmpeg = None if target is None else FfmpegProgress(target)
    return ProgressPrinter("none" if quiet else style, quiet, ffmpeg)


def _job_options(values: dict[str, Any]) -> JobOptions:
    """Sort the values of the command line, which have the names of the job's options."""
    from vsr.jobs.options import JobOptions

    start, end = values["start_seconds"], values.pop("to")
    if values["duration_seconds"] is None and end is not None:
        duration: Fraction = end - (start or Fraction(0))
        if duration <= 0:
            raise OptionError(f"-to {float(end):g}: must lie after -ss {float(start or 0):g}")
        values["duration_seconds"] = duration
    return JobOptions.of(**values)
