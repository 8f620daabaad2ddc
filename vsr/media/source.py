"""What an input is, a file, a pipe or a sequence of pictures, and how FFmpeg opens it."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from vsr.errors import InputError, OptionError
from vsr.media.pipe import PipeReader

__all__ = [
    "DEFAULT_FRAMERATE",
    "IMAGE_SUFFIXES",
    "InputFormat",
    "PictureSequence",
    "check_source",
    "find_sequence",
    "is_image",
    "is_numbered",
    "is_one_picture",
    "open_input",
    "open_pipe",
    "open_sequence",
    "reason",
]

DEFAULT_FRAMERATE = Fraction(25)  # of what has no times of its own, as in FFmpeg
GEN_PTS = 1  # AVFMT_FLAG_GENPTS
PIPE_BUFFER_BYTES = 2**18

# Suffixes of picture files, and which of them mean one kind.
_KINDS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
IMAGE_SUFFIXES = frozenset(_KINDS)

# Demuxers of what has no times of its own.
_TIMELESS = {"rawvideo", "image2", "image2pipe", "h264", "hevc", "vvc", "obu", "m4v", "mjpeg", "mpegvideo", "vc1"}


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What FFmpeg cannot see of an input, in FFmpeg's words.

    name: of the demuxer, instead of what the data look like.
    video_size: "WIDTHxHEIGHT" in pixels, and pixel_format: of raw video.
    framerate: frames a second of raw video, pictures, and whatever else has no times of its own.
    """

    name: str | None = None
    video_size: str | None = None
    pixel_format: str | None = None
    framerate: Fraction | None = None

    def __post_init__(self) -> None:
        """Raises OptionError where something is missing, wrong, or does not belong there."""
        options = {"--video-size": self.video_size, "--pixel-format": self.pixel_format}
        if self.name == "rawvideo":
            missing = [name for name, value in {**options, "--framerate": self.framerate}.items() if value is None]
            if missing:
                raise OptionError(f"--input-format rawvideo: add {', '.join(missing)}, which raw video does not hold")
        else:
            given = [name for name, value in options.items() if value is not None]
            if given:
                raise OptionError(f"{', '.join(given)}: of raw video only; add --input-format rawvideo")
        if self.name is not None:
            try:
                av.ContainerFormat(self.name, "r")
            except ValueError as error:
                raise OptionError(f"--input-format {self.name}: this FFmpeg reads no such format") from error
        if self.video_size is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.video_size):
            raise OptionError(f"--video-size {self.video_size}: give WIDTHxHEIGHT")
        if self.framerate is not None and self.framerate <= 0:
            raise OptionError("--framerate: must be greater than zero")

    @property
    def options(self) -> dict[str, str]:
        """As the demuxer takes them."""
        values = {
            "video_size": self.video_size,
            "pixel_format": self.pixel_format,
            "framerate": None if self.framerate is None else f"{self.framerate.numerator}/{self.framerate.denominator}",
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class PictureSequence:
    """Pictures that are read as a video, one a frame, in the order of `files`.

    pattern, pattern_type ("sequence" for numbers, "glob"), start_number: as FFmpeg's image2 takes them.
    """

    pattern: str
    pattern_type: str
    start_number: int
    files: tuple[Path, ...]


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is a picture; a pattern with a number (%d) stands for many."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_numbered(path)


def is_one_picture(path: Path) -> bool:
    """Whether a name is that of one picture file, there or not, and no pattern or folder of them."""
    return is_image(path) and find_sequence(path) is None


def is_numbered(path: Path) -> bool:
    """Whether a name has a place for the number of a picture, as in %06d.png, and no file is called so."""
    is_pattern = path.suffix.lower() in IMAGE_SUFFIXES and re.search(r"%\d*d", path.name) is not None
    return is_pattern and not path.exists()


def reason(error: BaseException) -> str:
    """What FFmpeg or the system said, without the numbers and names around it."""
    return str(getattr(error, "strerror", None) or error)


# -- files and pipes -----------------------------------------------------------------------------------


def check_source(path: Path) -> None:
    """Refuse what cannot be a video or a picture, before anyone tries to read it."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")


def open_input(path: Path, hwaccel: HWAccel | None = None, format_: InputFormat | None = None) -> InputContainer:
    """Open a media file, or say in one line why that is not possible.

    hwaccel: the device to decode on. Where there is none, what FFmpeg raises comes out as it is.
    """
    check_source(path)
    format_ = format_ or InputFormat()
    try:
        # Names like "-x.mp4" or "a:b.mp4" would read as options or protocols; file: makes them plain files.
        container = av.open(
            f"file:{path}",
            mode="r",
            format=format_.name,
            options=format_.options,
            metadata_errors="replace",
            hwaccel=hwaccel,
        )
    except PermissionError as error:
        if hwaccel is not None:
            raise
        raise InputError(f"{path}: no permission to read it") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if hwaccel is not None:
            raise
        raise InputError(f"{path}: {_unreadable(format_, error)}") from error
    return _checked(container, path, format_)


def open_pipe(pipe: PipeReader, name: Path, format_: InputFormat) -> InputContainer:
    """Open what comes from a pipe, or say in one line why that is not possible.

    name: of the pipe, for messages.
    """
    try:
        container = av.open(
            pipe,
            mode="r",
            format=format_.name,
            options=format_.options,
            metadata_errors="replace",
            buffer_size=PIPE_BUFFER_BYTES,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        if not pipe.seekable() and not pipe.num_bytes:
            raise InputError(f"{name}: nothing came from it (0 bytes); did the program before vsr fail?") from error
        remedy = "" if format_.name else "; --input-format names what it is, say rawvideo"
        raise InputError(f"{name}: {_unreadable(format_, error)}{remedy}") from error
    return _checked(container, name, format_)


def _unreadable(format_: InputFormat, error: BaseException) -> str:
    what = f"not {format_.name}" if format_.name else "not a media file that FFmpeg can read"
    return f"{what} ({reason(error)})"


def _checked(container: InputContainer, name: Path, format_: InputFormat) -> InputContainer:
    """An opened container, without what PyAV adds. Raises OptionError where its frame rate is not to be given."""
    # PyAV asks FFmpeg to invent missing timestamps, which shifts H.264 in AVI; ffmpeg itself does not.
    container.flags &= ~GEN_PTS
    timeless = container.format.name in _TIMELESS or container.format.name.endswith("_pipe")
    if format_.framerate is not None and not timeless:
        container.close()
        raise OptionError(f"--framerate: {name} has times of its own ({container.format.name}), which are kept")
    return container


# -- sequences of pictures -----------------------------------------------------------------------------


def find_sequence(path: Path) -> PictureSequence | None:
    """The pictures that a numbered pattern (%d), a glob pattern or a folder stands for; None for any other path.

    Raises InputError where there are none, where a number is missing, or where their kinds are mixed.
    """
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return None
    if is_numbered(path):
        return _numbered(path)
    if glob.has_magic(str(path)):
        return _globbed(path)
    return None


def open_sequence(sequence: PictureSequence, name: Path, format_: InputFormat) -> InputContainer:
    """Open pictures as a video; name: for messages. Raises OptionError for another demuxer than that of pictures."""
    if format_.name not in (None, "image2"):
        raise OptionError(f"--input-format {format_.name}: {name} stands for pictures; leave it out")
    options = InputFormat(framerate=format_.framerate or DEFAULT_FRAMERATE).options
    options["pattern_type"] = sequence.pattern_type
    if sequence.pattern_type == "sequence":
        options["start_number"] = str(sequence.start_number)
    try:
        container = av.open(sequence.pattern, mode="r", format="image2", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{name}: {sequence.files[0].name} is no picture that FFmpeg can read") from error
    found = container.streams.video[0].duration if container.streams.video else 0
    if found != len(sequence.files):  # never seen: two readings of one pattern
        container.close()
        raise InputError(f"{name}: FFmpeg finds {found} pictures where there are {len(sequence.files)}")
    return container


def _numbered(path: Path) -> PictureSequence:
    parts = re.split(r"(%%|%\d*d)", path.name)
    places = [part for part in parts if part.endswith("d") and part.startswith("%")]
    if len(places) != 1:
        raise InputError(f"{path}: one %d is for the number; write %% for a percent sign")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    place = parts.index(places[0])
    before, after = ("".join(part).replace("%%", "%") for part in (parts[:place], parts[place + 1 :]))
    width = int(places[0][1:-1] or 0)
    digits = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    numbers = sorted(
        int(match[1])
        for file in path.parent.iterdir()
        if (match := digits.fullmatch(file.name)) and match[1] == f"{int(match[1]):0{width}d}"
    )
    if not numbers:
        raise InputError(f"{path}: there is no picture of that name, such as {before}{1:0{width}d}{after}")
    if numbers[-1] - numbers[0] + 1 != len(numbers):
        missing = next(number for number, found in enumerate(numbers, numbers[0]) if number != found)
        raise InputError(
            f"{path}: {before}{missing:0{width}d}{after} is missing, and pictures follow it; "
            f"a glob pattern takes what there is, as in '{path.parent / (before + '*' + after)}'"
        )
    files = tuple(path.parent / f"{before}{number:0{width}d}{after}" for number in numbers)
    _check_kinds(path, files)
    # Absolute, so that no part of it reads as a protocol or an option.
    folder = str(path.parent.absolute()).replace("%", "%%")
    return PictureSequence(f"{folder}{os.sep}{path.name}", "sequence", numbers[0], files)


def _globbed(path: Path) -> PictureSequence:
    files = _sorted(Path(name) for name in glob.glob(str(path)))  # noqa: PTH207 (Path.glob takes hidden files too)
    if not files:
        raise InputError(f"{path}: no file has such a name")
    _check_kinds(path, files)
    folder = "" if path.is_absolute() else glob.escape(str(Path.cwd())) + os.sep
    return PictureSequence(_without_braces(f"{folder}{path}"), "glob", 0, files)


def _folder(path: Path) -> PictureSequence:
    files = _sorted(file for file in path.iterdir() if is_image(file) and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: is a folder without pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
    _check_kinds(path, files)
    folder = _without_braces(glob.escape(str(path.absolute())))
    return PictureSequence(f"{folder}{os.sep}*{_ending(files)}", "glob", 0, files)


def _ending(files: Sequence[Path]) -> str:
    """What the names of pictures of one kind end in, as one glob: FFmpeg would sort each of several by itself."""
    suffixes = {file.suffix for file in files}
    if len(suffixes) == 1:
        return suffixes.pop()
    wildcards = {"JPEG": ".[jJ][pP]*[gG]", "TIFF": ".[tT][iI][fF]*"}
    letters = "".join(f"[{letter}{letter.upper()}]" for letter in files[0].suffix.lower()[1:])
    return wildcards.get(_KINDS[files[0].suffix.lower()], "." + letters)


def _sorted(files: Iterable[Path]) -> tuple[Path, ...]:
    """By the bytes of the names, as FFmpeg's glob sorts: x10.png comes before x9.png."""
    return tuple(sorted(files, key=os.fsencode))


def _without_braces(pattern: str) -> str:
    """A pattern in which braces and backslashes are plain characters to FFmpeg too."""
    return re.sub(r"([\\{}])", r"\\\1", pattern)


def _check_kinds(path: Path, files: Sequence[Path]) -> None:
    strange = next((file for file in files if not is_image(file)), None)
    if strange is not None:
        raise InputError(f"{path}: {strange.name} is no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
    kinds = {_KINDS[file.suffix.lower()]: file for file in reversed(files)}
    if len(kinds) > 1:
        examples = ", ".join(f"{file.name} ({kind})" for kind, file in sorted(kinds.items()))
        raise InputError(f"{path}: holds pictures of several kinds: {examples}; choose one, as in '*{files[0].suffix}'")
