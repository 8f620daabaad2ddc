"""Encode batches of planes as the video stream of a container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vsr.color.pixel_formats import PixelFormat
from vsr.errors import OptionError, OutputError, reason
from vsr.frames import ChromaLocation, Color, FrameBatch
from vsr.media.av_frames import store_planes
from vsr.media.captions import Captions, carries_captions
from vsr.media.formats import HdrParameters, find_container, find_encoder
from vsr.media.pyav_fixes import captured_errors, mend_dts, open_encoder
from vsr.media.read.color_tags import HdrMetadata
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.stored_format import to_stored_format

__all__ = ["VideoEncoder", "VideoSettings", "encoder_threads", "scaled_matrix"]

SMALL_MACHINE_CORES = 4

_CHROMA_LOCATION_NAMES = {
    ChromaLocation.LEFT: "left",
    ChromaLocation.CENTER: "center",
    ChromaLocation.TOPLEFT: "topleft",
    ChromaLocation.TOP: "top",
    ChromaLocation.BOTTOMLEFT: "bottomleft",
    ChromaLocation.BOTTOM: "bottom",
}


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """Set how the upscaled frames are encoded.

    Args:
        codec: FFmpeg's name of the encoder.
        pixel_format: Of the frames given to it.
        width, height: In pixels.
        color: The colour tags.
        sample_aspect_ratio: Width by height of a pixel; None where unknown.
        options: Options of the encoder in FFmpeg's words, such as crf or x264-params.
        stored_as: FFmpeg's name of the format that the encoder takes; None for `pixel_format` itself.
    """

    codec: str
    pixel_format: PixelFormat
    width: int
    height: int
    color: Color
    sample_aspect_ratio: Fraction | None = None
    options: dict[str, str] = field(default_factory=dict)
    stored_as: str | None = None

    @property
    def stored_format(self) -> str:
        """FFmpeg's name of the format that the encoder takes."""
        return self.stored_as or self.pixel_format.name


