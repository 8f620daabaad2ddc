"""What a job will do, decided before any frame is touched: model, size, codec, samples, streams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from vsr.errors import OptionError
from vsr.jobs.encoding import choose_encoding
from vsr.jobs.omissions import (
    container_losses,
    file_losses,
    holds_aspect,
    left_out_streams,
    output_aspect,
    sample_losses,
    untold_by_raw_video,
)
from vsr.jobs.options import JobOptions
from vsr.media.formats import find_container, find_encoder
from vsr.media.read.reader import VideoReader
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.stream_plan import StreamPlan, plan_streams
from vsr.models.cards import ModelCard

__all__ = ["VideoPlan", "choose_batch", "choose_model", "choose_size", "plan_video"]

LARGEST_PICTURE_ON_CPU = 2**20  # pixels; above, the large network takes more than about a minute
LARGEST_VIDEO_ON_CPU = 1280 * 720  # pixels; above, even the light network takes seconds for a frame

_NAMED_HEIGHTS = {"720p": 720, "1080p": 1080, "1440p": 1440, "2k": 1440, "4k": 2160, "2160p": 2160, "8k": 4320}


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """A video job, decided. `notes` are worth knowing; `losses` are what `--strict` refuses."""

    settings: VideoSettings
    streams: tuple[StreamPlan, ...]
    container: str
    notes: tuple[str, ...]
    losses: tuple[str, ...]


# -- model and size ------------------------------------------------------------------------------------


def choose_model(
    options: JobOptions, width: int, height: int, device: torch.device, *, is_picture: bool = False
) -> tuple[str, str]:
    """The model asked for, or the best that the device can bear; and why, in one line."""
    if options.model != "auto":
        return options.model, "as asked"
    wanted = 4.0
    if options.scale is not None:
        wanted = options.scale
    elif options.size is not None:
        size = _parse_size(options.size, width, height)
        wanted = max(size[0] / width, size[1] / height)
    subject = "a picture" if is_picture else "video"
    if wanted <= 2:
        name = "fast-x2"
    elif device.type != "cpu" or (is_picture and width * height <= LARGEST_PICTURE_ON_CPU):
        name = "srresnet"
    elif not is_picture and width * height > LARGEST_VIDEO_ON_CPU:
        name = "nano"
    else:
        name = "fast"
    return name, f"auto: for ×{wanted:g}, {subject} of {width}x{height} on {device.type}"


def choose_size(
    options: JobOptions, card: ModelCard, width: int, height: int, even: tuple[bool, bool]
) -> tuple[int, int]:
    """(width, height) of the output in pixels.

    even: whether (width, height) must be even, because chroma is subsampled; a size that was asked for
        in pixels and is odd is an error, one that follows from a scale is rounded up.
    """
    if options.size is not None:
        out = _parse_size(options.size, width, height)
        if out[0] < width or out[1] < height:
            raise OptionError(
                f"--size {options.size}: {out[0]}x{out[1]} is smaller than the input, {width}x{height}; "
                "vsr enlarges (ffmpeg's scale filter reduces)"
            )
        if any(side % 2 and must for side, must in zip(out, even, strict=True)):
            raise OptionError(f"--size {options.size}: must be even for 4:2:0; or add --pix-fmt yuv444p")
        return out
    scale = options.scale or card.scale
    sides = (round(width * scale), round(height * scale))
    return sides[0] + (sides[0] % 2 if even[0] else 0), sides[1] + (sides[1] % 2 if even[1] else 0)


def _parse_size(text: str, width: int, height: int) -> tuple[int, int]:
    named = _NAMED_HEIGHTS.get(text.lower())
    if named is not None:
        # A portrait picture is named by its shorter side too: "1080p" of a phone video is 1080 wide.
        if width <= height:
            return named, 2 * round(height * named / width / 2)
        return 2 * round(width * named / height / 2), named
    match = re.fullmatch(r"(\d+)[x×:](\d+)", text)
    if not match:
        raise OptionError(f"--size {text}: give WIDTHxHEIGHT, or one of {', '.join(_NAMED_HEIGHTS)}")
    return int(match[1]), int(match[2])


def choose_batch(options: JobOptions, card: ModelCard, width: int, height: int, device: torch.device) -> int:
    """Frames per batch: enough to keep the device busy, few enough to stay in its caches or memory.

    On a CPU at least two, so that there are frames to run side by side.
    """
    if options.batch is not None:
        return options.batch
    pixels, fewest, most = (2**18, 2, 4) if device.type == "cpu" else (2**22, 1, 16)
    return max(fewest, min(most, pixels // (width * height)))


# -- video ---------------------------------------------------------------------------------------------


def plan_video(reader: VideoReader, output: Path, options: JobOptions, card: ModelCard) -> VideoPlan:
    """Decide codec, samples, size and the fate of every other stream."""
    info = reader.info
    encoding = choose_encoding(info, output, options, min(info.width, info.height) * card.scale)
    codec, format_, container = encoding.codec, encoding.pixel_format, encoding.container
    even = (format_.chroma_shift[0] > 0, format_.chroma_shift[1] > 0)
    width, height = choose_size(options, card, info.width, info.height, even)
    settings = VideoSettings(
        codec=codec,
        pixel_format=format_,
        width=width,
        height=height,
        color=encoding.color,
        sample_aspect_ratio=output_aspect(info, width, height),
        options=encoding.options,
    )
    row, is_raw = find_container(container), find_encoder(codec).is_raw
    if not row.holds_streams:
        streams = left_out_streams(reader, options.audio, f"{row.shown_name} holds")
    else:
        has_chapters = bool(reader.container.chapters())
        streams = plan_streams(
            reader.other_streams, container, options.audio, has_chapters, reader.chosen_streams, reader.covers
        )
    losses = [f"{s.title}: {s.note}" for s in streams if s.is_loss]
    losses += [f"{name} of the video cannot be carried over" for name in info.side_data_not_carried]
    losses += [] if row.holds_streams else file_losses(reader, f"{row.shown_name} holds")
    losses += sample_losses(info.pixel_format, format_, codec if row.holds_streams else row.shown_name)
    if not is_raw:
        losses += container_losses(container, codec, info, reader.container.metadata, streams)
    notes = [f"{s.title}: {s.note}" for s in streams if s.note and not s.is_loss]
    if settings.sample_aspect_ratio not in (None, 1) and not holds_aspect(container, codec):
        losses.append(
            f"the sample aspect ratio {settings.sample_aspect_ratio} is left out: {codec} in {container} cannot be "
            "given it; .mp4, .y4m, libx264 and libx265 keep it"
        )
    if is_raw:
        untold, worth_knowing = untold_by_raw_video(info, settings, container)
        losses += untold
        notes += worth_knowing
    elif info.untagged and not info.color.is_rgb:
        notes.append(f"the video has no colour tags; read as {info.color.matrix.name}, and tagged so")
    if reader.is_deinterlaced:
        notes.append("deinterlaced by bwdif, a frame for a frame (--deinterlace off leaves it)")
    elif info.interlaced:
        notes.append("the video is interlaced and is upscaled as it is, as asked")
    return VideoPlan(settings, tuple(streams), container, tuple(notes), tuple(losses))
