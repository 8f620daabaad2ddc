"""The tab of the window: files by path, a queue, a watched folder."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from vsr.serve.job_store import JobState
from vsr.serve.page.choices import AUTO, SCALES, image_models, video_models
from vsr.serve.page.markup import markup
from vsr.serve.page.sections import folded
from vsr.serve.page.words import error_text, message, shown_seconds
from vsr.serve.window.queue import Entry, EntryState, FileQueue, QueueOptions
from vsr.serve.window.watch import FolderWatch

__all__ = ["QueueTab"]

_HINT = "Name files or folders by their paths. They are read where they lie, and nothing is replaced."
_EVERY_SECONDS = 1.0


class QueueTab:
    """The tab, and the folder that is watched for it."""

    def __init__(self, queue: FileQueue, choose: Callable[[], list[str]] | None, quit_app: Callable[[], None]) -> None:
        """choose: asks for files by the system's dialog; None where there is none.  quit_app: ends the application."""
        self._queue, self._choose, self._quit = queue, choose, quit_app
        self._watch: FolderWatch | None = None
        self.options = QueueOptions()  # for files that are dropped on the window

    def close(self) -> None:
        """End the watching of a folder."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def add(self) -> None:
        """Add the fields of the tab, and what they do."""
        models = list(dict.fromkeys([*image_models(), *video_models()]))
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                paths = gr.Textbox(label="Files and folders, a line each", lines=3, elem_id="queue-paths")
                pick = gr.Button("Choose files …", visible=self._choose is not None)
                model = gr.Dropdown(models, value=AUTO, label="Model", elem_id="queue-model")
                scale = gr.Radio([(f"×{n}", n) for n in SCALES], value=4, label="Enlarge", elem_id="queue-scale")
                folder = gr.Textbox(
                    label="Folder of the results", placeholder="beside each file", elem_id="queue-folder"
                )
                add = gr.Button("Add to the queue", variant="primary", elem_id="queue-add")
                with folded("Watch a folder", "queue-watching"):
                    watched = gr.Textbox(label="Folder whose new files are added", elem_id="queue-watched")
                    watch = gr.Checkbox(label="Watch it", value=False, elem_id="queue-watch")
            with gr.Column(scale=2, min_width=320):
                status = markup(message(_HINT), elem_id="queue-status")
                table = markup(self._table(), elem_id="queue-table")
                with gr.Row():
                    names = ("Pause", "Go on", "Cancel all", "Clear finished", "Quit")
                    buttons = [
                        gr.Button(name, size="md", min_width=90, elem_id=f"queue-{name.split()[0].lower()}")
                        for name in names
                    ]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        chosen: list[Any] = [model, scale, folder]
        add.click(self._add, [paths, *chosen], [status, paths, table], **quiet)
        watch.change(self._set_watch, [watch, watched, *chosen], [status, watch], **quiet)
        for field in chosen:
            field.change(self._remember, chosen, None, **quiet)
        pick.click(lambda old: "\n".join([*filter(None, [old]), *(self._choose or list)()]), paths, paths, **quiet)
        acts = (self._queue.pause, lambda: self._queue.pause(go_on=True), self._queue.cancel, self._queue.clear)
        for button, act in zip(buttons, (*acts, self._quit), strict=True):
            button.click(lambda act=act: act() or self._table(), None, table, **quiet)
        gr.Timer(_EVERY_SECONDS).tick(self._table, None, table, **quiet)

    def _add(self, paths: str, model: str, scale: int, folder: str) -> tuple[str, str, str]:
        listed = [Path(line.strip().strip('"')) for line in (paths or "").splitlines() if line.strip()]
        if not listed:
            return message("Name a file first.", "error"), paths, self._table()
        try:
            number = self._queue.add(listed, _options(model, scale, folder))
        except Exception as error:
            return message(error_text(error, {path: str(path) for path in listed}), "error"), paths, self._table()
        return message(f"{number} file{'s' if number != 1 else ''} added.", "done"), "", self._table()

    def _remember(self, model: str, scale: int, folder: str) -> None:
        self.options = _options(model, scale, folder)

    def _set_watch(self, is_on: bool, watched: str, model: str, scale: int, folder: str) -> tuple[str, bool]:
        self.close()
        if not is_on:
            return message("No folder is watched."), False
        options = _options(model, scale, folder)
        try:
            self._watch = FolderWatch(Path(watched or "."), lambda path: self._take(path, options))
        except Exception as error:
            return message(error_text(error), "error"), False
        return message(f"New files in {self._watch.folder} are added to the queue.", "done"), True

    def _take(self, path: Path, options: QueueOptions) -> None:
        try:
            self._queue.add([path], options)
        except Exception as error:
            error_text(error)  # into the log: a file that has gone meanwhile must not end the watching

    def _table(self) -> str:
        entries = self._queue.entries()
        if not entries:
            return '<div class="vsr-placeholder">The queue is empty.</div>'
        rows = "".join(f"<tr><td>{escape(Path(e.path).name)}</td><td>{self._state(e)}</td></tr>" for e in entries)
        return f'<table class="vsr-table"><tr><th>File</th><th>State</th></tr>{rows}</table>'

    def _state(self, entry: Entry) -> str:
        if entry.state is EntryState.DONE:
            return f"done: {escape(entry.output or '')}"
        if entry.state is EntryState.FAILED:
            return f"failed: {escape(' '.join(entry.text.split()))}"
        record = self._queue.record(entry)
        if record is None or entry.state is not EntryState.RUNNING:
            return escape(entry.state)
        share = f'value="{record.num_frames}" max="{record.num_frames_expected}"' if record.num_frames_expected else ""
        left = f", about {shown_seconds(record.seconds_left)} left" if record.seconds_left else ""
        words = f"{record.num_frames:,} frames{left}" if record.state is JobState.RUNNING else str(record.state)
        return f'<div class="vsr-progress"><progress aria-label="Progress" {share}></progress>{escape(words)}</div>'


def _options(model: str, scale: int, folder: str) -> QueueOptions:
    return QueueOptions(model, scale, str(Path(folder.strip()).expanduser().absolute()) if folder.strip() else None)
