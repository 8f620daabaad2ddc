"""Open a job's input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vsr.backends.select import choose_place
from vsr.jobs.options import JobOptions
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader

__all__ = ["expected_frames", "open_source"]


def open_source(source: Path, options: JobOptions, note: Callable[[str], None] = lambda line: None) -> VideoReader:
    """The reader of a job's input."""
    input_options = InputOptions(
        input_format=options.input_format,
        video_size=options.video_size,
        pixel_format=options.pixel_format,
        framerate=options.framerate,
        maps=options.maps,
        start_seconds=options.start_seconds,
        duration_seconds=options.duration_seconds,
        deinterlace=options.deinterlace,
        hwaccel=options.hwaccel,
    )
    return VideoReader(source, input_options, gpu=_decoding_gpu(options), warn=note)


def _decoding_gpu(options: JobOptions) -> int | None:
    """Index of the CUDA GPU that decodes: that of the network, which is to be near; None for the CPU."""
    if options.hwaccel == "none":
        return None
    device = choose_place(options.device, options.backend).device
    if device.type == "cuda":
        return device.index or 0
    return 0 if options.hwaccel == "cuda" else None


def expected_frames(reader: VideoReader) -> int | None:
    """Frames of the part that is read, by the container's header; None where it does not say."""
    info, limit = reader.info, reader.duration_limit_seconds
    if limit is None and not reader.shift_seconds and info.num_frames_from_header:
        return info.num_frames_from_header
    if info.average_rate is None or info.duration_seconds is None:
        return None
    seconds = max(0.0, info.duration_seconds - float(reader.shift_seconds))
    return round(min(seconds, float(limit) if limit is not None else seconds) * info.average_rate)
