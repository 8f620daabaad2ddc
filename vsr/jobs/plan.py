"""Decide what a job does before any frame is touched: model, size, batch, codec, samples, streams."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch

from vsr.errors import OptionError
from vsr.events import Note, NoteCode
from vsr.jobs.compression import Compression
from vsr.jobs.constant_rate import check_constant_rate
from vsr.jobs.encoding import Encoding, check_encoder_size, choose_encoding, suited_to_size
from vsr.jobs.omissions import (
    container_omissions,
    file_omissions,
    holds_aspect,
    left_out_streams,
    output_aspect,
    sample_omissions,
    stream_tag_omissions,
    untold_by_raw_video,
)
from vsr.jobs.options import JobOptions
from vsr.jobs.source import expected_frames
from vsr.media.captions import carries_captions
from vsr.media.endpoints import Target
from vsr.media.formats import MATROSKA, find_container, find_encoder
from vsr.media.read.color_tags import CLOSED_CAPTIONS, STEREO_LAYOUT
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.stream_plan import AudioMode, StreamPlan, plan_streams
from vsr.models.cards import shipped_cards
from vsr.pipeline.loading import ModelOptions

__all__ = [
    "Footage",
    "ImagePlan",
    "VideoPlan",
    "choose_batch",
    "choose_model",
    "choose_size",
    "input_notes",
    "plan_streams_beside",
    "plan_video",
]

LARGEST_IMAGE_ON_CPU = 2**20  # pixels; above, the large network takes more than about a minute
LARGEST_VIDEO_ON_CPU = 1280 * 720  # pixels; above, even the light network takes seconds for a frame

LARGEST_USUAL = 3840 * 2160  # pixels; above, few players and screens keep up
_NAMED_HEIGHTS = {
    "480p": 480,
    "720p": 720,
    "1080p": 1080,
    "1440p": 1440,
    "2k": 1440,
    "4k": 2160,
    "2160p": 2160,
    "8k": 4320,
}


@dataclass(frozen=True, slots=True)
class Footage:
    """Describe what a model is chosen for: a video or a picture of that size in pixels.

    compression: of a video, where that is known.
    """

    width: int
    height: int
    is_image: bool = False
    compression: Compression | None = None


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """The decisions on a video: samples, size, encoder, container, and the fate of every other stream.

    container: FFmpeg's name of it, or IMAGES.  num_frames: expected by the header; None where it does not say.
    audio_bitrate: as in `EncodingOptions`.
    notes: worth knowing.  omissions: what the output cannot hold, which `strict=True` refuses.
    """

    settings: VideoSettings
    streams: tuple[StreamPlan, ...]
    container: str
    num_frames: int | None
    notes: tuple[Note, ...]
    omissions: tuple[str, ...]
    audio_bitrate: int | None = None


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The decisions on one image. width, height: of the output, in pixels.  omissions: as in `VideoPlan`."""

    width: int
    height: int
    omissions: tuple[str, ...]


# -- model and size ------------------------------------------------------------------------------------


def choose_model(options: ModelOptions, footage: Footage, device: torch.device) -> tuple[str, str]:
    """Choose the model asked for, or the best that the device can bear; return its name and why."""
    if options.model != "auto":
        return options.model, "as asked"
    width, height, is_image = footage.width, footage.height, footage.is_image
    wanted = 4.0
    if options.scale is not None:
        wanted = options.scale
    elif options.size is not None:
        size = _parse_size(options.size, width, height)
        wanted = max(size[0] / width, size[1] / height)
    subject = "a picture" if is_image else "video"
    reason = f"auto: for ×{wanted:g}, {subject} of {width}x{height} on {device.type}"
    if wanted <= 2:
        return "fast-x2", reason
    if is_image:
        is_small = width * height <= LARGEST_IMAGE_ON_CPU
        return "srresnet" if device.type != "cpu" or is_small else "fast", reason
    if device.type == "cpu" and width * height > LARGEST_VIDEO_ON_CPU:
        return "nano", reason
    is_compressed = footage.compression is not None and footage.compression.is_strong
    name = _video_model(device, is_compressed)
    if options.precision == "int8" and not shipped_cards()[name].int8_weights:
        return "fast", f"{reason}, in int8"
    return name, f"{reason}, compressed: {footage.compression}" if is_compressed else reason


