"""Find out by its structure whether an image file is whole, as decoders fill what is missing or write to stderr."""

from __future__ import annotations

import zlib

__all__ = ["find_damage"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_CUT_OFF = "it is cut off"


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
