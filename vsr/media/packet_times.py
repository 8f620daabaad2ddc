"""Repair timestamps of packets: clocks that start anew, and packets in a wrong order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Self

from av.container import InputContainer, OutputContainer
from av.format import Flags
from av.packet import Packet

__all__ = ["JUMP_SECONDS", "RESTART_SECONDS", "PacketClock", "PacketOrder"]

_MAY_RESTART: int = Flags.ts_discont.value  # type: ignore[assignment]  # an int, whatever its stub says
_MAY_COINCIDE: int = Flags.ts_nonstrict.value  # type: ignore[assignment]
RESTART_SECONDS = Fraction(1, 4)  # a DTS so far behind the last one is no disorder but another recording
JUMP_SECONDS = 10  # a DTS so far ahead of all streams is one, too, as ffmpeg takes it; a still picture is shorter
JUMP_STEPS = 8  # unless it is fewer times as long as the longest step of the stream so far,
UNKNOWN_STEP_SECONDS = 8  # or as this, for the first step
LEFT_OVER_SECONDS = 1  # for so long after a recording's end, packets of it may still come


class PacketClock:
    """Let time go on where recordings lie behind one another in a file.

    may_restart: whether recordings may do so in this container.
    end_seconds: the end of all packets so far, on the clock that goes on; None before the first.
    num_restarts: the number of times that the clock has started anew.
    jump_seconds: the lengths of its jumps ahead.
    """

    def __init__(self, container: InputContainer) -> None:
        self.may_restart = bool(container.format.flags & _MAY_RESTART)
        self._offsets = [Fraction(0)]  # seconds to add, by recording
        self._recordings: dict[int, int] = {}  # which recording a stream has come to
        self._last_seconds: dict[int, Fraction] = {}  # a stream's last DTS on its recording's clock
        self._longest_step: dict[int, Fraction] = {}  # between two packets of a stream
        self._span: tuple[Fraction, Fraction] | None = None  # the first and the highest DTS of the latest recording
        self._end_before = Fraction(0)  # the highest DTS of the recording before it
        self.end_seconds: Fraction | None = None
        self.num_restarts = 0
        self.jump_seconds: list[Fraction] = []

    def shift(self, packet: Packet[Any]) -> None:
        """Move a packet of any stream behind the recordings before its own. Call it on every packet, in their order."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            return
        seconds = time * packet.time_base
        shown = seconds if packet.pts is None else packet.pts * packet.time_base
        number = self._recording_of(packet, seconds, shown) if self.may_restart else 0
        end = shown + self._offsets[number] + (packet.duration or 0) * packet.time_base
        self.end_seconds = end if self.end_seconds is None else max(self.end_seconds, end)
        if not self._offsets[number]:
            return
        ticks = round(self._offsets[number] / packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts + ticks
        packet.pts = None if packet.pts is None else packet.pts + ticks

    def _recording_of(self, packet: Packet[Any], seconds: Fraction, shown: Fraction) -> int:
        """Return the recording that a packet belongs to; begin another where its clock shows one.

        Streams with few packets do not show it by themselves: they follow the others, as all that comes later in the
        file belongs to a later recording, but for packets that the demuxer still held back.

        Args:
            packet: The packet.
            seconds: Its DTS, on the file's clock.
            shown: Its PTS, likewise.
        """
        index, latest = packet.stream.index, len(self._offsets) - 1
        number = self._recordings.get(index, max(0, latest - 1))
        if number < latest:
            number = number if self._is_left_over(seconds) else latest
            if number == latest:
                self._last_seconds.pop(index, None)
        if number == latest and self._begins_another(packet, seconds):
            number = latest + 1
            self._offsets.append((self.end_seconds or 0) - shown)
            self._end_before = self._span[1] if self._span is not None else seconds
            self._span = None
        elif index in self._last_seconds:
            step = seconds - self._last_seconds[index]
            self._longest_step[index] = max(step, self._longest_step.get(index, step))
        if number == len(self._offsets) - 1:
            first, last = self._span or (seconds, seconds)
            self._span = first, max(last, seconds)
        self._recordings[index], self._last_seconds[index] = number, seconds
        return number

    def _is_left_over(self, seconds: Fraction) -> bool:
        """Tell whether a packet belongs to the recording before the latest, by the end that is nearer."""
        first, last = self._span or (seconds, seconds)
        is_possible = last - first < LEFT_OVER_SECONDS and seconds <= self._end_before + RESTART_SECONDS
        return is_possible and abs(seconds - self._end_before) < abs(seconds - last)

    def _begins_another(self, packet: Packet[Any], seconds: Fraction) -> bool:
        """Tell whether a packet of the latest recording shows that a new one begins, and note how."""
        index = packet.stream.index
        before = self._last_seconds.get(index)
        if before is None or self._span is None:
            return False
        if seconds < before - RESTART_SECONDS:
            self.num_restarts += 1
            return True
        jump = seconds - self._span[1]
        usual = JUMP_STEPS * self._longest_step.get(index, Fraction(UNKNOWN_STEP_SECONDS))
        if packet.stream.type not in ("audio", "video") or jump <= max(Fraction(JUMP_SECONDS), usual):
            return False
        self.jump_seconds.append(jump)
        return True


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

    def forget(self) -> None:
        """Forget the packets so far, as after a search; the count stays."""
        self._last_dts.clear()

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
