"""Compare when frames are shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vsr.events import counted
from vsr.media.verification.contents import FileContents, Times
from vsr.media.verification.difference import Difference, DifferenceCode

__all__ = ["SECONDS_OF_ROUNDING", "FrameMatch", "frame_differences", "match_frames"]

SECONDS_OF_ROUNDING = 1e-7  # of float64 on any clock of media files


@dataclass(frozen=True, slots=True)
class FrameMatch:
    """Pair the frames of a source and an output that belong together.

    offset_seconds: by which the output's frames are shown later.  missing, added: positions in the source, and in the
    output, of frames without a counterpart.
    """

    offset_seconds: float
    missing: tuple[int, ...]
    added: tuple[int, ...]


def frame_differences(source: FileContents, output: FileContents, match: FrameMatch | None) -> Iterator[Difference]:
    """Compare numbers and times of frames. match: None where the output's container has no timestamps."""
    num_source, num_output = len(source.times.pts), len(output.times.pts)
    counts = f"the source has {counted(num_source, 'frame')} and the output {num_output}"
    if match is None:
        if num_source != num_output:
            yield Difference(DifferenceCode.FRAMES, counts)
        return
    tolerance = _tolerance(source.times, output.times)
    if abs(match.offset_seconds) > tolerance:
        later = "later" if match.offset_seconds > 0 else "earlier"
        text = f"all frames are shown {abs(match.offset_seconds):.6f} s {later}"
        yield Difference(DifferenceCode.START, text)
    if num_source != num_output:
        yield Difference(DifferenceCode.FRAMES, f"{counts}; {_first_odd(source, output, match)}")
    elif match.missing:
        position = match.missing[0]
        want, got = (times.seconds[position] for times in (source.times, output.times))
        others = f", and {len(match.missing) - 1} others" if len(match.missing) > 1 else ""
        text = f"frame {position} is shown at {got:.6f} s and not at {want + match.offset_seconds:.6f} s{others}"
        yield Difference(DifferenceCode.TIMESTAMPS, text)
    else:
        yield from _end_difference(source.times, output.times, match.offset_seconds)


def _first_odd(source: FileContents, output: FileContents, match: FrameMatch) -> str:
    """Name the first frame without a counterpart."""
    is_lost = len(source.times.pts) > len(output.times.pts)
    positions, contents = (match.missing, source) if is_lost else (match.added, output)
    position = positions[0] if positions else len(contents.times.pts) - 1
    seconds = contents.times.seconds[position]
    if is_lost:
        return f"frame {position} of the source, shown at {seconds:.6f} s, is the first that is missing"
    return f"frame {position} of the output, shown at {seconds:.6f} s, is the first that the source does not have"


def _end_difference(source: Times, output: Times, offset: float) -> Iterator[Difference]:
    """Compare the ends of the last frames; containers often do not say how long they last, and round it."""
    want, got = source.end_seconds, output.end_seconds
    if want is None or got is None or len(source.pts) < 2:
        return
    usual = float(np.median(np.diff(source.seconds)))
    if abs(got - want - offset) > max(_tolerance(source, output), usual / 2):
        text = f"the last frame ends at {got:.6f} s and not at {want + offset:.6f} s"
        yield Difference(DifferenceCode.DURATION, text)


def match_frames(source: Times, output: Times) -> FrameMatch:
    """Find the offset at which most frames of the output are shown when the source's are."""
    want, got, tolerance = source.seconds, output.seconds, _tolerance(source, output)
    if not len(want) or not len(got):
        return FrameMatch(0.0, tuple(range(len(want))), tuple(range(len(got))))
    offsets = (0.0, float(got[0] - want[0]), float(got[-1] - want[-1]))
    matches = [FrameMatch(offset, *_pair(want + offset, got, tolerance)) for offset in offsets]
    return min(matches, key=lambda match: len(match.missing))  # the first of several: no offset, if that will do


def _pair(want: np.ndarray, got: np.ndarray, tolerance: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pair ascending times that lie within the tolerance; return the positions of those that are left in each."""
    if len(want) == len(got) and np.all(np.abs(want - got) <= tolerance):
        return (), ()
    missing, added, i, j = [], [], 0, 0
    while i < len(want) and j < len(got):
        if abs(want[i] - got[j]) <= tolerance:
            i, j = i + 1, j + 1
        elif want[i] < got[j]:
            missing.append(i)
            i += 1
        else:
            added.append(j)
            j += 1
    return (*missing, *range(i, len(want))), (*added, *range(j, len(got)))


def _tolerance(source: Times, output: Times) -> float:
    """Return how far a time may be off, in seconds: a tick of the coarser clock; of very coarse ones, half a tick."""
    tick = float(max(source.time_base, output.time_base))
    gaps = np.diff(source.seconds)
    usual = float(np.median(gaps)) if len(gaps) else tick
    return max(tick / 2, min(tick, 0.49 * usual)) + SECONDS_OF_ROUNDING
