"""Refuse video of a variable frame rate where the output counts frames, before any work is done."""

from __future__ import annotations

from contextlib import suppress

import av
import numpy as np

from vsr.errors import OutputError
from vsr.media.endpoints import File, Target
from vsr.media.formats import container_named, find_container, find_container_of_file
from vsr.media.read.opening import DEFAULT_FRAMERATE, open_input
from vsr.media.read.reader import VideoReader
from vsr.media.write.options import EncodingOptions

__all__ = ["check_constant_rate"]


def check_constant_rate(reader: VideoReader, target: Target, options: EncodingOptions) -> None:
    """Read the times of a file's frames where its output counts frames, and refuse two frames in one place.

    Raises OutputError.
    """
    row = find_container_of_file(target.path)
    if options.format is not None:
        row = find_container(container_named(options.format))
    if not row.counts_frames or row.is_raw or not isinstance(target, File) or reader.pipe or reader.images:
        return
    rate = reader.info.average_rate or DEFAULT_FRAMERATE
    start, end = reader.shift_seconds, reader.duration_limit_seconds
    with open_input(reader.path) as container:
        stream = container.streams[reader.stream.index]
        ticks: list[int] = []
        with suppress(av.FFmpegError):  # where a damaged file ends; the job names that
            ticks += (packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
        seconds = np.sort(np.asarray(ticks, np.float64)) * float(stream.time_base or 1)
    seconds = seconds[(seconds >= float(start)) & (seconds < float(start + end if end is not None else np.inf))]
    places = np.rint((seconds - seconds[:1]) * float(rate))
    clashes = np.flatnonzero(np.diff(places) == 0)
    if len(clashes):
        one, other = seconds[clashes[0]], seconds[clashes[0] + 1]
        raise OutputError(
            f"{target}: {row.shown_name} shows frames at a constant rate, and the source's rate varies (frames at "
            f"{one:.3f} and {other:.3f} s); use .mkv, .mp4 or .mov"
        )
