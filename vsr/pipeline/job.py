"""A job from file to file. This module owns every stage: what it starts, it stops."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from av.packet import Packet
from torch import nn

from vsr.backends.select import choose_place
from vsr.errors import EngineError, OptionError, StrictError
from vsr.frames import FrameBatch
from vsr.media.reader import Chunk, VideoReader
from vsr.media.sequence import is_image, lost_in, read_image, write_image
from vsr.media.tally import StreamTally
from vsr.media.verify import verify_output
from vsr.media.writer import VideoWriter, check_target
from vsr.models.cards import ModelCard
from vsr.models.fidelity import load_between
from vsr.models.onnx_file import OnnxFile
from vsr.pipeline.plan import JobOptions, VideoPlan, choose_batch, choose_model, choose_size, plan_video
from vsr.pipeline.prefetch import Drain, Prefetch
from vsr.pipeline.report import (
    FrameQuality,
    ReferenceMeter,
    check_report,
    picture_quality,
    read_reference,
    write_job_report,
)
from vsr.pipeline.reuse import FrameReuse, can_reuse
from vsr.pipeline.upscaler import Target, Upscaler, load_card_and_net, upscaler_of_net

__all__ = ["JobReport", "Progress", "enhance_file", "enhance_image", "enhance_video"]

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. num_frames_expected comes from the container's header and may be absent or wrong."""

    num_frames: int
    num_frames_expected: int | None
    seconds: float

    @property
    def frames_per_second(self) -> float:
        return self.num_frames / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        if not self.num_frames_expected or not self.num_frames:
            return None
        return max(0, self.num_frames_expected - self.num_frames) * self.seconds / self.num_frames


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a finished job did.

    stage_seconds: busy time of each stage; they overlap, so their sum can exceed `seconds`.
    reused_share: the part of all frames' pixels, 0 to 1, that the network did not compute anew; None where
        reuse is off.
    mean_psnr_db: the mean over the frames of their luma PSNR against the reference; None where there is none.
    """

    output: Path
    model: str
    engine: str
    num_frames: int
    width: int
    height: int
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)
    reused_share: float | None = None
    mean_psnr_db: float | None = None

    def summary(self) -> dict[str, object]:
        """As JSON has it: the last line of --progress json, and the head of a report."""
        return {
            "output": str(self.output),
            "model": self.model,
            "engine": self.engine,
            "frames": self.num_frames,
            "width": self.width,
            "height": self.height,
            "seconds": round(self.seconds, 3),
            "stage_seconds": {name: round(seconds, 3) for name, seconds in self.stage_seconds.items()},
            "reused_share": None if self.reused_share is None else round(self.reused_share, 4),
        }


def enhance_file(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    note: Note = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> JobReport:
    """Upscale a video to a video, or a picture to a picture. Raises the errors of `vsr.errors`."""
    if is_image(source):
        return enhance_image(source, output, options, note=note)
    return enhance_video(source, output, options, note=note, on_progress=on_progress)


def _reported(report: JobReport, quality: FrameQuality | None, source: Path, options: JobOptions) -> JobReport:
    """The report with what was measured in it, also in the file that was asked for."""
    if quality is not None:
        report = replace(report, mean_psnr_db=quality.mean_psnr_db)
    if options.report is not None:
        write_job_report(options.report, source, report.summary(), quality)
    return report


def enhance_image(source: Path, output: Path, options: JobOptions, *, note: Note = lambda line: None) -> JobReport:
    """Upscale one picture."""
    started = time.perf_counter()
    if not is_image(output):
        raise OptionError(f"{output}: a picture goes in, so name a picture to come out (.png, .jpg, .webp, .tif)")
    image = read_image(source)
    check_target(output, options.overwrite, source)
    check_report(options, source, output)
    _strict(options, lost_in(output, image), note)
    height, width = image.shape[:2]
    upscaler = _upscaler(options, width, height, note, num_frames=1, is_picture=True)
    size = choose_size(options, upscaler.card, width, height, (False, False))
    truth = None if options.reference is None else read_reference(options.reference, size)
    with _failure_named(str(source), upscaler):
        upscaled = upscaler.upscale_image(image, size)
    quality = None
    if options.reference is not None and truth is not None:
        quality = picture_quality(options.reference, truth, upscaled)
    write_image(output, upscaled)
    report = JobReport(output, upscaler.card.name, upscaler.engine.name, 1, *size, time.perf_counter() - started)
    return _reported(report, quality, source, options)


def enhance_video(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    upscaler: Upscaler | None = None,
    note: Note = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> JobReport:
    """Upscale one video. upscaler: one that is loaded already, instead of the model of the options."""
    started = time.perf_counter()
    if is_image(output):
        raise OptionError(f"{output}: a video goes in, so name a video to come out (.mp4, .mkv, .mov, .webm)")
    with VideoReader(
        source,
        start_seconds=options.start_seconds,
        duration_seconds=options.duration_seconds,
        deinterlace=options.deinterlace,
        gpu=_decoding_gpu(options),
        warn=note,
    ) as reader:
        check_target(output, options.overwrite, source)
        check_report(options, source, output)
        info = reader.info
        if upscaler is None:
            upscaler = _upscaler(options, info.width, info.height, note, num_frames=_expected_frames(reader))
        plan = plan_video(reader, output, options, upscaler.card)
        for line in plan.notes:
            note(line)
        _strict(options, list(plan.losses), note)
        reuse = FrameReuse(upscaler, note) if options.reuse and can_reuse(upscaler.card) else None
        with _meter(options, reader, plan, note) as meter, _partial_file(output, reader, plan) as writer:
            stages = _run_stages(reader, upscaler, reuse, writer, meter, options, on_progress, started)
            if reader.num_damaged:
                _strict(options, [f"{source}: {reader.num_damaged} damaged packets"], lambda line: None)
            if writer.num_damaged_audio:
                _strict(options, [f"{source}: {writer.num_damaged_audio} damaged audio packets left out"], note)
            if writer.num_lost_chapters:
                _strict(options, [f"{writer.num_lost_chapters} chapters: {plan.container} holds none"], note)
            if options.verify:
                _verify(writer, reader, output)
            writer.commit()
    settings, seconds = plan.settings, time.perf_counter() - started
    name, engine = upscaler.card.name, upscaler.engine.name
    share = None if reuse is None else reuse.reused_share
    size = (settings.width, settings.height)
    report = JobReport(output, name, engine, writer.num_frames, *size, seconds, stages, share)
    return _reported(report, None if meter is None else meter.quality, source, options)


def _upscaler(
    options: JobOptions, width: int, height: int, note: Note, *, num_frames: int | None, is_picture: bool = False
) -> Upscaler:
    card: ModelCard
    net: nn.Module | OnnxFile
    if options.fidelity is not None:
        card, net = load_between(options.fidelity)
        reason = "as asked"
    else:
        device = choose_place(options.device, options.backend).device
        model, reason = choose_model(options, width, height, device, is_picture=is_picture)
        card, net = load_card_and_net(model)
    note(f"model {card.name} ({reason})")
    return upscaler_of_net(
        card,
        net,
        device=options.device,
        precision=options.precision,
        backend=options.backend,
        tile=options.tile,
        num_pixels=(math.inf if num_frames is None else num_frames) * width * height,
        note=note,
    )


def _decoding_gpu(options: JobOptions) -> int | None:
    """Index of the CUDA GPU that decodes: that of the network, which is to be near; None for the CPU."""
    if options.hwaccel == "none":
        return None
    device = choose_place(options.device, options.backend).device
    if device.type == "cuda":
        return device.index or 0
    return 0 if options.hwaccel == "cuda" else None


def _strict(options: JobOptions, losses: list[str], note: Note) -> None:
    """Name what is lost; under --strict, refuse instead."""
    if losses and options.strict:
        raise StrictError("; ".join(losses) + " (--strict)")
    for line in losses:
        note(line)


@contextmanager
def _meter(options: JobOptions, reader: VideoReader, plan: VideoPlan, note: Note) -> Iterator[ReferenceMeter | None]:
    """What compares the frames with the reference, where there is one."""
    if options.reference is None:
        yield None
        return
    with ReferenceMeter(options, options.reference, reader, plan.settings, note) as meter:
        yield meter


@contextmanager
def _partial_file(output: Path, reader: VideoReader, plan: VideoPlan) -> Iterator[VideoWriter]:
    """A writer whose partial file is gone when the block is left, unless it was put in place."""
    writer = VideoWriter(output, reader, plan.settings, plan.streams)
    try:
        yield writer
    finally:
        writer.abort()


def _run_stages(
    reader: VideoReader,
    upscaler: Upscaler,
    reuse: FrameReuse | None,
    writer: VideoWriter,
    meter: ReferenceMeter | None,
    options: JobOptions,
    on_progress: Callable[[Progress], None],
    started: float,
) -> dict[str, float]:
    """Decode, upscale, encode and measure side by side, each one batch of frames at a time.

    Returns busy seconds per stage. An error anywhere stops the other stages and surfaces as itself.
    """
    info, settings = reader.info, writer.settings
    target = Target(settings.width, settings.height, settings.pixel_format, settings.color)
    batch_size = choose_batch(options, upscaler.card, info.width, info.height, upscaler.device)
    expected = _expected_frames(reader)
    network = _NetworkStage(upscaler, reuse, target, reader.path)
    with ExitStack() as stack:
        drain = Drain(writer.write, "vsr-encode")
        stack.callback(drain.close)
        measuring = None if meter is None else Drain(meter.measure, "vsr-measure")
        if measuring is not None:
            stack.callback(measuring.close)
        prefetch = Prefetch(reader.chunks(batch_size), "vsr-decode")
        stack.callback(prefetch.close)
        for chunk in network.upscaled(prefetch):
            drain.put(chunk)
            if measuring is not None and chunk.batch is not None:
                measuring.put(chunk.batch)
            on_progress(Progress(network.num_frames, expected, time.perf_counter() - started))
        if meter is not None and measuring is not None:
            measuring.finish()
            meter.finish()
        drain.finish()
        begun = time.perf_counter()
        writer.finish()
        encode_seconds = drain.busy_seconds + time.perf_counter() - begun
    seconds = {"decode": prefetch.busy_seconds, "network": network.busy_seconds, "encode": encode_seconds}
    return seconds if measuring is None else seconds | {"measure": measuring.busy_seconds}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A chunk of which the network works on the frames; finish waits for them."""

    packets: tuple[Packet[Any], ...]
    finish: Callable[[], FrameBatch] | None


