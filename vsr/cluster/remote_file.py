"""Read a file of another machine as it is needed: the pieces that are read are asked for, and kept."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["BLOCK_BYTES", "PIECE_BYTES", "ArrivingFile", "Wanted"]

BLOCK_BYTES = 2**16  # the least that is asked for
PIECE_BYTES = 2**22  # the most


@dataclass(frozen=True, slots=True)
class Wanted:
    """A piece of a file that somebody waits for. name: of the file.  offset, num_bytes: in it."""

    name: str
    offset: int
    num_bytes: int


class ArrivingFile:
    """A file of which some blocks are here: the others are asked for when they are read, one piece at a time.

    Pieces grow where a file is read in order, from a block to `PIECE_BYTES`, so that a search costs little and reading
    few questions. Several threads may read; another one puts the pieces in their place.
    """

    def __init__(self, name: str, num_bytes: int, place: Path, ask: Callable[[Wanted], None]) -> None:
        """Lay out an empty copy.

        Args:
            name: Of the file, in questions and in messages.
            num_bytes: Its size.
            place: A file to keep the blocks in, with holes where there are none.
            ask: Called with each piece that is needed; `put` or `refuse` answers it, at any time.
        """
        self.name, self.num_bytes = name, num_bytes
        self._place, self._ask = place, ask
        self._is_here = bytearray(-(-num_bytes // BLOCK_BYTES))
        self._changed = threading.Condition()
        self._asked: Wanted | None = None
        self._refusal: str | None = None
        self._next_block, self._num_blocks = 0, 1  # where reading in order would go on, and by how much
        with place.open("wb") as file:
            file.truncate(num_bytes)

    def opened(self) -> BinaryIO:
        """Return a file object at the beginning of the file."""
        return io.BufferedReader(_Reading(self), BLOCK_BYTES)

    def read(self, offset: int, num_bytes: int) -> bytes:
        """Read up to `num_bytes` at a place, fewer at the end of a block; none at the end of the file.

        Waits until they are here. Raises OSError where they are refused.
        """
        if offset >= self.num_bytes or num_bytes <= 0:
            return b""
        block = offset // BLOCK_BYTES
        with self._changed:
            while not self._is_here[block]:
                if self._refusal is not None:
                    raise OSError(self._refusal)
                if self._asked is None:
                    self._asked = self._piece_at(block)
                    self._ask(self._asked)
                if self._asked is not None:
                    self._changed.wait()
        end = min((block + 1) * BLOCK_BYTES, self.num_bytes, offset + num_bytes)
        with self._place.open("rb") as file:
            file.seek(offset)
            return file.read(end - offset)

    def _piece_at(self, block: int) -> Wanted:
        """Choose the piece to ask for, which begins with a block and has none that is here."""
        most = PIECE_BYTES // BLOCK_BYTES
        self._num_blocks = min(2 * self._num_blocks, most) if block == self._next_block else 1
        here = self._is_here.find(1, block, block + self._num_blocks)
        self._next_block = min(block + self._num_blocks if here < 0 else here, len(self._is_here))
        offset = block * BLOCK_BYTES
        return Wanted(self.name, offset, min(self._next_block * BLOCK_BYTES, self.num_bytes) - offset)

    def put(self, offset: int, data: bytes) -> None:
        """Put the piece that was asked for in its place."""
        with self._place.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        with self._changed:
            first, last = offset // BLOCK_BYTES, (offset + len(data) - 1) // BLOCK_BYTES
            self._is_here[first : last + 1] = b"\1" * (last + 1 - first)
            self._asked = None
            self._changed.notify_all()

    def refuse(self, reason: str) -> None:
        """End all reading of what is not here, with a reason."""
        with self._changed:
            self._refusal, self._asked = reason, None
            self._changed.notify_all()

    def remove(self) -> None:
        """Remove what is here, for a file that nobody reads any more."""
        self._place.unlink(missing_ok=True)


class _Reading(io.RawIOBase):
    """A place in an arriving file. name: of the file, by whose suffix FFmpeg guesses its format."""

    def __init__(self, file: ArrivingFile) -> None:
        self._file, self._offset = file, 0
        self.name = file.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(self._offset, len(buffer))
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._file.num_bytes}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning")
        self._offset = start + offset
        return self._offset
