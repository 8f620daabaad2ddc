"""Find out by its structure whether an image file is whole, as decoders fill what is missing or write to stderr."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from typing import TypeVar

__all__ = ["find_damage", "watched_decoding"]

T = TypeVar("T")

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_CUT_OFF = "it is cut off"
_LIBJPEG = re.compile(rb"(?:Corrupt JPEG data: |Premature end of JPEG|Unsupported marker)[^\n]*\n?")
_EXTRANEOUS = re.compile(rb"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_stderr = threading.Lock()


def find_damage(data: bytes) -> str:
    """Describe the damage of a PNG, JPEG or WebP file in a few words; return "" for a whole or another file."""
    if not data:
        return "it is empty (0 bytes)"
    if data.startswith(_PNG):
        return _find_in_png(data)
    if data.startswith(_JPEG):
        return _find_in_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _CUT_OFF if int.from_bytes(data[4:8], "little") + 8 > len(data) else ""
    return ""


def _find_in_png(data: bytes) -> str:
    """Check the length and checksum of every chunk that the image needs."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            return _CUT_OFF
        is_needed = kind[:1].isupper()
        if is_needed and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of its part {kind.decode('latin-1')!r} is wrong"
        if kind == b"IEND":
            return ""
        at = end + 4
    return _CUT_OFF


def _find_in_jpeg(data: bytes) -> str:
    """Find the end of the image after the start of its first scan: a thumbnail before that has an end of its own."""
    at = len(_JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            # Inside a scan 0xFF is followed by a zero or a restart marker.
            return "" if data.find(b"\xff\xd9", at) >= 0 else _CUT_OFF
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return _CUT_OFF


def watched_decoding(decode: Callable[[], T], data: bytes) -> tuple[T, str]:
    """Decode an image by libjpeg, which fills up what is damaged in its middle, and return what it says of that.

    It writes to stderr alone, so that stderr is caught meanwhile; lines of others are written when that is over.

    Args:
        decode: Returns the image.
        data: The file, of any kind; other kinds than JPEG are decoded without this.

    Returns what `decode` returned, and the damage in a few words, "" for none.
    """
    if not data.startswith(_JPEG):
        return decode(), ""
    with _stderr, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            image = decode()
        finally:
            os.dup2(before, 2)
            caught.seek(0)
            text = caught.read()
            os.write(before, _LIBJPEG.sub(b"", text))
            os.close(before)
    return image, next(filter(None, (_damage_said(line[0], data) for line in _LIBJPEG.finditer(text))), "")


def _damage_said(line: bytes, data: bytes) -> str:
    """Put a line of libjpeg's into our words; "" where cameras have filled up the end of a file."""
    extraneous = _EXTRANEOUS.match(line)
    if extraneous:
        end = data.rfind(b"\xff\xd9")
        if len(set(data[end - int(extraneous[1]) : end])) <= 1:
            return ""
    return f"libjpeg says: {line.decode('latin-1').strip()}"
