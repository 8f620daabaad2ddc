"""Counting packets on their way, for the check at the end."""

from __future__ import annotations

import hashlib
from typing import Any

from av.packet import Packet

__all__ = ["StreamTally"]


class StreamTally:
    """Number and SHA-256 of the payloads of one stream's packets, in their order."""

    def __init__(self) -> None:
        self.num_packets = 0
        self._digest = hashlib.sha256()

    def add(self, packet: Packet[Any]) -> None:
        data = bytes(packet)
        if data == b"\0\0":  # mov_text's "nothing on screen", which muxers add where there are gaps
            return
        self.num_packets += 1
        self._digest.update(data)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()