class VideoEncoder:
    """A video stream of an output, encoded from planes with their PTS.

    `time_base` is that of the packets, in seconds: the source's, except in containers that count frames.
    """

    def __init__(
        self,
        output: OutputContainer,
        name: Path,
        settings: VideoSettings,
        info: VideoInfo,
        threads: int | None = None,
        captions: Captions | None = None,
    ) -> None:
        """Add the stream. `open` opens the encoder, once all streams are added.

        Args:
            output: The container.
            name: Of the output, in messages.
            settings: How the frames are encoded.
            info: Clock, rate, rotation and HDR of the frames to be written.
            threads: Of the encoder, 0 for its own choice; by the machine's cores unless given. Some encoders make
                other packets with another number.
            captions: Of the frames to be written, by PTS; None for none. Encoders without a place for them write none.
        """
        self._captions = captions if carries_captions(settings.codec) else None
        if self._captions is not None:
            self._captions.is_wanted = True
        self._threads = encoder_threads(settings.codec) if threads is None else threads
        self.settings, self.time_base, self._info, self._name = settings, info.time_base, info, name
        self.num_frames = 0
        self._last_dts: int | None = None
        self._durations: dict[int, int] = {}
        rate = info.average_rate or Fraction(25)
        self.stream = stream = _added_stream(output, name, settings.codec, rate)
        container = find_container(output.format.name)
        row = find_encoder(settings.codec)
        if row.tag and container.takes_timescale:
            stream.codec_context.codec_tag = row.tag
        self._counts, self._rate = row.counts_frames, min(row.rates or (rate,), key=lambda each: abs(each - rate))
        self._shown: list[int] = []  # the PTS of each frame, where the encoder counts them
        self._begins_at_zero = container.starts_at_first_frame
        self._first_ticks = 0
        if container.counts_frames:
            self.time_base = 1 / rate
        if not container.holds_reordered_frames:
            stream.codec_context.max_b_frames = 0
        self._describe_frames()
        if info.display_matrix:
            stream.set_display_matrix(scaled_matrix(info.display_matrix, settings.width / info.width))

    def _describe_frames(self) -> None:
        context, settings = self.stream.codec_context, self.settings
        context.width, context.height = settings.width, settings.height
        context.pix_fmt = settings.stored_format
        context.time_base = self.stream.time_base = self.time_base
        if self._counts:
            context.framerate, context.time_base = self._rate, 1 / self._rate
        context.thread_count = self._threads
        context.thread_type = "AUTO"
        if settings.sample_aspect_ratio:
            context.sample_aspect_ratio = settings.sample_aspect_ratio
        context.colorspace = settings.color.matrix
        context.color_primaries = settings.color.primaries
        context.color_trc = settings.color.transfer
        context.color_range = settings.color.range

    def open(self) -> None:
        """Open the encoder. Raises OptionError and OutputError where it does not open, or lacks an option."""
        context, settings = self.stream.codec_context, self.settings
        options = {"chroma_sample_location": _CHROMA_LOCATION_NAMES[settings.color.chroma_location]}
        options |= settings.options | _hdr_options(settings.codec, self._info.hdr, settings.options)
        if self._captions is not None:
            options = {"a53cc": "1"} | options  # libx265 leaves them out by itself
        context.options = options
        try:
            open_encoder(context)
        except (av.FFmpegError, OSError, ValueError) as error:
            lines = self._errors_of_opening()
            asked = " ".join(f"{k}={v}" for k, v in settings.options.items())
            problem = (
                f"the encoder {settings.codec} does not open at {settings.width}x{settings.height} "
                f"{settings.stored_format} with {asked or 'its defaults'} ({'; '.join(lines) or reason(error)})"
            )
            software = find_encoder(settings.codec).software
            if software is not None:
                remedy = f'it needs an NVIDIA GPU that has it; or use `codec="{software}"`'
                raise OptionError(f'`codec="{settings.codec}"`: {problem}; {remedy}') from error
            raise OutputError(f"{self._name}: {problem}") from error
        unused = set(settings.options) & set(context.options)
        if unused:
            raise OptionError(f"the encoder {settings.codec} has no option {', '.join(sorted(unused))}")

    def _errors_of_opening(self) -> list[str]:
        """Return what the encoder logs when it is opened once more, now that this has failed.

        Not at the first time: a decoder's thread that logs meanwhile waits for the GIL, and whoever frees that decoder
        with the GIL held waits for the thread.
        """
        failures = (av.FFmpegError, OSError, ValueError)
        with captured_errors(self.settings.codec) as lines, contextlib.suppress(*failures):
            open_encoder(self.stream.codec_context)
        return lines

    def encode(self, batch: FrameBatch) -> Iterator[Packet[Any]]:
        """Encode the frames of a batch; yield the packets that are complete."""
        ticks = batch.time_base / self.time_base
        for position, (pts, duration) in enumerate(zip(batch.pts, batch.durations, strict=True)):
            format_ = self.settings.pixel_format
            carrier = None
            if self._captions is not None:
                carrier = self._captions.take(pts, batch.width, batch.height, format_.name)
            frame = store_planes(batch, position, format_, carrier)
            if self._begins_at_zero and not self.num_frames:
                self._first_ticks = pts
            ticks_shown = round((pts - self._first_ticks) * ticks)
            frame.pts, frame.time_base = ticks_shown, self.time_base
            if self.settings.stored_as is not None:
                frame = to_stored_format(frame, self.settings.stored_as)
            frame.colorspace, frame.color_range = batch.color.matrix, batch.color.range
            frame.color_primaries, frame.color_trc = batch.color.primaries, batch.color.transfer
            if duration:
                self._durations[ticks_shown] = round(duration * ticks)
            if self._counts:
                frame.pts, frame.time_base = len(self._shown), 1 / self._rate
                self._shown.append(ticks_shown)
            self.num_frames += 1
            yield from self._packets(frame)

    def flush(self) -> Iterator[Packet[Any]]:
        """Drain the encoder; yield the last packets."""
        yield from self._packets(None)

    def _packets(self, frame: av.VideoFrame | None) -> Iterator[Packet[Any]]:
        for packet in self.stream.encode(frame):
            if self._counts:
                self._set_times(packet)
            duration = self._durations.pop(packet.pts, None) if packet.pts is not None else None
            if duration is not None:
                packet.duration = duration
            mend_dts(packet, self._last_dts)
            self._last_dts = packet.dts
            yield packet

    def _set_times(self, packet: Packet[Any]) -> None:
        """Give a packet the times of the frames that the encoder has counted."""
        assert packet.pts is not None and packet.dts is not None
        first, position = self._shown[0], packet.dts
        step = max(1, round(1 / (self._rate * self.time_base)))
        packet.pts, packet.duration, packet.time_base = self._shown[packet.pts], step, self.time_base
        packet.dts = self._shown[position] if position >= 0 else first + position * step


