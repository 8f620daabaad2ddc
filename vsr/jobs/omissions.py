"""Name what an output cannot hold of its source: samples, streams, metadata, rotation, HDR."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from av.stream import Stream

from vsr.color.pixel_formats import PixelFormat
from vsr.errors import StrictError
from vsr.events import Note, NoteCode, OnNote, counted
from vsr.frames import Range
from vsr.media.formats import find_container, find_encoder
from vsr.media.read.color_tags import is_standard_definition
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.remuxer import carried_tags
from vsr.media.write.stream_plan import AudioMode, StreamPlan

__all__ = [
    "container_omissions",
    "file_omissions",
    "holds_aspect",
    "left_out_streams",
    "name_or_refuse",
    "output_aspect",
    "sample_omissions",
    "stream_tag_omissions",
    "untold_by_raw_video",
]


def holds_aspect(container: str, codec: str) -> bool:
    """Tell whether PyAV can write the sample aspect ratio: in the container, that is so for ISO files alone."""
    return find_container(container).holds_aspect or find_encoder(codec).holds_aspect


def untold_by_raw_video(info: VideoInfo, settings: VideoSettings, container: str) -> tuple[list[str], list[str]]:
    """Name what raw video does not say of itself: (what is left out by that, what its reader has to be told)."""
    omissions, notes, color = [], [], settings.color
    row = find_container(container)
    name = row.shown_name
    keeps = '`format="matroska"` with `codec="ffv1"` keeps it'
    if not color.is_rgb:
        if not info.untagged:
            omissions.append(f"the colour tags ({color.matrix.name}) are left out: {name} has none; {keeps}")
        elif is_standard_definition(info.width, info.height) != is_standard_definition(settings.width, settings.height):
            read_as = f"the video has no colour tags; read as {color.matrix.name}"
            notes.append(f"{read_as}, which {name} cannot say and a reader of this size will not expect")
        if not row.states_range and color.range is Range.FULL:
            omissions.append(f"that the range is full is left out: raw video in {container} cannot say so; {keeps}")
    if info.display_matrix:
        omissions.append(f"that it is shown rotated is left out: {name} cannot say so")
    if info.hdr.mastering_display or info.hdr.content_light:
        omissions.append(
            f'HDR10 metadata is left out: {name} has none; `format="matroska"` with `codec="libx265"` keeps it'
        )
    return omissions, notes


def left_out_streams(reader: VideoReader, audio: AudioMode, holder: str) -> list[StreamPlan]:
    """Plan all other streams for an output that has no place for any; holder: its name, as in "y4m holds"."""
    return [_left_out(stream, reader, audio, holder) for stream in reader.other_streams]


def _left_out(stream: Stream, reader: VideoReader, audio: AudioMode, holder: str) -> StreamPlan:
    if stream.index not in reader.chosen_streams:
        return StreamPlan.of(stream, "leave", note="left out as asked (`maps`)")
    if stream.type == "audio" and audio == "none":
        return StreamPlan.of(stream, "leave", note='left out as asked (`audio="none"`)')
    return StreamPlan.of(stream, "leave", note=f"left out: {holder} none", is_omission=True)


def file_omissions(reader: VideoReader, holder: str) -> list[str]:
    """Name what is left out of the input as a whole where an output has images alone; holder: as in "y4m holds"."""
    omissions, num_chapters = [], len(reader.container.chapters())
    if num_chapters:
        omissions.append(f"{counted(num_chapters, 'chapter')}: {holder} none")
    tags = carried_tags(reader.container.metadata)
    if tags:
        omissions.append(f"metadata ({', '.join(tags)}): {holder} none")
    return omissions


def sample_omissions(source: PixelFormat, target: PixelFormat, codec: str) -> list[str]:
    """Name what samples of one format lose in another, a line each."""
    omissions = []
    if source.alpha and not target.alpha:
        omissions.append(f"alpha is left out: {codec} has none")
    if target.bit_depth < source.bit_depth:
        omissions.append(f"{source.bit_depth} bit samples become {target.bit_depth} bit ({codec}, {target.name})")
    if source.kind != "gray" and any(t > s for s, t in zip(source.chroma_shift, target.chroma_shift, strict=True)):
        omissions.append(f"colour is stored at lower resolution: {source.name} becomes {target.name}")
    return omissions


def output_aspect(info: VideoInfo, width: int, height: int) -> Fraction | None:
    """Return the sample aspect ratio that keeps the shape of the image, as ffmpeg's scale filter does."""
    stretch = Fraction(width, info.width) / Fraction(height, info.height)
    if info.sample_aspect_ratio is None and abs(stretch - 1) < Fraction(1, 100):
        return None
    if abs(stretch - 1) < Fraction(1, 1000):  # rounding to even sides is no change of shape
        return info.sample_aspect_ratio
    return ((info.sample_aspect_ratio or Fraction(1)) / stretch).limit_denominator(65535)


