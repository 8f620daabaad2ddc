"""A job from file to file. This module owns every stage: what it starts, it stops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from torch import nn

from vsr.backends.onnx_model import OnnxFile
from vsr.backends.select import choose_place
from vsr.errors import OptionError, StrictError
from vsr.jobs.journal import work_folder
from vsr.jobs.plan import JobOptions, VideoPlan, choose_batch, choose_model, choose_size
from vsr.jobs.report import (
    FrameQuality,
    ReferenceMeter,
    check_report,
    picture_quality,
    read_reference,
    write_job_report,
)
from vsr.jobs.resume import open_journal, resumed, target_of
from vsr.jobs.sinks import check_output, open_sink, plan_output
from vsr.media.image_sequence import is_one_picture
from vsr.media.images import is_image, lost_in, read_image, read_piped_image, write_image
from vsr.media.pipe import PipeWriter, is_pipe, standard_output
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.container_writer import check_target
from vsr.media.write.image_writer import PictureWriter
from vsr.media.write.y4m_writer import Y4mWriter
from vsr.models.cards import ModelCard
from vsr.models.fidelity import load_between
from vsr.pipeline.reuse import FrameReuse, can_reuse
from vsr.pipeline.stages import (
    NetworkStage,
    Progress,
    Sink,
    expected_frames,
    failure_named,
    open_source,
    run_stages,
)
from vsr.pipeline.upscaler import Upscaler, load_card_and_net, upscaler_of_net

__all__ = [
    "JobReport",
    "LoadUpscaler",
    "Progress",
    "enhance_file",
    "enhance_image",
    "enhance_video",
    "load_upscaler",
]

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a finished job did.

    stage_seconds: busy time of each stage; they overlap, so their sum can exceed `seconds`.
    reused_share: the part of all frames' pixels, 0 to 1, that the network did not compute anew; None where
        reuse is off.
    mean_psnr_db: the mean over the frames of their luma PSNR against the reference; None where there is none.
    num_frames_before: of num_frames, those that an earlier run of the same job has done.
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
    num_frames_before: int = 0

    def summary(self) -> dict[str, object]:
        """As JSON has it: the last line of --progress json, and the head of a report."""
        return {
            "output": str(self.output),
            "model": self.model,
            "engine": self.engine,
            "frames": self.num_frames,
            "frames_before": self.num_frames_before,
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
    load: LoadUpscaler | None = None,
) -> JobReport:
    """Upscale a video to a video, or a picture to a picture. Raises the errors of `vsr.errors`.

    "-" is stdin as source and stdout as output; a pattern or a folder stands for pictures that make a video.
    load: what loads the model; `load_upscaler` unless given.
    """
    if is_image(output) if is_pipe(source) else is_one_picture(source):
        return enhance_image(source, output, options, note=note, load=load)
    return enhance_video(source, output, options, note=note, on_progress=on_progress, load=load)


def _reported(report: JobReport, quality: FrameQuality | None, source: Path, options: JobOptions) -> JobReport:
    """The report with what was measured in it, also in the file that was asked for."""
    if quality is not None:
        report = replace(report, mean_psnr_db=quality.mean_psnr_db)
    if options.report is not None:
        write_job_report(options.report, source, report.summary(), quality)
    return report


def enhance_image(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    note: Note = lambda line: None,
    load: LoadUpscaler | None = None,
) -> JobReport:
    """Upscale one picture. load: as in `enhance_file`."""
    started = time.perf_counter()
    if not is_image(output):
        raise OptionError(f"{output}: a picture goes in, so name a picture to come out (.png, .jpg, .webp, .tif)")
    image = read_piped_image() if is_pipe(source) else read_image(source)
    check_target(output, options.overwrite, source)
    check_report(options, source, output)
    _strict(options, source, lost_in(output, image), note)
    height, width = image.shape[:2]
    upscaler = (load or load_upscaler)(options, width, height, note, num_frames=1, is_picture=True)
    size = choose_size(options, upscaler.card, width, height, (False, False))
    truth = None if options.reference is None else read_reference(options.reference, size)
    with failure_named(str(source), upscaler):
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
    load: LoadUpscaler | None = None,
) -> JobReport:
    """Upscale one video.

    upscaler: one that is loaded already, instead of the model of the options.  load: as in `enhance_file`.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        pipe = stack.enter_context(standard_output()) if is_pipe(output) else None
        reader = stack.enter_context(open_source(source, options, note))
        check_output(output, options.overwrite or work_folder(output).exists(), source, reader)
        check_report(options, source, output)
        info, num_expected = reader.info, expected_frames(reader)
        if upscaler is None:
            upscaler = (load or load_upscaler)(options, info.width, info.height, note, num_frames=num_expected)
        plan = plan_output(reader, output, options, upscaler.card)
        for line in plan.notes:
            note(line)
        _strict(options, reader.path, list(plan.losses), note)
        chunks, sink = stack.enter_context(_ends(source, output, pipe, options, reader, upscaler, plan, note))
        meter = stack.enter_context(_meter(options, reader, plan, note))
        reuse = FrameReuse(upscaler, note) if options.reuse and can_reuse(upscaler.card) else None
        network, num_before = NetworkStage(upscaler, reuse, target_of(plan), reader.path), sink.num_frames

        def on_frames() -> None:
            seconds, num_frames = time.perf_counter() - started, num_before + network.num_frames
            on_progress(Progress(num_frames, num_expected, seconds, num_before, network.out_seconds))

        def interrupt() -> None:
            reader.interrupt()
            if pipe is not None:
                pipe.interrupt()

        stage_seconds = run_stages(chunks, network, sink, meter, on_frames, interrupt)
        _check(options, sink, reader.path, plan, note)
        sink.commit()
    report = JobReport(
        output if pipe is None else Path(pipe.name),
        upscaler.card.name,
        upscaler.engine.name,
        sink.num_frames,
        plan.settings.width,
        plan.settings.height,
        time.perf_counter() - started,
        stage_seconds,
        reused_share=None if reuse is None else reuse.reused_share,
        num_frames_before=num_before,
    )
    return _reported(report, None if meter is None else meter.quality, source, options)


