"""The part of a file that is wanted: which frames and packets lie in it, and when they are shown then."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

__all__ = ["Window", "pts_of"]

INTERLEAVE_SECONDS = 10  # how far apart streams of one moment may lie in a file; FFmpeg's own limit


def pts_of(frame: av.VideoFrame) -> int:
    """The PTS of a frame that the reader has given one."""
    assert frame.pts is not None
    return frame.pts


class Window:
    """The part of the file that is wanted, in seconds on the file's own clock."""

    def __init__(self, container: InputContainer, start: Fraction | None, duration: Fraction | None) -> None:
        origin = Fraction(container.start_time, av.time_base) if container.start_time is not None else Fraction(0)
        self.start = None if start is None else origin + start
        self.end = None if duration is None else (origin if self.start is None else self.start) + duration
        self.trims = self.start is not None or self.end is not None

    def seek_target(self, stream: VideoStream) -> int:
        assert self.start is not None
        return int(self.start / (stream.time_base or Fraction(1, 90000)))

    def shift_ticks(self, time_base: Fraction) -> int:
        return 0 if self.start is None else round(self.start / time_base)

    def ends_before(self, frame: av.VideoFrame) -> bool:
        return self.end is not None and pts_of(frame) * (frame.time_base or 0) >= self.end

    def is_far_behind(self, packet: Packet[Any]) -> bool:
        """Whether a packet lies so far past the end that none of before will follow."""
        time = packet.dts if packet.dts is not None else packet.pts
        return self.end is not None and time is not None and time * packet.time_base >= self.end + INTERLEAVE_SECONDS

    def holds(self, frame: av.VideoFrame) -> bool:
        return self.start is None or pts_of(frame) * (frame.time_base or 0) >= self.start

    def holds_packet(self, packet: Packet[Any]) -> bool:
        """Whether a packet of another stream lies inside; moves it to the output's clock where it does."""
        time = packet.pts if packet.pts is not None else packet.dts
        if not self.trims or time is None:
            return True
        seconds = time * packet.time_base
        if (self.start is not None and seconds < self.start) or (self.end is not None and seconds >= self.end):
            return False
        shift = self.shift_ticks(packet.time_base)
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        return True
