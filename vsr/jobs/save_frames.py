"""Write frames from memory to a video file, by the writer of a job."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch

from vsr.color.pixel_formats import FORMATS
from vsr.color.rgb import planes_of_rgb
from vsr.errors import InputError, OptionError
from vsr.events import OnNote
from vsr.files import check_target
from vsr.frames import FrameBatch
from vsr.jobs.encoding import Encoding, choose_encoding
from vsr.jobs.frame_source import FrameStream, image_tensor
from vsr.jobs.omissions import name_or_refuse
from vsr.jobs.options import OutputPolicy
from vsr.jobs.plan import VideoPlan, plan_streams_beside
from vsr.media.endpoints import File, parse_target
from vsr.media.formats import find_container
from vsr.media.read.color_tags import HdrMetadata
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.container_writer import OutputSpec, VideoWriter
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.options import EncodingOptions
from vsr.pipeline.threads import Consumer
from vsr.video import Frame, Image, Video, rgb_format

__all__ = ["save_frames"]

SOME_PACKETS = 256  # handed to the writer together, behind the last frame


def save_frames(
    path: Path,
    frames: Iterable[Frame | Image],
    like: Video | None,
    frame_rate: Fraction | None,
    encoding: EncodingOptions,
    policy: OutputPolicy,
    note: OnNote,
) -> int:
    """Write frames to a video file, which is verified, and there as a whole or not at all; return their number.

    Args:
        path: The file.
        frames: Of one size. Their own times are kept; those without are shown when those of `like` are, or by the rate.
        like: The video whose other streams, chapters, metadata, colour, shape and rotation are carried over.
        frame_rate: Frames a second, of frames without times.
        encoding: How the video is encoded.
        policy: What may be replaced, and what must be kept.
        note: Called with what is worth knowing.
    """
    target = parse_target(path, File(path if like is None else like.path))
    if not isinstance(target, File) or target.is_image:
        raise OptionError(f"{path}: `save_video` writes a video file; name one (.mp4, .mkv, .mov, .webm)")
    check_target(path, policy.overwrite, None if like is None else like.path)
    if like is not None and frame_rate is not None:
        raise OptionError("`frame_rate`: times come from `like`; give one of them")
    if like is not None and like.is_pipe:
        raise OptionError("`like`: a pipe cannot be read again; give a file")
    stream = FrameStream(frames)
    with ExitStack() as stack:
        reader = None
        if like is not None:
            reader = stack.enter_context(VideoReader(like.path, like.options, warn=note))
        info = _info(stream, frame_rate) if reader is None else _without_alpha(reader.info)
        plan = _plan(target, stream, reader, info, encoding)
        name_or_refuse(policy.strict, path, plan.omissions, note)
        for line in plan.notes:
            note(line)
        writer = VideoWriter(path, reader, OutputSpec(plan.settings, plan.streams, plan.container, info))
        stack.callback(writer.abort)
        pts = _write(writer, _chunks(stream, reader, info, plan.settings))
        name_or_refuse(policy.strict, path, writer.omissions, note)
        if policy.verify:
            writer.check(pts, info.time_base, reader)
        writer.commit()
    return len(pts)


# -- planning ------------------------------------------------------------------------------------------


def _info(stream: FrameStream, frame_rate: Fraction | None) -> VideoInfo:
    """Describe frames that belong to no file. Raises OptionError where nothing says when they are shown."""
    first = stream.first
    if not stream.has_times and frame_rate is None:
        raise OptionError("`frame_rate`: is needed, as the frames have no times; or give `like`")
    time_base = first.time_base if stream.has_times else 1 / (frame_rate or Fraction(1))
    if frame_rate is None and first.duration:
        frame_rate = 1 / (first.duration * first.time_base)
    format_ = rgb_format(stream.color.bit_depth)
    return VideoInfo(
        codec="rawvideo",
        pixel_format=format_,
        source_pixel_format=format_.name,
        width=first.width,
        height=first.height,
        color=stream.color,
        untagged=False,
        time_base=time_base,
        average_rate=frame_rate,
        sample_aspect_ratio=None,
        display_matrix=None,
        rotation_degrees=0,
        hdr=HdrMetadata(),
        side_data_not_carried=(),
        interlaced=False,
        start_seconds=None,
        duration_seconds=None,
        num_frames_from_header=None,
    )


def _without_alpha(info: VideoInfo) -> VideoInfo:
    """Describe the frames of a video without their alpha, which frames in memory do not have."""
    source = info.pixel_format
    if not source.alpha:
        return info
    like = (f for f in FORMATS.values() if f.layout == "planar" and not f.alpha and not f.name.startswith("yuvj"))
    wanted = (source.kind, source.bit_depth, source.chroma_shift)
    return replace(info, pixel_format=next(f for f in like if (f.kind, f.bit_depth, f.chroma_shift) == wanted))


def _plan(
    target: File, stream: FrameStream, reader: VideoReader | None, info: VideoInfo, options: EncodingOptions
) -> VideoPlan:
    """Decide on encoding and streams."""
    encoding = choose_encoding(info, target, options, min(stream.size))
    if not find_container(encoding.container).holds_streams:
        raise OptionError(f"{target}: `save_video` writes no {encoding.container}; use .mkv or .nut")
    odd = [
        side for side, shift in zip(stream.size, encoding.pixel_format.chroma_shift, strict=True) if side % 2 and shift
    ]
    if odd:
        size = f"{stream.size[0]}x{stream.size[1]}"
        raise OptionError(f'`pix_fmt`: {encoding.pixel_format.name} needs even sides, not {size}; try "yuv444p"')
    if reader is not None:
        return plan_streams_beside(reader, encoding, stream.size, options.audio)
    return VideoPlan(_settings(encoding, stream), (), encoding.container, None, (), ())


def _settings(encoding: Encoding, stream: FrameStream) -> VideoSettings:
    width, height = stream.size
    samples, color = encoding.pixel_format, encoding.color
    return VideoSettings(encoding.codec, samples, width, height, color, None, encoding.options, encoding.stored_as)


# -- writing -------------------------------------------------------------------------------------------


def _write(writer: VideoWriter, chunks: Iterator[Chunk]) -> array[int]:
    """Encode in a thread of its own while the next frames are made; return the PTS of all frames."""
    pts: array[int] = array("q")
    encoding = Consumer(writer.write, "vsr-encode")
    try:
        for chunk in chunks:
            encoding.put(chunk)
            if chunk.batch is not None:
                pts.extend(chunk.batch.pts)
        encoding.finish()
    finally:
        encoding.close()
    writer.finish()
    return pts


def _chunks(
    stream: FrameStream, reader: VideoReader | None, info: VideoInfo, settings: VideoSettings
) -> Iterator[Chunk]:
    """Put frames together with the packets of other streams that belong beside them."""
    if stream.has_times:
        yield from _at_own_times(stream, reader, info, settings)
    elif reader is None:
        for number, frame in enumerate(stream):
            yield Chunk((), _batch(frame, FrameTimes(number, 1), info, settings))
    else:
        yield from _at_times_of(stream, reader, info, settings)


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """PTS and duration of a frame, in ticks of the file that is written."""

    pts: int
    duration: int


def _at_own_times(
    stream: FrameStream, reader: VideoReader | None, info: VideoInfo, settings: VideoSettings
) -> Iterator[Chunk]:
    """Show frames when they say; packets lie before the first frame that is shown after them."""
    packets = iter(() if reader is None else reader.other_packets())
    upcoming = next(packets, None)
    last: int | None = None
    for frame in stream:
        ticks = frame.time_base / info.time_base
        times = FrameTimes(round((frame.pts or 0) * ticks), round(frame.duration * ticks))
        if last is not None and times.pts <= last:
            raise OptionError(f"`like`: its clock is too coarse for frames at {last} and {times.pts} of its ticks")
        last, ready = times.pts, []
        while upcoming is not None and (upcoming.dts or 0) * upcoming.time_base <= times.pts * info.time_base:
            ready.append(upcoming)
            upcoming = next(packets, None)
        yield Chunk(tuple(ready), _batch(frame, times, info, settings))
    ready = []
    while upcoming is not None:
        ready.append(upcoming)
        upcoming = next(packets, None)
        if len(ready) == SOME_PACKETS or upcoming is None:
            yield Chunk(tuple(ready), None)
            ready = []


def _at_times_of(stream: FrameStream, reader: VideoReader, info: VideoInfo, settings: VideoSettings) -> Iterator[Chunk]:
    """Show frames when those of another video are. Raises InputError where it has more or fewer."""
    frames = iter(stream)
    num_frames = 0
    for chunk in reader.chunks(1):
        if chunk.batch is None:
            yield chunk
            continue
        frame = next(frames, None)
        if frame is None:
            raise InputError(f"{reader.path}: has more than the {num_frames} frames that were given to go with it")
        num_frames += 1
        times = FrameTimes(chunk.batch.pts[0], chunk.batch.durations[0])
        yield Chunk(chunk.packets, _batch(frame, times, info, settings))
    if next(frames, None) is not None:
        raise InputError(f"{reader.path}: has {num_frames} frames, and more were given to go with it")


@torch.inference_mode()
def _batch(frame: Frame, times: FrameTimes, info: VideoInfo, settings: VideoSettings) -> FrameBatch:
    """Convert a frame to the planes that the encoder takes."""
    data = image_tensor(frame.data)
    rgb = data.permute(2, 0, 1)[None]
    if settings.color.is_rgb and settings.color.dtype is data.dtype and settings.color.bit_depth in (8, 16):
        planes: tuple[torch.Tensor, ...] = (rgb.contiguous(),)
    else:
        peak = 255 if data.dtype == torch.uint8 else 65535
        planes = planes_of_rgb(rgb.to(torch.float32).div_(peak), settings.pixel_format, settings.color)
    if settings.pixel_format.alpha:
        opaque = torch.full((1, 1, *data.shape[:2]), 2.0**settings.color.bit_depth - 1)
        planes = (*planes, opaque.to(settings.color.dtype))
    return FrameBatch(planes, (times.pts,), (times.duration,), info.time_base, settings.color)
