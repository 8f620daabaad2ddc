"""Watch a folder for new files."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from pathlib import Path

from vsr.errors import InputError
from vsr.serve.window.queue import MEDIA_SUFFIXES

__all__ = ["FolderWatch"]

_OWN = re.compile(r"_x[234](_\d+)?$")  # the end of the names of results, which may lie in the same folder

_Stamp = tuple[int, int]  # bytes, and time of the last change


class FolderWatch:
    """Hands over media files that come into a folder after its watching began, once they do not grow any more.

    The folder is looked at now and then: notices of the system do not come over networks, and none of them says that a
    file is complete.
    """

    def __init__(self, folder: Path, on_file: Callable[[Path], None], every_seconds: float = 2.0) -> None:
        """Begin to watch. Raises InputError where there is no such folder."""
        self.folder = folder.expanduser().absolute()
        if not self.folder.is_dir():
            raise InputError(f"{folder}: there is no such folder to watch")
        self._on_file, self._every_seconds = on_file, every_seconds
        self._known = set(self._stamps())
        self._growing: dict[Path, _Stamp] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="vsr-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watching."""
        self._end.set()
        self._thread.join()

    def look(self) -> None:
        """Look at the folder once; a file is handed over that is the same at two looks."""
        stamps = self._stamps()
        for path in sorted(set(stamps) - self._known):
            if stamps[path][0] and self._growing.get(path) == stamps[path]:
                self._known.add(path)
                self._on_file(path)
        self._growing = stamps
        self._known &= set(stamps)  # one that was removed may come again

    def _stamps(self) -> dict[Path, _Stamp]:
        found = {}
        with contextlib.suppress(OSError):  # a network drive that is away comes back
            for path in self.folder.iterdir():
                if path.suffix.lower() in MEDIA_SUFFIXES and not _OWN.search(path.stem):
                    with contextlib.suppress(OSError):
                        status = path.stat()
                        found[path] = (status.st_size, status.st_mtime_ns)
        return found

    def _work(self) -> None:
        while not self._end.wait(self._every_seconds):
            self.look()
