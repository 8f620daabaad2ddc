"""Put the page together, and mount it on the service."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from vsr.serve.page.compare_tab import add_compare_tab
from vsr.serve.page.image_tab import add_image_tab
from vsr.serve.page.markup import markup
from vsr.serve.page.parts import PageParts
from vsr.serve.page.sections import Tab, add_tabs
from vsr.serve.page.video_tab import add_video_tab, make_job_state

__all__ = ["mount_blocks"]

_HERE = Path(__file__).parent
_TITLE = "vsr: sharper images and videos"
_MOTTO = "Sharper, larger images and videos. Nothing else of them is lost."
_HEAD = f'<div class="vsr-head"><h1>vsr</h1><p>{_MOTTO}</p></div>'
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")
_SCRIPTS = ("viewer.js", "tabs.js")
_KEPT_SECONDS = 24 * 3600  # of uploads that no job has taken; they are looked through every hour
_ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_OFFLINE": "1"}


def mount_blocks(app: FastAPI, parts: PageParts, uploads: Path, most_bytes: int, more_tabs: Sequence[Tab] = ()) -> None:
    """Mount the page at "/", after all other routes.

    Args:
        app: The service.
        parts: What the page works with.
        uploads: Private folder for files that browsers send to the page.
        most_bytes: Of one such file.
        more_tabs: Titles of tabs that come first, and what adds their fields.
    """
    uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Gradio reads these when its components are made; it has no arguments for them.
    os.environ.update(_ENVIRONMENT, GRADIO_TEMP_DIR=str(uploads))
    gr.mount_gradio_app(
        app,
        _build(parts, more_tabs),
        path="/",
        footer_links=[],
        show_error=False,
        max_file_size=most_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        theme=_theme(),
        css_paths=[_HERE / "style.css"],
        head="".join(f"<script>{(_HERE / name).read_text('utf-8')}</script>" for name in _SCRIPTS),
    )


def _build(parts: PageParts, more_tabs: Sequence[Tab]) -> gr.Blocks:
    blocks: gr.Blocks
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, _KEPT_SECONDS)) as blocks:
        markup(_HEAD)
        job = make_job_state()
        tabs: list[Tab] = [
            ("Image", lambda: add_image_tab(parts)),
            ("Video", lambda: add_video_tab(parts, blocks, job)),
            ("Compare", lambda: add_compare_tab(parts)),
        ]
        add_tabs([*more_tabs, *tabs])
    blocks.queue(api_open=False, default_concurrency_limit=8)
    return blocks


def _theme() -> gr.Theme:
    """Choose colours of enough contrast, and fonts that the system has: the page asks no other server for anything."""
    return gr.themes.Base(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=_FONT, font_mono=_MONO
    ).set(
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )
