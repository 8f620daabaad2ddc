"""What a person, or a script, sees of a running job; everything goes to stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from vsr.pipeline.job import JobReport, Progress

__all__ = ["ProgressPrinter"]

_REFRESH_SECONDS = 0.2
_BAR_WIDTH = 24


class ProgressPrinter:
    """Prints notes, progress and the summary.

    style: "bar" for a line that is rewritten (a line now and then where stderr is no terminal),
        "json" for one JSON object a line, "none" for notes and the summary alone.
    """

    def __init__(self, style: Literal["bar", "json", "none"], quiet: bool) -> None:
        self._style, self._quiet = style, quiet
        self._is_terminal = sys.stderr.isatty()
        self._last_shown = 0.0
        self._is_open = False

    def note(self, line: str) -> None:
        if self._quiet:
            return
        self.close()
        if self._style == "json":
            self._print_json({"event": "note", "text": line})
        else:
            click.echo(f"vsr: {line}", err=True)

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        interval = _REFRESH_SECONDS if self._is_terminal or self._style == "json" else 10.0
        if self._style == "none" or now - self._last_shown < interval:
            return
        self._last_shown = now
        if self._style == "json":
            self._print_json(
                {
                    "event": "progress",
                    "frames": progress.num_frames,
                    "frames_expected": progress.num_frames_expected,
                    "fps": round(progress.frames_per_second, 3),
                    "seconds": round(progress.seconds, 3),
                    "seconds_left": None if progress.seconds_left is None else round(progress.seconds_left, 1),
                }
            )
        elif self._is_terminal:
            click.echo(f"\r\x1b[K{_bar(progress)}", err=True, nl=False)
            self._is_open = True
        else:
            click.echo(_bar(progress), err=True)

    def close(self) -> None:
        """End a line that is being rewritten."""
        if self._is_open:
            click.echo("", err=True)
            self._is_open = False

    def report(self, report: JobReport) -> None:
        if self._quiet:
            return
        busy = sum(report.stage_seconds.values()) or 1.0
        if self._style == "json":
            self._print_json({"event": "done", **report.summary()})
            return
        shares = ", ".join(f"{name} {seconds / busy:.0%}" for name, seconds in report.stage_seconds.items())
        fps = report.num_frames / report.seconds if report.seconds else 0.0
        click.echo(
            f"vsr: {report.output}: {report.num_frames} frame{'s' if report.num_frames != 1 else ''} at "
            f"{report.width}x{report.height} in {report.seconds:.1f} s ({fps:.1f} fps)"
            + (f"; time: {shares}" if shares else "")
            + _reused(report)
            + ("" if report.mean_psnr_db is None else f"; {report.mean_psnr_db:.2f} dB against the reference")
            + f"; {report.model} on {report.engine}",
            err=True,
        )

    def _print_json(self, values: dict[str, object]) -> None:
        click.echo(json.dumps(values), err=True)


def _reused(report: JobReport) -> str:
    if not report.reused_share:
        return ""
    return f"; reused {report.reused_share:.0%} of {report.num_frames:,} frames' pixels"


def _bar(progress: Progress) -> str:
    text = f"{progress.num_frames} frames  {progress.frames_per_second:.1f} fps"
    if progress.num_frames_expected and progress.seconds_left is not None:
        share = min(1.0, progress.num_frames / progress.num_frames_expected)
        filled = round(share * _BAR_WIDTH)
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        text = f"{bar} {share:4.0%}  {text} of {progress.num_frames_expected}  ETA {minutes}:{seconds:02d}"
    return text
