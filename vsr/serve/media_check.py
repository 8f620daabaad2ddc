"""Look at a file from a stranger before anything is done with it: only harmless formats, only within limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vsr.serve.errors import RefusedError, TooLargeError
from vsr.serve.settings import Limits

__all__ = ["SourceVideo", "check_video", "open_stranger"]

# FFmpeg's demuxers that read one file and nothing beside it: no playlists, lists of files, scripts or devices.
_DEMUXERS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "ogg", "asf", "nut", "yuv4mpegpipe", "gif", "mxf",
    "ivf", "dv",
)  # fmt: skip
_CODECS = frozenset({
    "h264", "hevc", "vvc", "av1", "libdav1d", "libaom-av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg1video",
    "mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v2", "msmpeg4v1", "h263", "h263p", "flv", "wmv1", "wmv2", "wmv3", "vc1",
    "theora", "vp6", "vp6f", "vp6a", "prores", "dnxhd", "cfhd", "mjpeg", "ffv1", "huffyuv", "ffvhuff", "utvideo",
    "rawvideo", "v210", "gif", "dvvideo", "png", "qtrle", "svq1", "svq3", "cinepak", "jpeg2000",
})  # fmt: skip
_MOST_STREAMS = 64
_UNKNOWN = "the file is not a video of a format that this service takes (mp4, mov, mkv, webm, avi, ts, mpg, flv ...)"


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """Describe a video by its header.

    Args:
        demuxer: FFmpeg's name of its format, one of those that are harmless.
        codec: FFmpeg's name of the decoder.
        width, height: In pixels.
        seconds: How long it lasts; None where the header does not say.
        num_frames: Expected by the header; None where it does not say.
        num_bytes: Of the file.
        has_audio: Whether it has sound.
    """

    demuxer: str
    codec: str
    width: int
    height: int
    seconds: float | None
    num_frames: int | None
    num_bytes: int
    has_audio: bool

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


def open_stranger(path: Path, most_pixels: int = 2**31 - 1) -> InputContainer:
    """Open a media file that may be of any kind, which only harmless demuxers look at. Raises RefusedError.

    most_pixels: of a frame that FFmpeg may decode to learn more than the header says.
    """
    try:
        return av.open(
            f"file:{path}",
            mode="r",
            container_options={"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": "file"},
            options={"max_pixels": str(most_pixels)},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RefusedError(_UNKNOWN, status=415, code="not_a_video") from error


def check_video(path: Path, limits: Limits) -> SourceVideo:
    """Describe a video that a client sent, by its header alone.

    Raises RefusedError (415) for what is no video of a harmless format, and TooLargeError (413) beyond a limit.
    """
    num_bytes = path.stat().st_size
    if num_bytes > limits.upload_bytes:
        raise TooLargeError(f"the file has {num_bytes:,} bytes; at most {limits.upload_bytes:,} are taken")
    with open_stranger(path, limits.video_pixels) as container:
        stream = next((each for each in container.streams.video if not _is_cover(each)), None)
        if stream is None:
            raise RefusedError("the file has no video in it", status=415, code="not_a_video")
        if len(container.streams) > _MOST_STREAMS:
            raise TooLargeError(f"the file has {len(container.streams)} streams; at most {_MOST_STREAMS} are taken")
        source = _described(container, stream, num_bytes)
    if source.codec not in _CODECS:
        raise RefusedError("the video is of a codec that this service does not take", status=415, code="codec")
    _check_limits(source, limits)
    return source


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & stream.disposition.__class__.attached_pic)


def _described(container: InputContainer, stream: VideoStream, num_bytes: int) -> SourceVideo:
    context = stream.codec_context
    lengths = [float(s.duration * s.time_base) for s in container.streams if s.duration and s.time_base]
    if container.duration:
        lengths.append(container.duration / av.time_base)
    seconds = max(lengths, default=None)
    num_frames = stream.frames or None
    if num_frames is None and seconds is not None and stream.average_rate:
        num_frames = round(seconds * float(stream.average_rate))
    return SourceVideo(
        container.format.name.split(",")[0],
        context.name,
        context.width,
        context.height,
        seconds,
        num_frames,
        num_bytes,
        bool(container.streams.audio),
    )


def _check_limits(source: SourceVideo, limits: Limits) -> None:
    if not source.width or not source.height:
        raise RefusedError("the video has no frames that can be decoded", status=415, code="not_a_video")
    if source.width * source.height > limits.video_pixels:
        raise TooLargeError(
            f"the frames are {source.width}x{source.height}; at most {limits.video_pixels:,} pixels are taken"
        )
    if source.seconds is not None and source.seconds > limits.video_seconds:
        raise TooLargeError(f"the video lasts {source.seconds:,.0f} s; at most {limits.video_seconds:,} s are taken")
    if source.num_frames is not None and source.num_frames > limits.video_frames:
        raise TooLargeError(f"the video has {source.num_frames:,} frames; at most {limits.video_frames:,} are taken")
