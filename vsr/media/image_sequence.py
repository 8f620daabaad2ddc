"""Find the image files that a name stands for: a numbered pattern, a glob pattern or a folder."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vsr.errors import InputError
from vsr.media.formats import IMAGE_SUFFIXES, find_image_format

__all__ = ["Images", "find_images_of", "is_image", "is_numbered", "is_one_picture"]


@dataclass(frozen=True, slots=True)
class Images:
    """Image files that are a video, one a frame; as the source or as the target of a job.

    path: as it was named: a numbered pattern ("%06d.png"), a glob pattern, or a folder.
    files: in their order; none for a numbered target, whose files are numbered as they are written.
    pattern, start_number: of a source, as FFmpeg's image2 takes them.
    """

    path: Path
    kind: Literal["numbered", "glob", "folder"]
    files: tuple[Path, ...] = ()
    pattern: str = ""
    start_number: int = 0

    @property
    def folder(self) -> Path:
        """The folder that a target's files lie in."""
        return self.path if self.kind == "folder" else self.path.parent

    @property
    def suffix(self) -> str:
        """The suffix of all its files."""
        return (self.files[0] if self.files else self.path).suffix

    def __str__(self) -> str:
        return str(self.path)


def is_image(path: Path) -> bool:
    """Say whether a name is that of an image file by its suffix; a pattern with a number (%d) stands for many."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_numbered(path)


def is_one_picture(path: Path) -> bool:
    """Say whether a name is that of one image file, there or not, and no pattern or folder of them."""
    return is_image(path) and find_images_of(path) is None


def is_numbered(path: Path) -> bool:
    """Say whether a name has a place for the number of an image, as in %06d.png, and no file is called so."""
    is_pattern = path.suffix.lower() in IMAGE_SUFFIXES and re.search(r"%\d*d", path.name) is not None
    return is_pattern and not path.exists()


def find_images_of(path: Path) -> Images | None:
    """Find the images that a numbered pattern (%d), a glob pattern or a folder stands for; None for any other path.

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


def _numbered(path: Path) -> Images:
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
    return Images(path, "numbered", files, f"{folder}{os.sep}{path.name}", numbers[0])


def _globbed(path: Path) -> Images:
    files = _sorted(Path(name) for name in glob.glob(str(path)))  # noqa: PTH207 (Path.glob takes hidden files too)
    if not files:
        raise InputError(f"{path}: no file has such a name")
    _check_kinds(path, files)
    folder = "" if path.is_absolute() else glob.escape(str(Path.cwd())) + os.sep
    return Images(path, "glob", files, _without_braces(f"{folder}{path}"))


def _folder(path: Path) -> Images:
    files = _sorted(file for file in path.iterdir() if is_image(file) and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path}: is a folder without pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
    _check_kinds(path, files)
    folder = _without_braces(glob.escape(str(path.absolute())))
    return Images(path, "folder", files, f"{folder}{os.sep}*{_ending(files)}")


def _ending(files: Sequence[Path]) -> str:
    """Return the ending of the names of images of one kind as one glob: FFmpeg would sort each of several by itself."""
    suffixes = {file.suffix for file in files}
    if len(suffixes) == 1:
        return suffixes.pop()
    letters = "".join(f"[{letter}{letter.upper()}]" for letter in files[0].suffix.lower()[1:])
    return find_image_format(files[0].suffix).glob or "." + letters


def _sorted(files: Iterable[Path]) -> tuple[Path, ...]:
    """Sort by the bytes of the names, as FFmpeg's glob does: x10.png comes before x9.png."""
    return tuple(sorted(files, key=os.fsencode))


def _without_braces(pattern: str) -> str:
    """Escape braces and backslashes in a pattern, which are plain characters to Python but not to FFmpeg."""
    return re.sub(r"([\\{}])", r"\\\1", pattern)


def _check_kinds(path: Path, files: Sequence[Path]) -> None:
    strange = next((file for file in files if not is_image(file)), None)
    if strange is not None:
        raise InputError(f"{path}: {strange.name} is no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
    kinds = {find_image_format(file.suffix).name: file for file in reversed(files)}
    if len(kinds) > 1:
        examples = ", ".join(f"{file.name} ({kind})" for kind, file in sorted(kinds.items()))
        raise InputError(f"{path}: holds pictures of several kinds: {examples}; choose one, as in '*{files[0].suffix}'")
