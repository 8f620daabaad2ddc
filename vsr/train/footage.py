"""Find training material on disk: still images, folders of frames and video files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError, reason
from vsr.media.formats import IMAGE_SUFFIXES
from vsr.media.images import read_rgb
from vsr.media.read.opening import open_input
from vsr.train.clips import Footage

__all__ = ["ClipSource", "Material", "find_material", "is_held_out", "read_footage"]

VIDEO_SUFFIXES = {
    ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mxf", ".ts", ".webm", ".wmv", ".y4m",
}  # fmt: skip
SHORTEST_SEQUENCE = 5  # images with consecutive numbers that count as a clip
LARGEST_AREA = (352, 640)  # height and width in pixels that are kept of a frame
MOST_PARTS = 32  # of a long video, in one shard


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Describe a video file, or the ordered images of a folder.

    Args:
        scene: clips of one scene are either all trained on or all held out.
        num_parts: number of clips of the wanted length that it may give at once.
    """

    path: Path
    scene: str
    images: tuple[Path, ...] = ()
    num_parts: int = 1


@dataclass(frozen=True, slots=True)
class Material:
    """Hold the clips and stills found below some folders."""

    clips: tuple[ClipSource, ...] = ()
    stills: tuple[Path, ...] = ()
    unreadable: dict[Path, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Describe the material by its number and the first names."""
        names = [clip.path.name for clip in self.clips] or [path.name for path in self.stills]
        return f"{len(names)} ({', '.join(names[:12])}{', …' if len(names) > 12 else ''})"

    def split(self) -> tuple[Material, Material]:
        """Divide into training and held-out material by the name of the scene, about one in ten.

        Stills are held out only if no clip is; if there is too little material, the first of all is in both.
        """
        held_clips = tuple(clip for clip in self.clips if is_held_out(clip.scene))
        if held_clips and len(held_clips) < len(self.clips):
            rest = tuple(clip for clip in self.clips if not is_held_out(clip.scene))
            return Material(rest, self.stills), Material(held_clips)
        if self.clips:
            return self, Material(self.clips[:1])
        held = tuple(path for path in self.stills if is_held_out(path.name))
        if held and len(held) < len(self.stills):
            return Material((), tuple(path for path in self.stills if path not in set(held))), Material((), held)
        return self, Material((), self.stills[:1])


def is_held_out(scene: str) -> bool:
    """Return True if a scene is held out: fixed by its name, independent of other material."""
    return hashlib.sha256(scene.encode()).digest()[0] < 26


def find_material(folders: Iterable[Path], num_frames: int) -> Material:
    """Find clips of `num_frames` frames and stills below folders.

    A video file is a clip. So are images of a subfolder that are numbered consecutively; all others are stills.
    `index.json` of a folder may name the scene of a file. Raises InputError where there is nothing.
    """
    clips: list[ClipSource] = []
    stills: list[Path] = []
    unreadable: dict[Path, str] = {}
    for top in folders:
        if not top.is_dir():
            raise InputError(f"{top}: no such folder")
        for folder in [top, *sorted(path for path in top.rglob("*") if path.is_dir())]:
            files = _files(folder, unreadable)
            images = tuple(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
            if folder != top and _is_sequence(images):
                parts = min(max(1, len(images) // num_frames), MOST_PARTS)
                clips.append(ClipSource(folder, folder.name, images, parts))
            else:
                stills += images
            scenes = _scenes(folder)
            for path in files:
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    try:
                        parts = min(max(1, _count_frames(path) // num_frames), MOST_PARTS)
                    except InputError as error:
                        unreadable[path] = str(error)
                        continue
                    clips.append(ClipSource(path, scenes.get(path.name, path.stem), (), parts))
    if not clips and not stills:
        bad = "".join(f"; {text}" for text in unreadable.values())
        raise InputError(f"{', '.join(map(str, folders))}: no images, folders of frames or videos found{bad}")
    return Material(tuple(clips), tuple(stills), unreadable)


def _files(folder: Path, unreadable: dict[Path, str]) -> list[Path]:
    """List the files of a folder that may be material; add links to nothing and macOS's companions to `unreadable`."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and path.is_symlink() and not path.exists():
            unreadable[path] = f"{path}: is a link to nothing"
        elif path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and path.name.startswith("._"):
            unreadable[path] = f"{path}: is what macOS keeps beside a file, not an image or a video"
        elif path.is_file():
            files.append(path)
    return files


def _is_sequence(images: tuple[Path, ...]) -> bool:
    """Return True if images are numbered consecutively, as the frames of a video are."""
    if len(images) < SHORTEST_SEQUENCE:
        return False
    found = [re.search(r"(\d+)\D*$", path.stem) for path in images]
    numbers = [int(match[1]) for match in found if match]
    return len(numbers) == len(images) and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))


