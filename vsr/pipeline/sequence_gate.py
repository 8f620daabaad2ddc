"""Compare a network with memory, state and all, with a trusted one along the first frames of a job."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vsr.pipeline.checked_network import Computed, SteppingNetwork, is_finite, state_dtype
from vsr.pipeline.steps import State, Stepped
from vsr.pipeline.tiles import TiledNetwork

__all__ = ["SequenceGate"]


class SequenceGate:
    """Run a trusted network, with a state of its own, along the frames that another has upscaled.

    One frame would not show an error that grows as the state goes from frame to frame.
    num_left: frames that are still to be compared.  state: the trusted one's, after those that were.
    """

    def __init__(self, trusted: TiledNetwork, num_frames: int) -> None:
        self._network, self.num_left = _Trusted(trusted), num_frames
        self.state: State = ()
        self._reference: Stepped | None = None

    def difference(self, run: Stepped, num_frames: int, along: Callable[[SteppingNetwork, State], Stepped]) -> float:
        """Return the largest difference of the next frames' luma, in [0, 1]; NaN where there is NaN.

        Args:
            run: what is compared, of at least num_frames frames; luma comes first, (N, 1, H, W).
            along: runs a network along num_frames frames, from a state.
        """
        if not run.is_finite:
            return math.nan
        if self._reference is None:
            self._reference = along(self._network, self.state)
        found, wanted = run.planes[0][:num_frames], self._reference.planes[0]
        return (found.clamp(0, 1) - wanted.clamp(0, 1)).abs().max().item()

    def go_on(self, num_frames: int) -> None:
        """Go on to the frames after those that were compared last, as they pass."""
        assert self._reference is not None
        self.state, self._reference = self._reference.state, None
        self.num_left -= num_frames


class _Trusted:
    """See `SteppingNetwork`: one that is not checked itself."""

    def __init__(self, tiled: TiledNetwork) -> None:
        self._tiled = tiled

    @property
    def state_dtype(self) -> torch.dtype:
        return state_dtype(self._tiled.engine)

    def run(self, *inputs: Tensor) -> Computed:
        outputs = self._tiled(*inputs)
        return Computed(outputs, is_finite(outputs))