def _video_model(device: torch.device, is_compressed: bool) -> str:
    """Choose among the networks with memory that are shipped; the large ones are for GPUs."""
    names = ["video-real-fast"] if is_compressed else ["video-fast"]
    if device.type != "cpu":
        names.insert(0, "video-real" if is_compressed else "video")
    return next(name for name in names if name in shipped_cards())


def choose_size(options: ModelOptions, scale: int, width: int, height: int, even: tuple[bool, bool]) -> tuple[int, int]:
    """Choose (width, height) of the output in pixels.

    scale: of the network.  width, height: of the input.
    even: whether (width, height) must be even, because chroma is subsampled; a size that was asked for
        in pixels and is odd is an error, one that follows from a scale is rounded up.
    """
    if options.size is not None:
        out = _parse_size(options.size, width, height)
        if out[0] < width or out[1] < height:
            raise OptionError(
                f'`size="{options.size}"`: {out[0]}x{out[1]} is smaller than the input, {width}x{height}; '
                "vsr enlarges (ffmpeg's scale filter reduces)"
            )
        if any(side % 2 and must for side, must in zip(out, even, strict=True)):
            raise OptionError(f'`size="{options.size}"`: must be even for 4:2:0; or add `pix_fmt="yuv444p"`')
        return out
    factor = options.scale or scale
    sides = (round(width * factor), round(height * factor))
    return sides[0] + (sides[0] % 2 if even[0] else 0), sides[1] + (sides[1] % 2 if even[1] else 0)


def _parse_size(text: str, width: int, height: int) -> tuple[int, int]:
    named = _NAMED_HEIGHTS.get(text.lower())
    if named is not None:
        # A portrait video is named by its shorter side too: "1080p" of a phone's is 1080 wide.
        if width <= height:
            return named, 2 * round(height * named / width / 2)
        return 2 * round(width * named / height / 2), named
    match = re.fullmatch(r"(\d+)[x×:](\d+)", text)
    if not match:
        raise OptionError(f'`size="{text}"`: give WIDTHxHEIGHT, or one of {", ".join(_NAMED_HEIGHTS)}')
    return int(match[1]), int(match[2])


