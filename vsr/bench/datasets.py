"""Find data for benchmarks: the field's test sets, or any folder of images or clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vsr.errors import InputError, OptionError
from vsr.events import Note, NoteCode, OnNote
from vsr.media.formats import VIDEO_SUFFIXES
from vsr.media.image_sequence import is_image
from vsr.media.images import read_rgb
from vsr.media.read.reader import VideoReader
from vsr.quality.data_folder import evaluation_sets
from vsr.quality.frames import Decoded, decoded_video

__all__ = [
    "Clip",
    "Dataset",
    "decoded_images",
    "find_dataset",
    "num_frames",
    "images_in",
    "truths",
]

_STILLS_SOURCE = "https://cv.snu.ac.kr/research/EDSR/benchmark.tar has it"
_VID4_SOURCE = "https://drive.google.com/file/d/1ZuvNNLgR85TV_whJoHM7uVb-XW1y70DW has it"


@dataclass(frozen=True, slots=True)
class Clip:
    """Hold images in order: image files, or the one file of a video."""

    name: str
    paths: tuple[Path, ...]

    @property
    def is_video(self) -> bool:
        return not is_image(self.paths[0])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Hold the clips to measure on.

    Args:
        name: the set's name, or the folder's.
        clips: the clips; a set of stills is one clip.
        is_moving: True where a clip's images follow one another in time, False where they are stills.
        is_known: True for the field's sets, on which figures are published.
    """

    name: str
    clips: tuple[Clip, ...]
    is_moving: bool
    is_known: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """Describe a set of the field.

    Args:
        counts: number of images by clip; "" stands for a set of stills.
    """

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
    """Find vid4, set5, set14 or bsd100, or a folder: of images, or of clips (folders or video files).

    Args:
        name: one of the four sets, or the path of a folder.
        data: the folder that holds the sets; $VSR_DATA/test unless given.

    Raises OptionError for a name that is neither, and for a set whose place neither `data` nor VSR_DATA gives;
    InputError where a set is missing or incomplete.
    """
    known = _KNOWN.get(name.lower())
    if known is not None:
        return _known_dataset(known, evaluation_sets(data, "`data`"))
    folder = Path(name)
    if not folder.is_dir():
        kind = "is a file; 'vsr benchmark video' compares two" if folder.exists() else "no such set or folder"
        raise OptionError(f"{name}: {kind}; there are {', '.join(_KNOWN)}, or name a folder of images or clips")
    return _folder_dataset(folder)


def _known_dataset(known: _Known, data: Path) -> Dataset:
    folder = data / known.name
    if not folder.is_dir():
        raise InputError(f"{known.name} is not at {folder}; {known.source}; `data` names the folder above it")
    clips = []
    for name, count in known.counts.items():
        place = _truth_folder(folder) / name
        paths = images_in(place)
        if len(paths) != count:
            raise InputError(f"{place}: has {len(paths)} images where {known.name} has {count}")
        clips.append(Clip(name or known.name, paths))
    return Dataset(known.name, tuple(clips), is_moving="" not in known.counts, is_known=True)


def _truth_folder(folder: Path) -> Path:
    """Find the originals of a set: in its folder itself, or beside reduced ones, as the sets are distributed."""
    return next((folder / name for name in ("GT", "HR") if (folder / name).is_dir()), folder)


def _folder_dataset(folder: Path) -> Dataset:
    name = folder.resolve().name
    images = images_in(folder)
    clips = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (paths := images_in(path)):
            clips.append(Clip(path.name, paths))
        elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(Clip(path.name, (path,)))
    if images and clips:
        raise InputError(f"{folder}: holds images as well as clips ({clips[0].name}); name a folder of one kind")
    if not images and not clips:
        raise InputError(f"{folder}: holds no images, no folders of images and no videos")
    return Dataset(name, (Clip(name, images),) if images else tuple(clips), bool(clips), is_known=False)


def images_in(folder: Path) -> tuple[Path, ...]:
    """List the images directly in a folder, sorted by name; none where there is no such folder.

    Links to nothing and empty folders that are named as images are listed, too, for the reader to name them.
    """
    if not folder.is_dir():
        return ()
    return tuple(sorted(p for p in folder.iterdir() if is_image(p) and not (p.is_dir() and any(p.iterdir()))))


def truths(clip: Clip, note: OnNote, *, skips_damaged: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yield name and (3, H, W) uint8 RGB of every image of a clip.

    Args:
        clip: the images.
        note: called with each irregularity of a video, and each image that is left out.
        skips_damaged: leaves out images that cannot be read; they raise InputError otherwise.
    """
    if clip.is_video:
        for index, frame in enumerate(decoded_video(clip.paths[0], note)):
            yield str(index), frame.rgb.add(0.5).to(torch.uint8)[0]
    else:
        for path in clip.paths:
            try:
                image = read_rgb(path)
            except InputError as error:
                if not skips_damaged:
                    raise
                note(Note(NoteCode.DAMAGE, f"left out: {error}"))
                continue
            yield path.name, image


def num_frames(clip: Clip) -> int | None:
    """Count the images of a clip; of a video by its header, which may not tell."""
    if not clip.is_video:
        return len(clip.paths)
    with VideoReader(clip.paths[0]) as reader:
        return reader.info.num_frames_from_header


def decoded_images(paths: tuple[Path, ...]) -> Iterator[Decoded]:
    """Read image files as 8 bit RGB."""
    for path in paths:
        yield Decoded(path.name, read_rgb(path)[None])