class _NetworkStage:
    """The stage between decoder and encoder, in the caller's thread.

    A device that computes by itself gets the next batch before the one before is waited for, so that
    uploads, computing and downloads overlap. An engine that fails, and a device that is lost, end the job
    as an EngineError that names the first frame that is not done.
    """

    def __init__(self, upscaler: Upscaler, reuse: FrameReuse | None, target: Target, path: Path) -> None:
        self._begin = upscaler.begin if reuse is None else reuse.begin
        self._upscaler, self._target, self._path = upscaler, target, path
        self.busy_seconds, self.num_frames = 0.0, 0  # of frames handed on

    def upscaled(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks in their order, with upscaled frames."""
        in_flight: deque[_Begun] = deque()
        for chunk in chunks:
            in_flight.append(self._begun(chunk))
            while len(in_flight) > self._upscaler.num_in_flight:
                yield self._finished(in_flight.popleft())
        while in_flight:
            yield self._finished(in_flight.popleft())

    def _begun(self, chunk: Chunk) -> _Begun:
        if chunk.batch is None:
            return _Begun(chunk.packets, None)
        with self._at_work():
            return _Begun(chunk.packets, self._begin(chunk.batch, self._target))

    def _finished(self, begun: _Begun) -> Chunk:
        if begun.finish is None:
            return Chunk(begun.packets, None)
        with self._at_work():
            batch = begun.finish()
        self.num_frames += batch.num_frames
        return Chunk(begun.packets, batch)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with _failure_named(f"{self._path}: at frame {self.num_frames + 1}", self._upscaler):
                yield
        finally:
            self.busy_seconds += time.perf_counter() - started


@contextmanager
def _failure_named(where: str, upscaler: Upscaler) -> Iterator[None]:
    """What torch and other libraries raise when a device fails becomes an EngineError of one line."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{where}: {error}") from error
    except RuntimeError as error:
        text = str(error).strip() or type(error).__name__
        remedy = "" if upscaler.device.type == "cpu" else "; start the job again, or use --device cpu"
        raise EngineError(f"{where}: {upscaler.engine.name} failed ({text.splitlines()[0]}){remedy}") from error


def _expected_frames(reader: VideoReader) -> int | None:
    info, limit = reader.info, reader.duration_limit_seconds
    if limit is None and not reader.shift_seconds and info.num_frames_from_header:
        return info.num_frames_from_header
    if info.average_rate is None or info.duration_seconds is None:
        return None
    seconds = max(0.0, info.duration_seconds - float(reader.shift_seconds))
    return round(min(seconds, float(limit) if limit is not None else seconds) * info.average_rate)


def _verify(writer: VideoWriter, reader: VideoReader, output: Path) -> None:
    """What the reader handed out against what the file holds: nothing in between can vouch for itself."""
    verify_output(
        writer.partial,
        output,
        reader.pts,
        reader.info.time_base,
        {target: reader.tallies.get(source, StreamTally()) for source, target in writer.copied_streams.items()},
        writer.stream_index,
        reader.container.format.name,
    )
