"""Describe a video stream by its container and its first frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.frames import ChromaLocation, Color
from vsr.media.av_frames import closest_native
from vsr.media.read.color_tags import (
    HdrMetadata,
    color_of_frame,
    display_matrix_of_frame,
    hdr_of_frame,
    side_data_not_carried,
)

__all__ = ["VideoInfo", "describe_video"]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Properties of the main video stream, known once its first frame is decoded.

    pixel_format: of the frames handed out; source_pixel_format: FFmpeg's name of the decoded one.
    width, height: in pixels, as stored.
    color: always explicit; untagged says that its matrix was assumed.
    sample_aspect_ratio: None where the stream has none.
    side_data_not_carried: names of side data of the frames that no encoder here can be given.
    display_matrix: the nine 16.16 (last column 2.30) fixed-point numbers of ISO/IEC 14496-12, or None.
    duration_seconds, num_frames_from_header: None where the container does not say; never relied upon.
    """

    codec: str
    pixel_format: PixelFormat
    source_pixel_format: str
    width: int
    height: int
    color: Color
    untagged: bool
    time_base: Fraction
    average_rate: Fraction | None
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None
    rotation_degrees: int
    hdr: HdrMetadata
    side_data_not_carried: tuple[str, ...]
    interlaced: bool
    start_seconds: Fraction | None
    duration_seconds: float | None
    num_frames_from_header: int | None

    def at_field_rate(self) -> VideoInfo:
        """Describe the video with a frame for each field: at twice the rate, with ticks half as long."""
        return replace(
            self,
            time_base=self.time_base / 2,
            average_rate=None if self.average_rate is None else 2 * self.average_rate,
            num_frames_from_header=None if self.num_frames_from_header is None else 2 * self.num_frames_from_header,
        )


def describe_video(
    container: InputContainer, stream: VideoStream, frame: av.VideoFrame, chroma_location: ChromaLocation | None
) -> VideoInfo:
    """Describe a video stream.

    Args:
        container, stream: the opened input, and the stream in it.
        frame: the first one decoded.
        chroma_location: of the stream, or None where it does not say.
    """
    codec = stream.codec_context.name
    format_ = FORMATS[_closest_format(frame)]
    color, untagged = color_of_frame(frame, format_, codec, chroma_location)
    duration, start = container.duration, stream.start_time
    time_base = frame.time_base or stream.time_base or Fraction(1, 90000)
    return VideoInfo(
        codec=codec,
        pixel_format=format_,
        source_pixel_format=frame.format.name,
        width=frame.width,
        height=frame.height,
        color=color,
        untagged=untagged,
        time_base=time_base,
        average_rate=stream.average_rate or stream.guessed_rate,
        sample_aspect_ratio=stream.sample_aspect_ratio or None,
        display_matrix=display_matrix_of_frame(frame),
        rotation_degrees=frame.rotation,
        hdr=hdr_of_frame(frame),
        side_data_not_carried=side_data_not_carried(frame, codec),
        interlaced=frame.interlaced_frame,
        start_seconds=None if start is None else start * time_base,
        duration_seconds=None if duration is None else duration / av.time_base,
        num_frames_from_header=stream.frames or None,
    )


def _closest_format(frame: av.VideoFrame) -> str:
    """Name the format that keeps the samples of a frame; of a palette, with alpha where one of its colours has it."""
    name = closest_native(frame.format)
    if not frame.format.has_palette:
        return name
    alpha = frame.reformat(format="rgba", threads=1).to_ndarray()[..., 3]
    return "rgba" if alpha.min() < 255 else name
