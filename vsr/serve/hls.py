"""Make an HLS playlist of the finished segments of a job, and its segments as fragmented MP4, packet by packet."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vsr.errors import reason
from vsr.media.read.opening import open_input
from vsr.media.write.segments import decode_times
from vsr.serve.errors import RefusedError
from vsr.serve.hls_sound import SourceSound
from vsr.serve.job_store import StoredSegment

__all__ = ["CODECS", "SegmentFiles", "playlist"]

CODECS = frozenset({"h264", "hevc", "av1", "vp9"})  # that players of HLS take
_FRAGMENT_OPTIONS = {
    # Frames are shown as early as they are decoded, by offsets below zero: the clock begins at zero without edit lists.
    "movflags": "empty_moov+default_base_moof+frag_custom+frag_discont+negative_cts_offsets+skip_trailer",
    "use_editlist": "0",
    "avoid_negative_ts": "disabled",  # or the times of every fragment would begin at zero
}
_HEAD_BOXES = (b"ftyp", b"moov")


def playlist(segments: Sequence[StoredSegment], is_complete: bool, folder: str) -> str:
    """Return the playlist of a job's finished segments.

    Args:
        segments: In the order of time; at least one.
        is_complete: Whether no more will come.
        folder: Of the segments' URLs, relative to the playlist's.
    """
    lengths = [_seconds(each, after) for each, after in zip(segments, [*segments[1:], None], strict=True)]
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(1, math.ceil(max(lengths)))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if is_complete else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{folder}/init.mp4"',
    ]
    for segment, seconds in zip(segments, lengths, strict=True):
        lines += [f"#EXTINF:{seconds:.6f},", f"{folder}/{segment.number:06}.m4s"]
    if is_complete:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _seconds(segment: StoredSegment, after: StoredSegment | None) -> float:
    """Return how long a segment is shown: until the next one begins or, of the last, by its packets."""
    start, end = min(segment.pts), max(segment.pts)
    if after is not None:
        return float((min(after.pts) - start) * segment.time_base)
    last = segment.durations[segment.pts.index(end)]
    if not last:
        last = round((end - start) / max(1, len(segment.pts) - 1)) or 1
    return float((end + last - start) * segment.time_base)


class SegmentFiles:
    """The packets of a job's segments, as fragments of one MP4: from their files or, later, from the result."""

    def __init__(
        self, segments: Sequence[StoredSegment], folder: Path, result: Path, sound: SourceSound | None = None
    ) -> None:
        """Take what there is.

        Args:
            segments: Those that are finished, in the order of time; at least one.
            folder: With a Matroska file of each, as long as the job is not done.
            result: The file of all of them, once it is.
            sound: To go with it; None for the video alone.
        """
        self._segments, self._folder, self._result, self._sound = segments, folder, result, sound
        self._origin = min(segments[0].pts) * segments[0].time_base  # the first frame, which is shown at zero

    def head(self) -> bytes:
        """Return the part that all fragments need: ftyp and moov. Raises RefusedError where the codec is not for it."""
        return _boxes(self._muxed(0), is_head=True)

    def fragment(self, number: int) -> bytes:
        """Return a segment. Raises RefusedError (404) where it is not finished."""
        if not 0 <= number < len(self._segments):
            raise RefusedError("that segment is not finished", status=404, code="no_segment")
        return _boxes(self._muxed(number), is_head=False)

    def _muxed(self, number: int) -> bytes:
        try:
            with self._open(number) as container:
                return self._remuxed(container, number)
        except (OSError, av.FFmpegError) as error:
            raise RefusedError(
                f"the segment cannot be had now ({reason(error)})", status=409, code="no_segment"
            ) from error

    def _open(self, number: int) -> InputContainer:
        file = self._folder / f"{self._segments[number].number:06}.mkv"
        return open_input(file if file.exists() else self._result)

    def _remuxed(self, container: InputContainer, number: int) -> bytes:
        segment, template = self._segments[number], container.streams.video[0]
        if template.codec_context.codec.canonical_name not in CODECS:
            raise RefusedError("the result's codec is not for HLS", status=409, code="codec")
        data = io.BytesIO()
        options = _FRAGMENT_OPTIONS | {"fragment_index": str(number + 1)}
        with av.open(data, "w", format="mp4", options=options) as out, ExitStack() as stack:
            stream: VideoStream = out.add_stream_from_template(template, opaque=True)
            stream.time_base = segment.time_base
            sound = None if self._sound is None else stack.enter_context(self._sound.added(out))
            shift = -round(self._origin / segment.time_base)
            for packet, pts, dts, duration in zip(
                self._packets(container, segment),
                segment.pts,
                self._decode_times(number),
                segment.durations,
                strict=True,
            ):
                packet.stream, packet.time_base = stream, segment.time_base
                packet.pts, packet.dts, packet.duration = pts + shift, dts + shift, duration
                out.mux(packet)
            if sound is not None:
                first = self._end(number - 1) if number else self._origin
                sound.mux(first, self._end(number), self._origin)
        return data.getvalue()

    def _end(self, number: int) -> Fraction:
        """Return the time at which a segment's last frame is over."""
        segment = self._segments[number]
        last = max(segment.pts)
        return (last + segment.durations[segment.pts.index(last)]) * segment.time_base

    def _decode_times(self, number: int) -> list[int]:
        """Return the DTS of a segment's packets, in the order of all packets up to it."""
        pts = [each for segment in self._segments[: number + 1] for each in segment.pts]
        return decode_times(pts)[-len(self._segments[number].pts) :]

    def _packets(self, container: InputContainer, segment: StoredSegment) -> Iterator[Packet[Any]]:
        """Yield the packets of a segment, which begin with a key frame, from its own file or the result."""
        stream, first = container.streams.video[0], min(segment.pts) * segment.time_base
        packets: Iterator[Packet[Any]] = (packet for packet in container.demux(stream) if packet.size)
        if Path(container.name.removeprefix("file:")) == self._result:
            assert stream.time_base is not None
            container.seek(math.floor(first / stream.time_base) + 1, stream=stream)
            packets = _from(packets, first)
        return islice(packets, len(segment.pts))


def _from(packets: Iterator[Packet[Any]], first: Fraction) -> Iterator[Packet[Any]]:
    """Pass packets on from the key frame at a time on, which containers round to a millisecond."""
    for packet in packets:
        if packet.pts is not None and abs(packet.pts * packet.time_base - first) <= Fraction(1, 1000):
            yield packet
            break
    yield from packets


def _boxes(data: bytes, *, is_head: bool) -> bytes:
    """Cut the boxes of the head out of an MP4, or those after it."""
    position, parts = 0, []
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:
            break
        if (data[position + 4 : position + 8] in _HEAD_BOXES) is is_head:
            parts.append(data[position : position + size])
        position += size
    return b"".join(parts)
