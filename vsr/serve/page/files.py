"""Hand files to the browser by addresses that cannot be guessed, and remove them after a while."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

__all__ = ["PageFiles"]

PREFIX = "/page/files"
# The types that are shown inside the page; all else can only be downloaded, so that no upload runs as a script.
_SHOWN = ("image/png", "video/mp4", "video/webm")


@dataclass(frozen=True, slots=True)
class _Shared:
    path: Path
    until: float  # by time.monotonic
    kind: str | None  # its media type, of those that are shown
    is_own: bool  # lies in the page's folder, and goes when its time is up


class PageFiles:
    """The files that pages show: some made for a page, in a private folder, and some of others, such as results."""

    def __init__(self, folder: Path, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """folder: private; it is emptied now, as no page of an earlier run can ask for its files."""
        self.folder, self._keep_seconds, self._clock = folder, keep_seconds, clock
        self._shared: dict[str, _Shared] = {}
        self._lock = threading.Lock()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)

    def new(self, name: str) -> Path:
        """Name a new file of the page's own, in a folder of its own, which `address` then lets the browser have."""
        self.remove_old()
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder / Path(name).name

    def address(self, path: Path, name: str | None = None, kind: str | None = None) -> str:
        """Return the address of a file, from the page's own.

        Args:
            path: Any file; only whoever has the address can ask for it.
            name: By which the browser saves it; the file's own unless given.
            kind: Media type by which it is shown in the page; it can only be downloaded unless given.
        """
        token = secrets.token_urlsafe(24)
        is_own = path.is_relative_to(self.folder)
        with self._lock:
            self._shared[token] = _Shared(path, self._clock() + self._keep_seconds, kind, is_own)
        return f"{PREFIX[1:]}/{token}/{quote(name or path.name)}"

    def find(self, token: str) -> tuple[Path, str | None] | None:
        """Return the file of an address, and its media type; None where there is none any more."""
        self.remove_old()
        with self._lock:
            shared = self._shared.get(token)
        return (shared.path, shared.kind) if shared is not None and shared.path.is_file() else None

    def remove_old(self) -> None:
        """Forget the addresses whose time is up, and remove the page's own files behind them."""
        with self._lock:
            old = [token for token, shared in self._shared.items() if shared.until < self._clock()]
            for token in old:
                shared = self._shared.pop(token)
                if shared.is_own and all(other.path != shared.path for other in self._shared.values()):
                    shutil.rmtree(shared.path.parent, ignore_errors=True)

    def router(self) -> APIRouter:
        """Make the route by which the browser gets the files, whole or in ranges."""
        router = APIRouter(prefix=PREFIX, include_in_schema=False)

        @router.get("/{token}/{name}")
        def file(token: str, name: str, download: bool = False) -> FileResponse:
            found = self.find(token)
            if found is None:
                raise HTTPException(404, "this file is not kept any more; make it again")
            path, kind = found
            disposition = "inline" if kind in _SHOWN and not download else "attachment"
            headers = {"Cache-Control": "private, max-age=3600"}
            return FileResponse(
                path,
                media_type=kind or "application/octet-stream",
                filename=name,
                content_disposition_type=disposition,
                headers=headers,
            )

        return router
