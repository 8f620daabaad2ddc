"""Tell what a job would do and about how long it would take, without doing it."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.packet import Packet

from vsr.errors import OptionError, StrictError
from vsr.files import is_stream
from vsr.frames import FrameBatch
from vsr.jobs.model_cache import ModelCache
from vsr.jobs.open_job import OpenImage, OpenVideo, decide
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import VideoPlan
from vsr.jobs.resume import target_of
from vsr.media.endpoints import Images
from vsr.media.formats import Y4M
from vsr.media.pipe import is_pipe
from vsr.media.read.reader import VideoReader
from vsr.media.write.encoder import VideoEncoder
from vsr.media.write.stream_plan import StreamPlan, codec_name
from vsr.pipeline.processor import upscale_alone
from vsr.pipeline.stages import failure_named

__all__ = ["Estimate", "describe_job"]

TRIAL_SECONDS = 4.0  # of the network; enough for its pace to settle
TRIAL_FRAMES = 96  # at most; an encoder needs some tens to show what a frame costs
_KEY_FRAME_INTERVAL = 250  # frames, of encoders by themselves


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimate a job from the time and size of its first frames.

    seconds_per_frame: of the stages "decode", "network" and "encode", each alone.
    is_shared: whether the stages share the CPU, so that their times add up; else the slowest sets the pace.
    key_frame_bytes, frame_bytes: of encoded key frames and others, the mean; the same where all are alike, and None
        where they were not encoded.
    """

    num_frames_tried: int
    seconds_per_frame: dict[str, float]
    is_shared: bool
    key_frame_bytes: float | None
    frame_bytes: float | None

    def seconds(self, num_frames: int) -> float:
        """Estimate the seconds of a job of so many frames."""
        stages = self.seconds_per_frame.values()
        return num_frames * (sum(stages) if self.is_shared else max(stages))

    def video_bytes(self, num_frames: int) -> float | None:
        """Size of a video stream of so many frames; None where that is not known."""
        if self.key_frame_bytes is None or self.frame_bytes is None:
            return None
        num_key_frames = math.ceil(num_frames / _KEY_FRAME_INTERVAL)
        return num_key_frames * self.key_frame_bytes + (num_frames - num_key_frames) * self.frame_bytes


def describe_job(
    source: Path, output: Path, options: JobOptions, on_line: Callable[[str], None] = lambda line: None
) -> None:
    """Say, line by line, what `enhance_file` would do with the same arguments; nothing is written.

    The output's folder need not be there yet.
    The time is guessed from the first frames, which are upscaled and encoded for it, after one batch to warm up.
    Raises what the job would raise before its first frame, StrictError among it, after all is said.
    """
    if is_pipe(source) or is_stream(source):
        raise OptionError("a dry run would use up what comes from the pipe; name a file")
    held: list[str] | None = []  # until it is known that there is something to tell

    def note(line: str) -> None:
        if held is None:
            on_line(line)
        else:
            held.append(line)

    with decide(source, output, options, note, ModelCache(), is_dry=True) as opened:
        lines, held = held or [], None
        for line in (f"{source} to {output}, if this were no dry run:", *lines):
            on_line(line)
        for line in _image_lines(opened) if isinstance(opened, OpenImage) else _video_lines(opened):
            on_line(line)
    if opened.plan.omissions and options.policy.strict:
        raise StrictError(f"{source}: {'; '.join(opened.plan.omissions)} (`strict=True`)")


def _image_lines(opened: OpenImage) -> Iterator[str]:
    plan, (height, width) = opened.plan, opened.image.shape[:2]
    suffix = opened.job.target.path.suffix
    yield f"engine: {opened.upscaler.engine.name}"
    yield f"picture: {width}x{height} to {plan.width}x{plan.height}, {opened.image.dtype}, {suffix}"
    yield from (f"left out: {line}" for line in plan.omissions)
    yield "time and size: not estimated for a picture"


def _video_lines(opened: OpenVideo) -> Iterator[str]:
    yield from _plan_lines(opened)
    yield from _estimate_lines(_try_out(opened), opened)


def _plan_lines(opened: OpenVideo) -> Iterator[str]:
    reader, plan = opened.reader, opened.plan
    info, settings = reader.info, plan.settings
    yield f"engine: {opened.upscaler.engine.name}; batches of {opened.job.batch}"
    rate = "no constant rate" if info.average_rate is None else f"{float(info.average_rate):.6g} fps"
    frames = "frames not counted" if plan.num_frames is None else f"about {plan.num_frames:,} frames"
    yield f"input: {info.codec}, {info.width}x{info.height}, {info.source_pixel_format}, {rate}, {frames}"
    options = " ".join(f"{name}={value}" for name, value in settings.options.items())
    yield (
        f"output: {plan.container}, {settings.codec}{f' ({options})' if options else ''}, "
        f"{settings.width}x{settings.height}, {settings.stored_format}"
    )
    plans = {stream.index: stream for stream in plan.streams}
    for stream in reader.container.streams:
        if stream.index == reader.stream.index:
            yield f"video stream {stream.index} ({codec_name(stream)}): upscaled"
        else:
            yield f"{plans[stream.index].title}: {_fate(plans[stream.index])}"
    yield from (line for line in plan.notes if not _is_of_stream(line, plan))
    yield from (f"left out: {line}" for line in plan.omissions if not _is_of_stream(line, plan))


