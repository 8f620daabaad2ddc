"""What is known of a video stream."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vsr.color.pixel_formats import PixelFormat
from vsr.frames import Color
from vsr.media.read.color_tags import HdrMetadata

__all__ = ["VideoInfo"]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of the main video stream once its first frame is decoded.

    sample_aspect_ratio: None where the stream has none.
    side_data_not_carried: names of what the frames carry and no encoder here can be given.
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
