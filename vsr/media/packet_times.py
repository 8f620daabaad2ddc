"""Repair timestamps of packets: clocks that start anew, and packets in a wrong order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Self

from av.container import InputContainer, OutputContainer
from av.format import Flags
from av.packet import Packet

__all__ = ["PacketClock", "PacketOrder"]

_MAY_RESTART: int = Flags.ts_discont.value  # type: ignore[assignment]  # an int, whatever its stub says
_MAY_COINCIDE: int = Flags.ts_nonstrict.value  # type: ignore[assignment]
RESTART_SECONDS = Fraction(1, 4)  # a DTS so far behind the last one is no disorder but another recording


class PacketClock:
    """Let time go on where recordings lie behind one another in a file.

    end_seconds: the end of all packets so far, on the clock that goes on; None before the first.
    """

    def __init__(self, container: InputContainer) -> None:
        self._may_restart = bool(container.format.flags & _MAY_RESTART)
        self._offsets = [Fraction(0)]  # seconds to add, by recording
        self._recordings: dict[int, int] = {}  # which recording a stream has come to
        self._last_seconds: dict[int, Fraction] = {}  # a stream's last DTS on its recording's clock
        self.end_seconds: Fraction | None = None

    @property
    def num_restarts(self) -> int:
        """The number of times that the clock has started anew."""
        return len(self._offsets) - 1

    def shift(self, packet: Packet[Any]) -> None:
        """Move a packet of any stream behind the recordings before its own. Call it on every packet, in their order."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            return
        index, seconds = packet.stream.index, time * packet.time_base
        number = self._recordings.setdefault(index, 0)
        shown = seconds if packet.pts is None else packet.pts * packet.time_base
        if self._may_restart and seconds < self._last_seconds.get(index, seconds) - RESTART_SECONDS:
            number = self._recordings[index] = number + 1
            if number == len(self._offsets):  # the first stream to come to it
                self._offsets.append((self.end_seconds or 0) - shown)
        self._last_seconds[index] = seconds
        end = shown + self._offsets[number] + (packet.duration or 0) * packet.time_base
        self.end_seconds = end if self.end_seconds is None else max(self.end_seconds, end)
        if not self._offsets[number]:
            return
        ticks = round(self._offsets[number] / packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts + ticks
        packet.pts = None if packet.pts is None else packet.pts + ticks


class PacketOrder:
    """Make the DTS of every stream increase, as muxers want it.

    num_moved: packets that were changed for that.
    """

    def __init__(self, is_strict: bool = True) -> None:
        """is_strict: whether two packets of one audio or video stream must not have the same DTS."""
        self._step = 1 if is_strict else 0
        self._last_dts: dict[int, int] = {}
        self.num_moved = 0

    @classmethod
    def of(cls, output: OutputContainer) -> Self:
        """Make the order that the muxer of an output asks for."""
        return cls(not output.format.flags & _MAY_COINCIDE)

    def put(self, packet: Packet[Any]) -> None:
        """Move a packet on if it is not behind the one before; give it a time if it has none but others have."""
        index, last = packet.stream.index, self._last_dts.get(packet.stream.index)
        step = 0 if packet.stream.type in ("subtitle", "data") else self._step
        if packet.dts is None:
            packet.dts = packet.pts if packet.pts is not None or last is None else last + (packet.duration or step)
        if packet.dts is None:
            return
        before = packet.dts, packet.pts
        if last is not None:
            packet.dts = max(packet.dts, last + step)
        if packet.pts is None or packet.pts < packet.dts:
            packet.pts = packet.dts
        self.num_moved += before not in ((packet.dts, packet.pts), (packet.dts, None))
        self._last_dts[index] = packet.dts