def _fate(stream: StreamPlan) -> str:
    if stream.note:
        return stream.note
    return "copied"


def _is_of_stream(line: str, plan: VideoPlan) -> bool:
    """Tell whether a note or an omission says what the line of a stream says already."""
    return any(line == f"{stream.title}: {stream.note}" for stream in plan.streams)


def _try_out(opened: OpenVideo) -> Estimate:
    """Upscale and encode the first frames, and forget them."""
    reader, upscaler, batch_size = opened.reader, opened.upscaler, opened.job.batch
    target, seconds = target_of(opened.plan), {"decode": 0.0, "network": 0.0, "encode": 0.0}
    warm_up = reader.first_batch(batch_size)
    batches = (chunk.batch for chunk in reader.chunks(batch_size) if chunk.batch is not None)
    num_frames = 0
    with failure_named(str(reader.path), upscaler), _encoder(opened) as encoder:
        upscale_alone(upscaler, warm_up, target)
        while num_frames < TRIAL_FRAMES and seconds["network"] < TRIAL_SECONDS:
            begun = time.perf_counter()
            batch = next(batches, None)
            decoded = time.perf_counter()
            if batch is None:
                break
            upscaled = upscale_alone(upscaler, batch, target)
            done = time.perf_counter()
            encoder.encode(upscaled)
            num_frames += batch.num_frames
            seconds["decode"] += decoded - begun
            seconds["network"] += done - decoded
            seconds["encode"] += time.perf_counter() - done
        begun = time.perf_counter()
        encoder.finish()
        seconds["encode"] += time.perf_counter() - begun
    seconds["network"] /= 1 + len(upscaler.others)  # one device was tried, and all of them take their turns
    per_frame = {name: value / num_frames for name, value in seconds.items()}
    return Estimate(num_frames, per_frame, upscaler.device.type == "cpu", *encoder.mean_bytes())


class _TrialEncoder:
    """Encodes frames and keeps the sizes of what comes out. stream: None where nothing is encoded, as for a pipe."""

    def __init__(self, stream: VideoEncoder | None, is_raw: bool) -> None:
        self._stream, self._is_raw = stream, is_raw
        self._sizes: dict[bool, list[int]] = {True: [], False: []}  # bytes, by whether it is a key frame

    def encode(self, batch: FrameBatch) -> None:
        if self._stream is not None:
            self._take(self._stream.encode(batch))
        elif self._is_raw:
            num_bytes = sum(plane.numel() * plane.element_size() for plane in batch.planes)
            self._sizes[True].append(num_bytes // batch.num_frames)

    def finish(self) -> None:
        if self._stream is not None:
            self._take(self._stream.flush())

    def _take(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            self._sizes[packet.is_keyframe].append(packet.size)

    def mean_bytes(self) -> tuple[float | None, float | None]:
        """Return the mean size of key frames and of others, as `Estimate` has them."""
        means = {is_key: sum(sizes) / len(sizes) for is_key, sizes in self._sizes.items() if sizes}
        return means.get(True), means.get(False, means.get(True))


@contextmanager
def _encoder(opened: OpenVideo) -> Iterator[_TrialEncoder]:
    plan, target = opened.plan, opened.job.target
    if isinstance(target, Images) or plan.container == Y4M:
        yield _TrialEncoder(None, plan.container == Y4M)
        return
    with av.open(io.BytesIO(), "w", format=plan.container) as container:
        stream = VideoEncoder(container, target.path, plan.settings, opened.reader.info)
        stream.open()
        yield _TrialEncoder(stream, False)


def _estimate_lines(estimate: Estimate, opened: OpenVideo) -> Iterator[str]:
    num_frames = opened.plan.num_frames
    stages = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in estimate.seconds_per_frame.items())
    measured = f"by the first {estimate.num_frames_tried} frames: {stages} a frame"
    if num_frames is None:
        yield f"time: not estimated, as the file does not say how long it is; {measured}"
        yield "size: not estimated"
        return
    reuse = "" if opened.upscaler.card.recurrent or not opened.job.reuse else "; frames that repeat take less"
    yield f"time: about {_duration(estimate.seconds(num_frames))}, {measured}{reuse}"
    num_bytes = estimate.video_bytes(num_frames)
    if num_bytes is None:
        yield "size: not estimated for pictures"
        return
    others, unknown = _other_bytes(opened.reader, opened.plan)
    without = f", without {', '.join(unknown)}" if unknown else ""
    yield f"size: about {_size(num_bytes + others)}{without}; what moves more takes more"


def _other_bytes(reader: VideoReader, plan: VideoPlan) -> tuple[float, list[str]]:
    """Size of the streams that are copied, by their bit rates; and the streams that do not say theirs."""
    seconds = reader.duration_limit_seconds or reader.info.duration_seconds
    total, unknown = 0.0, []
    for stream in plan.streams:
        rate = getattr(reader.container.streams[stream.index].codec_context, "bit_rate", None)
        if stream.action == "leave":
            continue
        if rate and seconds:
            total += rate / 8 * float(seconds)
        elif stream.kind in ("audio", "video"):
            unknown.append(f"{stream.kind} stream {stream.index}")
    return total, unknown


def _duration(seconds: float) -> str:
    if seconds < 120:
        return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _size(num_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
