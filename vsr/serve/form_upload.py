"""Receive a form with a video in it, part by part: the file goes to the disk, never into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from vsr.serve.errors import RefusedError
from vsr.serve.job_files import filling_disk

__all__ = ["FILE_FIELD", "VideoForm", "receiving_form"]

FILE_FIELD = "video"
_MOST_FIELD = 2**16  # bytes
_MOST_PARTS = 16


class VideoForm:
    """The parts of a form as they come: one file, and short text fields.

    has_file: whether the field "video" came.  name: of the client's file.  fields: the others, as text.
    """

    def __init__(self, boundary: bytes, file: IO[bytes]) -> None:
        """file: to write the video to."""
        self.file, self.has_file = file, False
        self.name, self.fields = "", dict[str, str]()
        self._num_parts, self._field, self._is_file, self._is_whole = 0, "", False, False
        self._header, self._value, self._data = bytearray(), bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_end": self._see_end,
            },
        )

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body. Raises RefusedError (400) where they are no form."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise RefusedError("the body is not multipart/form-data", code="form") from error

    def finish(self) -> None:
        """Take the end of the body. Raises RefusedError (400) where it is not the end of the form."""
        if not self._is_whole:
            raise RefusedError("the form ends too early", code="form")
        with filling_disk():
            self.file.flush()

    def _see_end(self) -> None:
        self._is_whole = True

    def _begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MOST_PARTS:
            raise RefusedError(f"the form has more than {_MOST_PARTS} parts", code="form")
        self._headers, self._data = {}, bytearray()

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _open(self) -> None:
        """Find out which part begins."""
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._field == FILE_FIELD
        if self._is_file:
            if self.has_file:
                raise RefusedError(f"the form has more than one field '{FILE_FIELD}'", code="form")
            self.name = options.get(b"filename", b"").decode("utf-8", "replace")
            self.has_file = True

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            with filling_disk():
                self.file.write(data[start:end])
            return
        self._data += data[start:end]
        if len(self._data) > _MOST_FIELD:
            raise RefusedError(f"the field '{self._field[:40]}' is too long", code="form")

    def _end(self) -> None:
        if not self._is_file:
            self.fields[self._field] = self._data.decode("utf-8", "replace")


@contextmanager
def receiving_form(content_type: str, folder: Path) -> Iterator[VideoForm]:
    """Receive a form for the length of a block. Raises RefusedError (400) for a content type without a boundary.

    folder: for the file, which is gone after the block.
    """
    _, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise RefusedError("Content-Type: multipart/form-data has no boundary", code="form")
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        yield VideoForm(boundary, file)
