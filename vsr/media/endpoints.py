"""The two ends of a job: a file, stdin or stdout, or image files that make a video. Names are parsed here, once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from vsr.errors import OutputError
from vsr.files import followed, is_stream
from vsr.media.image_sequence import Images, find_images_of, is_image, is_numbered
from vsr.media.pipe import PIPE, is_pipe

__all__ = ["File", "Images", "Pipe", "RemoteFile", "Source", "Target", "parse_source", "parse_target"]


@dataclass(frozen=True, slots=True)
class File:
    """A file. is_image: whether it holds one image, and not a video."""

    path: Path
    is_image: bool = False

    def __str__(self) -> str:
        return str(self.path)


def _not_reachable() -> BinaryIO:
    raise OSError("is on another machine")


@dataclass(frozen=True, slots=True)
class RemoteFile(File):
    """A file on another machine, of which only the bytes that are read come to this one.

    path: There.  opened: Gives a file object at its beginning, which can be searched.
    """

    opened: Callable[[], BinaryIO] = field(default=_not_reachable, compare=False)


@dataclass(frozen=True, slots=True)
class Pipe:
    """stdin as a source, stdout as a target; or a named pipe or a device, which cannot be searched either.

    path: The name that stands for it on a command line.
    """

    path: Path = PIPE

    def __str__(self) -> str:
        return str(self.path)


Source = File | Pipe | Images
Target = File | Pipe | Images


def parse_source(path: Path) -> Source:
    """Find out what a name of an input stands for; "-" is stdin. Raises InputError for images that do not fit."""
    if is_pipe(path) or is_stream(path):
        return Pipe(path)
    return find_images_of(path) or File(path, is_image(path))


def parse_target(path: Path, source: Source) -> Target:
    """Find out what a name of an output stands for; "-" is stdout.

    With images as the source, a folder, or a name without a suffix, stands for images of the same names.
    A symbolic link stands for the file that it leads to. Raises OutputError for a pattern with more than one number.
    """
    if is_pipe(path) or is_stream(path):
        return Pipe(path)
    if is_numbered(path):
        if len(re.findall(r"%\d*d", path.name.replace("%%", ""))) != 1:
            raise OutputError(f"{path}: one %d is for the number; write %% for a percent sign")
        return Images(path, "numbered")
    if isinstance(source, Images) and (path.is_dir() or not (path.suffix or path.exists())):
        return Images(path, "folder", tuple(path / file.name for file in source.files))
    return File(followed(path), is_image(path))
