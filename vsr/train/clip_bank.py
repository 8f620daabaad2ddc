"""Keep a bank of clips in memory, remade at intervals in a thread, and cut random parts out of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import cv2
import numpy as np
import torch

from vsr.errors import InputError
from vsr.media.images import read_rgb
from vsr.pipeline.threads import Producer
from vsr.train.clips import Clip, ClipBatch, Footage, make_clip, turned
from vsr.train.footage import ClipSource, Material, read_footage
from vsr.train.motion_paths import synthetic_clip
from vsr.train.video_degrade import ClipDegradation

__all__ = ["ClipBank", "ClipMaker", "held_out_clips"]

SHARE_OF_REAL = 0.5  # of the cut-outs, where there are both
LARGEST_STILL = (640, 800)  # height and width in pixels of what a synthetic clip needs of an image
NUM_HELD_OUT_FROM_STILLS = 8


class Made(NamedTuple):
    """Hold a clip, or the reason why it could not be made; and whether it is real or synthetic."""

    clip: Clip | InputError
    is_real: bool


@dataclass(frozen=True, slots=True)
class ClipMaker:
    """Read or synthesise, orient and degrade the clips of a shard; they depend on the seed and its number alone.

    Args:
        num_clips: clips per shard; at most half of them are real where there are stills to film, else all.
        num_frames: frames per clip.
        smallest: side of a low-resolution cut-out in pixels.
    """

    material: Material
    degradation: ClipDegradation
    num_clips: int
    num_frames: int
    scale: int
    smallest: int
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of synthetic clips in pixels: room for cut-outs at many places."""
        side, multiple = self.smallest * self.scale, 2 * self.scale
        return -(-8 * side // (5 * multiple)) * multiple, 2 * side

    def clips(self, number: int) -> Iterator[Made]:
        """Make the clips of a shard, or tell the reason where a file cannot be used."""
        torch.set_num_threads(1)  # of this thread alone
        for index, source in enumerate(self._plan(np.random.default_rng((self.seed, number)))):
            rng = np.random.default_rng((self.seed, number, index))
            try:
                yield Made(self._made(source, rng), source is not None)
            except InputError as error:
                yield Made(error, source is not None)

    def footage(self, source: ClipSource | None, rng: np.random.Generator) -> Footage:
        """Read a clip, or film one where there is no source. Raises InputError where that fails."""
        if source is None:
            return synthetic_clip(lambda: _still(self.material.stills, rng), self.num_frames, self.size, rng)
        footage = read_footage(source, self.num_frames, 2 * self.scale, rng)
        if min(footage.rgb.shape[-2:]) < self.smallest * self.scale:
            raise InputError(f"{source.path}: smaller than a patch of {self.smallest * self.scale} pixels")
        return footage

    def _made(self, source: ClipSource | None, rng: np.random.Generator) -> Clip:
        footage = turned(self.footage(source, rng), int(rng.integers(16)))
        return make_clip(footage, self.scale, self.degradation, rng)

    def _plan(self, rng: np.random.Generator) -> list[ClipSource | None]:
        """List the clips of a shard in order; None stands for a synthetic one."""
        parts = [clip for clip in self.material.clips for _ in range(clip.num_parts)]
        wanted = self.num_clips // 2 if self.material.stills else self.num_clips
        real = [parts[i] for i in rng.permutation(len(parts))[:wanted]]
        made = self.num_clips - len(real) if self.material.stills else 0
        return [*real, *[None] * made]


def _still(paths: tuple[Path, ...], rng: np.random.Generator) -> np.ndarray:
    """Read a random image, or a part of a large one, turned by a multiple of 90 degrees."""
    image = read_rgb(paths[int(rng.integers(len(paths)))]).permute(1, 2, 0).numpy()
    rows, columns = (
        slice(start := int(rng.integers(max(1, side - most + 1))), start + most)
        for side, most in zip(image.shape[:2], LARGEST_STILL, strict=True)
    )
    return np.ascontiguousarray(np.rot90(image[rows, columns], int(rng.integers(4))))


class _Shard:
    """Hold the clips in use, real and synthetic ones in separate lists, and draw from them."""

    def __init__(self, made: list[Made]) -> None:
        kinds = ([item.clip for item in made if item.is_real is kind] for kind in (True, False))
        groups = [[clip for clip in kind if isinstance(clip, ClipBatch)] for kind in kinds]
        self.groups = [group for group in groups if group]

    @property
    def num_bytes(self) -> int:
        return sum(clip.num_bytes for group in self.groups for clip in group)

    def sample(self, batch: int, num_frames: int, side: int, rng: np.random.Generator) -> ClipBatch:
        fitting = [[clip for clip in group if clip.num_frames >= num_frames] for group in self.groups]
        fitting = [group for group in fitting if group]
        if not fitting:
            raise InputError(f"no clip has {num_frames} frames; add longer ones, or images to make clips of")
        parts = []
        for _ in range(batch):
            group = fitting[0] if len(fitting) == 1 or rng.random() < SHARE_OF_REAL else fitting[1]
            clip = group[int(rng.integers(len(group)))]
            first = int(rng.integers(clip.num_frames - num_frames + 1))
            height, width = clip.low_luma.shape[-2:]
            # Even places keep luma and chroma together.
            top, left = (2 * int(rng.integers((full - side) // 2 + 1)) for full in (height, width))
            parts.append(clip.frames(slice(first, first + num_frames)).area(top, left, side))
        return ClipBatch.joined(parts)


class _ComingShard:
    """Make a shard in a thread. `close` stops it after the current clip."""

    def __init__(self, maker: ClipMaker, number: int) -> None:
        self.number = number
        depth = maker.num_clips + 1  # the thread never waits
        self._prefetch = Producer(maker.clips(number), "vsr-train-clips", depth)

    def wait(self) -> list[Made]:
        return list(self._prefetch)

    def close(self) -> None:
        self._prefetch.close()


class ClipBank:
    """Hold clips for some steps of training, while a thread makes those of the next steps.

    Close it, or use it as a context manager.

    Args:
        steps_per_shard: number of steps after which other clips come; they depend on the maker's seed and the step
            alone.
        note: called once with a line for each file that cannot be used.
    """

    _coming: _ComingShard | None = None

    def __init__(self, maker: ClipMaker, steps_per_shard: int, note: Callable[[str], None] = print) -> None:
        cv2.setNumThreads(1)  # its threads would take the core that trains
        self._maker, self._steps_per_shard, self._note = maker, steps_per_shard, note
        self._shard: _Shard | None = None
        self._number = -1
        self.skipped: set[str] = set()

    @property
    def num_bytes(self) -> int:
        """Count the bytes of the clips in use."""
        return 0 if self._shard is None else self._shard.num_bytes

    def seek(self, step: int) -> None:
        """Make the shard of a training step current; call it before each. Waits only if the shard is not ready."""
        number = step // self._steps_per_shard
        if number == self._number:
            return
        if self._coming is not None and self._coming.number != number:
            self.close()
        coming = self._coming or _ComingShard(self._maker, number)
        self._shard = None  # room for the one after
        made = coming.wait()
        self._coming = _ComingShard(self._maker, number + 1)
        self._report(made)
        self._shard, self._number = _Shard(made), number

    def _report(self, made: list[Made]) -> None:
        reasons = {str(item.clip) for item in made if isinstance(item.clip, InputError)}
        if len(made) == sum(isinstance(item.clip, InputError) for item in made):
            raise InputError(f"no clip could be made: {'; '.join(sorted(reasons))}")
        for reason in sorted(reasons - self.skipped):
            self._note(f"left out: {reason}")
        self.skipped |= reasons

    def sample(self, batch: int, num_frames: int, rng: np.random.Generator) -> ClipBatch:
        """Cut out `batch` squares of `num_frames` frames; all randomness comes from `rng`."""
        assert self._shard is not None, "seek comes first"
        return self._shard.sample(batch, num_frames, self._maker.smallest, rng)

    def close(self) -> None:
        """Stop the thread that makes the next shard; the current one stays."""
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:  # the interpreter would wait for the thread at its end
        self.close()


def held_out_clips(material: Material, maker: ClipMaker) -> list[Clip]:
    """Make the clips of held-out material upright and from their beginning: always the same ones."""
    clips = []
    sources: list[ClipSource | None] = [replace(source, num_parts=1) for source in material.clips]
    for index, source in enumerate(sources or [None] * NUM_HELD_OUT_FROM_STILLS):
        rng = np.random.default_rng(index)
        with contextlib.suppress(InputError):  # said of the files that are trained on; of these the others will do
            clips.append(
                make_clip(replace(maker, material=material).footage(source, rng), maker.scale, maker.degradation, rng)
            )
    if not clips:
        raise InputError("none of the clips that are held out can be read")
    return clips
