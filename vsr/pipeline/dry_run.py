"""What a job would do and about how long it would take, without doing it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av

from vsr.errors import StrictError
from vsr.media.encoder import VideoEncoder
from vsr.media.reader import Chunk, VideoReader
from vsr.media.remux import StreamPlan, codec_name
from vsr.media.sequence import is_image, lost_in, read_image
from vsr.media.writer import check_target
from vsr.pipeline.job import load_upscaler
from vsr.pipeline.plan import JobOptions, VideoPlan, choose_batch, choose_size, plan_video
from vsr.pipeline.resume import target_of
from vsr.pipeline.stages import expected_frames, failure_named, open_source
from vsr.pipeline.upscaler import Upscaler

__all__ = ["Estimate", "describe_job"]

TRIAL_SECONDS = 4.0  # of the network; enough for its pace to settle
TRIAL_FRAMES = 96  # at most; an encoder needs some tens to show what a frame costs
_KEY_FRAME_INTERVAL = 250  # frames, of encoders by themselves


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the first frames of a job took, from which the rest is guessed.

    seconds_per_frame: of the stages "decode", "network" and "encode", each alone.
    is_shared: whether the stages share the CPU, so that their times add up; else the slowest sets the pace.
    key_frame_bytes, frame_bytes: of encoded key frames and others, the mean; the same where all are alike.
    """

    num_frames_tried: int
    seconds_per_frame: dict[str, float]
    is_shared: bool
    key_frame_bytes: float
    frame_bytes: float

    def seconds(self, num_frames: int) -> float:
        """For a job of so many frames."""
        stages = self.seconds_per_frame.values()
        return num_frames * (sum(stages) if self.is_shared else max(stages))

    def video_bytes(self, num_frames: int) -> float:
        """Size of a video stream of so many frames."""
        num_key_frames = math.ceil(num_frames / _KEY_FRAME_INTERVAL)
        return num_key_frames * self.key_frame_bytes + (num_frames - num_key_frames) * self.frame_bytes


def describe_job(
    source: Path, output: Path, options: JobOptions, on_line: Callable[[str], None] = lambda line: None
) -> None:
    """Say, line by line, what `enhance_file` would do with the same arguments; nothing is written.

    The time is guessed from the first frames, which are upscaled and encoded for it, after one batch to warm up.
    Raises what the job would raise before its first frame, StrictError among it, after all is said.
    """
    on_line(f"{source} to {output}, if this were no dry run:")
    losses = (_describe_picture if is_image(source) else _describe_video)(source, output, options, on_line)
    if losses and options.strict:
        raise StrictError("; ".join(losses) + " (--strict)")


def _describe_picture(source: Path, output: Path, options: JobOptions, on_line: Callable[[str], None]) -> list[str]:
    image = read_image(source)
    check_target(output, options.overwrite, source)
    height, width = image.shape[:2]
    upscaler = load_upscaler(options, width, height, on_line, num_frames=1, is_picture=True)
    size = choose_size(options, upscaler.card, width, height, (False, False))
    on_line(f"engine: {upscaler.engine.name}")
    on_line(f"picture: {width}x{height} to {size[0]}x{size[1]}, {image.dtype}, {output.suffix}")
    losses = lost_in(output, image)
    for line in losses:
        on_line(f"lost: {line}")
    on_line("time and size: not estimated for a picture")
    return losses


def _describe_video(source: Path, output: Path, options: JobOptions, on_line: Callable[[str], None]) -> list[str]:
    with open_source(source, options, on_line) as reader:
        check_target(output, options.overwrite, source)
        info, num_frames = reader.info, expected_frames(reader)
        upscaler = load_upscaler(options, info.width, info.height, on_line, num_frames=num_frames)
        plan = plan_video(reader, output, options, upscaler.card)
        batch_size = choose_batch(options, upscaler.card, info.width, info.height, upscaler.device)
        for line in _plan_lines(reader, plan, upscaler, batch_size, num_frames):
            on_line(line)
        estimate = _try_out(reader, upscaler, plan, batch_size, output)
        for line in _estimate_lines(estimate, reader, plan, num_frames):
            on_line(line)
    return list(plan.losses)


