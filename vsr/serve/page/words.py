"""Put things into words and markup for the page: errors, sizes, times, progress."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path

from vsr.errors import OPTION, VsrError
from vsr.serve.errors import public_text
from vsr.serve.job_store import JobRecord, JobState

__all__ = ["download", "error_text", "message", "progress_bar", "shown_bytes", "shown_seconds", "viewer"]

LOGGER = logging.getLogger("vsr.serve")
_FAILED = "Something went wrong on our side; the service's log says what. Try again, or try another file."
_STATES: Mapping[JobState, str] = {
    JobState.QUEUED: "Waiting for its turn",
    JobState.RUNNING: "Upscaling",
    JobState.PAUSING: "Pausing after this segment",
    JobState.PAUSED: "Paused",
    JobState.CANCELLING: "Cancelling",
    JobState.CANCELLED: "Cancelled",
    JobState.DONE: "Done",
    JobState.FAILED: "Failed",
}


def error_text(error: BaseException, names: Mapping[Path, str] | None = None) -> str:
    """Say in plain words why something failed, without folders of this machine.

    Args:
        error: Any error; of one that `vsr` did not raise on purpose, the log has the text.
        names: The name that the user knows a private file by.
    """
    if not isinstance(error, VsrError):
        LOGGER.exception("the page failed", exc_info=error)
        return _FAILED
    text = OPTION.sub(_spelled, public_text(error, names))
    first = text.partition(" ")[0]
    if first.isalpha() and first.islower():  # and not the name of a file
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?")) else ".")


def _spelled(option: object) -> str:
    """Write an option of the library as people read it: `scale=40` as "scale 40"."""
    name, value = option[1].replace("_", " "), option[2]  # type: ignore[index]
    return f"{name} {value}" if value else name


def message(text: str, kind: str = "note") -> str:
    """Make a paragraph of the page. kind: "note", "done" or "error", which a screen reader speaks at once."""
    role, text = "alert" if kind == "error" else "status", " ".join(text.split())
    return f'<p class="vsr-{escape(kind)}" role="{role}">{escape(text)}</p>'


def download(address: str, name: str, text: str) -> str:
    """Make a link that saves a file under a name."""
    return (
        f'<a class="vsr-download" href="{escape(address)}?download=true" download="{escape(name)}">{escape(text)}</a>'
    )


def viewer(kind: str, before: str, after: str, labels: tuple[str, str]) -> str:
    """Make a viewer of two files on both sides of a line. kind: "image" or "video"; before, after: addresses."""
    values = {"kind": kind, "before": before, "after": after, "before-label": labels[0], "after-label": labels[1]}
    attributes = " ".join(f'{name}="{escape(value)}"' for name, value in values.items())
    return f"<vsr-viewer {attributes}></vsr-viewer>"


def progress_bar(record: JobRecord, notes: list[str]) -> str:
    """Show how far a job is: a bar, frames, speed, the time left, and its notes."""
    done, expected = record.num_frames, record.num_frames_expected
    share = f'value="{min(done, expected)}" max="{expected}"' if expected else ""
    is_at_end = record.state is JobState.RUNNING and done > 0 and done == expected
    facts = ["Writing and checking the file" if is_at_end else _STATES[record.state]]
    if done:
        facts.append(f"{done:,} of {expected:,} frames" if expected else f"{done:,} frames")
    if record.state is JobState.RUNNING and not is_at_end:
        if record.frames_per_second:
            facts.append(f"{record.frames_per_second:.3g} frames/s")
        if record.seconds_left is not None:
            facts.append(f"about {shown_seconds(record.seconds_left)} left")
    listed = "".join(f"<li>{escape(' '.join(note.split()))}</li>" for note in notes)
    more = f"<details><summary>Notes ({len(notes)})</summary><ul>{listed}</ul></details>" if notes else ""
    return (
        f'<div class="vsr-progress" data-state="{record.state}"><progress aria-label="Progress" {share}></progress>'
        f'<p role="status">{escape(" · ".join(facts))}</p>{more}</div>'
    )


def shown_seconds(seconds: float) -> str:
    """Write a time: "1.9 s", "48 s", "3:07", "1:02:30"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def shown_bytes(number: int) -> str:
    """Write a number of bytes: "640 kB", "12.3 MB"."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{max(1, round(number / 1e3))} kB"
