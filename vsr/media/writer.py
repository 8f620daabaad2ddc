"""From batches of planes to a file: encoded with the source's own timestamps, beside its other streams."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from vsr.errors import OptionError, OutputError
from vsr.frames import ChromaLocation, Color, FrameBatch
from vsr.media.pixels import PixelFormat, store_planes
from vsr.media.reader import Chunk, VideoInfo, VideoReader, reason
from vsr.media.remux import Remuxer, StreamPlan, carried_tags, copy_chapters
from vsr.media.tags import HdrMetadata

__all__ = ["VideoSettings", "VideoWriter", "check_target", "encoder_threads", "partial_path"]

SMALL_MACHINE_CORES = 4
_INSTEAD_OF_NVENC = {"h264_nvenc": "libx264", "hevc_nvenc": "libx265", "av1_nvenc": "libsvtav1"}

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
    """How the upscaled frames are encoded.

    options: passed to the encoder as they are, like ffmpeg's -crf or -x264-params.
    """

    codec: str
    pixel_format: PixelFormat
    width: int
    height: int
    color: Color
    sample_aspect_ratio: Fraction | None = None
    options: dict[str, str] = field(default_factory=dict)


def partial_path(path: Path) -> Path:
    """Where a file is written until it is complete: hidden, beside the target, of the same suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def check_target(path: Path, overwrite: bool, source: Path | None = None) -> None:
    """Refuse a target that cannot or must not be written, before any work is done."""
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise OutputError(f"{path}: is the input itself; give the output another name")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; -y overwrites it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write in {path.parent}")


