"""The tab that upscales a video: a preview first, then the whole, with progress and a player."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from vsr.serve.media_check import check_video
from vsr.serve.page.choices import AUTO, SCALES, video_model, video_models
from vsr.serve.page.markup import Markup, markup
from vsr.serve.page.parts import PageParts
from vsr.serve.page.sections import folded
from vsr.serve.page.video_results import finished_video, quality_plot
from vsr.serve.page.video_watch import buttons_of, watched
from vsr.serve.page.words import error_text, message, shown_seconds

__all__ = ["PREVIEW_SECONDS", "add_video_tab", "make_job_state"]

PREVIEW_SECONDS = 3.0
_HINT = "Drop a video above, or press the field and choose one. MP4, MKV, MOV, WebM, AVI, TS and more are read."
_STORED_AS = "vsr-job"


@dataclass(frozen=True)
class _Fields:
    """The fields of the tab."""

    file: gr.File
    model: gr.Dropdown
    scale: gr.Radio
    container: gr.Radio
    at: gr.Number
    reference: gr.File
    preview: gr.Button
    whole: gr.Button
    pause: gr.Button
    resume: gr.Button
    cancel: gr.Button
    status: Markup
    result: Markup
    plot: Markup
    job: gr.BrowserState

    @property
    def asked(self) -> list[Any]:
        return [self.file, self.model, self.scale, self.container, self.at, self.reference]

    @property
    def shown(self) -> list[Any]:
        return [self.status, self.result, self.plot, self.pause, self.resume, self.cancel, self.job]


def make_job_state() -> gr.BrowserState:
    """Make the place where a browser keeps the id of its job."""
    # The secret guards nothing: it only lets a page find its job again after the service was restarted.
    return gr.BrowserState("", storage_key=_STORED_AS, secret=_STORED_AS)


def add_video_tab(parts: PageParts, blocks: gr.Blocks, job: gr.BrowserState) -> None:
    """Add the fields of the tab, and what they do.

    Args:
        parts: Of the page.
        blocks: The page, which on loading goes on with its job.
        job: As `make_job_state` made it.
    """
    fields = _add_fields(job)
    _add_choice(parts, fields)
    _add_runs(parts, fields, blocks)
    _add_controls(parts, fields)


def _add_fields(job: gr.BrowserState) -> _Fields:
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            file = gr.File(label="Video", height=150, elem_id="video-file")
            model = gr.Dropdown(video_models(), value=AUTO, label="Model", elem_id="video-model")
            scale = gr.Radio([(f"×{each}", each) for each in SCALES], value=4, label="Enlarge", elem_id="video-scale")
            with folded("More options", "video-more"):
                container = gr.Radio(
                    [("MP4", "mp4"), ("MKV (keeps every stream)", "mkv")], value="mp4", label="File of the result"
                )
                at = gr.Number(label="Preview from (seconds)", value=None, minimum=0, elem_id="video-at")
                gr.Markdown("Empty: the most detailed moment.")
                reference = gr.File(label="Sharp original, to measure by (PSNR)", height=150, elem_id="video-reference")
            preview = gr.Button(f"Preview {PREVIEW_SECONDS:.0f} seconds", variant="primary", elem_id="video-preview")
            whole = gr.Button("Upscale the whole video", elem_id="video-run")
        with gr.Column(scale=2, min_width=320):
            status = markup(message(_HINT), elem_id="video-status")
            with gr.Row(elem_classes="vsr-controls"):
                pause = gr.Button("Pause", visible=False, min_width=90, elem_id="video-pause")
                resume = gr.Button("Go on", visible=False, min_width=90, elem_id="video-resume")
                cancel = gr.Button("Cancel", visible=False, min_width=90, variant="stop", elem_id="video-cancel")
            result = markup('<div class="vsr-placeholder">The player comes here.</div>', elem_id="video-result")
            plot = markup("", elem_id="video-plot")
    return _Fields(
        file, model, scale, container, at, reference, preview, whole, pause, resume, cancel, status, result, plot, job
    )


def _add_choice(parts: PageParts, fields: _Fields) -> None:
    """Say what a chosen file is, or why it cannot be used."""

    def describe(path: str | None) -> tuple[str, None]:
        if path is None:
            return message(_HINT), None
        try:
            video = check_video(Path(path), parts.jobs.settings.limits)
        except Exception as error:
            return message(error_text(error, {Path(path): Path(path).name}), "error"), None
        length = f", {shown_seconds(video.seconds)}" if video.seconds else ""
        return message(f"{Path(path).name}: {video.width}×{video.height} pixels{length}"), None

    fields.file.change(
        describe, fields.file, [fields.status, fields.at], show_progress="hidden", api_visibility="private"
    )


def _add_runs(parts: PageParts, fields: _Fields, blocks: gr.Blocks) -> None:
    """Begin a preview or the whole; go on with a job after the page is loaded anew."""
    runs = _Runs(parts)

    async def run_preview(*asked: Any) -> AsyncIterator[Any]:
        async for shown in runs.run(PREVIEW_SECONDS, *asked):
            yield shown

    async def run_whole(*asked: Any) -> AsyncIterator[Any]:
        async for shown in runs.run(None, *asked):
            yield shown

    quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
    fields.preview.click(run_preview, fields.asked, fields.shown, **quiet)
    fields.whole.click(run_whole, fields.asked, fields.shown, **quiet)
    blocks.load(runs.go_on, fields.job, fields.shown, **quiet)


class _Runs:
    """Yields what becomes of the fields of the tab, in the order of `_Fields.shown`, while a job runs."""

    def __init__(self, parts: PageParts) -> None:
        self._parts = parts

    async def run(self, preview: float | None, path: str | None, *asked: Any) -> AsyncIterator[Any]:
        """Submit a job and follow it. preview: seconds; path: of the video; asked: the fields after that."""
        if path is None:
            yield message("Choose a video first.", "error"), *[gr.skip()] * 6
            return
        video, reference = Path(path), asked[-1]
        try:
            job = await asyncio.to_thread(self._submitted, preview, video, *asked[:-1])
        except Exception as error:
            yield message(error_text(error, {video: video.name}), "error"), *[gr.skip()] * 6
            return
        async for shown in self._follow(job, Path(reference) if reference and preview is None else None):
            yield shown

    async def go_on(self, job: str) -> AsyncIterator[Any]:
        """Follow the job that the browser remembers, if there still is one."""
        if not job or all(record.id != job for record in self._parts.jobs.jobs()):
            yield (*[gr.skip()] * 7,)
            return
        async for shown in self._follow(job):
            yield shown

    def _submitted(
        self, preview: float | None, video: Path, model: str, scale: int, container: str, at: float | None
    ) -> str:
        options = {"model": video_model(model, scale), "scale": scale, "container": container}
        if preview is not None:
            options |= {"container": "mp4", "codec": "libx264", "pix_fmt": "yuv420p", "audio": "none"}
            options |= {"start_seconds": at} if at is not None else {}
        return self._parts.jobs.submit(video, options, name=video.name, preview_seconds=preview)

    async def _follow(self, job: str, reference: Path | None = None) -> AsyncIterator[Any]:
        parts = self._parts
        try:
            async for record, bar in watched(parts.jobs, job):
                yield bar, gr.skip(), "", *buttons_of(record.state), job
            words, player = await asyncio.to_thread(finished_video, parts, job)
            yield words, player, "", *buttons_of(None), job
            if reference is not None:
                yield gr.skip(), gr.skip(), message("Measuring every frame …"), *[gr.skip()] * 4
                plot = await asyncio.to_thread(quality_plot, parts, job, reference)
                yield gr.skip(), gr.skip(), plot, *[gr.skip()] * 4
        except Exception as error:
            yield message(error_text(error), "error"), gr.skip(), gr.skip(), *buttons_of(None), gr.skip()


def _add_controls(parts: PageParts, fields: _Fields) -> None:
    def act(name: str) -> Any:
        def of_job(job: str) -> None:
            if not job:
                raise gr.Error("There is no job yet.")
            try:
                getattr(parts.jobs, name)(job)
            except Exception as error:
                raise gr.Error(error_text(error), print_exception=False) from error

        return of_job

    for button, name in ((fields.pause, "pause"), (fields.resume, "resume"), (fields.cancel, "cancel")):
        button.click(act(name), fields.job, None, show_progress="hidden", api_visibility="private")
