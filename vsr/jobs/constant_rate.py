"""Refuse video of a variable frame rate where the output counts frames, before any work is done."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from vsr.errors import OutputError
from vsr.media.endpoints import File, Target
from vsr.media.formats import Container, container_named, find_container, find_container_of_file, find_encoder
from vsr.media.pyav_fixes import fill_in_timestamps
from vsr.media.read.opening import DEFAULT_FRAMERATE, open_input
from vsr.media.read.reader import VideoReader
from vsr.media.write.options import EncodingOptions

__all__ = ["check_constant_rate"]

Seconds = npt.NDArray[np.float64]

_MOST_ODD_INTERVALS = 0.1  # share of those that differ where a frame was lost, not where the rate varies


def check_constant_rate(reader: VideoReader, target: Target, options: EncodingOptions, codec: str) -> None:
    """Read the times of a file's frames where its output has a constant rate, and refuse what it cannot show.

    codec: FFmpeg's name of the encoder.  Raises OutputError.
    """
    row = find_container_of_file(target.path)
    if options.format is not None:
        row = find_container(container_named(options.format))
    is_constant = row.counts_frames or row.rate_of_encoder != "none"
    if not is_constant or row.is_raw or not isinstance(target, File) or reader.pipe or reader.images:
        return
    rate = reader.info.average_rate or DEFAULT_FRAMERATE
    seconds = _frame_times(reader)
    if row.counts_frames:
        _refuse_clashes(seconds, rate, target, row)
        return
    rate = min(find_encoder(codec).rates or (rate,), key=lambda each: abs(each - rate))
    _refuse_other_rates(seconds, rate, target, row)


def _frame_times(reader: VideoReader) -> Seconds:
    """Return the times of the frames that a job takes, in ascending order."""
    start, end = reader.shift_seconds, reader.duration_limit_seconds
    ticks = _packet_ticks(reader, fill_in=False)
    if None in ticks:  # MPEG-PS names a time for the first frame of a piece alone
        ticks = _packet_ticks(reader, fill_in=True)
    tick = float(reader.stream.time_base or 1)
    seconds = np.sort(np.asarray([t for t in ticks if t is not None], np.float64)) * tick
    part: Seconds = seconds[(seconds >= float(start)) & (seconds < float(start + end if end is not None else np.inf))]
    return part


def _packet_ticks(reader: VideoReader, *, fill_in: bool) -> list[int | None]:
    """Read the PTS of the video's packets. fill_in: let FFmpeg reckon those that the file lacks."""
    ticks: list[int | None] = []
    with open_input(reader.path) as container:
        if fill_in:
            fill_in_timestamps(container)
        with suppress(av.FFmpegError):  # where a damaged file ends; the job names that
            ticks += (p.pts for p in container.demux(container.streams[reader.stream.index]) if p.size)
    return ticks


def _refuse_clashes(seconds: Seconds, rate: Fraction, target: File, row: Container) -> None:
    """Refuse two frames in one place of an output that counts them."""
    places = np.rint((seconds - seconds[:1]) * float(rate))
    clashes = np.flatnonzero(np.diff(places) == 0)
    if len(clashes):
        one, other = seconds[clashes[0]], seconds[clashes[0] + 1]
        raise OutputError(
            f"{target}: {row.shown_name} shows frames at a constant rate, and the source's rate varies (frames at "
            f"{one:.3f} and {other:.3f} s); use .mkv, .mp4 or .mov"
        )


def _refuse_other_rates(seconds: Seconds, rate: Fraction, target: File, row: Container) -> None:
    """Refuse frames that are half an interval off where they get the times of the encoder's rate.

    MPEG-PS gives most frames a time, though not all: there an interval here and there may differ.
    """
    if row.rate_of_encoder == "all":
        is_off = np.abs((seconds - seconds[:1]) * float(rate) - np.arange(len(seconds))) > 0.5
        most = 0.0
    else:
        is_off = np.abs(np.diff(seconds) * float(rate) - 1) > 0.5
        most = _MOST_ODD_INTERVALS
    if np.count_nonzero(is_off) > most * len(is_off):
        first = int(np.argmax(is_off)) + (row.rate_of_encoder != "all")
        raise OutputError(
            f"{target}: {row.shown_name} shows {float(rate):.6g} frames a second, and frame {first} of the source "
            f"comes {seconds[first] - seconds[0]:.3f} s after the first; use .mkv, .mp4 or .ts"
        )
