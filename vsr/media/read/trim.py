"""Say which frames and packets lie in the part of a file that is read, and move them to the output's clock."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vsr.media.av_frames import pts_of

__all__ = ["INTERLEAVE_SECONDS", "TrimRange"]

INTERLEAVE_SECONDS = 10  # the most by which streams of one moment may lie apart in a file; FFmpeg's own limit


class TrimRange:
    """The part of a file to read, in seconds on the file's own clock.

    start, end: None for those of the file.
    """

    def __init__(self, container: InputContainer, start: Fraction | None, duration: Fraction | None) -> None:
        """Set the range.

        Args:
            container: the opened file; its start time is where `start` counts from.
            start: seconds from the start of the file, or None for its beginning.
            duration: seconds to read, or None for all to the end.
        """
        origin = Fraction(container.start_time, av.time_base) if container.start_time is not None else Fraction(0)
        self.start = None if start is None else origin + start
        self.end = None if duration is None else (origin if self.start is None else self.start) + duration

    @property
    def shift_seconds(self) -> Fraction:
        """The seconds to take off every timestamp: the start of the range, else zero."""
        return self.start or Fraction(0)

    @property
    def duration_limit_seconds(self) -> Fraction | None:
        """The end of the range on the output's clock, or None for the end of the file."""
        return None if self.end is None else self.end - self.shift_seconds

    def seek_target(self, stream: VideoStream, seconds_before: int) -> int:
        """Return the ticks of a stream so many seconds before the start. Only for a range that has a start."""
        assert self.start is not None
        return int((self.start - seconds_before) / (stream.time_base or Fraction(1, 90000)))

    def shift_ticks(self, time_base: Fraction) -> int:
        """Return the ticks of `time_base` (seconds) to take off every timestamp."""
        return 0 if self.start is None else round(self.start / time_base)

    def begins_after(self, frame: av.VideoFrame) -> bool:
        """Say whether a frame lies before the range."""
        return self.start is not None and pts_of(frame) * (frame.time_base or 0) < self.start

    def ends_before(self, frame: av.VideoFrame) -> bool:
        """Say whether a frame lies behind the range."""
        return self.end is not None and pts_of(frame) * (frame.time_base or 0) >= self.end

    def ends_long_before(self, packet: Packet[Any]) -> bool:
        """Say whether a packet lies so far behind the range that no packet inside can follow it."""
        time = packet.dts if packet.dts is not None else packet.pts
        return self.end is not None and time is not None and time * packet.time_base >= self.end + INTERLEAVE_SECONDS

    def contains(self, packet: Packet[Any]) -> bool:
        """Say whether a packet of another stream lies in the range; a packet without a time does."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return True
        seconds = time * packet.time_base
        return (self.start is None or seconds >= self.start) and (self.end is None or seconds < self.end)

    def shift(self, packet: Packet[Any]) -> None:
        """Move a packet to the output's clock."""
        ticks = self.shift_ticks(packet.time_base)
        if ticks and packet.pts is not None:
            packet.pts -= ticks
        if ticks and packet.dts is not None:
            packet.dts -= ticks
