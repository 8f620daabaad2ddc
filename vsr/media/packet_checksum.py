"""Count packets, sum their data and note their times, to compare a finished file with its source."""

from __future__ import annotations

import hashlib
import math
from array import array
from typing import Any

from av.packet import Packet

__all__ = ["StreamChecksum", "is_counted"]


class StreamChecksum:
    """Count the packets of one stream, hash their data with SHA-256, in their order, and note when each is due.

    times: the PTS of each packet, or else its DTS, in seconds; NaN where it has none.
    end_seconds: the end of the last of them; longest_seconds: the duration of the longest.
    """

    def __init__(self) -> None:
        self.num_packets = 0
        self.times: array[float] = array("d")  # 8 bytes a packet
        self.end_seconds = -math.inf
        self.longest_seconds = 0.0
        self._digest = hashlib.sha256()

    def add(self, packet: Packet[Any]) -> None:
        """Take the next packet into account."""
        if is_counted(packet):
            self.num_packets += 1
            self._note_time(packet)
            self._digest.update(_without_adts(bytes(packet)))

    def _note_time(self, packet: Packet[Any]) -> None:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            self.times.append(math.nan)
            return
        seconds, duration = float(time * packet.time_base), float((packet.duration or 0) * packet.time_base)
        self.times.append(seconds)
        self.end_seconds = max(self.end_seconds, seconds + duration)
        self.longest_seconds = max(self.longest_seconds, duration)

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
