"""Show finished videos of the page: the player, the download, and the quality of every frame."""

from __future__ import annotations

from pathlib import Path

from vsr.jobs.job import Job
from vsr.serve.job_store import JobRecord, JobState
from vsr.serve.page.curve import curve
from vsr.serve.page.parts import PageParts
from vsr.serve.page.playable import browser_copy, frame_psnrs, playable_kind
from vsr.serve.page.words import download, error_text, message, shown_bytes, viewer

__all__ = ["finished_video", "quality_plot"]


def finished_video(parts: PageParts, job_id: str) -> tuple[str, str]:
    """Return the words and the player of a job that has ended."""
    record = parts.jobs.get(job_id)
    if record.state is JobState.FAILED:
        return message(record.error or "The job failed.", "error"), _nothing("There is no result.")
    if record.state is not JobState.DONE:
        return message("Cancelled; nothing was kept of it."), _nothing("There is no result.")
    result = parts.jobs.result(job_id)
    name = f"{Path(record.name).stem}_{'preview' if record.preview_seconds else 'upscaled'}{result.suffix}"
    link = download(parts.files.address(result, name), name, f"Download ({shown_bytes(result.stat().st_size)})")
    words = f"{record.model}: {record.num_frames:,} frames at {record.width}×{record.height}"
    return message(words, "done") + link, _player(parts, record, result)


def _player(parts: PageParts, record: JobRecord, result: Path) -> str:
    """Lay the source, as it is, and the result over each other: both as they are where a browser plays them."""
    source = parts.jobs.source(record.id)
    start, seconds = _part(record)
    try:
        if start is not None or seconds is not None or playable_kind(source) is None:
            before = parts.files.new("before.mp4")
            browser_copy(source, before, start_seconds=start, duration_seconds=seconds, demuxer=record.video["demuxer"])
        else:
            before = source
        after = result
        if playable_kind(result) is None:
            after = parts.files.new("after.mp4")
            browser_copy(result, after)
    except Exception as error:
        return message(f"The result is there to download, but cannot be played here. {error_text(error)}", "error")
    labels = ("original", f"{record.model}")
    addresses = [parts.files.address(path, f"{side}.mp4", playable_kind(path)) for side, path in
                 (("before", before), ("after", after))]  # fmt: skip
    return viewer("video", addresses[0], addresses[1], labels)


def _part(record: JobRecord) -> tuple[float | None, float | None]:
    """Return start and length in seconds of the part that a job has upscaled; None for those of the video."""
    if record.job is None:
        return None, None
    options = Job.from_json(record.job).input
    start, seconds = options.start_seconds, options.duration_seconds
    return (None if start is None else float(start)), (None if seconds is None else float(seconds))


def quality_plot(parts: PageParts, job_id: str, reference: Path) -> str:
    """Measure a finished job's result against the sharp original, and draw the PSNR of every frame."""
    record = parts.jobs.get(job_id)
    if record.state is not JobState.DONE:
        return ""
    try:
        found = frame_psnrs(parts.jobs.result(job_id), reference)
    except Exception as error:
        return message(f"It cannot be measured. {error_text(error, {reference: reference.name})}", "error")
    return curve([(each.seconds, each.psnr_db) for each in found], "Luma PSNR of every frame", ("time in s", "dB"))


def _nothing(text: str) -> str:
    return f'<div class="vsr-placeholder">{text}</div>'