def container_omissions(
    container: str,
    codec: str,
    info: VideoInfo,
    metadata: Mapping[str, str],
    streams: Sequence[StreamPlan],
    *,
    has_cover: bool = False,
) -> list[str]:
    """Name what is left out of a video and of its file as a whole, a line each.

    container, codec: FFmpeg's names of the output's format and encoder.  metadata: of the source's file.
    has_cover: whether the source has a cover image.
    """
    omissions, row = [], find_container(container)
    tags = carried_tags(dict(metadata))
    if tags and not row.holds_metadata:
        omissions.append(f"metadata ({', '.join(tags)}) is left out: {container} has no place for it")
    elif row.file_tags is not None and not (row.takes_free_tags and not has_cover):
        unheld = [tag for tag in tags if _tag_name(tag) not in row.file_tags]
        if unheld:
            omissions.append(f"metadata ({', '.join(unheld)}) is left out: {container} has no place for it")
    if not row.holds_languages:
        kept = [plan for plan in streams if plan.action in ("copy", "transcode")]
        omissions += [
            f"{plan.title}: its language is left out: {container} has no place for it"
            for plan in kept
            if plan.language not in (None, "und")
        ]
    if info.display_matrix is not None and not row.holds_rotation:
        degrees = f"rotated by {info.rotation_degrees} degrees" if info.rotation_degrees else "mirrored"
        omissions.append(f"that it is shown {degrees} is left out: {container} has no place for it")
    start = info.start_seconds or Fraction(0)
    if row.starts_at_first_frame and 2 * abs(start) * (info.average_rate or 25) >= 1:  # half a frame
        omissions.append(f"the start at {float(start):g} s is left out: {container} begins with the first frame")
    if (info.hdr.mastering_display or info.hdr.content_light) and find_encoder(codec).hdr is None:
        omissions.append(f'HDR10 metadata is left out: {codec} has no place for it; `codec="libx265"` keeps it')
    return omissions


def stream_tag_omissions(container: str, reader: VideoReader, streams: Sequence[StreamPlan]) -> list[str]:
    """Name the tags of streams that a container has no place for, a line each stream. container: FFmpeg's name."""
    row = find_container(container)
    kept = {plan.index for plan in streams if plan.action in ("copy", "transcode")} | {reader.stream.index}
    if row.stream_tags is None or not row.holds_streams:
        return []
    omissions = []
    for stream in reader.container.streams:
        unheld = [tag for tag in carried_tags(stream.metadata) if _tag_name(tag) not in row.stream_tags]
        unheld = [tag for tag in unheld if _tag_name(tag) not in _TOLD_OTHERWISE]
        if stream.index in kept and unheld:
            title = f"{stream.type} stream {stream.index}"
            omissions.append(f"{title}: metadata ({', '.join(unheld)}) is left out: {container} has no place for it")
    return omissions


# Tags for what is named, or kept, by itself.
_TOLD_OTHERWISE = {"language", "alpha_mode", "stereo_mode", "creation_time", "rotate", "variant_bitrate", "id3v2_priv"}
_LANGUAGE_OF_TAG = re.compile(r"-[a-z]{3}$")


def _tag_name(tag: str) -> str:
    """Return a tag's name as all containers share it: in small letters, without the language that QuickTime adds."""
    return _LANGUAGE_OF_TAG.sub("", tag.lower())


def name_or_refuse(is_strict: bool, source: Path, omissions: Sequence[str], note: OnNote) -> None:
    """Note each omission; raise StrictError instead where omissions are refused. source: its name in messages."""
    if omissions and is_strict:
        raise StrictError(f"{source}: {'; '.join(omissions)} (`strict=True`)")
    for line in omissions:
        note(Note(NoteCode.OMISSION, line))
