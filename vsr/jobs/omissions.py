"""Name what an output cannot hold of its source: samples, streams, metadata, rotation, HDR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from av.stream import Stream

from vsr.color.pixel_formats import PixelFormat
from vsr.errors import StrictError
from vsr.events import OnNote
from vsr.frames import Range
from vsr.jobs.options import JobOptions
from vsr.media.formats import find_container, find_encoder
from vsr.media.read.color_tags import SD_MAX_LINES
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.remuxer import carried_tags
from vsr.media.write.stream_plan import AudioMode, StreamPlan

__all__ = [
    "container_losses",
    "file_losses",
    "holds_aspect",
    "left_out_streams",
    "name_or_refuse",
    "output_aspect",
    "sample_losses",
    "untold_by_raw_video",
]


def holds_aspect(container: str, codec: str) -> bool:
    """Whether PyAV can write the sample aspect ratio: of the container's own, it reaches those of ISO files alone."""
    return find_container(container).holds_aspect or find_encoder(codec).holds_aspect


def untold_by_raw_video(info: VideoInfo, settings: VideoSettings, container: str) -> tuple[list[str], list[str]]:
    """What raw video does not say of itself: what is lost by that, and what a reader has to be told."""
    losses, notes, color = [], [], settings.color
    row = find_container(container)
    name = row.shown_name
    keeps = "--format matroska -c:v ffv1 keeps it"
    if not color.is_rgb:
        if not info.untagged:
            losses.append(f"the colour tags ({color.matrix.name}) are left out: {name} has none; {keeps}")
        elif (info.height <= SD_MAX_LINES) != (settings.height <= SD_MAX_LINES):
            read_as = f"the video has no colour tags; read as {color.matrix.name}"
            notes.append(f"{read_as}, which {name} cannot say and a reader of this size will not expect")
        if not row.states_range and color.range is Range.FULL:
            losses.append(f"that the range is full is left out: raw video in {container} cannot say so; {keeps}")
    if info.display_matrix:
        losses.append(f"that it is shown rotated is left out: {name} cannot say so")
    if info.hdr.mastering_display or info.hdr.content_light:
        losses.append(f"HDR10 metadata is left out: {name} has none; --format matroska -c:v libx265 keeps it")
    return losses, notes


def left_out_streams(reader: VideoReader, audio: AudioMode, holder: str) -> list[StreamPlan]:
    """The plans for all other streams where what is written, the `holder`, has no place for any."""
    return [_left_out(stream, reader, audio, holder) for stream in reader.other_streams]


def _left_out(stream: Stream, reader: VideoReader, audio: AudioMode, holder: str) -> StreamPlan:
    if stream.index not in reader.chosen_streams:
        return StreamPlan(stream, "leave", note="left out as asked (-map)")
    if stream.type == "audio" and audio == "none":
        return StreamPlan(stream, "leave", note="left out as asked (--audio none)")
    return StreamPlan(stream, "leave", note=f"left out: {holder} none", is_loss=True)


def file_losses(reader: VideoReader, holder: str) -> list[str]:
    """What is lost of the input as a whole where what is written, the `holder`, has pictures and nothing else."""
    losses, num_chapters = [], len(reader.container.chapters())
    if num_chapters:
        losses.append(f"{num_chapters} chapters: {holder} none")
    tags = carried_tags(reader.container.metadata)
    if tags:
        losses.append(f"metadata ({', '.join(tags)}): {holder} none")
    return losses


def sample_losses(source: PixelFormat, target: PixelFormat, codec: str) -> list[str]:
    """What samples of one format lose in another, a line each."""
    losses = []
    if source.alpha and not target.alpha:
        losses.append(f"alpha is left out: {codec} has none")
    if target.bit_depth < source.bit_depth:
        losses.append(f"{source.bit_depth} bit samples become {target.bit_depth} bit ({codec}, {target.name})")
    if source.kind != "gray" and any(t > s for s, t in zip(source.chroma_shift, target.chroma_shift, strict=True)):
        losses.append(f"colour is stored at lower resolution: {source.name} becomes {target.name}")
    return losses


def output_aspect(info: VideoInfo, width: int, height: int) -> Fraction | None:
    """The sample aspect ratio that keeps the shape of the picture, as ffmpeg's scale filter does."""
    stretch = Fraction(width, info.width) / Fraction(height, info.height)
    if info.sample_aspect_ratio is None and abs(stretch - 1) < Fraction(1, 100):
        return None
    if abs(stretch - 1) < Fraction(1, 1000):  # rounding to even sides is no change of shape
        return info.sample_aspect_ratio
    return ((info.sample_aspect_ratio or Fraction(1)) / stretch).limit_denominator(65535)


def container_losses(
    container: str, codec: str, info: VideoInfo, metadata: Mapping[str, str], streams: Sequence[StreamPlan]
) -> list[str]:
    """What is lost of a video and of its file as a whole, a line each.

    container, codec: FFmpeg's names of the output's format and encoder.  metadata: of the source's file.
    """
    losses, row = [], find_container(container)
    tags = carried_tags(dict(metadata))
    if tags and not row.holds_metadata:
        losses.append(f"metadata ({', '.join(tags)}) is left out: {container} has no place for it")
    if not row.holds_languages:
        kept = [plan for plan in streams if plan.action in ("copy", "transcode")]
        losses += [
            f"{plan.title}: its language is left out: {container} has no place for it"
            for plan in kept
            if plan.stream.language not in (None, "und")
        ]
    if info.display_matrix is not None and not row.holds_rotation:
        degrees = f"rotated by {info.rotation_degrees} degrees" if info.rotation_degrees else "mirrored"
        losses.append(f"that it is shown {degrees} is left out: {container} has no place for it")
    start = info.start_seconds or Fraction(0)
    if row.starts_at_first_frame and 2 * abs(start) * (info.average_rate or 25) >= 1:  # half a frame
        losses.append(f"the start at {float(start):g} s is left out: {container} begins with the first frame")
    if (info.hdr.mastering_display or info.hdr.content_light) and find_encoder(codec).hdr is None:
        losses.append(f"HDR10 metadata is left out: {codec} has no place for it; -c:v libx265 keeps it")
    return losses


def name_or_refuse(options: JobOptions, source: Path, losses: list[str], note: OnNote) -> None:
    """Name what is lost; under --strict, refuse instead."""
    if losses and options.strict:
        raise StrictError(f"{source}: {'; '.join(losses)} (--strict)")
    for line in losses:
        note(line)
