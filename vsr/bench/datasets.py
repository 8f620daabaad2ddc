"""What quality is measured on: the field's test sets, or any folder of pictures or clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vsr.errors import InputError, OptionError
from vsr.events import OnNote
from vsr.media.formats import VIDEO_SUFFIXES
from vsr.media.image_sequence import is_image
from vsr.media.images import read_rgb
from vsr.media.read.reader import VideoReader
from vsr.quality.data_folder import evaluation_sets
from vsr.quality.frames import Decoded, decoded_video

__all__ = [
    "Clip",
    "Dataset",
    "decoded_pictures",
    "find_dataset",
    "num_frames",
    "pictures_in",
    "truths",
]

_STILLS_SOURCE = "https://cv.snu.ac.kr/research/EDSR/benchmark.tar has it"
_VID4_SOURCE = "https://drive.google.com/file/d/1ZuvNNLgR85TV_whJoHM7uVb-XW1y70DW has it"


@dataclass(frozen=True, slots=True)
class Clip:
    """Pictures in order: files of pictures, or the one file of a video."""

    name: str
    paths: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        return not is_image(self.paths[0])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Clips to measure on.  is_moving: whether a clip's pictures follow one another in time, else they are stills.

    is_known: whether it is one of the field's sets, on which figures are published.
    """

    name: str
    clips: tuple[Clip, ...]
    is_moving: bool
    is_known: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """A set of the field.  counts: how many pictures each of its clips has; "" for a set of stills."""

    name: str
    counts: Mapping[str, int]
    source: str


_KNOWN = {
    "vid4": _Known("Vid4", {"calendar": 41, "city": 34, "foliage": 49, "walk": 47}, _VID4_SOURCE),
    "set5": _Known("Set5", {"": 5}, _STILLS_SOURCE),
    "set14": _Known("Set14", {"": 14}, _STILLS_SOURCE),
    "bsd100": _Known("BSD100", {"": 100}, f"{_STILLS_SOURCE}, as B100"),
}


def find_dataset(name: str, data: Path | None = None) -> Dataset:
    """Find vid4, set5, set14 or bsd100, or a folder: of pictures, or of clips (folders or video files).

    Args:
        name: one of the four sets, or the path of a folder.
        data: the folder that holds the sets; $VSR_DATA/test unless given.

    Raises OptionError for a name that is neither, and for a set where neither `data` nor VSR_DATA says where it lies;
    InputError where a set is missing or not complete.
    """
    known = _KNOWN.get(name.lower())
    if known is not None:
        return _known_dataset(known, evaluation_sets(data, "`data`"))
    folder = Path(name)
    if not folder.is_dir():
        kind = "is a file; 'vsr benchmark video' compares two" if folder.exists() else "no such set or folder"
        raise OptionError(f"{name}: {kind}; there are {', '.join(_KNOWN)}, or name a folder of pictures or clips")
    return _folder_dataset(folder)


def _known_dataset(known: _Known, data: Path) -> Dataset:
    folder = data / known.name
    if not folder.is_dir():
        raise InputError(f"{known.name} is not at {folder}; {known.source}; `data` names the folder above it")
    clips = []
    for name, count in known.counts.items():
        place = _truth_folder(folder) / name
        paths = pictures_in(place)
        if len(paths) != count:
            raise InputError(f"{place}: has {len(paths)} pictures where {known.name} has {count}")
        clips.append(Clip(name or known.name, paths))
    return Dataset(known.name, tuple(clips), is_moving="" not in known.counts, is_known=True)


def _truth_folder(folder: Path) -> Path:
    """Where the originals lie in a set's folder: right there, or beside reduced ones, as the sets are handed out."""
    return next((folder / name for name in ("GT", "HR") if (folder / name).is_dir()), folder)


def _folder_dataset(folder: Path) -> Dataset:
    name = folder.resolve().name
    pictures = pictures_in(folder)
    clips = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (paths := pictures_in(path)):
            clips.append(Clip(path.name, paths))
        elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(Clip(path.name, (path,)))
    if pictures and clips:
        raise InputError(f"{folder}: holds pictures as well as clips ({clips[0].name}); name a folder of one kind")
    if not pictures and not clips:
        raise InputError(f"{folder}: holds no pictures, no folders of pictures and no videos")
    return Dataset(name, (Clip(name, pictures),) if pictures else tuple(clips), bool(clips), is_known=False)


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """The pictures right in a folder, sorted by name; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.is_file() and is_image(path)))


def truths(clip: Clip, note: OnNote) -> Iterator[tuple[str, Tensor]]:
    """Name and (3, H, W) uint8 RGB of every picture of a clip. note: called with what is odd about a video."""
    if clip.is_video:
        for index, frame in enumerate(decoded_video(clip.paths[0], note)):
            yield str(index), frame.rgb.add(0.5).to(torch.uint8)[0]
    else:
        for path in clip.paths:
            yield path.name, read_rgb(path)


def num_frames(clip: Clip) -> int | None:
    """How many pictures a clip has; of a video what its header says, which may be nothing."""
    if not clip.is_video:
        return len(clip.paths)
    with VideoReader(clip.paths[0]) as reader:
        return reader.info.num_frames_from_header


def decoded_pictures(paths: tuple[Path, ...]) -> Iterator[Decoded]:
    """Files of pictures as 8 bit RGB."""
    for path in paths:
        yield Decoded(path.name, read_rgb(path)[None])
