"""Send workers the pieces of files that they ask for, a bounded number of bytes at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from pathlib import Path
from typing import Any

from vsr.cluster.remote_file import Wanted
from vsr.errors import reason

__all__ = ["IN_FLIGHT_BYTES", "PieceSender"]

IN_FLIGHT_BYTES = 32 * 2**20  # in the object store, on their way to workers
_SECONDS_BETWEEN_LOOKS = 0.1  # at workers that were added


class PieceSender:
    """Answers the questions of actors in a thread of its own.

    An actor asks for one piece at a time, and no piece is put into the object store while `IN_FLIGHT_BYTES` of others
    are on their way: the store has to keep no more of them however long the videos are and however many workers read.
    Ray frees those that have arrived about once a second, or when it needs their room.

    num_bytes: that were sent.  most_in_flight: of them, at one time.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.num_bytes = self.most_in_flight = 0
        self._files: dict[str, Path] = {}  # that may be asked for, by their names in questions
        self._added: deque[Any] = deque()
        self._asked: dict[Any, Any] = {}  # handles of actors, by what is to be their next question
        self._in_flight: dict[Any, int] = {}  # bytes, by what tells that they have arrived
        self._is_changed, self._is_closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="vsr-pieces", daemon=True)
        self._thread.start()

    def offer(self, name: str, path: Path) -> None:
        """Let workers ask for a file. name: in their questions."""
        self._files[name] = path

    def serve(self, handle: Any) -> None:
        """Answer an actor's questions from now on, until it ends."""
        self._added.append(handle)
        self._is_changed.set()

    def close(self) -> None:
        """Answer no more."""
        self._is_closed = True
        self._is_changed.set()
        self._thread.join()

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_closed:
            while self._added:
                self._listen(self._added.popleft())
            if not self._asked:
                self._is_changed.wait()
                self._is_changed.clear()
                continue
            for ref in self._ray.wait(list(self._asked), num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)[0]:
                self._answer(ref)

    def _listen(self, handle: Any) -> None:
        with contextlib.suppress(Exception):  # of Ray: the actor has gone
            self._asked[handle.wanted.remote()] = handle

    def _answer(self, ref: Any) -> None:
        handle = self._asked.pop(ref)
        try:
            wanted: Wanted = self._ray.get(ref)
        except Exception:  # of Ray: the actor has gone
            return
        try:
            with self._files[wanted.name].open("rb") as file:
                file.seek(wanted.offset)
                data = file.read(wanted.num_bytes)
            if len(data) < wanted.num_bytes:
                raise OSError("has become shorter while it was read")
        except OSError as error:
            with contextlib.suppress(Exception):  # of Ray: the actor has gone
                handle.refuse.remote(wanted.name, reason(error))
        else:
            self._send(handle, wanted, data)
        self._listen(handle)

    def _send(self, handle: Any, wanted: Wanted, data: bytes) -> None:
        """Send a piece, once there is room for it."""
        self._forget_arrived(IN_FLIGHT_BYTES - len(data))
        if self._is_closed:
            return
        with contextlib.suppress(Exception):  # of Ray: the actor has gone
            self._in_flight[handle.put_piece.remote(wanted.name, wanted.offset, data)] = len(data)
        self.num_bytes += len(data)
        self.most_in_flight = max(self.most_in_flight, sum(self._in_flight.values()))

    def _forget_arrived(self, most_bytes: int) -> None:
        """Wait until so few bytes are on their way; those to actors that have gone are not."""
        self._drop(timeout=0)
        while sum(self._in_flight.values()) > most_bytes and not self._is_closed:
            self._drop(timeout=_SECONDS_BETWEEN_LOOKS)

    def _drop(self, timeout: float) -> None:
        if self._in_flight:
            refs = list(self._in_flight)
            for ref in self._ray.wait(refs, num_returns=len(refs) if not timeout else 1, timeout=timeout)[0]:
                del self._in_flight[ref]
