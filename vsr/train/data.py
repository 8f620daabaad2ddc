"""Keep a bank of uint8 images in memory, and cut random patches out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError, OptionError
from vsr.media.images import picture_size, sort_out_damaged
from vsr.train.degrade import DEGRADATIONS
from vsr.train.shards import ComingShard, Shard, ShardMaker, divide

__all__ = ["MAX_BYTES", "STEPS_PER_SHARD", "PatchBank"]

MAX_BYTES = 4 << 30
STEPS_PER_SHARD = 5000  # longer than it takes to make the next one, even where a step takes milliseconds


class PatchBank:
    """Hold sharp images with their low-resolution versions, and cut random aligned patches out of both.

    Close it, or use it as a context manager. `num_skipped` counts images left out because they are smaller than a
    patch; `unusable` names those that cannot be read, with the reason. Most are found at once, others when their shard
    is made, in `seek` or `sample`. Raises InputError where no image can be used.

    Args:
        degradation: a name in `DEGRADATIONS`.
        seed: determines the division into shards and random degradations.
        device: device on which the images lie and the patches are cut.
        max_bytes: memory that images may take. If they take more, they are divided into shards of half of that, one in
            use while a thread makes the next; so are images of a random degradation, which are remade every
            `STEPS_PER_SHARD` steps. The shard of a step depends on the seed and the step alone.
    """

    _coming: ComingShard | None = None

    def __init__(
        self,
        paths: list[Path],
        scale: int,
        patch: int,
        degradation: str = "bicubic",
        *,
        seed: int = 0,
        device: torch.device | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._shard: Shard | None = None
        self._period = 0
        self._note: Callable[[str], None] = lambda line: None
        self.unusable: dict[Path, str] = {}
        if degradation not in DEGRADATIONS:
            raise OptionError(f"unknown degradation '{degradation}'; there are {', '.join(DEGRADATIONS)}")
        self.scale, self.patch = scale, patch
        self.device = device or torch.device("cpu")
        chosen = DEGRADATIONS[degradation]
        paths, unusable = sort_out_damaged(paths)
        self._leave_out(unusable)
        sizes = {path: picture_size(path) for path in paths}
        large = [path for path, size in sizes.items() if min(size) >= patch * scale]
        self.num_images, self.num_skipped = len(large), len(sizes) - len(large)
        if not large:
            why = f"every image is smaller than a patch of {patch * scale} pixels" if paths else "no image can be used"
            raise InputError("; ".join([why, *self.unusable.values()]))
        num_bytes = [_num_bytes(sizes[path], scale, chosen.num_frames) for path in large]
        self._changes = chosen.is_random or sum(num_bytes) > max_bytes
        shards = [list(range(len(large)))]
        if self._changes:
            shards = divide(num_bytes, max_bytes // 2, np.random.default_rng(seed))
        self.num_shards = len(shards)
        self._maker = ShardMaker(
            [[large[i] for i in shard] for shard in shards],
            [sum(num_bytes[i] for i in shard) for shard in shards],
            scale,
            patch,
            chosen,
            seed,
        )
        if not self._changes:
            self.seek(0)

    @property
    def num_bytes(self) -> int:
        """Count the bytes of the images in use and of those being made."""
        held = 0 if self._shard is None else self._shard.block.numel()
        return held + (0 if self._coming is None else self._coming.num_bytes)

    def seek(self, step: int) -> None:
        """Make the shard of a training step current; call it before each. Waits only if the shard is not ready."""
        period = step // STEPS_PER_SHARD if self._changes else 0
        if self._shard is not None and period == self._period:
            return
        self._shard = None  # makes room before anything else is made
        if self._coming is not None and self._coming.period != period:
            self.close()
        self._coming = self._coming or ComingShard(self._maker, period)
        shard = self._coming.wait()
        self._leave_out(shard.unusable)
        shard.finish(self.device)
        self._shard, self._period, self._coming = shard, period, None
        if self._changes:
            self._coming = ComingShard(self._maker, period + 1)

    def tell(self, note: Callable[[str], None]) -> None:
        """Call `note` with a line for each image that cannot be used, those found so far included."""
        self._note = note
        for text in self.unusable.values():
            note(f"left out: {text}")

    def _leave_out(self, unusable: Mapping[Path, str]) -> None:
        """Name the images that cannot be used, each once."""
        for path in sorted(unusable.keys() - self.unusable.keys()):
            self._note(f"left out: {unusable[path]}")
        self.unusable.update(unusable)

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Cut out patches: low (B, 3, p, p) and high (B, 3, p·scale, p·scale), uint8, flipped and rotated.

        Args:
            batch: number of patches, B.
            rng: the source of all randomness, so that a run can be repeated from its state.
        """
        if self._shard is None:
            self.seek(0)
        assert self._shard is not None
        return self._shard.sample(batch, self.patch, self.scale, rng)

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


def _num_bytes(size: tuple[int, int], scale: int, num_frames: int) -> int:
    """Count the most bytes that an image and its low-resolution frames take."""
    cells = (size[0] // scale) * (size[1] // scale)
    return 3 * cells * (scale * scale + num_frames)