class VideoWriter:
    """Encode and mux into a file beside the target, which `commit` puts in place and `abort` removes."""

    def __init__(
        self,
        path: Path,
        reader: VideoReader,
        settings: VideoSettings,
        plans: Sequence[StreamPlan],
        info: VideoInfo | None = None,
    ) -> None:
        """info: what holds of the frames to be written (clock, rate, rotation, HDR); the reader's unless given."""
        self.path, self.settings = path, settings
        self.partial = partial_path(path)
        self.num_frames = 0
        self._durations: dict[int, int] = {}
        self._info = info = info or reader.info
        self.time_base = info.time_base
        try:
            self._output = av.open(f"file:{self.partial}", "w", container_options=_muxer_options(path, info.time_base))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be created ({reason(error)})") from error
        try:
            self._remuxer = Remuxer(self._output, plans)
            self.num_lost_chapters = self._add_streams(reader)
            self._open_encoder(info.hdr)
            self._write_header()
        except BaseException:
            self.abort()
            raise

    # -- opening ---------------------------------------------------------------------------------

    def _add_streams(self, reader: VideoReader) -> int:
        """Streams in the order of the input; returns the number of chapters the container cannot hold."""
        output = self._output
        for source in reader.container.streams:
            if source.index == reader.stream.index:
                self.stream = self._add_video(reader)
                self.stream_index = self.stream.index
            else:
                self._remuxer.add_stream(source.index)
        output.metadata.update(carried_tags(reader.container.metadata))
        return copy_chapters(reader.container, output, reader.shift_seconds, reader.duration_limit_seconds)

    def _add_video(self, reader: VideoReader) -> VideoStream:
        settings, info = self.settings, self._info
        rate = info.average_rate or Fraction(25)
        try:
            stream = self._output.add_stream(settings.codec, rate=rate)
        except ValueError as error:
            raise OutputError(
                f"{self.path}: {self._output.format.name} does not hold {settings.codec}; "
                f"choose another --codec or another file suffix"
            ) from error
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height = settings.width, settings.height
        context.pix_fmt = settings.pixel_format.name
        if self._output.format.name == "avi":  # counts frames
            self.time_base = 1 / rate
        if self._output.format.name in ("avi", "flv"):  # cannot store frames out of order from time zero on
            context.max_b_frames = 0
        context.time_base = stream.time_base = self.time_base
        context.thread_count = encoder_threads(settings.codec)
        context.thread_type = "AUTO"
        if settings.sample_aspect_ratio:
            context.sample_aspect_ratio = settings.sample_aspect_ratio
        context.colorspace = settings.color.matrix
        context.color_primaries = settings.color.primaries
        context.color_trc = settings.color.transfer
        context.color_range = settings.color.range
        if info.display_matrix:
            stream.set_display_matrix(_scaled_matrix(info.display_matrix, settings.width / info.width))
        stream.metadata.update(carried_tags(reader.stream.metadata))
        stream.disposition = reader.stream.disposition
        return stream

    def _open_encoder(self, hdr: HdrMetadata) -> None:
        context, settings = self.stream.codec_context, self.settings
        options = {"chroma_sample_location": _CHROMA_LOCATION_NAMES[settings.color.chroma_location]}
        options |= settings.options | _hdr_options(settings.codec, hdr, settings.options)
        context.options = options
        try:
            context.open()
        except (av.FFmpegError, OSError, ValueError) as error:
            asked = " ".join(f"{k}={v}" for k, v in settings.options.items())
            problem = (
                f"the encoder {settings.codec} does not open at {settings.width}x{settings.height} "
                f"{settings.pixel_format.name} with {asked or 'its defaults'} ({reason(error)})"
            )
            if settings.codec in _INSTEAD_OF_NVENC:
                remedy = f"it needs an NVIDIA GPU that has it; or use --codec {_INSTEAD_OF_NVENC[settings.codec]}"
                raise OptionError(f"--codec {settings.codec}: {problem}; {remedy}") from error
            raise OutputError(f"{self.path}: {problem}") from error
        unused = set(settings.options) & set(context.options)
        if unused:
            raise OptionError(f"the encoder {settings.codec} has no option {', '.join(sorted(unused))}")

    def _write_header(self) -> None:
        try:
            self._output.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(
                f"{self.path}: {self._output.format.name} cannot hold these streams ({reason(error)})"
            ) from error

    # -- writing ---------------------------------------------------------------------------------

    def write(self, chunk: Chunk) -> None:
        """Encode a chunk's frames and mux its packets; the muxer interleaves all by DTS."""
        try:
            for packet in chunk.packets:
                self._remuxer.mux(packet)
            if chunk.batch is not None:
                self._encode(chunk.batch)
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"{self.path}: writing failed ({reason(error)})") from error

    def _encode(self, batch: FrameBatch) -> None:
        for position, (pts, duration) in enumerate(zip(batch.pts, batch.durations, strict=True)):
            frame = store_planes(batch, position, self.settings.pixel_format)
            ticks = batch.time_base / self.time_base
            frame.pts, frame.time_base = round(pts * ticks), self.time_base
            frame.colorspace, frame.color_range = batch.color.matrix, batch.color.range
            frame.color_primaries, frame.color_trc = batch.color.primaries, batch.color.transfer
            if duration:
                self._durations[frame.pts] = round(duration * ticks)
            self.num_frames += 1
            self._mux_video(frame)

    def _mux_video(self, frame: av.VideoFrame | None) -> None:
        for packet in self.stream.encode(frame):
            duration = self._durations.pop(packet.pts, None) if packet.pts is not None else None
            if duration is not None:
                packet.duration = duration
            self._output.mux(packet)

    def finish(self) -> None:
        """Drain the encoders and complete the partial file."""
        try:
            self._mux_video(None)
            self._remuxer.flush()
            self._output.close()
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"{self.path}: writing failed ({reason(error)})") from error

    def commit(self) -> None:
        """Put the complete file in the target's place, at once."""
        try:
            self.partial.replace(self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be put in place ({reason(error)})") from error

    def abort(self) -> None:
        """Close without completing, and remove the partial file."""
        # The file goes away; what it lacks no longer matters.
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._output.close()
        self.partial.unlink(missing_ok=True)

    @property
    def num_damaged_audio(self) -> int:
        """Audio packets that were to be transcoded and could not be decoded."""
        return self._remuxer.num_damaged_audio

    @property
    def copied_streams(self) -> dict[int, int]:
        """Index in the output of every stream that is copied packet by packet, by its index in the input."""
        return self._remuxer.copied


def encoder_threads(codec: str) -> int:
    """0 for the encoder's own choice; twice the cores for x264 on a small machine.

    x264's own 1.5 threads a core leave two cores idle for a tenth of the time, as frame threads wait for
    one another (benchmarks/overlap.py).
    """
    cores = os.cpu_count() or 1
    return 2 * cores if codec == "libx264" and cores <= SMALL_MACHINE_CORES else 0


def _muxer_options(path: Path, time_base: Fraction) -> dict[str, str]:
    options = {"avoid_negative_ts": "disabled"}  # timestamps are the source's, not moved to zero
    if path.suffix.lower() in (".mp4", ".mov", ".m4v", ".3gp", ".3g2"):
        options["movflags"] = "+write_colr"
        options["video_track_timescale"] = str(time_base.denominator)
        options["movie_timescale"] = str(time_base.denominator)  # of the edit list, which holds a late start
    return options


def _scaled_matrix(matrix: tuple[int, ...], scale: float) -> tuple[int, ...]:
    """A display matrix for a larger picture: its translation is in pixels."""
    limit = 2**31 - 1
    moved = tuple(max(-limit, min(limit, round(value * scale))) for value in matrix[6:8])
    return (*matrix[:6], *moved, matrix[8])


def _hdr_options(codec: str, hdr: HdrMetadata, given: dict[str, str]) -> dict[str, str]:
    """HDR10 side data as parameters of the encoders that write it into the bitstream."""
    key = {"libx265": "x265-params", "libx264": "x264-params", "libsvtav1": "svtav1-params"}.get(codec)
    display, light = hdr.mastering_display, hdr.content_light
    if key is None or (display is None and light is None):
        return {}
    params = [given[key]] if given.get(key) else []
    if display is not None and display.primaries and display.white_point and display.luminance_cd_m2:
        params.append(_mastering_text(codec, display.primaries, display.white_point, display.luminance_cd_m2))
    if light is not None:
        values = f"{light.max_cll_cd_m2},{light.max_fall_cd_m2}"
        params.append({"libx265": "max-cll=", "libx264": "cll=", "libsvtav1": "content-light="}[codec] + values)
    return {key: ":".join(params)}


def _mastering_text(
    codec: str,
    primaries: tuple[tuple[Fraction, Fraction], ...],
    white: tuple[Fraction, Fraction],
    luminance: tuple[Fraction, Fraction],
) -> str:
    """ST 2086 as x264 and x265 take it (1/50000 and 1/10000 cd/m²), or SVT-AV1 (plain decimals)."""
    if codec == "libsvtav1":
        points = [f"{name}({float(x):.5f},{float(y):.5f})" for name, (x, y) in _named(primaries, white)]
        return "mastering-display=" + "".join(points) + f"L({float(luminance[1]):.4f},{float(luminance[0]):.4f})"
    points = [f"{name}({round(x * 50000)},{round(y * 50000)})" for name, (x, y) in _named(primaries, white)]
    key = "master-display" if codec == "libx265" else "mastering-display"
    return f"{key}=" + "".join(points) + f"L({round(luminance[1] * 10000)},{round(luminance[0] * 10000)})"


def _named(
    primaries: tuple[tuple[Fraction, Fraction], ...], white: tuple[Fraction, Fraction]
) -> list[tuple[str, tuple[Fraction, Fraction]]]:
    red, green, blue = primaries
    return [("G", green), ("B", blue), ("R", red), ("WP", white)]
