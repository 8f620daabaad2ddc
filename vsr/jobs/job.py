"""A job from file to file. This module owns every stage: what it starts, it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vsr.errors import OptionError
from vsr.events import OnNote, Progress
from vsr.files import check_target
from vsr.jobs.journal import work_folder
from vsr.jobs.model_cache import LoadUpscaler, load_upscaler
from vsr.jobs.omissions import name_or_refuse
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import VideoPlan, choose_batch, choose_size
from vsr.jobs.report import JobReport, check_report, reported
from vsr.jobs.resume import open_journal, resumed, target_of
from vsr.jobs.sinks import check_output, open_sink, plan_output
from vsr.jobs.source import expected_frames, open_source
from vsr.media.image_sequence import is_image, is_one_picture
from vsr.media.images import lost_in, read_image, read_piped_image, write_image
from vsr.media.pipe import PipeWriter, is_pipe, standard_output
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.image_writer import PictureWriter
from vsr.media.write.y4m_writer import Y4mWriter
from vsr.pipeline.reuse import FrameReuse, can_reuse
from vsr.pipeline.stages import NetworkStage, Sink, failure_named, run_stages
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.reference import ReferenceMeter, picture_quality, read_reference

__all__ = ["enhance_file", "enhance_image", "enhance_video"]


def enhance_file(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    note: OnNote = lambda line: None,
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


def enhance_image(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    note: OnNote = lambda line: None,
    load: LoadUpscaler | None = None,
) -> JobReport:
    """Upscale one picture. load: as in `enhance_file`."""
    started = time.perf_counter()
    if not is_image(output):
        raise OptionError(f"{output}: a picture goes in, so name a picture to come out (.png, .jpg, .webp, .tif)")
    image = read_piped_image() if is_pipe(source) else read_image(source)
    check_target(output, options.overwrite, source)
    check_report(options, source, output)
    name_or_refuse(options, source, lost_in(output, image), note)
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
    return reported(report, quality, source, options)


def enhance_video(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    upscaler: Upscaler | None = None,
    note: OnNote = lambda line: None,
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
        name_or_refuse(options, reader.path, list(plan.losses), note)
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
    return reported(report, None if meter is None else meter.quality, source, options)


@contextmanager
def _ends(
    source: Path,
    output: Path,
    pipe: PipeWriter | None,
    options: JobOptions,
    reader: VideoReader,
    upscaler: Upscaler,
    plan: VideoPlan,
    note: OnNote,
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


def _check(options: JobOptions, sink: Sink, source: Path, plan: VideoPlan, note: OnNote) -> None:
    """Under --strict, refuse what was lost on the way; else name it. And read back what was written."""
    if sink.num_damaged:  # the reader has said so
        name_or_refuse(options, source, [f"{sink.num_damaged} damaged packets"], lambda line: None)
    if sink.num_damaged_audio:
        name_or_refuse(options, source, [f"{sink.num_damaged_audio} damaged audio or subtitle packets left out"], note)
    if sink.num_lost_chapters:
        name_or_refuse(options, source, [f"{sink.num_lost_chapters} chapters: {plan.container} holds none"], note)
    if isinstance(sink, Y4mWriter):
        name_or_refuse(options, source, sink.losses, note)
    if isinstance(sink, PictureWriter) and sink.older:
        note(f"{sink.older[0]} and after it: {len(sink.older)} older pictures are still there")
    if options.verify:
        sink.verify()


@contextmanager
def _meter(options: JobOptions, reader: VideoReader, plan: VideoPlan, note: OnNote) -> Iterator[ReferenceMeter | None]:
    """What compares the frames with the reference, where there is one."""
    if options.reference is None:
        yield None
        return
    with ReferenceMeter(
        options.reference,
        reader,
        plan.settings,
        note,
        start_seconds=options.start_seconds,
        duration_seconds=options.duration_seconds,
    ) as meter:
        yield meter
