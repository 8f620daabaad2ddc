"""The check of a finished file: frames, timestamps and packets against what went in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from vsr.errors import InputError, VerificationError, reason
from vsr.media.formats import Container, find_containers_of_demuxer
from vsr.media.packet_checksum import StreamChecksum
from vsr.media.read.opening import open_input

__all__ = ["verify_output"]


def verify_output(
    path: Path,
    name: Path,
    pts: Sequence[int],
    time_base: Fraction,
    checksums: Mapping[int, StreamChecksum],
    video_index: int,
    source_format: str,
    num_refused: Mapping[int, int] | None = None,
) -> None:
    """Read a file back, packet by packet, and compare.

    path: the file to read; `name` is what messages call it.
    pts: of the frames that the reader handed out, in ticks of `time_base` (seconds).
    checksums: of the packets that the reader handed out for each copied stream, by its index in the output.
    num_refused: how many of them the muxer did not take, which has been said.

    Raises VerificationError with the first difference.
    """
    try:
        found = _read_back(path, video_index, checksums)
    except (InputError, av.FFmpegError, OSError, IndexError) as error:
        cause = reason(error.__cause__ or error)
        raise VerificationError(f"{name}: cannot be read back ({cause}); the file was removed") from error
    if found.num_frames != len(pts):
        raise VerificationError(
            f"{name}: {len(pts)} frames went in and {found.num_frames} came out; the file was removed"
        )
    if all(row.has_timestamps for row in found.containers):
        start = pts[0] if any(row.starts_at_first_frame for row in found.containers) and pts else 0
        _compare_times(name, [(p - start) * time_base for p in pts], sorted(found.times), found.tick)
    both = found.containers + find_containers_of_demuxer(source_format)
    rewritten = any(row.rewrites_packets for row in both)
    refused = num_refused or {}
    for index, checksum in checksums.items():
        if checksum.num_packets == 1 and checksum.digest in found.covers:  # ISO files list them behind all tracks
            continue
        # How many samples lie in a packet is up to whoever reads PCM.
        num_expected = None if index in found.samples else checksum.num_packets - refused.get(index, 0)
        is_same = rewritten or index in refused or checksum.digest == found.checksums[index].digest
        _compare_stream(name, index, num_expected, found.checksums[index].num_packets, is_same)


@dataclass
class _Found:
    """What is in a file.

    times: of the frames, in seconds.  samples: indices of the streams that are PCM.  covers: digests of pictures.
    """

    containers: list[Container]
    tick: Fraction
    samples: set[int]
    checksums: dict[int, StreamChecksum]
    covers: set[bytes] = field(default_factory=set)
    num_frames: int = 0
    times: list[Fraction] = field(default_factory=list)


def _read_back(path: Path, video_index: int, indices: Iterable[int]) -> _Found:
    with open_input(path) as container:
        found = _Found(
            find_containers_of_demuxer(container.format.name),
            container.streams[video_index].time_base or Fraction(1, 1000),
            {s.index for s in container.streams if getattr(s.codec_context, "name", "").startswith("pcm_")},
            {index: StreamChecksum() for index in indices},
        )
        for packet in container.demux():
            if not packet.size:
                continue
            if packet.stream.index == video_index:
                found.num_frames += 1
                time = packet.pts if packet.pts is not None else packet.dts  # AVI has the latter alone
                if time is not None:
                    found.times.append(time * packet.time_base)
            elif Disposition.attached_pic in packet.stream.disposition:
                cover = StreamChecksum()
                cover.add(packet)
                found.covers.add(cover.digest)
            elif packet.stream.index in found.checksums:
                found.checksums[packet.stream.index].add(packet)
    return found


def _compare_times(name: Path, expected: list[Fraction], actual: list[Fraction], tolerance: Fraction) -> None:
    if len(actual) != len(expected):
        raise VerificationError(f"{name}: {len(expected) - len(actual)} frames have no timestamp; the file was removed")
    for position, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if abs(want - got) > tolerance / 2:
            raise VerificationError(
                f"{name}: frame {position} should be shown at {float(want):.6f} s and is at {float(got):.6f} s "
                f"(this container's clock ticks every {float(tolerance):.6f} s); another container may hold it"
            )


def _compare_stream(name: Path, index: int, num_expected: int | None, num_found: int, is_same: bool) -> None:
    if num_expected is not None and num_expected != num_found:
        raise VerificationError(
            f"{name}: stream {index}: {num_expected} packets went in and {num_found} came out; the file was removed"
        )
    if not is_same:
        raise VerificationError(f"{name}: stream {index}: the copied packets differ; the file was removed")
