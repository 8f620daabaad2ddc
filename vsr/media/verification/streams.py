"""Compare the streams beside the main video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from vsr.media.verification.contents import FileContents, StreamContents
from vsr.media.verification.difference import Difference, DifferenceCode
from vsr.media.verification.frames import SECONDS_OF_ROUNDING
from vsr.media.write.remuxer import is_same_language

__all__ = ["stream_differences", "tag_differences"]

TRANSCODED_SECONDS = 0.02  # by which an encoder of audio may shift it, beside the packet that primes its decoder
START_SECONDS = 0.002  # by which ISO files round the start of a stream: to a tick of the file's clock, often 1/600 s
WMA_LEAD_PACKETS = 2
_MADE_BY_MUXERS = {"default"}  # flags that containers without flags are read back with


def stream_differences(source: FileContents, output: FileContents, offset_seconds: float) -> Iterator[Difference]:
    """Compare all streams but the main video.

    offset_seconds: by which the output's frames are shown later than the source's.
    """
    pairs, missing, added = _pair_streams(source.streams, output.streams)
    for stream in missing:
        if source.is_part and not stream.num_packets:  # some muxers write no stream without packets
            continue
        yield Difference(DifferenceCode.STREAM_MISSING, f"{stream.title} is missing", stream.index)
    for stream in added:
        text = f"{stream.title} of the output is not in the source"
        yield Difference(DifferenceCode.STREAM_ADDED, text, stream.index)
    rewrites = any(row.rewrites_packets for row in (*source.containers, *output.containers))
    for want, got in pairs:
        if want.kind != "attachment":  # which is paired by its data, and has no times
            yield from _data_differences(want, got, rewrites)
            yield from _time_differences(want, got, offset_seconds)
            yield from _flag_differences(want, got)
            yield from tag_differences(want.tags, got.tags, want.title, want.index)


Pairs = list[tuple[StreamContents, StreamContents]]


def _pair_streams(
    source: Sequence[StreamContents], output: Sequence[StreamContents]
) -> tuple[Pairs, list[StreamContents], list[StreamContents]]:
    """Pair streams of one kind: by their data, else by language and codec, by codec, by language, by their order.

    Returns the pairs, and what is left of both.
    """
    pairs: Pairs = []
    rest, candidates = list(source), list(output)
    for is_like in _LIKENESSES:
        unpaired = []
        for want in rest:
            got = next((s for s in candidates if s.kind == want.kind and is_like(want, s)), None)
            if got is None:
                unpaired.append(want)
            else:
                pairs.append((want, got))
                candidates.remove(got)
        rest = unpaired
    return sorted(pairs, key=lambda pair: pair[0].index), rest, candidates


_LIKENESSES: tuple[Callable[[StreamContents, StreamContents], bool], ...] = (
    lambda a, b: a.sha256 == b.sha256 and is_same_language(a.language, b.language),
    lambda a, b: a.sha256 == b.sha256,
    lambda a, b: a.kind != "attachment" and a.codec == b.codec and is_same_language(a.language, b.language),
    lambda a, b: a.kind != "attachment" and a.codec == b.codec,
    lambda a, b: a.kind != "attachment" and is_same_language(a.language, b.language),
    lambda a, b: a.kind != "attachment",
)


def _data_differences(want: StreamContents, got: StreamContents, rewrites: bool) -> Iterator[Difference]:
    """Compare codec, number of packets and their data. rewrites: whether a muxer may have changed packets."""
    if want.sha256 == got.sha256:
        return
    if want.codec != got.codec:
        yield Difference(DifferenceCode.STREAM_CODEC, f"{want.title} is {got.codec} in the output", want.index)
        return
    if want.num_packets != got.num_packets and not _is_pcm(want):
        text = f"{want.title}: {got.num_packets} of {want.num_packets} packets are in the output"
        yield Difference(DifferenceCode.STREAM_PACKETS, text, want.index)
    elif not rewrites:
        yield Difference(DifferenceCode.STREAM_BYTES, f"{want.title}: its data differ", want.index)


def _time_differences(want: StreamContents, got: StreamContents, offset: float) -> Iterator[Difference]:
    """Compare when a stream is shown or heard, beside the frames: each packet where they are the same ones."""
    expected, actual = want.times.seconds + offset, got.times.seconds
    if not len(expected) or not len(actual):
        return
    tolerance = max(float(want.times.time_base + got.times.time_base), START_SECONDS) + SECONDS_OF_ROUNDING
    is_same_codec = want.codec == got.codec or want.sha256 == got.sha256
    if len(expected) == len(actual) and (is_same_codec or want.kind == "subtitle"):
        late = actual - expected
        if want.kind == "subtitle" and np.abs(late).max() <= tolerance:
            yield from _length_differences(want, got, tolerance)
    else:
        late = actual[:1] - expected[:1]
        if not is_same_codec:
            tolerance += TRANSCODED_SECONDS + max(got.times.durations) * float(got.times.time_base)
            if want.codec.startswith("wma"):  # whose decoders give no samples of the first packets
                tolerance += WMA_LEAD_PACKETS * max(want.times.durations) * float(want.times.time_base)
    if np.abs(late).max() <= tolerance:
        return
    first = int(np.argmax(np.abs(late) > tolerance))
    direction = "late" if late[first] > 0 else "early"
    if np.abs(late - late[0]).max() <= tolerance:
        text = f"{want.title} is {abs(late[0]):.6f} s {direction} beside the frames"
    else:
        text = f"{want.title}: from {expected[first]:.6f} s on, it is up to {np.abs(late).max():.6f} s off, {direction}"
    yield Difference(DifferenceCode.STREAM_TIMES, text, want.index)


def _length_differences(want: StreamContents, got: StreamContents, tolerance: float) -> Iterator[Difference]:
    """Compare how long subtitles are shown, where both files say so."""
    lengths = [np.asarray(s.times.durations) * float(s.times.time_base) for s in (want, got)]
    off = np.abs(lengths[1] - lengths[0]) * ((lengths[0] > 0) & (lengths[1] > 0))
    if off.max() > 2 * tolerance:  # both ends are rounded
        at = want.times.seconds[int(np.argmax(off))]
        text = f"{want.title}: the text at {at:.6f} s is shown for {off.max():.6f} s more or less"
        yield Difference(DifferenceCode.STREAM_TIMES, text, want.index)


def _flag_differences(want: StreamContents, got: StreamContents) -> Iterator[Difference]:
    """Compare language and disposition."""
    if want.language and not is_same_language(want.language, got.language):
        text = f"{want.title}: its language is {got.language or 'unknown'} in the output"
        yield Difference(DifferenceCode.LANGUAGE, text, want.index)
    lost, gained = want.flags - got.flags, got.flags - want.flags - _MADE_BY_MUXERS
    changes = [f"is not {flag} any more" for flag in sorted(lost)] + [f"is {flag} now" for flag in sorted(gained)]
    if changes:
        yield Difference(DifferenceCode.DISPOSITION, f"{want.title} {', and '.join(changes)}", want.index)


def tag_differences(
    want: Mapping[str, str], got: Mapping[str, str], title: str, stream: int | None
) -> Iterator[Difference]:
    """Name the tags of a source that are not in its output. title: of the file or stream that has them."""
    for key, value in want.items():
        found = got.get(key)
        if found is None:
            yield Difference(DifferenceCode.METADATA, f"{title}: the tag {key} ({value}) is missing", stream)
        elif found.strip() != value.strip():
            yield Difference(DifferenceCode.METADATA, f"{title}: the tag {key} is '{found}' and not '{value}'", stream)


def _is_pcm(stream: StreamContents) -> bool:
    """Tell whether the number of samples in a packet is up to the reader."""
    return stream.codec.startswith("pcm_")
