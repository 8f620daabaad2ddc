"""Frames to be measured, one after the other: from files of pictures and from videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from vsr.bench.datasets import Clip
from vsr.media.pictures import read_rgb
from vsr.media.read.reader import VideoReader
from vsr.quality.frames import Decoded, decoded_video

__all__ = ["decoded_pictures", "num_frames", "truths"]

Note = Callable[[str], None]


# -- pictures for upscaling --------------------------------------------------------------------------------------


def truths(clip: Clip, note: Note) -> Iterator[tuple[str, Tensor]]:
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


# -- files to be compared ----------------------------------------------------------------------------------------


def decoded_pictures(paths: tuple[Path, ...]) -> Iterator[Decoded]:
    """Files of pictures as 8 bit RGB."""
    for path in paths:
        yield Decoded(path.name, read_rgb(path)[None])