def _plan_lines(
    reader: VideoReader, plan: VideoPlan, upscaler: Upscaler, batch_size: int, num_frames: int | None
) -> Iterator[str]:
    info, settings = reader.info, plan.settings
    yield f"engine: {upscaler.engine.name}; batches of {batch_size}"
    rate = "no constant rate" if info.average_rate is None else f"{float(info.average_rate):.6g} fps"
    frames = "frames not counted" if num_frames is None else f"about {num_frames:,} frames"
    yield f"input: {info.codec}, {info.width}x{info.height}, {info.source_pixel_format}, {rate}, {frames}"
    options = " ".join(f"{name}={value}" for name, value in settings.options.items())
    yield (
        f"output: {plan.container}, {settings.codec}{f' ({options})' if options else ''}, "
        f"{settings.width}x{settings.height}, {settings.pixel_format.name}"
    )
    plans = {stream.stream.index: stream for stream in plan.streams}
    for stream in reader.container.streams:
        if stream.index == reader.stream.index:
            yield f"video stream {stream.index} ({codec_name(stream)}): upscaled"
        else:
            yield f"{plans[stream.index].title}: {_fate(plans[stream.index])}"
    yield from (line for line in plan.notes if not _is_of_stream(line, plan))
    yield from (f"lost: {line}" for line in plan.losses)


def _fate(stream: StreamPlan) -> str:
    if stream.note:
        return stream.note
    return "copied"


def _is_of_stream(line: str, plan: VideoPlan) -> bool:
    """Whether a note says what the line of a stream says already."""
    return any(line == f"{stream.title}: {stream.note}" for stream in plan.streams)


def _try_out(reader: VideoReader, upscaler: Upscaler, plan: VideoPlan, batch_size: int, output: Path) -> Estimate:
    """Upscale and encode the first frames, and forget them."""
    target, seconds = target_of(plan), {"decode": 0.0, "network": 0.0, "encode": 0.0}
    num_frames = 0
    chunks = reader.chunks(batch_size)
    warm = reader.first_batch(batch_size)
    with failure_named(str(reader.path), upscaler), av.open(io.BytesIO(), "w", format=plan.container) as container:
        upscaler.upscale(warm, target)
        encoder = VideoEncoder(container, output, plan.settings, reader.info)
        encoder.open()
        sizes: dict[bool, list[int]] = {True: [], False: []}  # of packets, by whether they are key frames
        while num_frames < TRIAL_FRAMES and seconds["network"] < TRIAL_SECONDS:
            begun = time.perf_counter()
            chunk: Chunk | None = next(chunks, None)
            decoded = time.perf_counter()
            if chunk is None or chunk.batch is None:
                break
            batch = upscaler.upscale(chunk.batch, target)
            upscaled = time.perf_counter()
            for packet in encoder.encode(batch):
                sizes[packet.is_keyframe].append(packet.size)
            num_frames += batch.num_frames
            seconds["decode"] += decoded - begun
            seconds["network"] += upscaled - decoded
            seconds["encode"] += time.perf_counter() - upscaled
        begun = time.perf_counter()
        for packet in encoder.flush():
            sizes[packet.is_keyframe].append(packet.size)
        seconds["encode"] += time.perf_counter() - begun
    key = sum(sizes[True]) / len(sizes[True])
    other = sum(sizes[False]) / len(sizes[False]) if sizes[False] else key
    per_frame = {name: value / num_frames for name, value in seconds.items()}
    return Estimate(num_frames, per_frame, upscaler.device.type == "cpu", key, other)


def _estimate_lines(estimate: Estimate, reader: VideoReader, plan: VideoPlan, num_frames: int | None) -> Iterator[str]:
    stages = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in estimate.seconds_per_frame.items())
    measured = f"by the first {estimate.num_frames_tried} frames: {stages} a frame"
    if num_frames is None:
        yield f"time: not estimated, as the file does not say how long it is; {measured}"
        yield "size: not estimated"
        return
    yield f"time: about {_duration(estimate.seconds(num_frames))}, {measured}; frames that repeat take less"
    others, unknown = _other_bytes(reader, plan)
    without = f", without {', '.join(unknown)}" if unknown else ""
    yield f"size: about {_size(estimate.video_bytes(num_frames) + others)}{without}; what moves more takes more"


def _other_bytes(reader: VideoReader, plan: VideoPlan) -> tuple[float, list[str]]:
    """Size of the streams that are copied, by their bit rates; and the streams that do not say theirs."""
    seconds = reader.duration_limit_seconds or reader.info.duration_seconds
    total, unknown = 0.0, []
    for stream in plan.streams:
        rate = getattr(stream.stream.codec_context, "bit_rate", None)
        if stream.action == "leave":
            continue
        if rate and seconds:
            total += rate / 8 * float(seconds)
        elif stream.stream.type in ("audio", "video"):
            unknown.append(f"{stream.stream.type} stream {stream.stream.index}")
    return total, unknown


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _size(num_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
