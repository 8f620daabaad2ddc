"""Write a few seconds of a video before and after, parted by a moving line: a trial of a model before a long job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from vsr.backends.select import choose_place
from vsr.compare.compare import write_comparison
from vsr.compare.views import Comparison
from vsr.errors import OptionError
from vsr.events import Note, NoteCode, OnNote, Progress
from vsr.files import check_target
from vsr.jobs.encoding import choose_encoding
from vsr.jobs.options import JobOptions, OutputPolicy
from vsr.jobs.run import enhance_file
from vsr.jobs.source import open_source
from vsr.media.endpoints import File, Pipe, Source, parse_source
from vsr.media.image_sequence import find_images_of, is_image
from vsr.media.write.container_writer import OutputSpec, VideoWriter
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.options import EncodingOptions
from vsr.media.write.stream_plan import plan_streams

__all__ = ["preview_path", "write_preview"]

_LOSSLESS = "ffv1"
_BATCH = 4  # frames


def preview_path(source: Path) -> Path:
    """Name the preview of a video: in the current folder, after the video or its folder."""
    is_pattern = not source.is_dir() and find_images_of(source) is not None
    name = source.absolute().parent.name if is_pattern else source.stem
    return Path(f"{name}_preview.mp4")


def write_preview(
    source: Path,
    output: Path,
    options: JobOptions,
    *,
    at_seconds: Fraction = Fraction(0),
    duration_seconds: Fraction = Fraction(5),
    note: OnNote = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Comparison:
    """Write a part of `source`, enlarged bicubically left of a moving line, and upscaled right of it.

    Sound and clock are the source's. Both parts lie in lossless temporary files until then, which are always removed.
    Raises the errors of `vsr.errors`.

    Args:
        source, output: the video, and the preview to write.
        options: model and size, and encoding of the preview; its start and duration are not used.
        at_seconds, duration_seconds: start and length of the part.
        note: called with one line for each note of the job.
        on_progress: called after each frame.
    """
    begin = parse_source(source)
    if isinstance(begin, File) and begin.is_image:
        raise OptionError(f'{source}: is an image; use vsr enhance, and vsr compare `layout="split"`')
    if isinstance(begin, Pipe):
        raise OptionError(f"{source}: a preview reads its input twice; name a file")
    if is_image(output):
        raise OptionError(f"{output}: a preview is a video; name one (.mp4, .mkv, .mov, .webm)")
    check_target(output, options.policy.overwrite, source)
    lossless = JobOptions(
        replace(options.input, start_seconds=at_seconds, duration_seconds=duration_seconds),
        options.model,
        EncodingOptions(codec=_LOSSLESS, audio=options.encoding.audio),
        OutputPolicy(resume=False, strict=options.policy.strict),
    )
    with tempfile.TemporaryDirectory(prefix="vsr-preview-") as folder:
        before, after = Path(folder, "before.mkv"), Path(folder, "after.mkv")
        report = enhance_file(source, after, lossless, note=note, on_progress=on_progress)
        _cut(begin, before, lossless)
        return write_comparison(
            [before, after],
            output,
            layout="split",
            labels=["bicubic", f"vsr {report.model}"],
            encoding=options.encoding,
            overwrite=options.policy.overwrite,
            note=_renamed(note, {str(before): str(source), f"{folder}/": ""}),
        )


def _renamed(note: OnNote, names: dict[str, str]) -> OnNote:
    """Put other names of files into notes, before they are passed on."""

    def pass_on(line: str) -> None:
        text = str(line)
        for name, other in names.items():
            text = text.replace(name, other)
        note(Note(getattr(line, "code", NoteCode.INPUT), text))

    return pass_on


def _cut(source: Source, path: Path, options: JobOptions) -> None:
    """Copy the part of a video that the options name, losslessly, with its sound."""
    place = choose_place(options.model.device, options.model.backend)
    with open_source(source, options.input, place) as reader:
        info = reader.info
        encoding = choose_encoding(info, File(path), options.encoding, min(info.width, info.height))
        settings = VideoSettings(
            encoding.codec,
            encoding.pixel_format,
            info.width,
            info.height,
            encoding.color,
            info.sample_aspect_ratio,
            encoding.options,
            encoding.stored_as,
        )
        sound = {stream.index for stream in reader.other_streams if stream.type == "audio"} & reader.chosen_streams
        plans = plan_streams(reader.other_streams, encoding.container, options.encoding.audio, False, sound)
        writer = VideoWriter(path, reader, OutputSpec(settings, plans))
        try:
            for chunk in reader.chunks(_BATCH):
                writer.write(chunk)
            writer.finish()
            writer.commit()
        finally:
            writer.abort()
