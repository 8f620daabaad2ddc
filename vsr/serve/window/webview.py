"""Show an address in a window of the system's web view, by pywebview."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vsr.errors import VsrError
from vsr.serve.window.notify import notify

__all__ = ["WebviewWindow"]

LOGGER = logging.getLogger("vsr.serve")


class WebviewWindow:
    """A window of the system's web view; files that are dropped on it come with their paths."""

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        """size: (width, height) in pixels."""
        self._title, self._size = title, size
        self._window: Any = None

    @staticmethod
    def is_available() -> bool:
        """Tell whether pywebview is installed and finds a web view."""
        if importlib.util.find_spec("webview") is None:
            return False
        logging.getLogger("pywebview").setLevel(logging.CRITICAL)
        try:
            # The name webview.guilib is None until a window is made.
            return importlib.import_module("webview.guilib").initialize() is not None
        except Exception:  # of a library that does not load, or finds no web view
            return False

    def show(self, address: str, on_drop: Callable[[list[Path]], object], ended: threading.Event) -> None:
        """Show an address until the window is closed, or `ended` is set; must be called in the main thread.

        on_drop: called with the paths of files that are dropped on the window.
        """
        import webview

        window = webview.create_window(self._title, address, width=self._size[0], height=self._size[1])
        assert window is not None
        self._window = window
        window.events.loaded += lambda: self._take_drops(on_drop)
        window.events.closed += ended.set
        webview.start(lambda: self._close_when(ended), private_mode=True)

    def choose_files(self) -> list[str]:
        """Ask for files by the system's dialog; return their paths."""
        import webview

        found = self._window.create_file_dialog(webview.FileDialog.OPEN, allow_multiple=True)
        return list(found or ())

    def _close_when(self, ended: threading.Event) -> None:
        ended.wait()
        if not self._window.events.closed.is_set():
            self._window.destroy()

    def _take_drops(self, on_drop: Callable[[list[Path]], object]) -> None:
        from webview.dom import DOMEventHandler

        def dropped(event: dict[str, Any]) -> None:
            files = event.get("dataTransfer", {}).get("files", [])
            paths = [Path(file["pywebviewFullPath"]) for file in files if file.get("pywebviewFullPath")]
            try:
                on_drop(paths)
            except VsrError as error:
                notify("vsr", str(error))

        # The page's own fields take files too: only what falls beside them is for the queue.
        self._window.dom.document.events.drop += DOMEventHandler(dropped, prevent_default=True)
