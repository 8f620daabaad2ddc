"""Open a job's source."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction

from vsr.backends.select import Place
from vsr.events import OnNote, Waking
from vsr.media.endpoints import Source
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader

__all__ = ["expected_frames", "open_source"]


def open_source(
    source: Source,
    options: InputOptions,
    place: Place,
    note: OnNote = lambda line: None,
    waking: Waking = contextlib.nullcontext,
) -> VideoReader:
    """Open a source for reading.

    place: of the network, near which a GPU decodes.  waking: ends the wait for a pipe, as `VideoReader` takes it.
    """
    return VideoReader(source, options, gpu=_decoding_gpu(options, place), warn=note, waking=waking)


def _decoding_gpu(options: InputOptions, place: Place) -> int | None:
    """Return the index of the CUDA GPU that decodes, that of the network if it is on one; None for the CPU."""
    if options.hwaccel == "none":
        return None
    if place.device.type == "cuda":
        return place.device.index or 0
    return 0 if options.hwaccel == "cuda" else None


def expected_frames(reader: VideoReader) -> int | None:
    """Return the frames of the part that is read, by the container's header; None where it does not say."""
    info, limit = reader.info, reader.duration_limit_seconds
    if limit is None and not reader.shift_seconds and info.num_frames_from_header:
        return info.num_frames_from_header
    if info.average_rate is None or info.duration_seconds is None:
        return None
    # Containers count their duration from their start, which in MPEG's is seldom zero.
    start, shift = info.start_seconds or Fraction(0), reader.shift_seconds
    seconds = max(0.0, info.duration_seconds - float(max(Fraction(0), shift - start)))
    if limit is not None:
        asked = limit - max(Fraction(0), start - shift)
        if asked < seconds:
            return max(0, math.ceil(asked * info.average_rate))  # a frame that begins before the end is within
    return round(seconds * info.average_rate)
