"""The tab that shows one image by several models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import gradio as gr

from vsr.serve.page.choices import AUTO, CLASSIC, SCALES, choose_for_image, image_models
from vsr.serve.page.image_tab import result_name, saved
from vsr.serve.page.markup import markup
from vsr.serve.page.parts import PageParts
from vsr.serve.page.words import download, error_text, message, shown_bytes, shown_seconds

__all__ = ["add_compare_tab", "choices_viewer"]

_MOST_MODELS = 6
_HINT = "Choose two models or more; any two of the results can then be laid over each other."


def add_compare_tab(parts: PageParts) -> None:
    """Add the fields of the tab, and what they do."""
    models = [(name, name) for _, name in image_models() if name not in (AUTO, CLASSIC)]
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            file = gr.File(label="Image", height=150, elem_id="compare-file")
            chosen = gr.CheckboxGroup(models, value=["fast", "srgan"], label="Models", elem_id="compare-models")
            scale = gr.Radio([(f"×{each}", each) for each in SCALES], value=4, label="Enlarge", elem_id="compare-scale")
            button = gr.Button("Compare the models", variant="primary", elem_id="compare-run")
            status = markup(message(_HINT), elem_id="compare-status")
        with gr.Column(scale=2, min_width=320):
            result = markup('<div class="vsr-placeholder">The results are shown here.</div>', elem_id="compare-result")

    def compare(path: str | None, models: list[str], scale: int) -> Iterator[tuple[object, object]]:
        if path is None or not models:
            yield message("Choose an image first." if path is None else "Choose a model or more.", "error"), gr.skip()
            return
        if len(models) > _MOST_MODELS:
            yield message(f"Choose {_MOST_MODELS} models at most; these are {len(models)}.", "error"), gr.skip()
            return
        try:
            yield from _compared(parts, Path(path), models, scale)
        except Exception as error:
            yield message(error_text(error, {Path(path): Path(path).name}), "error"), gr.skip()

    button.click(
        compare,
        [file, chosen, scale],
        [status, result],
        show_progress_on=status,
        concurrency_limit=2,
        api_visibility="private",
    )


def _compared(parts: PageParts, path: Path, models: list[str], scale: int) -> Iterator[tuple[object, object]]:
    """Yield the status after each model, and the viewer once all are done."""
    image = parts.decode(path)
    before = parts.files.address(saved(parts, image, "before.png"), kind="image/png")
    choices, rows = [("original", before)], []
    for number, model in enumerate(models, 1):
        yield message(f"{model} ({number} of {len(models)}) …"), gr.skip()
        began = time.perf_counter()
        choice = choose_for_image(model, scale, image.shape[1], image.shape[0])
        upscaled = parts.images.upscale(image, choice.name, scale)
        seconds = time.perf_counter() - began
        file = saved(parts, upscaled, result_name(path, scale, choice.name))
        address = parts.files.address(file, kind="image/png")
        choices.append((choice.name, address))
        link = download(address, file.name, f"PNG, {shown_bytes(file.stat().st_size)}")
        rows.append(f"<tr><td>{escape(choice.name)}</td><td>{shown_seconds(seconds)}</td><td>{link}</td></tr>")
    head = "<tr><th>Model</th><th>Time</th><th>Download</th></tr>"
    table = f'<table class="vsr-table">{head}{"".join(rows)}</table>'
    shown = choices_viewer(choices)
    height, width = image.shape[:2]
    words = f"{len(models)} models, {width}×{height} → {width * scale}×{height * scale} pixels"
    yield message(words, "done"), f"{shown}{table}"


def choices_viewer(choices: Sequence[tuple[str, str]]) -> str:
    """Make a viewer in which both sides are chosen from a list of labels and addresses; the last two come first."""
    listed = escape(json.dumps([{"label": label, "address": address} for label, address in choices]))
    left, right = max(0, len(choices) - 2), len(choices) - 1
    return f'<vsr-viewer kind="image" choices="{listed}" left="{left}" right="{right}"></vsr-viewer>'