@contextmanager
def _ends(
    source: Path,
    output: Path,
    pipe: PipeWriter | None,
    options: JobOptions,
    reader: VideoReader,
    upscaler: Upscaler,
    plan: VideoPlan,
    note: Note,
) -> Iterator[tuple[Iterator[Chunk], Sink]]:
    """Both ends of a job: the chunks to upscale, and where they go. What is not put in place is gone at the end."""
    batch_size = choose_batch(options, upscaler.card, reader.info.width, reader.info.height, upscaler.device)
    journal = open_journal(source, output, options, reader, upscaler, plan, batch_size, note)
    if journal is not None:
        with resumed(journal, source, options, reader, upscaler, batch_size, note) as ends:
            yield ends
        return
    check_output(output, options.overwrite, source, reader)
    with open_sink(output, pipe, reader, plan) as sink:
        yield reader.chunks(batch_size), sink


def _check(options: JobOptions, sink: Sink, source: Path, plan: VideoPlan, note: Note) -> None:
    """Under --strict, refuse what was lost on the way; else name it. And read back what was written."""
    if sink.num_damaged:  # the reader has said so
        _strict(options, source, [f"{sink.num_damaged} damaged packets"], lambda line: None)
    if sink.num_damaged_audio:
        _strict(options, source, [f"{sink.num_damaged_audio} damaged audio or subtitle packets left out"], note)
    if sink.num_lost_chapters:
        _strict(options, source, [f"{sink.num_lost_chapters} chapters: {plan.container} holds none"], note)
    if isinstance(sink, Y4mWriter):
        _strict(options, source, sink.losses, note)
    if isinstance(sink, PictureWriter) and sink.older:
        note(f"{sink.older[0]} and after it: {len(sink.older)} older pictures are still there")
    if options.verify:
        sink.verify()


class LoadUpscaler(Protocol):
    """What `load_upscaler` does, or something in its place."""

    def __call__(
        self,
        options: JobOptions,
        width: int,
        height: int,
        note: Note,
        *,
        num_frames: int | None,
        is_picture: bool = False,
    ) -> Upscaler: ...


def load_upscaler(
    options: JobOptions, width: int, height: int, note: Note, *, num_frames: int | None, is_picture: bool = False
) -> Upscaler:
    """The model of a job's options, ready for frames of that size; says which it is and why.

    num_frames: how many are expected, which decides what is worth preparing; None where that is not known.
    """
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


def _strict(options: JobOptions, source: Path, losses: list[str], note: Note) -> None:
    """Name what is lost; under --strict, refuse instead."""
    if losses and options.strict:
        raise StrictError(f"{source}: {'; '.join(losses)} (--strict)")
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