def encoder_threads(codec: str) -> int:
    """Return the number of threads for a video encoder; 0 for the encoder's own choice."""
    cores = os.cpu_count() or 1
    return cores * find_encoder(codec).threads_per_core if cores <= SMALL_MACHINE_CORES else 0


def scaled_matrix(matrix: tuple[int, ...], scale: float) -> tuple[int, ...]:
    """Return a display matrix for a larger image: its translation, in pixels, grows by `scale`."""
    limit = 2**31 - 1
    moved = tuple(max(-limit, min(limit, round(value * scale))) for value in matrix[6:8])
    return (*matrix[:6], *moved, matrix[8])


def _hdr_options(codec: str, hdr: HdrMetadata, given: dict[str, str]) -> dict[str, str]:
    """Return HDR10 side data as an option of the encoders that write it into the bitstream.

    Args:
        codec: FFmpeg's name of the encoder.
        hdr: The side data.
        given: The encoder's other options; parameters in the same option are kept.
    """
    words = find_encoder(codec).hdr
    display, light = hdr.mastering_display, hdr.content_light
    if words is None or (display is None and light is None):
        return {}
    params = [given[words.option]] if given.get(words.option) else []
    if display is not None and display.primaries and display.white_point and display.luminance_cd_m2:
        text = _mastering_text(words, _named(display.primaries, display.white_point), display.luminance_cd_m2)
        params.append(f"{words.mastering_display}={text}")
    if light is not None:
        params.append(f"{words.content_light}={light.max_cll_cd_m2},{light.max_fall_cd_m2}")
    return {words.option: ":".join(params)}


def _mastering_text(
    words: HdrParameters,
    points: list[tuple[str, tuple[Fraction, Fraction]]],
    luminance: tuple[Fraction, Fraction],
) -> str:
    """Return SMPTE ST 2086 as an encoder takes it.

    Args:
        words: How the encoder takes it.
        points: Name and CIE xy chromaticity of each primary and of the white point.
        luminance: Minimum and maximum, in cd/m².
    """
    darkest, brightest = luminance
    if words.has_decimals:
        text = "".join(f"{name}({float(x):.5f},{float(y):.5f})" for name, (x, y) in points)
        return f"{text}L({float(brightest):.4f},{float(darkest):.4f})"
    text = "".join(f"{name}({round(x * 50000)},{round(y * 50000)})" for name, (x, y) in points)
    return f"{text}L({round(brightest * 10000)},{round(darkest * 10000)})"


def _named(
    primaries: tuple[tuple[Fraction, Fraction], ...], white: tuple[Fraction, Fraction]
) -> list[tuple[str, tuple[Fraction, Fraction]]]:
    red, green, blue = primaries
    return [("G", green), ("B", blue), ("R", red), ("WP", white)]


def _added_stream(output: OutputContainer, name: Path, codec: str, rate: Fraction) -> VideoStream:
    """Add the stream of an encoder. Raises OutputError where the container does not take it."""
    container = find_container(output.format.name)
    try:
        stream = output.add_stream(codec, rate=rate)
    except ValueError as error:
        raise OutputError(f"{name}: {_why_not_held(container.name, codec)}") from error
    if codec in container.loses_times_of:
        raise OutputError(
            f"{name}: FFmpeg reads {codec} in {container.name} back without the times of its first frames; use .mkv, "
            ".ts or .mpg"
        )
    assert isinstance(stream, VideoStream)
    return stream


def _why_not_held(container: str, codec: str) -> str:
    """Say why a container gets no video of an encoder, and what to do."""
    if codec in find_container(container).unwritten_codecs:
        return f"PyAV puts no {codec} into {container}; use .avi or .nut, or another `codec` (ffv1 is lossless)"
    return f"{container} does not hold {codec}; choose another `codec` or another file suffix"
