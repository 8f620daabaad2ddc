"""Keep images in one flat block of memory: cut patches out in one go, fill the next block in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsr.color.resample import mod_crop
from vsr.errors import InputError, OptionError
from vsr.media.images import read_rgb
from vsr.pipeline.threads import Producer
from vsr.train.degrade import Degradation, LowFrame

__all__ = ["ComingShard", "Patches", "Shard", "ShardMaker", "divide"]


@dataclass(frozen=True, slots=True)
class Patches:
    """Locate B patches in a block of images, as (B,) int64 in bytes: their first pixel and the steps from it.

    The steps carry flips and rotations: `down` is to the next row of the patch, `right` to its next
    pixel, and `plane` from red to green and from green to blue.
    """

    first: np.ndarray
    plane: np.ndarray
    down: np.ndarray
    right: np.ndarray

    @classmethod
    def turned(cls, corner: np.ndarray, plane: np.ndarray, row: np.ndarray, side: int, turn: np.ndarray) -> Patches:
        """Make patches from their top left corners, in one of the 8 orientations `turn` of a square (0 to 7)."""
        upside_down, mirrored, transposed = (turn & bit != 0 for bit in (1, 2, 4))
        first = corner + (side - 1) * (row * upside_down + mirrored)
        down, right = np.where(upside_down, -row, row), np.where(mirrored, -1, 1)
        return cls(first, plane, np.where(transposed, right, down), np.where(transposed, down, right))

    def cut(self, block: Tensor, side: int) -> Tensor:
        """Cut (B, 3, side, side) out of a flat uint8 block, on the block's device."""
        return self._sliced(block.numpy(), side) if block.device.type == "cpu" else self.gathered(block, side)

    def _sliced(self, block: np.ndarray, side: int) -> Tensor:
        """Cut patch by patch, which is several times faster than a gather on the CPU."""
        out = np.empty((len(self.first), 3, side, side), np.uint8)
        for patch, first, *steps in zip(out, self.first, self.plane, self.down, self.right, strict=True):
            patch[:] = np.ndarray((3, side, side), np.uint8, block, int(first), [int(step) for step in steps])
        return torch.from_numpy(out)

    def gathered(self, block: Tensor, side: int) -> Tensor:
        """Cut all patches at once, for devices on which a small operation costs as much as a large one."""
        table = torch.from_numpy(np.stack((self.first, self.plane, self.down, self.right))).to(block.device)
        first, plane, down, right = table.view(4, -1, 1, 1, 1)
        channel = torch.arange(3, device=block.device).view(3, 1, 1)
        along = torch.arange(side, device=block.device)
        return block[first + plane * channel + down * along.view(side, 1) + right * along]


class Shard:
    """Hold sharp images and their low-resolution frames in one flat uint8 block.

    Args:
        sizes: (frames, 2) height and width of the low-resolution frames.
        low_layout, high_layout: (frames, 3) int64: first byte, bytes from plane to plane and from row to row; those of
            the sharp image begin at the target's first pixel.
    """

    def __init__(self, num_bytes: int) -> None:
        self.block = torch.empty(num_bytes, dtype=torch.uint8)
        self._num_used = 0
        self._rows: list[tuple[int, ...]] = []
        self.unusable: dict[Path, str] = {}  # images that were left out, and why

    def add(self, high: Tensor, frames: list[LowFrame]) -> None:
        """Add a sharp (3, H, W) image and the frames made of it."""
        height, width = high.shape[1:]
        start = self._store(high)
        for frame in frames:
            low_height, low_width = frame.pixels.shape[1:]
            low = (self._store(frame.pixels), low_height * low_width, low_width)
            self._rows.append(
                (low_height, low_width, *low, start + frame.top * width + frame.left, height * width, width)
            )

    def _store(self, pixels: Tensor) -> int:
        start, self._num_used = self._num_used, self._num_used + pixels.numel()
        self.block[start : self._num_used] = pixels.reshape(-1)
        return start

    def finish(self, device: torch.device) -> None:
        """Make the shard ready for `sample`, with the block on `device`. Raises InputError if it has no image."""
        if not self._rows:
            raise InputError(f"no image could be used; {'; '.join(self.unusable.values())}")
        table = np.array(self._rows, np.int64)
        self.sizes, self.low_layout, self.high_layout = table[:, :2], table[:, 2:5], table[:, 5:8]
        # A frame is drawn in proportion to its area, so that every pixel is seen equally often.
        areas = np.cumsum(self.sizes.prod(1), dtype=np.float64)
        self._cumulative = areas / areas[-1]
        self.block = self.block.to(device)

    def sample(self, batch: int, patch: int, scale: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Cut out patches as `PatchBank.sample` does."""
        frame = np.searchsorted(self._cumulative, rng.random(batch), side="right")
        y, x = rng.integers(self.sizes[frame] - patch, endpoint=True).T
        turn = rng.integers(8, size=batch)
        outs = []
        for layout, factor in ((self.low_layout, 1), (self.high_layout, scale)):
            first, plane, row = layout[frame].T
            corner = first + y * factor * row + x * factor
            outs.append(Patches.turned(corner, plane, row, patch * factor, turn).cut(self.block, patch * factor))
        return outs[0], outs[1]


@dataclass(frozen=True, slots=True)
class ShardMaker:
    """Read and degrade the images of a shard. `paths` and `num_bytes` are by shard."""

    paths: list[list[Path]]
    num_bytes: list[int]
    scale: int
    patch: int
    degradation: Degradation
    seed: int

    def fill(self, shard: Shard, period: int) -> Iterator[None]:
        """Fill an empty shard with the images of a period, without those that cannot be read; yields after each."""
        for index, path in enumerate(self.paths[period % len(self.paths)]):
            try:
                high = mod_crop(read_rgb(path), self.scale)
            except InputError as error:
                shard.unusable[path] = str(error)
            else:
                rng = np.random.default_rng((self.seed, period, index))
                shard.add(high, self.degradation(high, self.scale, self.patch, rng))
            yield


class ComingShard:
    """Make a shard in a thread. `close` stops it after the current image."""

    def __init__(self, maker: ShardMaker, period: int) -> None:
        number = period % len(maker.paths)
        self.period, self.num_bytes = period, maker.num_bytes[number]
        self._shard = Shard(self.num_bytes)
        depth = len(maker.paths[number]) + 1  # one token per image: the thread never waits
        self._producer = Producer(maker.fill(self._shard, period), "vsr-train-images", depth)

    def wait(self) -> Shard:
        """Wait for the shard; it is on the CPU and not yet finished. Raises the maker's errors."""
        for _ in self._producer:
            pass
        return self._shard

    def close(self) -> None:
        self._producer.close()


def divide(num_bytes: list[int], max_shard_bytes: int, rng: np.random.Generator) -> list[list[int]]:
    """Divide indices of images, in random order, among as few shards of about equal size as fit.

    Raises OptionError if one image alone is larger than a shard may be.
    """
    if max(num_bytes) > max_shard_bytes:
        raise OptionError(f"an image takes {max(num_bytes)} bytes and a shard may take {max_shard_bytes}: allow more")
    order = rng.permutation(len(num_bytes))
    sizes = np.array(num_bytes)[order]
    middles, total = np.cumsum(sizes) - sizes / 2, int(sizes.sum())
    num_shards = -(-total // max_shard_bytes)
    while True:
        shard = np.floor(middles * num_shards / total).astype(int)
        if np.bincount(shard, sizes).max() <= max_shard_bytes:
            return [order[shard == number].tolist() for number in np.unique(shard)]
        num_shards += 1
