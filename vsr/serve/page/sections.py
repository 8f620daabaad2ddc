"""Divide the page into tabs and folds, all of whose fields are there from the beginning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

import gradio as gr

from vsr.serve.page.markup import markup

__all__ = ["Tab", "add_tabs", "folded"]

Tab = tuple[str, Callable[[], None]]


def add_tabs(tabs: Sequence[Tab]) -> None:
    """Add a row of tabs, of which the first is shown.

    tabs.js shows and hides them; gr.Tab builds its fields late and can lose a file that is chosen at once.

    Args:
        tabs: Title of each, and the call that adds its fields.
    """
    panels = [f"panel-{title.lower()}" for title, _ in tabs]
    listed = json.dumps([{"label": title, "panel": panel} for (title, _), panel in zip(tabs, panels, strict=True)])
    markup(f'<vsr-tabs tabs="{escape(listed)}"></vsr-tabs>')
    for (_, add), panel in zip(tabs, panels, strict=True):
        with gr.Column(elem_id=panel, elem_classes="vsr-panel"):
            add()


@contextmanager
def folded(title: str, name: str) -> Iterator[None]:
    """Fold the fields that are added within; a button with the title shows them.

    Args:
        title: Of the button.
        name: Unique on the page, of letters, digits and hyphens.
    """
    markup(f'<vsr-fold panel="{name}">{escape(title)}</vsr-fold>')
    with gr.Column(elem_id=name):
        yield
