"""Show a running job to a person or a script; everything goes to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import click

from vsr.cli.spelling import as_typed
from vsr.errors import OptionError, OutputError, reason
from vsr.events import Note, NoteCode

if TYPE_CHECKING:
    from vsr.cli.log import LogFile
    from vsr.events import Progress
    from vsr.jobs.batch import Outcome
    from vsr.jobs.report import JobReport

__all__ = ["FfmpegProgress", "ProgressPrinter"]

_REFRESH_SECONDS = 0.2
_FFMPEG_REFRESH_SECONDS = 0.5  # ffmpeg's own -stats_period
_BAR_WIDTH = 24
_SHORTEST_BAR = 6
_WIDTH_OF_FILES = 100  # columns of lines that go to a file
_MOST_RETRIED_NAMED = 3


class ProgressPrinter:
    """Prints notes, progress and the summary.

    style: "bar" for a line that is rewritten (a line now and then where stderr is no terminal),
        "json" for one JSON object a line, "none" for notes and the summary alone.
    ffmpeg: what also writes the progress, for a program that reads ffmpeg's.
    """

    def __init__(
        self, style: Literal["bar", "json", "none"], quiet: bool, ffmpeg: FfmpegProgress | None = None
    ) -> None:
        self._style, self._quiet, self._ffmpeg = style, quiet, ffmpeg
        self._is_terminal = sys.stderr.isatty()
        self._last_shown = 0.0
        self._is_open = self._is_passing = False
        self._model = ""
        self._files: dict[Path, Progress] = {}  # of several files, by their inputs
        self.log: LogFile | None = None

    def note(self, line: str) -> None:
        """Print a note, unless errors alone are wanted; in JSON with its code. Of several files, a model once."""
        code = getattr(line, "code", None)
        if self.log is not None:
            self.log.write(as_typed(line))
        if code == NoteCode.MODEL and self._style == "bar":
            model = line.partition(" (")[0]
            if model == self._model:
                return
            self._model = model
        if not self._quiet:
            self._print_line({"event": "note", "code": code}, line)

    def complain(self, line: str) -> None:
        """Print an error that does not end the run; also where only errors are wanted."""
        if self.log is not None:
            self.log.write(f"error: {as_typed(line)}")
        self._print_line({"event": "error"}, line)

    def _print_line(self, event: dict[str, object], line: str) -> None:
        self.close()
        text = as_typed(line)
        if self._style == "json":
            self._print_json({**event, "text": text})
        else:
            click.echo(f"vsr: {text}", err=True)

    def update_one(self, source: Path, progress: Progress) -> None:
        """Show one of several files that are worked on side by side: by itself in JSON, and all that were begun."""
        before = self._files.get(source)
        self._files[source] = progress
        if self._style == "json" and (before is None or progress.num_frames != before.num_frames):
            self._print_json({"event": "file", "file": str(source), **_counts(progress)})
        self.update(_sum([*self._files.values()]))

    def update(self, progress: Progress) -> None:
        if self._ffmpeg is not None:
            self._ffmpeg.update(progress)
        if self.log is not None:
            self.log.write_progress(_bar(progress, _WIDTH_OF_FILES))
        now = time.monotonic()
        interval = _REFRESH_SECONDS if self._is_terminal or self._style == "json" else 10.0
        if self._style == "none" or now - self._last_shown < interval:
            return
        self._last_shown = now
        if self._style == "json":
            self._print_json({"event": "progress", **_counts(progress)})
        elif self._is_terminal:
            self._rewrite(_bar(progress, shutil.get_terminal_size().columns - 1))
        else:
            click.echo(_bar(progress, _WIDTH_OF_FILES), err=True)

    def wait(self, text: str) -> None:
        """Show on a terminal what is waited for, until the next line takes its place."""
        if self._is_terminal and self._style == "bar":
            self._rewrite(text)
            self._is_passing = True

    def _rewrite(self, text: str) -> None:
        click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        self._is_open, self._is_passing = True, False

    def close(self) -> None:
        """End a line that is being rewritten; wipe one of `wait`."""
        if self._is_passing:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._is_open = self._is_passing = False
        if self._is_open:
            click.echo("", err=True)
            self._is_open = False

    def summary(self, outcome: Outcome) -> None:
        """Count what was done, skipped and failed of several files; with `quiet`, only if some failed."""
        if self._style == "json":
            self.close()
            self._print_json({"event": "summary", **outcome.by_name()})
        elif outcome.failed:
            self.complain(outcome.summary())
        else:
            self.note(Note(NoteCode.FILES, outcome.summary()))

    def end(self) -> None:
        """After the last file, also where it failed."""
        self.close()
        if self._ffmpeg is not None:
            self._ffmpeg.close()

    def report(self, report: JobReport) -> None:
        if self.log is not None:
            self.log.write(_summary(report))
        if self._quiet:
            return
        if self._style == "json":
            self._print_json({"event": "done", **report.summary()})
        else:
            click.echo(f"vsr: {_summary(report)}", err=True)

    def _print_json(self, values: dict[str, object]) -> None:
        click.echo(json.dumps(values), err=True)


def _counts(progress: Progress) -> dict[str, object]:
    """Give a progress as JSON has it."""
    return {
        "frames": progress.num_frames,
        "frames_expected": progress.num_frames_expected,
        "fps": round(progress.frames_per_second, 3),
        "seconds": round(progress.seconds, 3),
        "seconds_left": None if progress.seconds_left is None else round(progress.seconds_left, 1),
    }


def _sum(parts: list[Progress]) -> Progress:
    """Add up the progress of files that are worked on side by side."""
    from vsr.events import Progress

    expected = [part.num_frames_expected for part in parts]
    return Progress(
        sum(part.num_frames for part in parts),
        None if None in expected else sum(number or 0 for number in expected),
        max(part.seconds for part in parts),
        sum(part.num_frames_before for part in parts),
    )


class FfmpegProgress:
    """Writes how far a job is as `ffmpeg -progress` does: blocks of key=value, each closed by progress=continue|end.

    target: a file, "-" or "pipe:1" for stdout, "pipe:N" for another open file descriptor.
    Raises OptionError for what is neither, OutputError where it cannot be opened. A reader that goes away is no error
    of the job: nothing more is written. Nor is a full disk, which is said on stderr.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._stream: TextIO | None = _progress_stream(target)
        self._last_written = 0.0
        self._progress: Progress | None = None

    def update(self, progress: Progress) -> None:
        self._progress = progress
        now = time.monotonic()
        if now - self._last_written >= _FFMPEG_REFRESH_SECONDS:
            self._last_written = now
            self._write("continue")

    def close(self) -> None:
        """Write the last block, and close what was opened."""
        self._write("end")
        self._end()

    def _write(self, state: Literal["continue", "end"]) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(_ffmpeg_block(self._progress, state))
            self._stream.flush()
        except BrokenPipeError:
            self._stream = None
        except OSError as error:
            self._end()
            click.echo(f"vsr: -progress {self._target}: ends here ({reason(error)})", err=True)

    def _end(self) -> None:
        """Close what was opened."""
        stream, self._stream = self._stream, None
        if stream is not None and stream not in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # what could not be written before is tried once more
                stream.close()


def _progress_stream(target: str) -> TextIO:
    pipe = re.fullmatch(r"pipe:(\d*)", target)
    if target == "-" or (pipe and pipe[1] in ("", "1")):
        return sys.stdout
    if pipe and pipe[1] == "2":
        return sys.stderr
    if re.match(r"[a-z]+://|(tcp|udp|unix|http):", target):
        raise OptionError(f"-progress {target}: vsr writes it to a file, '-' or pipe:N")
    try:
        return os.fdopen(int(pipe[1]), "w") if pipe else Path(target.removeprefix("file:")).open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"-progress {target}: cannot be written ({reason(error)})") from error


def _ffmpeg_block(progress: Progress | None, state: str) -> str:
    """One block, with the keys of ffmpeg that mean something here."""
    frames = progress.num_frames if progress else 0
    fps = progress.frames_per_second if progress else 0.0
    shown = progress.out_seconds if progress else None
    lines = [f"frame={frames}", f"fps={fps:.2f}"]
    if shown is None:
        lines += ["out_time_us=N/A", "out_time_ms=N/A", "out_time=N/A"]
    else:
        microseconds = round(shown * 1_000_000)
        hours, rest = divmod(abs(microseconds), 3_600_000_000)
        minutes, rest = divmod(rest, 60_000_000)
        sign = "-" if microseconds < 0 else ""
        text = f"{sign}{hours:02d}:{minutes:02d}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}"
        lines += [f"out_time_us={microseconds}", f"out_time_ms={microseconds}", f"out_time={text}"]
    # Of this run alone, where an earlier one has done a part of the frames.
    speed = f"{shown / frames * fps:.3g}x" if shown is not None and frames else "N/A"
    lines += ["dup_frames=0", "drop_frames=0", f"speed={speed}", f"progress={state}"]
    return "\n".join(lines) + "\n"


def _summary(report: JobReport) -> str:
    """Describe a job that is done, in a line."""
    busy = sum(report.stage_seconds.values()) or 1.0
    shares = ", ".join(f"{name} {seconds / busy:.0%}" for name, seconds in report.stage_seconds.items())
    fps = report.num_frames / report.seconds if report.seconds else 0.0
    return (
        f"{report.output}: {report.num_frames} frame{'s' if report.num_frames != 1 else ''} at "
        f"{report.width}x{report.height} in {report.seconds:.1f} s ({fps:.1f} fps)"
        + (f"; time: {shares}" if shares else "")
        + _reused(report)
        + _retried(report)
        + ("" if report.mean_psnr_db is None else f"; {report.mean_psnr_db:.2f} dB against the reference")
        + f"; {report.model} on {report.engine}"
    )


def _reused(report: JobReport) -> str:
    if not report.reused_share:
        return ""
    return f"; reused {report.reused_share:.0%} of {report.num_frames:,} frames' pixels"


def _retried(report: JobReport) -> str:
    """Name the first few segments that were made again, with reasons; the report file has all."""
    if not report.retried:
        return ""
    named = ", ".join(str(each) for each in report.retried[:_MOST_RETRIED_NAMED])
    num_more = len(report.retried) - _MOST_RETRIED_NAMED
    return f"; made again: {named}" + (f" and {num_more} more" if num_more > 0 else "")


def _bar(progress: Progress, width: int) -> str:
    """Draw how far a job is in a line of so many columns: a bar as long as fits, frames, their rate, the time left."""
    fps, expected = f"{progress.frames_per_second:.1f} fps", progress.num_frames_expected
    if not expected or progress.seconds_left is None:
        return f"{progress.num_frames} frame{'s' if progress.num_frames != 1 else ''}  {fps}"[:width]
    share = min(1.0, progress.num_frames / expected)
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    counts = f"{progress.num_frames} of {expected} frame{'s' if expected != 1 else ''}"
    text = f" {share:4.0%}  {counts}  {fps}  {left} left"
    length = min(_BAR_WIDTH, width - len(text))
    if length < _SHORTEST_BAR:
        return f"{share:.0%}  {progress.num_frames} of {expected}  {left} left"[:width]
    filled = round(share * length)
    return "█" * filled + "░" * (length - filled) + text
