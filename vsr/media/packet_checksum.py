"""Count packets and sum their data, to compare a finished file with its source."""

from __future__ import annotations

import hashlib
from typing import Any

from av.packet import Packet

__all__ = ["StreamChecksum", "is_counted"]


class StreamChecksum:
    """Count the packets of one stream and hash their data with SHA-256, in their order."""

    def __init__(self) -> None:
        self.num_packets = 0
        self._digest = hashlib.sha256()

    def add(self, packet: Packet[Any]) -> None:
        """Take the next packet into account."""
        if is_counted(packet):
            self.num_packets += 1
            self._digest.update(_without_adts(bytes(packet)))

    @property
    def digest(self) -> bytes:
        """The SHA-256 of all data so far."""
        return self._digest.digest()


def is_counted(packet: Packet[Any]) -> bool:
    """Tell whether a packet holds anything: muxers add mov_text's "nothing on screen" where there are gaps."""
    return packet.size != 2 or bytes(packet) != b"\0\0"


def _without_adts(data: bytes) -> bytes:
    """Cut off the ADTS header of an AAC packet (ISO/IEC 14496-3, 1.A.2.2), which MPEG-TS has and others lack."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return data
    length = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    return data[7 if data[1] & 1 else 9 :] if length == len(data) else data
