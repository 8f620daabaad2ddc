"""`vsr app`: the web page in a window of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vsr.cli.options import BACKENDS, PRECISIONS
from vsr.cli.spelling import Command

__all__ = ["app"]

_WINDOWS = ("auto", "webview", "chromium", "browser", "none")


@click.command(cls=Command)
@click.option("--window", default="auto", show_default=True, type=click.Choice(_WINDOWS), help="See docs/page.md.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port on this machine.  [default: any]")
@click.option("--state", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of the queue and its jobs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--backend", default="auto", show_default=True, type=click.Choice(BACKENDS), help="As 'vsr enhance'.")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(PRECISIONS), help="As 'vsr enhance'.")
def app(window: Any, state: Path | None, **values: Any) -> None:
    """Enlarge images and videos in a window: drop files, watch a folder, compare models.

    Nothing leaves this machine. Jobs that are not finished when the window is closed go on when it is opened again.
    """
    import logging

    from vsr.serve.server import bound_threads, check_extra, importing_service, log_to_stderr
    from vsr.serve.settings import Settings, default_state_folder

    check_extra()
    bound_threads(None)
    log_to_stderr(logging.WARNING)
    with importing_service():
        from vsr.serve.window.show import show_window

    settings = Settings(state=state or default_state_folder() / "window", **values)
    show_window(settings, window, lambda address: click.echo(f"vsr: {address}", err=True))
