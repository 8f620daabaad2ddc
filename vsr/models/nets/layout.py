"""Describe the layouts in which other code bases save a network; each network lists its own.

VDSR and SRCNN get luma as they were trained on it: BT.601 from 16 to 235, over 255. Weights trained on full-range luma
load as well, and see an image of a little less contrast than they are used to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["SAME", "Layout", "State", "convolutions", "count_blocks", "rename_module", "numbered", "shuffle_scale"]

State = dict[str, Tensor]  # weights by key

SAME = ((r".+", r"\g<0>"),)  # names that are ours


@dataclass(frozen=True, slots=True)
class Layout:
    """Describe the layout in which one code base saves one network.

    Args:
        origin: the code base.
        net: key of `NETS`.
        names: pairs of a pattern for a module's name (its keys without ".weight" and so on) and its name in our
            network; the first pattern that matches the whole name counts.
        options: reads the arguments of our network's constructor from the shapes of the renamed weights.
        prepare: converts the renamed weights further. Raises ValueError where they do not allow it.
        any_scale: True where the weights do not determine the scale, as the network works on an enlarged image.
        alternatives: values of further arguments, the same ones in each, that the weights do not determine.
    """

    origin: str
    net: str
    names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    options: Callable[[State], dict[str, Any]]
    prepare: Callable[[State], State] = lambda state: state
    any_scale: bool = False
    alternatives: tuple[dict[str, Any], ...] = ()


def numbered(name: str, factor: int = 1, offset: int = 0) -> Callable[[re.Match[str]], str]:
    """Make a function that fills a match's groups into `name`, the first as a number that we count differently.

    Args:
        name: format string for the groups.
        factor, offset: our number is theirs · factor + offset.
    """
    return lambda match: name.format(int(match[1]) * factor + offset, *match.groups()[1:])


def convolutions(state: State, module: str) -> list[Tensor]:
    """List the convolution weights, in order, of a module with numbered layers."""
    found = {}
    for key, value in state.items():
        match = re.fullmatch(rf"{module}\.(\d+)\.weight", key)
        if match is not None and value.dim() == 4:
            found[int(match[1])] = value
    return [found[number] for number in sorted(found)]


def count_blocks(state: State) -> int:
    return len({match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))})


def shuffle_scale(weights: list[Tensor]) -> int:
    """Multiply the factors of the pixel shuffles that these convolutions feed."""
    return math.prod(math.isqrt(weight.shape[0] // weight.shape[1]) for weight in weights)


def rename_module(state: State, old: str, new: str) -> State:
    """Rename module `old` of the weights to `new`. Raises ValueError where `new` exists already."""
    moved = {new + key.removeprefix(old) if key.startswith(f"{old}.") else key: value for key, value in state.items()}
    if len(moved) < len(state):
        raise ValueError(f"two modules {new}")
    return moved
