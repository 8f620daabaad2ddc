"""Show the page in a window of its own: start a service for it alone, open the window, end both together."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_urlsafe
from typing import Literal

import uvicorn

from vsr.errors import OutputError
from vsr.serve.app import make_app
from vsr.serve.page.mount import mount_page, page_parts
from vsr.serve.settings import Settings
from vsr.serve.window.notify import notify
from vsr.serve.window.queue import FileQueue
from vsr.serve.window.queue_tab import QueueTab
from vsr.serve.window.webview import WebviewWindow

__all__ = ["WindowKind", "has_chromium", "show_window"]

LOGGER = logging.getLogger("vsr.serve")
WindowKind = Literal["auto", "webview", "chromium", "browser", "none"]
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "brave-browser")
_SIZE = (1240, 900)
_START_SECONDS = 60


def show_window(settings: Settings, kind: WindowKind = "auto", on_address: Callable[[str], None] = print) -> None:
    """Show the page until its window is closed; jobs that are not finished go on when it is shown again.

    Args:
        settings: Of the service; it listens on this machine alone, by a token of its own.
        kind: "webview" is a window of the system's web view, "chromium" a window of Chromium, Chrome or Edge,
            "browser" a tab of the user's browser, "none" shows nothing; "auto" takes the first of them that is there.
        on_address: Called with the address that any browser on this machine can show.
    """
    listener = _listen(settings.port)
    port = listener.getsockname()[1]
    token = token_urlsafe(24)
    settings = replace(settings, host="127.0.0.1", port=port, token=token, hosts=(), roots=())
    ended = threading.Event()
    app = make_app(settings)
    parts = page_parts(app.state.services)
    webview = WebviewWindow("vsr", _SIZE) if _has_webview(kind) else None
    with FileQueue(parts, settings.state / "queue.json", notify) as queue:
        tab = QueueTab(queue, webview.choose_files if webview else None, ended.set)
        mount_page(app, parts, [("Queue", tab.add)])
        address = f"http://127.0.0.1:{port}/page/enter?token={token}"
        with contextlib.closing(tab), _serving(app, listener):
            on_address(address)
            if webview is not None:
                webview.show(address, lambda paths: queue.add(paths, tab.options), ended)
            else:
                _show(address, kind, ended)


def _has_webview(kind: WindowKind) -> bool:
    if kind not in ("auto", "webview"):
        return False
    found = WebviewWindow.is_available()
    if kind == "webview" and not found:
        raise OutputError('`window="webview"`: this system has no web view that pywebview knows; leave it out')
    return found


def _listen(port: int) -> socket.socket:
    """Open the port that was asked for, or any that is free for 0."""
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise OutputError(f"`port={port}`: is in use; give another, or 0 for any") from error
    return listener


@contextmanager
def _serving(app: object, listener: socket.socket) -> Iterator[None]:
    """Serve in a thread for the length of a block; on leaving it, requests that are under way are finished."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3)  # type: ignore[arg-type]
    )
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            server.run(sockets=[listener])
        except BaseException as error:  # the state folder is in use, for example
            failed.append(error)

    thread = threading.Thread(target=serve, name="vsr-server", daemon=True)
    thread.start()
    waited = 0.0
    while not server.started and thread.is_alive() and waited < _START_SECONDS:
        thread.join(0.05)
        waited += 0.05
    if not server.started:
        server.should_exit = True
        raise OutputError("the service of the window did not start; its log says why; is another window open?")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _show(address: str, kind: WindowKind, ended: threading.Event) -> None:
    """Show an address by a browser, until its window is closed or the application is ended on the page."""
    program = _chromium() if kind in ("auto", "chromium") else None
    if program is None:
        if kind == "chromium":
            raise OutputError('`window="chromium"`: neither Chromium nor Chrome nor Edge is installed; leave it out')
        if kind != "none" and not webbrowser.open(address):
            LOGGER.warning("no browser could be opened; open the address above")
        ended.wait()
        return
    # A profile of its own: otherwise the program hands the window to a browser that runs already, and ends at once.
    with tempfile.TemporaryDirectory(prefix="vsr-window-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_chromium_options(Path(profile)), f"--app={address}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None and not ended.wait(0.2):
                pass
        finally:
            process.terminate()
            process.wait()


def has_chromium() -> bool:
    """Tell whether a browser is installed that shows a page in a window of its own."""
    return _chromium() is not None


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def _chromium_options(profile: Path) -> list[str]:
    options = [f"--user-data-dir={profile}", "--no-first-run", "--no-default-browser-check", "--disable-sync"]
    options += [f"--window-size={_SIZE[0]},{_SIZE[1]}", "--disable-component-update", "--disable-background-networking"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium has no sandbox for the superuser
        options.append("--no-sandbox")
    return options