def _scenes(folder: Path) -> dict[str, str]:
    """Read the scenes by file from a folder's index.json."""
    path = folder / "index.json"
    if not path.is_file():
        return {}
    try:
        return {str(clip["file"]): str(clip["scene"]) for clip in json.loads(path.read_text("utf-8"))["clips"]}
    except (ValueError, KeyError, TypeError):
        return {}  # another program's


def _count_frames(path: Path) -> int:
    """Estimate the number of frames of a video by its header; 1 if that does not tell."""
    with open_input(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: has no video")
        stream = container.streams.video[0]
        if stream.frames:
            return stream.frames
        seconds = float(container.duration or 0) / av.time_base
        return max(1, int(seconds * float(stream.average_rate or 25)))


def read_footage(source: ClipSource, num_frames: int, multiple: int, rng: np.random.Generator) -> Footage:
    """Read up to `num_frames` consecutive frames from a random place, and a random part of large ones.

    Args:
        source: the clip.
        num_frames: most frames to read.
        multiple: height and width of the result are multiples of it, in pixels.
        rng: chooses the place and the part.

    Raises InputError where the clip cannot be read or frames differ in size.
    """
    frames = _images(source, num_frames, rng) if source.images else _video(source, num_frames, rng)
    height, width = frames[0].shape[-2:]
    if any(frame.shape != frames[0].shape for frame in frames):
        raise InputError(f"{source.path}: its frames differ in size")
    sides = [min(side, most) // multiple * multiple for side, most in zip((height, width), LARGEST_AREA, strict=True)]
    if not all(sides):
        raise InputError(f"{source.path}: frames of {width}x{height} are too small")
    top, left = (int(rng.integers(full - side + 1)) for full, side in zip((height, width), sides, strict=True))
    rgb = torch.stack([frame[:, top : top + sides[0], left : left + sides[1]] for frame in frames])
    return Footage.of_one_scene(rgb)


def _images(source: ClipSource, num_frames: int, rng: np.random.Generator) -> list[Tensor]:
    first = int(rng.integers(max(1, len(source.images) - num_frames + 1)))
    return [read_rgb(path) for path in source.images[first : first + num_frames]]


def _video(source: ClipSource, num_frames: int, rng: np.random.Generator) -> list[Tensor]:
    """Decode from a random key frame on, or from the start of a video that gives one clip only."""
    frames: list[Tensor] = []
    with open_input(source.path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if source.num_parts > 1 and container.duration:
            container.seek(int(rng.random() * 0.95 * container.duration) + (container.start_time or 0))
        try:
            for frame in container.decode(stream):
                rgb = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                frames.append(rgb.permute(2, 0, 1))
                if len(frames) == num_frames:
                    break
        except (av.FFmpegError, ValueError) as error:
            raise InputError(f"{source.path}: cannot be decoded ({reason(error)})") from error
    if not frames:
        raise InputError(f"{source.path}: no frame could be decoded")
    return frames
