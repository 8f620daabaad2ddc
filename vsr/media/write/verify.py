"""Check a finished file: its frames, packets and all timestamps against those of the source."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition, Stream

from vsr.errors import InputError, VerificationError, reason
from vsr.media.formats import Container, find_containers_of_demuxer
from vsr.media.packet_checksum import StreamChecksum
from vsr.media.read.opening import open_input

__all__ = ["ExpectedOutput", "verify_output"]

ROUNDED_SECONDS = 0.002  # by which ISO files of coarse clocks, and sources of 1 ms, round beside the stream's own tick
TRANSCODED_SECONDS = 0.02  # by which an encoder of audio may shift it, beside the packet that primes its decoder


@dataclass(frozen=True, slots=True)
class ExpectedOutput:
    """Name what a finished file must hold.

    Args:
        pts: The PTS of every frame, in ticks of `time_base`.
        time_base: In seconds.
        video_index: Index of the video stream in the file.
        checksums: Of the source's packets of each copied stream, by the stream's index in the file.
        transcoded: The same of each audio stream that was transcoded, of which only the times are compared.
        texts: When each text of a transcoded stream is due, in seconds, by the same index.
        heard: When the first samples of each transcoded stream are due, where its decoder gives none of some packets.
        source_format: FFmpeg's name of the demuxer that gave those packets.
        num_refused: The number of packets that the muxer did not take, which has been reported, by the same index.
    """

    pts: Sequence[int]
    time_base: Fraction
    video_index: int
    checksums: Mapping[int, StreamChecksum]
    source_format: str
    num_refused: Mapping[int, int] = field(default_factory=dict)
    transcoded: Mapping[int, StreamChecksum] = field(default_factory=dict)
    texts: Mapping[int, Sequence[float]] = field(default_factory=dict)
    heard: Mapping[int, float] = field(default_factory=dict)


def verify_output(path: Path, name: Path, expected: ExpectedOutput) -> None:
    """Read a file back, packet by packet, and compare it with what it must hold.

    Args:
        path: The file.
        name: Its name in messages.
        expected: Frames and packets.

    Raises VerificationError with the first difference.
    """
    try:
        found = _read_back(path, expected.video_index, [*expected.checksums, *expected.transcoded, *expected.texts])
    except (InputError, av.FFmpegError, OSError, IndexError) as error:
        cause = reason(error.__cause__ or error)
        raise VerificationError(f"{name}: cannot be read back ({cause}); the file was removed") from error
    _compare_frames(name, expected, found)
    both = found.containers + find_containers_of_demuxer(expected.source_format)
    is_rewritten = any(row.rewrites_packets for row in both)
    for index, checksum in expected.checksums.items():
        if checksum.num_packets == 1 and checksum.digest in found.covers:  # ISO files list them behind all tracks
            continue
        num_refused = expected.num_refused.get(index, 0)
        # How many samples lie in a packet of PCM differs between demuxers.
        num_expected = None if index in found.samples else checksum.num_packets - num_refused
        is_same = is_rewritten or bool(num_refused) or checksum.digest == found.checksums[index].digest
        _compare_stream(name, index, num_expected, found.checksums[index].num_packets, is_same)
    _compare_other_times(name, expected, found)


@dataclass
class _Found:
    """Count what a file holds.

    Args:
        containers: Those that its demuxer reads.
        tick: Of the video, in seconds.
        samples: Indices of the streams that are PCM.
        ticks: Of each stream, in seconds, by its index.
        checksums: Of the packets of each copied stream, by its index.
        covers: Digests of the cover images.
        num_frames: The number of packets of the video.
        times: Of the frames, in ticks, in the order of decoding.
    """

    containers: list[Container]
    tick: Fraction
    samples: set[int]
    ticks: dict[int, float]
    checksums: dict[int, StreamChecksum]
    covers: set[bytes] = field(default_factory=set)
    num_frames: int = 0
    times: array[int] = field(default_factory=lambda: array("q"))  # 8 bytes a frame


def _read_back(path: Path, video_index: int, indices: Iterable[int]) -> _Found:
    with open_input(path) as container:
        places = _places(container, [video_index, *indices], video_index)
        found = _Found(
            find_containers_of_demuxer(container.format.name),
            container.streams[places[video_index]].time_base or Fraction(1, 1000),
            {i for i, s in _placed(container, places) if getattr(s.codec_context, "name", "").startswith("pcm_")},
            {i: float(s.time_base or Fraction(1, 1000)) for i, s in _placed(container, places)},
            {index: StreamChecksum() for index in indices},
        )
        may_lack_times = any(row.guesses_times for row in found.containers)
        indices_of = {place: index for index, place in places.items()}
        for packet in container.demux():
            if not packet.size:
                continue
            index = indices_of.get(packet.stream.index)
            if index == video_index:
                found.num_frames += 1
                # AVI has the latter alone; in MPEG-PS it is guessed.
                time = packet.pts if packet.pts is not None or may_lack_times else packet.dts
                if time is not None:
                    found.times.append(time)
            elif Disposition.attached_pic in packet.stream.disposition:
                cover = StreamChecksum()
                cover.add(packet)
                found.covers.add(cover.digest)
            elif index in found.checksums:
                found.checksums[index].add(packet)
    return found


def _places(container: InputContainer, indices: Iterable[int], video_index: int) -> dict[int, int]:
    """Return where a file has the streams that were written, by their index.

    FLV lists its two streams in the order in which their packets come.
    """
    places = {index: index for index in indices}
    streams = container.streams
    if len(streams) == 2 and streams[video_index].type != "video" and streams.video:
        return {
            index: streams.video[0].index if index == video_index else 1 - streams.video[0].index for index in places
        }
    return places


def _placed(container: InputContainer, places: Mapping[int, int]) -> Iterable[tuple[int, Stream]]:
    """Pair the indices of streams with the streams of a file, which has none of those without packets."""
    streams = container.streams
    return [(index, streams[place]) for index, place in places.items() if place < len(streams)]


def _compare_frames(name: Path, expected: ExpectedOutput, found: _Found) -> None:
    pts = expected.pts
    if found.num_frames != len(pts):
        raise VerificationError(
            f"{name}: {len(pts)} frames went in and {found.num_frames} came out; the file was removed"
        )
    if not all(row.has_timestamps for row in found.containers):
        return
    start = pts[0] if any(row.starts_at_first_frame for row in found.containers) and pts else 0
    # One frame's at a time: all would be hundreds of bytes a frame of a long video.
    due: Iterable[Fraction] = ((p - start) * expected.time_base for p in pts)
    times: Iterable[Fraction] = (ticks * found.tick for ticks in sorted(found.times))
    num_lacking = len(pts) - len(found.times)
    if num_lacking > 0 and any(row.guesses_times for row in found.containers):
        actual = list(times)
        due, times, num_lacking = _due_nearby(list(due), actual), actual, 0
    if num_lacking:
        raise VerificationError(f"{name}: {num_lacking} frames have no timestamp; the file was removed")
    _compare_times(name, due, times, found.tick)


def _due_nearby(due: Sequence[Fraction], actual: Sequence[Fraction]) -> list[Fraction]:
    """Pick the nearest of the times that are due to each that some frames have; both in ascending order."""
    places = [bisect.bisect_left(due, time) for time in actual]
    candidates = [due[max(0, place - 1) : place + 1] for place in places]
    return [min(near, key=lambda each: abs(each - time)) for near, time in zip(candidates, actual, strict=True)]


def _compare_times(name: Path, expected: Iterable[Fraction], actual: Iterable[Fraction], tolerance: Fraction) -> None:
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


def _compare_other_times(name: Path, expected: ExpectedOutput, found: _Found) -> None:
    """Compare when the other streams are shown or heard."""
    if not all(row.has_timestamps and not row.starts_at_first_frame for row in found.containers):
        return
    for index, want in expected.checksums.items():
        got = found.checksums[index]
        if got.num_packets and not expected.num_refused.get(index, 0):  # a cover has no time
            are_alike = index not in found.samples and want.num_packets == got.num_packets
            num_compared = want.num_packets if are_alike else 1
            _compare_packet_times(name, index, want.times[:num_compared], got.times[:num_compared], found.ticks[index])
    for index, want in expected.transcoded.items():
        got, tick = found.checksums[index], found.ticks[index]
        if want.times and got.times:  # sound is cut into other packets, and its encoder may need a lead
            longest = max(want.longest_seconds, got.longest_seconds)
            due, found_at = [max(want.times[0], expected.heard.get(index, want.times[0]))], [got.times[0]]
            if want.longest_seconds:  # else packets do not say how long they last
                due, found_at = [*due, want.end_seconds], [*found_at, got.end_seconds]
            _compare_packet_times(name, index, due, found_at, tick + TRANSCODED_SECONDS + longest)
    for index, seconds in expected.texts.items():
        _compare_packet_times(name, index, seconds, found.checksums[index].times, found.ticks[index])


def _compare_packet_times(
    name: Path, index: int, expected: Sequence[float], actual: Sequence[float], tolerance: float
) -> None:
    """Compare times that belong together, in seconds; NaN stands for one that is not known."""
    want, got = (np.asarray(times, np.float64) for times in (expected, actual))
    if len(want) != len(got):
        raise VerificationError(f"{name}: stream {index}: {len(want)} texts went in and {len(got)} came out")
    is_off = np.abs(got - want) > tolerance + ROUNDED_SECONDS  # never true of NaN
    if is_off.any():
        first = int(np.argmax(is_off))
        raise VerificationError(
            f"{name}: stream {index}: what is due at {want[first]:.6f} s is at {got[first]:.6f} s; the file was "
            "removed; another container may hold it"
        )
