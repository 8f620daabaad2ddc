"""What containers and encoders have no place for, besides packets: metadata, languages, rotation, a start, HDR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from vsr.media.read.reader import VideoInfo
from vsr.media.write.remuxer import StreamPlan, carried_tags

__all__ = ["container_losses"]

_WITHOUT_METADATA = {"mpegts", "mpeg", "svcd", "vob", "dvd", "ivf", "obu", "h264", "hevc", "rawvideo", "y4m"}
_WITHOUT_LANGUAGES = {"avi", "flv", "ivf"}
_WITH_ROTATION = {"mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v", "matroska", "webm"}
_WITH_HDR = {"libx265", "libx264", "libsvtav1"}  # encoders that are given it, and write it into the bitstream


def container_losses(
    container: str, codec: str, info: VideoInfo, metadata: Mapping[str, str], streams: Sequence[StreamPlan]
) -> list[str]:
    """What is lost of a video and of its file as a whole, a line each.

    container, codec: FFmpeg's names of the output's format and encoder.  metadata: of the source's file.
    """
    losses = []
    tags = carried_tags(dict(metadata))
    if tags and container in _WITHOUT_METADATA:
        losses.append(f"metadata ({', '.join(tags)}) is left out: {container} has no place for it")
    if container in _WITHOUT_LANGUAGES:
        kept = [plan for plan in streams if plan.action in ("copy", "transcode")]
        losses += [
            f"{plan.title}: its language is left out: {container} has no place for it"
            for plan in kept
            if plan.stream.language not in (None, "und")
        ]
    if info.display_matrix is not None and container not in _WITH_ROTATION:
        degrees = f"rotated by {info.rotation_degrees} degrees" if info.rotation_degrees else "mirrored"
        losses.append(f"that it is shown {degrees} is left out: {container} has no place for it")
    start = info.start_seconds or Fraction(0)
    if container == "avi" and 2 * abs(start) * (info.average_rate or 25) >= 1:  # half a frame
        losses.append(f"the start at {float(start):g} s is left out: avi begins with the first frame")
    if (info.hdr.mastering_display or info.hdr.content_light) and codec not in _WITH_HDR:
        losses.append(f"HDR10 metadata is left out: {codec} has no place for it; -c:v libx265 keeps it")
    return losses
