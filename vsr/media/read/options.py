"""Choose how an input is read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vsr.media.read.decoder import HwAccelMode
from vsr.media.read.deinterlace import DeinterlaceMode
from vsr.media.read.opening import InputFormat

__all__ = ["InputOptions"]


@dataclass(frozen=True, slots=True)
class InputOptions:
    """The part of a job's options that says how its input is read.

    input_format: FFmpeg's name of the demuxer, instead of the one that the data look like.
    video_size: "WIDTHxHEIGHT" in pixels, and pixel_format: of raw video.
    framerate: frames a second of raw video, of images, and of other inputs without times of their own.
    maps: the streams to take, each as ffmpeg's -map names them; none for all.
    start_seconds, duration_seconds: the part to read, counted as ffmpeg's -ss and -t do from the start of the file:
        frames from the first one at or after the start, whose timestamps then start at zero. Without a start,
        timestamps are those of the file, untouched.
    deinterlace: "auto" deinterlaces from the first frame on that is flagged as interlaced, "on" always, "off" never;
        "double" always, with a frame for each field.
    hwaccel: "cuda" decodes on a GPU, "auto" on the one that computes, "none" on the CPU.
    """

    input_format: str | None = None
    video_size: str | None = None
    pixel_format: str | None = None
    framerate: Fraction | None = None
    maps: tuple[str, ...] = ()
    start_seconds: Fraction | None = None
    duration_seconds: Fraction | None = None
    deinterlace: DeinterlaceMode = "auto"
    hwaccel: HwAccelMode = "none"

    @property
    def format(self) -> InputFormat:
        """The demuxer and its options. Raises OptionError where one is missing, wrong, or out of place."""
        return InputFormat(self.input_format, self.video_size, self.pixel_format, self.framerate)
