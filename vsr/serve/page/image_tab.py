"""The tab that enlarges one image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from vsr.media.images import encode_image
from vsr.serve.page.choices import AUTO, SCALES, ModelForImage, choose_for_image, image_models
from vsr.serve.page.markup import markup
from vsr.serve.page.parts import PageParts
from vsr.serve.page.words import download, error_text, message, shown_bytes, shown_seconds, viewer

__all__ = ["add_image_tab", "result_name", "saved"]

_HINT = "Drop an image above, or press the field and choose one. PNG, JPEG, WebP, TIFF, GIF and BMP are read."


def add_image_tab(parts: PageParts) -> None:
    """Add the fields of the tab, and what they do."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            file = gr.File(label="Image", height=150, elem_id="image-file")
            model = gr.Dropdown(image_models(), value=AUTO, label="Model", elem_id="image-model")
            scale = gr.Radio([(f"×{each}", each) for each in SCALES], value=4, label="Enlarge", elem_id="image-scale")
            button = gr.Button("Enlarge the image", variant="primary", elem_id="image-run")
            status = markup(message(_HINT), elem_id="image-status")
        with gr.Column(scale=2, min_width=320):
            result = markup(_placeholder("Before and after are shown here."), elem_id="image-result")

    def describe(path: str | None, model: str, scale: int) -> str:
        if path is None:
            return message(_HINT)
        try:
            image = parts.decode(Path(path))
            choice = choose_for_image(model, scale, image.shape[1], image.shape[0])
        except Exception as error:
            return message(error_text(error, {Path(path): Path(path).name}), "error")
        return message(_sizes(image, choice) + _reason(choice))

    def enlarge(path: str | None, model: str, scale: int) -> tuple[str, object]:
        if path is None:
            return message("Choose an image first.", "error"), gr.skip()
        try:
            return _enlarged(parts, Path(path), model, scale)
        except Exception as error:
            return message(error_text(error, {Path(path): Path(path).name}), "error"), gr.skip()

    fields: list[Any] = [file, model, scale]
    for field in fields:
        field.change(describe, fields, status, show_progress="hidden", api_visibility="private")
    button.click(
        enlarge, fields, [status, result], show_progress_on=result, concurrency_limit=4, api_visibility="private"
    )


def saved(parts: PageParts, image: np.ndarray, name: str) -> Path:
    """Write an image as PNG to a file of the page's own."""
    path = parts.files.new(name)
    path.write_bytes(encode_image(image, path))
    return path


def result_name(path: Path, scale: int, model: str = "") -> str:
    """Name the result of an upload, as it is saved: photo_x4.png."""
    return f"{path.stem}{'_' if model else ''}{model}_x{scale}.png"


def _enlarged(parts: PageParts, path: Path, model: str, scale: int) -> tuple[str, str]:
    began = time.perf_counter()
    image = parts.decode(path)
    choice = choose_for_image(model, scale, image.shape[1], image.shape[0])
    upscaled = parts.images.upscale(image, choice.name, scale)
    seconds = time.perf_counter() - began
    after = saved(parts, upscaled, result_name(path, scale))
    before = saved(parts, image, "before.png")
    words = f"{_sizes(image, choice)} in {shown_seconds(seconds)}"
    address = parts.files.address(after, kind="image/png")
    link = download(address, after.name, f"Download PNG ({shown_bytes(after.stat().st_size)})")
    labels = ("original", f"{choice.name} ×{scale}")
    shown = viewer("image", parts.files.address(before, kind="image/png"), address, labels)
    return message(words + _reason(choice), "done") + link, shown


def _sizes(image: np.ndarray, choice: ModelForImage) -> str:
    return f"{image.shape[1]}×{image.shape[0]} → {choice.size[0]}×{choice.size[1]} pixels"


def _reason(choice: ModelForImage) -> str:
    return f" · {choice.name}{f', {choice.why}' if choice.why else ''}"


def _placeholder(text: str) -> str:
    return f'<div class="vsr-placeholder">{text}</div>'
