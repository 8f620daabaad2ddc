"""Find out which values a foreign network takes and gives, by a smooth image that it has to enlarge.

Neither weights nor graphs tell whether a network works on values from 0 to 1 or from 0 to 255, nor in which order its
channels are. A network that enlarges images gives nearly what bicubic interpolation gives where an image is smooth; one
that is fed otherwise than it was trained does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.errors import ModelError, OptionError

__all__ = ["RANGES", "USUAL", "AdaptedNet", "Convention", "Stated", "Values", "find_convention", "likeness_db"]

RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0), "-1..1": (-1.0, 1.0), "-0.5..0.5": (-0.5, 0.5)}
PAIRS = [
    (takes, gives) for takes, gives in product(RANGES, RANGES) if takes == gives or "-0.5..0.5" not in (takes, gives)
]
ORDERS = ("rgb", "bgr")
SURE_DB = 40.0  # against bicubic: no other convention is tried
ENOUGH_DB = 20.0  # which networks for drawings still have (realesr-animevideov3: 21); with wrong values there are less
ENOUGH_DB_UNSCALED = 28.0  # of a network that enlarges nothing
ENOUGH_DB_OTHER = 28.0  # of another convention than the usual
CLEARLY_DB = 10.0  # by which another convention must be better
LARGEST_SHIFT = 1.5  # output pixels
_WAVES = 1.1  # across the test image
_SIDE = 32  # of the test image, in input pixels
_EDGE = 7  # input pixels at each side that do not count, as networks differ in how they fill up borders

Order = Literal["rgb", "bgr"]


@dataclass(frozen=True, slots=True)
class Values:
    """Describe images on one side of a network: a key of `RANGES`, and the order of three channels."""

    range: str = "0..1"
    order: Order = "rgb"

    def from_unit(self, x: Tensor) -> Tensor:
        """Convert (N, C, H, W) RGB or luma in [0, 1] to these values."""
        low, high = RANGES[self.range]
        return self._ordered(x) * (high - low) + low

    def to_unit(self, x: Tensor) -> Tensor:
        """Convert (N, C, H, W) of these values to RGB or luma, nominally in [0, 1]."""
        low, high = RANGES[self.range]
        return self._ordered((x - low) / (high - low))

    def _ordered(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.order == "bgr" and x.shape[1] == 3 else x

    def __str__(self) -> str:
        low, high = self.range.split("..")
        return f"{low} to {high}" + (" BGR" if self.order == "bgr" else "")


@dataclass(frozen=True, slots=True)
class Convention:
    """Describe what a network takes and gives."""

    takes: Values = Values()
    gives: Values = Values()

    def __str__(self) -> str:
        return f"{self.takes}" if self.takes == self.gives else f"{self.takes}, giving {self.gives}"


USUAL = Convention()


@dataclass(frozen=True, slots=True)
class Stated:
    """Hold what a user states of a foreign network, where its file does not tell. Raises OptionError.

    Args:
        value_range: a key of `RANGES`, or two of them for input and output: "0..1:-1..1".
        channel_order: "rgb" or "bgr", or two of them: "bgr:rgb".
        scale: output pixels per input pixel, for weights that serve several.
    """

    value_range: str | None = None
    channel_order: str | None = None
    scale: int | None = None

    def __post_init__(self) -> None:
        for name, text, known in (
            ("model_range", self.value_range, tuple(RANGES)),
            ("model_order", self.channel_order, ORDERS),
        ):
            if text is not None and not set(_both(text)) <= set(known):
                raise OptionError(
                    f'`{name}="{text}"`: there are {", ".join(known)}, and two with a colon between them where input '
                    "and output differ"
                )
        if self.scale is not None and not 1 <= self.scale <= 16:
            raise OptionError(f"`model_scale={self.scale}`: must lie between 1 and 16")

    def conventions(self, channels: int) -> Iterator[Convention]:
        """Yield the conventions that agree with it, the usual one first."""
        # A network that takes and gives BGR enlarges RGB as well: only a mixed order shows.
        orders = [("rgb", "rgb"), ("rgb", "bgr"), ("bgr", "rgb")] if channels == 3 else [("rgb", "rgb")]
        ranges = [_both(self.value_range)] if self.value_range else PAIRS
        for takes, gives in [_both(self.channel_order)] if self.channel_order else orders:
            for values_in, values_out in ranges:
                yield Convention(Values(values_in, _order(takes)), Values(values_out, _order(gives)))


def _both(text: str) -> tuple[str, str]:
    first, _, second = text.lower().partition(":")
    return first, second or first


def _order(name: str) -> Order:
    return "bgr" if name == "bgr" else "rgb"


def find_convention(
    run: Callable[[Tensor], Tensor], channels: int, scale: int, stated: Stated, name: str
) -> tuple[Convention, str]:
    """Find the convention of a network by a test image; return it, with a text that says why unless it is the usual.

    Args:
        run: computes (1, C, H·scale, W·scale) of (1, C, H, W) float32, both in the network's own values.
        channels: C, 1 or 3.
        scale: output pixels per input pixel.
        stated: what the user states; if that is a convention, it is taken as it is.
        name: of the file, for messages.

    Raises ModelError, with what was tried, where no convention makes the network enlarge the image.
    """
    truth, low = _test_image(channels, _SIDE * scale), _test_image(channels, _SIDE)
    scores: dict[Convention, float] = {}
    outputs: dict[Values, Tensor] = {}
    for convention in stated.conventions(channels):
        if convention.takes not in outputs:
            outputs[convention.takes] = run(convention.takes.from_unit(low)).float()
        scores[convention] = _psnr_db(convention.gives.to_unit(outputs[convention.takes]), truth, scale)
        if scores[convention] >= SURE_DB:
            break
    first, best = next(iter(scores)), max(scores, key=scores.__getitem__)
    enough_db = ENOUGH_DB_UNSCALED if scale == 1 else ENOUGH_DB
    if best != first and scores[best] < max(ENOUGH_DB_OTHER, scores[first] + CLEARLY_DB):
        best = first
    shift = _describe_shift(best.gives.to_unit(outputs[best.takes]), truth, scale)
    if scores[best] < enough_db and stated.value_range is None and not shift:
        raise ModelError(
            f"{name}: does not enlarge a smooth image: {scores[first]:.0f} dB against bicubic with values from {first}"
            f" and at most {max(scores.values()):.0f} dB with others; `model_range` states its values if it is meant to"
        )
    return best, "; ".join(filter(None, (_describe_choice(scores, best, stated), shift)))


def likeness_db(run: Callable[[Tensor], Tensor], channels: int, scale: int) -> float:
    """Score in dB against bicubic how well a network enlarges a smooth image, in the values that suit it best.

    run, channels, scale: as `find_convention` has them.
    """
    truth, low = _test_image(channels, _SIDE * scale), _test_image(channels, _SIDE)
    scores = []
    for name in RANGES:
        values = Values(name)
        scores.append(_psnr_db(values.to_unit(run(values.from_unit(low)).float()), truth, scale))
    return max(scores)


def _describe_choice(scores: dict[Convention, float], best: Convention, stated: Stated) -> str:
    """Say by what a convention was chosen; "" for the usual one."""
    if best == USUAL and stated.value_range is None:
        return ""
    by = "as stated" if stated.value_range else "by a test"
    beside = f", and {scores[USUAL]:.0f} dB from {USUAL}" if USUAL in scores and best != USUAL else ""
    return f"values from {best} {by} ({scores[best]:.0f} dB against bicubic on a smooth image{beside})"


def _test_image(channels: int, side: int) -> Tensor:
    """Draw a smooth image, (1, C, side, side), the same at any size; its channels differ, from nearly black to white.

    A network for other values that is fed with these leaves a part of its range, or gives a part of it only.
    """
    axis = (torch.arange(side) + 0.5) / side - 0.5
    y, x = axis[:, None], axis[None, :]
    waves = [x + 0 * y, y + 0 * x, -0.75 * (x + y)]
    return torch.stack([0.5 + 0.47 * torch.sin(2 * math.pi * _WAVES * wave) for wave in waves[:channels]])[None]


def _counted(x: Tensor, scale: int) -> Tensor:
    edge = _EDGE * scale
    return x[..., edge:-edge, edge:-edge]


def _psnr_db(out: Tensor, truth: Tensor, scale: int) -> float:
    """Compute the PSNR in dB; -inf for an output of another shape or with values that are not finite."""
    if out.shape != truth.shape:
        return -math.inf
    mean_square = float(_counted(out - truth, scale).double().square().mean())
    return -10 * math.log10(max(mean_square, 1e-10)) if math.isfinite(mean_square) else -math.inf


def _describe_shift(out: Tensor, truth: Tensor, scale: int) -> str:
    """Say by how many pixels an output is displaced, as by another rule for corners; "" where it lies as it should."""
    if out.shape != truth.shape:
        return ""
    gray = truth.mean(1, keepdim=True)
    slope_y = F.pad(gray[..., 2:, :] - gray[..., :-2, :], (0, 0, 1, 1), mode="replicate") / 2
    slope_x = F.pad(gray[..., 2:] - gray[..., :-2], (1, 1, 0, 0), mode="replicate") / 2
    error = _counted(gray - out.mean(1, keepdim=True), scale).flatten()
    if not error.isfinite().all():
        return ""
    slopes = torch.stack([_counted(slope, scale).flatten() for slope in (slope_x, slope_y)], 1)
    slopes, error = slopes - slopes.mean(0), error - error.mean()
    found = torch.linalg.lstsq(slopes, error[:, None]).solution
    right, down = found[:, 0].tolist()
    # A network that changes colours a little differs, too; a displacement explains nearly all of the difference.
    is_explained = 4 * (error[:, None] - slopes @ found).square().sum() < error.square().sum()
    if max(abs(right), abs(down)) < LARGEST_SHIFT or not is_explained:
        return ""
    return f"its output is displaced by {right:+.0f} pixels to the right and {down:+.0f} down"


class AdaptedNet(nn.Module):
    """Give a network of another convention the usual one: RGB or luma in [0, 1], in and out.

    Input (N, C, H, W) float32 in [0, 1]; output (N, C, H·scale, W·scale) float32, unclamped.
    """

    def __init__(self, net: nn.Module, convention: Convention) -> None:
        super().__init__()
        self.net, self.convention = net, convention
        self.scale, self.halo = net.scale, net.halo
        self.keep_float32 = tuple(f"net.{name}" for name in getattr(net, "keep_float32", ()))
        self.keep_float32_in_fp16 = tuple(f"net.{name}" for name in getattr(net, "keep_float32_in_fp16", ()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(self.convention.takes.from_unit(x))
        return self.convention.gives.to_unit(out.float())
