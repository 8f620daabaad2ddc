"""Compare an output with its source, whichever tool made it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vsr.errors import InputError, OptionError, VerificationError
from vsr.events import counted
from vsr.media.read.options import InputOptions
from vsr.media.verification.contents import FileContents, read_contents
from vsr.media.verification.difference import Difference, DifferenceCode
from vsr.media.verification.frames import FrameMatch, frame_differences, match_frames
from vsr.media.verification.properties import chapter_differences, image_differences, mean_color_differences
from vsr.media.verification.streams import stream_differences, tag_differences

__all__ = ["Verification", "verify_files"]


@dataclass(frozen=True)
class Verification:
    """The comparison of an output with its source.

    num_frames, num_streams, num_chapters: of the source; its main video is not among the streams.
    differences: in the order frames, image, streams, chapters, metadata; none for an output that keeps everything.
    notes: what is out of the ordinary in either file, such as damage, a line each.
    """

    source: Path
    output: Path
    num_frames: int
    num_streams: int
    num_chapters: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Tell whether the output keeps everything of the source."""
        return not self.differences

    def raise_for_differences(self) -> None:
        """Raise VerificationError where there is a difference."""
        if self.differences:
            more = f" (and {len(self.differences) - 1} more)" if len(self.differences) > 1 else ""
            raise VerificationError(f"{self.output}: {self.differences[0].text}{more}; compared with {self.source}")

    def __str__(self) -> str:
        """Write the report for people."""
        if self.is_same:
            parts = (
                f"{counted(self.num_frames, 'frame')} and the timestamps", counted(self.num_streams, "other stream"),
                counted(self.num_chapters, "chapter"), "colour and metadata",
            )  # fmt: skip
            return f"{self.output}: as in {self.source}: {', '.join(parts)}"
        number = counted(len(self.differences), "difference")
        return "\n".join([f"{self.output}: {number} from {self.source}", *(f"  {d}" for d in self.differences)])

    def to_json(self) -> str:
        """Write the report for programs, as one JSON object."""
        report = {
            "source": str(self.source),
            "output": str(self.output),
            "same": self.is_same,
            "frames": self.num_frames,
            "streams": self.num_streams,
            "chapters": self.num_chapters,
            "differences": [{"code": d.code, "text": d.text, "stream": d.stream} for d in self.differences],
            "notes": list(self.notes),
        }
        return json.dumps(report, ensure_ascii=False, indent=2)


def verify_files(
    source: Path,
    output: Path,
    options: InputOptions,
    *,
    ignore: Collection[str] = (),
    note: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Compare all that an upscaled copy has to keep. Both files are decoded to their ends.

    Args:
        source, output: videos, or the patterns or folders of images.
        options: the part of the source that the output was made of; `deinterlace` is "double" where the output has a
            frame for each field, "auto" where it may have if the source is interlaced, else "off".
        ignore: codes of differences that do not matter here.
        note: called with one line for anything out of the ordinary in either file.

    Raises InputError where the source cannot be read, or the output is not there; OptionError for an unknown code.
    """
    unknown = sorted(set(ignore) - set(DifferenceCode))
    if unknown:
        raise OptionError(f'`ignore="{unknown[0]}"`: is no code; there are {", ".join(DifferenceCode)}')
    notes: list[str] = []

    def keep(line: str) -> None:
        notes.append(line)
        note(line)

    is_doubled = options.deinterlace == "double"
    want = read_contents(source, options if is_doubled else replace(options, deinterlace="off"), keep)
    differences: Iterator[Difference]
    try:
        got = read_contents(output, InputOptions(deinterlace="off"), keep)
    except InputError as error:
        if not output.is_file():
            raise
        differences = iter([Difference(DifferenceCode.UNREADABLE, str(error))])
    else:
        if options.deinterlace == "auto" and _has_frame_for_each_field(want, got):
            want = read_contents(source, replace(options, deinterlace="double"), lambda line: None)
        differences = _differences(want, got)
    kept = tuple(difference for difference in differences if difference.code not in set(ignore))
    return Verification(source, output, len(want.times.pts), len(want.streams), len(want.chapters), kept, tuple(notes))


def _has_frame_for_each_field(source: FileContents, output: FileContents) -> bool:
    """Tell whether an output seems to show the fields of an interlaced source one by one, missing ones aside."""
    return source.info.interlaced and len(output.times.pts) > 1.5 * len(source.times.pts)


def _differences(source: FileContents, output: FileContents) -> Iterator[Difference]:
    has_timestamps = all(row.has_timestamps for row in output.containers)
    match = match_frames(source.times, output.times) if has_timestamps else None
    yield from frame_differences(source, output, match)
    if output.num_damaged > source.num_damaged:
        text = f"{output.num_damaged} packets of the output's video cannot be decoded wholly"
        yield Difference(DifferenceCode.DAMAGE, text)
    yield from image_differences(source.info, output.info)
    yield from mean_color_differences(source.mean_rgb, output.mean_rgb)
    yield from _caption_differences(source, output)
    offset = _common_offset(match)
    yield from stream_differences(source, output, offset)
    yield from chapter_differences(source, output, offset)
    yield from tag_differences(source.tags, output.tags, "the file", None)
    yield from tag_differences(source.video_tags, output.video_tags, "the video", None)


def _caption_differences(source: FileContents, output: FileContents) -> Iterator[Difference]:
    """Compare how many frames have closed captions."""
    want, got = source.num_captioned, output.num_captioned
    if got < want:
        how = f"are in {got} frames of {want}" if got else "are missing"
        yield Difference(DifferenceCode.CAPTIONS, f"the closed captions (CEA-608/708) {how}")


def _common_offset(match: FrameMatch | None) -> float:
    return 0.0 if match is None else match.offset_seconds
