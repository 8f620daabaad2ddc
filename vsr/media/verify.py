"""The check of a finished file: frames, timestamps and packets against what went in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from vsr.errors import VerificationError
from vsr.media.reader import open_input
from vsr.media.tally import StreamTally

__all__ = ["verify_output"]

# Containers without timestamps of their own: only the frames can be counted.
_UNTIMED = {"h264", "hevc", "m4v", "mpegvideo", "obu", "rawvideo", "av1"}

# Containers whose packets carry headers that others keep elsewhere, so that muxers rewrite them on the way.
_REWRITING = {"mpegts", "mpeg", "h264", "hevc", "aac", "flv", "avi", "ogg"}


def verify_output(
    path: Path,
    name: Path,
    pts: Sequence[int],
    time_base: Fraction,
    tallies: Mapping[int, StreamTally],
    video_index: int,
    source_format: str,
) -> None:
    """Read a file back, packet by packet, and compare.

    path: the file to read; `name` is what messages call it.
    pts: of the frames that the reader handed out, in ticks of `time_base` (seconds).
    tallies: of the packets that the reader handed out for each copied stream, by its index in the output.

    Raises VerificationError with the first difference.
    """
    times: list[Fraction] = []
    found: dict[int, StreamTally] = {index: StreamTally() for index in tallies}
    num_packets = 0
    with open_input(path) as container:
        tick = container.streams[video_index].time_base or Fraction(1, 1000)
        formats = set(container.format.name.split(","))
        for packet in container.demux():
            if not packet.size:
                continue
            if packet.stream.index == video_index:
                num_packets += 1
                time = packet.pts if packet.pts is not None else packet.dts  # AVI has the latter alone
                if time is not None:
                    times.append(time * packet.time_base)
            elif packet.stream.index in found:
                found[packet.stream.index].add(packet)
    if num_packets != len(pts):
        raise VerificationError(f"{name}: {len(pts)} frames went in and {num_packets} came out; the file was removed")
    if not formats & _UNTIMED:
        _compare_times(name, [p * time_base for p in pts], sorted(times), tick)
    rewritten = bool((formats | set(source_format.split(","))) & _REWRITING)
    for index, tally in tallies.items():
        _compare_stream(name, index, tally, found[index], rewritten)


def _compare_times(name: Path, expected: list[Fraction], actual: list[Fraction], tolerance: Fraction) -> None:
    if len(actual) != len(expected):
        raise VerificationError(f"{name}: {len(expected) - len(actual)} frames have no timestamp; the file was removed")
    for position, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if abs(want - got) > tolerance / 2:
            raise VerificationError(
                f"{name}: frame {position} should be shown at {float(want):.6f} s and is at {float(got):.6f} s "
                f"(this container's clock ticks every {float(tolerance):.6f} s); another container may hold it"
            )


def _compare_stream(name: Path, index: int, tally: StreamTally, found: StreamTally, rewritten: bool) -> None:
    if tally.num_packets != found.num_packets:
        raise VerificationError(
            f"{name}: stream {index}: {tally.num_packets} packets went in and {found.num_packets} came out; "
            "the file was removed"
        )
    if not rewritten and tally.digest != found.digest:
        raise VerificationError(f"{name}: stream {index}: the copied packets differ; the file was removed")
