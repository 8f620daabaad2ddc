"""Gather the packets of the streams that are not decoded."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.stream import Disposition

from vsr.media.packet_checksum import StreamChecksum
from vsr.media.packet_times import PacketOrder
from vsr.media.read.trim import TrimRange

__all__ = ["OtherPackets"]

MOST_BYTES = 2**22  # gathered at a time: seconds of any sound, and little beside a batch of frames
BYTES_OF_PACKET = 2**10  # beside its data, roughly


class OtherPackets:
    """Packets of the other streams, in the order of the file and on the output's clock, until they are taken.

    checksums: of all packets gathered so far, by the index of their stream.
    covers: attached images, each a whole file of its kind, by the index of their stream.
    first_audio_seconds: when the first packet of each audio stream begins that was met, inside the range or not.
    """

    def __init__(self, trim: TrimRange) -> None:
        """trim: the range outside of which packets are left out."""
        self.checksums: dict[int, StreamChecksum] = {}
        self.covers: dict[int, bytes] = {}
        self.first_audio_seconds: dict[int, Fraction] = {}
        self._trim, self._order = trim, PacketOrder()
        self._packets: list[Packet[Any]] = []
        self._num_bytes = 0
        self._audio_ends: dict[int, int] = {}  # end of the last packet of each audio stream, in its ticks

    @property
    def num_moved(self) -> int:
        """The number of packets whose timestamps did not increase and were moved on."""
        return self._order.num_moved

    @property
    def is_full(self) -> bool:
        """True where the packets are to be taken before more are added, so that memory stays bounded."""
        return self._num_bytes >= MOST_BYTES

    def forget_order(self) -> None:
        """Expect any times next, after a search in the file."""
        self._order.forget()

    def add(self, packet: Packet[Any]) -> None:
        """Gather a packet, if it lies in the range. Its timestamps are changed to the output's clock."""
        index = packet.stream.index
        if Disposition.attached_pic in packet.stream.disposition:  # belongs to the file, and has no time in it
            if index in self.covers:  # FFmpeg gives it again after a search
                return
            self.covers[index] = bytes(packet)
            packet.pts = packet.dts = 0
        else:
            self._time_audio(packet)
            if not self._trim.contains(packet):
                return
            self._trim.shift(packet)
            self._order.put(packet)
        self._packets.append(packet)
        self._num_bytes += packet.size + BYTES_OF_PACKET
        self.checksums.setdefault(index, StreamChecksum()).add(packet)

    def take(self) -> tuple[Packet[Any], ...]:
        """Hand over the packets gathered since the last call."""
        packets, self._packets, self._num_bytes = tuple(self._packets), [], 0
        return packets

    def _time_audio(self, packet: Packet[Any]) -> None:
        """Place an audio packet without a time, as short streams from a pipe have them, behind the one before."""
        context = packet.stream.codec_context
        if packet.stream.type != "audio" or context is None:
            return
        if packet.dts is None and packet.pts is None:
            packet.pts = packet.dts = self._audio_ends.get(packet.stream.index)
        time = packet.dts if packet.dts is not None else packet.pts
        if time is not None:
            self.first_audio_seconds.setdefault(packet.stream.index, time * packet.time_base)
        if time is not None and context.frame_size and context.sample_rate:
            length = packet.duration or round(Fraction(context.frame_size, context.sample_rate) / packet.time_base)
            self._audio_ends[packet.stream.index] = time + length
