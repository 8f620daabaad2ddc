"""Compare a network with memory, state and all, with a trusted one along the first frames of a job."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vsr.backends.engine import state_dtype
from vsr.pipeline.checked_network import CheckedNetwork, Computed, SteppingNetwork, is_finite
from vsr.pipeline.precision_gate import GATE_TOLERANCE
from vsr.pipeline.steps import State, Stepped
from vsr.pipeline.tiles import TiledNetwork

__all__ = ["SequenceGate"]

_TOLERANCE = 2 * GATE_TOLERANCE  # the roundings of many steps add up
# Of the root of the mean square, where values are rounded to int8: a few of the pixels of a right network stray by
# several codes, as a value at the edge of two integers falls to the other side; those of a wrong one stray together.
_INT8_TOLERANCE = 1 / 255


class SequenceGate:
    """Run a trusted network, with a state of its own, along the frames that another has upscaled.

    One frame would not show an error that grows as the state goes from frame to frame.
    num_left: frames that are still to be compared.  state: the trusted one's, after those that were.
    """

    def __init__(self, network: CheckedNetwork, num_frames: int) -> None:
        """network: what is compared, with the network that it trusts; it checks nothing itself from now on."""
        network.leave_check()
        self._network, self.num_left = network, num_frames
        self.state: State = ()
        self._trust()

    def passes(self, run: Stepped, luma: Tensor, along: Callable[[SteppingNetwork, State], Stepped]) -> bool:
        """Tell whether the next frames are right; where they are not, the network takes a safer precision.

        They are then to be run again, from `state`.

        Args:
            run: what is compared, of at least as many frames; the `details` of luma come first.
            luma: of these frames, (N, 1, H, W) in [0, 1].
            along: runs a network along them, from a state.
        """
        is_int8 = self._network.precision == "int8"
        difference = self._difference(run, luma, along, is_int8)
        if difference <= (_INT8_TOLERANCE if is_int8 else _TOLERANCE):  # false for NaN
            self._go_on(len(luma))
            return True
        self._network.fall_back_from(difference)
        self._trust()  # anew, as int8 has a reference of its own
        return False

    def _trust(self) -> None:
        self._trusted = _Trusted(self._network.trusted())
        self._reference: Stepped | None = None

    def _difference(
        self, run: Stepped, luma: Tensor, along: Callable[[SteppingNetwork, State], Stepped], is_int8: bool
    ) -> float:
        """Return how far luma in [0, 1] strays: at most, or in int8 in the mean of squares; NaN where there is NaN."""
        if not run.is_finite:
            return math.nan
        if self._reference is None:
            self._reference = along(self._trusted, self.state)
        found, wanted = ((luma + each.planes[0][: len(luma)]).clamp_(0, 1) for each in (run, self._reference))
        strays = found - wanted
        return (strays.square().mean(dim=(1, 2, 3)).max().sqrt() if is_int8 else strays.abs().max()).item()

    def _go_on(self, num_frames: int) -> None:
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
