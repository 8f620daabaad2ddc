"""Show markup of our own on the page."""

from __future__ import annotations

import gradio as gr

__all__ = ["Markup", "markup"]

Markup = gr.Markdown


def markup(value: str, *, elem_id: str | None = None) -> Markup:
    """Make a field for HTML that is trusted: all that users write in it was escaped.

    gr.HTML evaluates its template as a script, which the page's security policy does not allow; Markdown passes HTML
    through as it is, up to the first blank line.
    """
    return gr.Markdown(value, elem_id=elem_id, sanitize_html=False, latex_delimiters=[], elem_classes="vsr-markup")