def choose_batch(asked: int | None, width: int, height: int, device: torch.device, fitting: int | None = None) -> int:
    """Choose the frames per batch: enough to keep the device busy, few enough to stay in its caches or memory.

    On a CPU at least two, so that there are frames to run side by side.

    Args:
        asked: by the user; taken as it is.
        width, height: of the input, in pixels.
        fitting: frames that the free memory suffices for, where that is known.
    """
    if asked is not None:
        return asked
    pixels, fewest, most = (2**18, 2, 4) if device.type == "cpu" else (2**22, 1, 16)
    return max(fewest, min(most, pixels // (width * height), most if fitting is None else fitting))


# -- video ---------------------------------------------------------------------------------------------


def plan_video(reader: VideoReader, target: Target, options: JobOptions, scale: int) -> VideoPlan:
    """Decide on codec, samples, size and the fate of every other stream. scale: of the network."""
    info = reader.info
    encoding = choose_encoding(info, target, options.encoding, min(info.width, info.height) * scale)
    check_constant_rate(reader, target, options.encoding, encoding.codec)
    shift = encoding.pixel_format.chroma_shift
    width = _shown_width(info) if options.model.square else info.width
    size = choose_size(options.model, scale, width, info.height, (shift[0] > 0, shift[1] > 0))
    check_encoder_size(encoding.codec, *size)
    suited = suited_to_size(encoding, options.encoding, *size)
    plan = plan_streams_beside(reader, suited, size, options.encoding.audio)
    plan = replace(plan, audio_bitrate=options.encoding.audio_bitrate)
    if suited.options != encoding.options:
        text = f"{size[0]}x{size[1]}: {encoding.codec} with {_as_text(suited.options)}, as faithful as its usual "
        text += "settings, and faster; `preset` or `crf` choose others"
        plan = replace(plan, notes=(Note(NoteCode.OUTPUT, text), *plan.notes))
    if options.model.square and plan.settings.sample_aspect_ratio not in (None, 1):  # what rounding to pixels leaves
        plan = replace(plan, settings=replace(plan.settings, sample_aspect_ratio=Fraction(1)))
    if options.model.size is None and options.model.scale is None and size[0] * size[1] > LARGEST_USUAL:
        text = f'the output is {size[0]}x{size[1]}, larger than 4K; `size="2160p"` makes it smaller'
        plan = replace(plan, notes=(Note(NoteCode.OUTPUT, text), *plan.notes))
    return plan


def _as_text(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {options[name]}" for name in ("preset", "crf") if name in options)


def _shown_width(info: VideoInfo) -> int:
    """Return the width in pixels that a video has with square ones of its height."""
    return round(info.width * (info.sample_aspect_ratio or 1))


def plan_streams_beside(reader: VideoReader, encoding: Encoding, size: tuple[int, int], audio: AudioMode) -> VideoPlan:
    """Complete the plan of a video of which the encoding is decided. size: (width, height) of the output, in pixels."""
    aspect = output_aspect(reader.info, *size)
    settings = VideoSettings(
        encoding.codec,
        encoding.pixel_format,
        *size,
        encoding.color,
        aspect,
        encoding.options,
        encoding.stored_as,
    )
    container, row = encoding.container, find_container(encoding.container)
    if not row.holds_streams:
        streams = left_out_streams(reader, audio, f"{row.shown_name} holds")
    else:
        has_chapters = bool(reader.container.chapters())
        begin = None if reader.shift_seconds else reader.info.start_seconds
        streams = plan_streams(
            reader.other_streams, container, audio, has_chapters, reader.chosen_streams, reader.covers, begin
        )
    omissions, notes = _omissions_and_notes(reader, settings, container, streams)
    notes += input_notes(reader)
    return VideoPlan(settings, tuple(streams), container, expected_frames(reader), tuple(notes), tuple(omissions))


def _omissions_and_notes(
    reader: VideoReader, settings: VideoSettings, container: str, streams: Sequence[StreamPlan]
) -> tuple[list[str], list[Note]]:
    """Name what a video file cannot hold of its source, and what is worth knowing of its streams and colour."""
    info, codec, row = reader.info, settings.codec, find_container(container)
    is_raw = find_encoder(codec).is_raw
    omissions = [f"{s.title}: {s.note}" for s in streams if s.is_omission]
    omissions += [
        f"{name} of the video cannot be carried over" for name in _side_data_not_carried(reader, container, codec)
    ]
    omissions += [] if row.holds_streams else file_omissions(reader, f"{row.shown_name} holds")
    holder = codec if row.holds_streams else row.shown_name
    omissions += sample_omissions(info.pixel_format, settings.pixel_format, holder)
    if not is_raw:
        omissions += container_omissions(
            container, codec, info, reader.container.metadata, streams, has_cover=bool(reader.covers)
        )
        omissions += stream_tag_omissions(container, reader, streams)
    notes = [Note(NoteCode.STREAM, f"{s.title}: {s.note}") for s in streams if s.note and not s.is_omission]
    if settings.sample_aspect_ratio not in (None, 1) and not holds_aspect(container, codec):
        omissions.append(
            f"the sample aspect ratio {settings.sample_aspect_ratio} is left out: {codec} in {container} cannot be "
            "given it; .mp4, .y4m, libx264 and libx265 keep it"
        )
    if is_raw:
        untold, worth_knowing = untold_by_raw_video(info, settings, container)
        omissions += untold
        notes += [Note(NoteCode.OUTPUT, line) for line in worth_knowing]
    elif info.untagged and not info.color.is_rgb:
        notes.append(
            Note(NoteCode.INPUT, f"the video has no colour tags; read as {info.color.matrix.name}, and tagged so")
        )
    return omissions, notes


def _side_data_not_carried(reader: VideoReader, container: str, codec: str) -> list[str]:
    """Name the side data of the video that the output lacks; Matroska keeps the stereo layout as a tag."""
    kept = set()
    if "stereo_mode" in reader.stream.metadata and container in (MATROSKA, "webm"):
        kept.add(STEREO_LAYOUT)
    if carries_captions(codec):
        kept.add(CLOSED_CAPTIONS)
    return [name for name in reader.info.side_data_not_carried if name not in kept]


def input_notes(reader: VideoReader) -> list[Note]:
    """Say how interlaced video is read."""
    if reader.is_deinterlaced:
        text = 'deinterlaced by bwdif, a frame for a frame (`deinterlace="off"` leaves it)'
        if reader.is_doubled:
            text = "deinterlaced by bwdif, a frame for each field: at twice the rate"
        elif reader.info.average_rate and reader.info.average_rate <= 30:
            text += '; `deinterlace="double"` makes a frame of each field'
        return [Note(NoteCode.INPUT, text)]
    if reader.info.interlaced:
        return [Note(NoteCode.INPUT, "the video is interlaced and is upscaled as it is, as asked")]
    return []
