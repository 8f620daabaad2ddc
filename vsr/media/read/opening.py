"""Open an input by FFmpeg: a file, a pipe or a sequence of images."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from vsr.errors import InputError, OptionError, reason
from vsr.media.formats import RAW_VIDEO, find_containers_of_demuxer
from vsr.media.image_sequence import Images
from vsr.media.pipe import PipeReader
from vsr.media.pyav_fixes import keep_timestamps

__all__ = [
    "DEFAULT_FRAMERATE",
    "InputFormat",
    "check_source",
    "open_input",
    "open_images",
    "open_pipe",
    "readable_text",
]

DEFAULT_FRAMERATE = Fraction(25)  # of an input without times of its own, as in FFmpeg
PIPE_BUFFER_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class InputFormat:
    """Properties of an input that FFmpeg cannot see, in FFmpeg's words.

    name: of the demuxer, instead of the one that the data look like.
    video_size: "WIDTHxHEIGHT" in pixels, and pixel_format: of raw video.
    framerate: frames a second of raw video, of images, and of other inputs without times of their own.
    """

    name: str | None = None
    video_size: str | None = None
    pixel_format: str | None = None
    framerate: Fraction | None = None

    def __post_init__(self) -> None:
        """Raise OptionError where something is missing, wrong, or does not belong there."""
        options = {"`video_size`": self.video_size, "`pixel_format`": self.pixel_format}
        if self.name == RAW_VIDEO:
            missing = [name for name, value in {**options, "`framerate`": self.framerate}.items() if value is None]
            if missing:
                add = ", ".join(missing)
                raise OptionError(f'`input_format="{RAW_VIDEO}"`: add {add}, which raw video does not hold')
        else:
            given = [name for name, value in options.items() if value is not None]
            if given:
                raise OptionError(f'{", ".join(given)}: of raw video only; add `input_format="{RAW_VIDEO}"`')
        if self.name is not None:
            try:
                av.ContainerFormat(self.name, "r")
            except ValueError as error:
                raise OptionError(f'`input_format="{self.name}"`: this FFmpeg reads no such format') from error
        if self.video_size is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.video_size):
            raise OptionError(f'`video_size="{self.video_size}"`: give WIDTHxHEIGHT')
        if self.framerate is not None and self.framerate <= 0:
            raise OptionError("`framerate`: must be greater than zero")

    @property
    def options(self) -> dict[str, str]:
        """The options of the demuxer."""
        values = {
            "video_size": self.video_size,
            "pixel_format": self.pixel_format,
            "framerate": None if self.framerate is None else f"{self.framerate.numerator}/{self.framerate.denominator}",
        }
        return {name: value for name, value in values.items() if value is not None}


def check_source(path: Path) -> None:
    """Refuse a path that cannot be a video or an image, before anyone tries to read it."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")


def open_input(
    path: Path,
    hwaccel: HWAccel | None = None,
    format_: InputFormat | None = None,
    opened: Callable[[], BinaryIO] | None = None,
) -> InputContainer:
    """Open a media file, or say in one line why that is not possible.

    hwaccel: the device to decode on; where there is none, FFmpeg's error comes out as it is.
    opened: as `RemoteFile` has it, where the file is on another machine.
    """
    if opened is None:
        check_source(path)
    format_ = format_ or InputFormat()
    try:
        # Names like "-x.mp4" or "a:b.mp4" would read as options or protocols; file: makes them plain files.
        container = av.open(
            f"file:{path}" if opened is None else opened(),
            mode="r",
            format=format_.name,
            options=format_.options,
            metadata_errors="surrogateescape",
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
    """Open a media file that comes from a pipe, or say in one line why that is not possible.

    name: of the pipe, for messages.
    """
    try:
        container = av.open(
            pipe,
            mode="r",
            format=format_.name,
            options=format_.options,
            metadata_errors="surrogateescape",
            buffer_size=PIPE_BUFFER_BYTES,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        if not pipe.seekable() and not pipe.num_bytes:
            raise InputError(f"{name}: nothing came from it (0 bytes); did the program before vsr fail?") from error
        remedy = "" if format_.name else f'; `input_format` names its format, as in `input_format="{RAW_VIDEO}"`'
        raise InputError(f"{name}: {_unreadable(format_, error)}{remedy}") from error
    return _checked(container, name, format_)


def _unreadable(format_: InputFormat, error: BaseException) -> str:
    what = f"not {format_.name}" if format_.name else "not a media file that FFmpeg can read"
    return f"{what} ({reason(error)})"


def _checked(container: InputContainer, name: Path, format_: InputFormat) -> InputContainer:
    """Prepare an opened container. Raises OptionError where its frame rate is not to be given."""
    keep_timestamps(container)
    _decode_tags(container)
    demuxer = container.format.name
    lacks_times = demuxer.endswith("_pipe") or any(row.lacks_times for row in find_containers_of_demuxer(demuxer))
    if format_.framerate is not None and not lacks_times:
        container.close()
        raise OptionError(f"`framerate`: {name} has times of its own ({demuxer}), which are kept")
    return container


def readable_text(text: str) -> str:
    """Decode text again that is not UTF-8, of which PyAV keeps the bytes as surrogates: Windows-1252, or Latin-1."""
    try:
        data = text.encode("utf-8", "surrogateescape")
        return data.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError:
            return data.decode("latin-1")


def _decode_tags(container: InputContainer) -> None:
    """Make the tags of a file and its streams readable."""
    for metadata in (container.metadata, *(stream.metadata for stream in container.streams)):
        for key, value in list(metadata.items()):
            del metadata[key]
            metadata[readable_text(key)] = readable_text(value)


def open_images(images: Images, format_: InputFormat) -> InputContainer:
    """Open images as a video. Raises OptionError for another demuxer than that of images."""
    if format_.name not in (None, "image2"):
        raise OptionError(f'`input_format="{format_.name}"`: {images} stands for pictures; leave it out')
    options = InputFormat(framerate=format_.framerate or DEFAULT_FRAMERATE).options
    options["pattern_type"] = "sequence" if images.kind == "numbered" else "glob"
    if images.kind == "numbered":
        options["start_number"] = str(images.start_number)
    try:
        container = av.open(
            images.pattern, mode="r", format="image2", options=options, metadata_errors="surrogateescape"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{images}: {images.files[0].name} is no picture that FFmpeg can read") from error
    _decode_tags(container)
    found = container.streams.video[0].duration if container.streams.video else 0
    if found != len(images.files):  # never seen: two readings of one pattern
        container.close()
        raise InputError(f"{images}: FFmpeg finds {found} pictures where there are {len(images.files)}")
    return container
