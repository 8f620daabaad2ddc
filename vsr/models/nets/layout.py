"""How other code bases name the weights of a network: the form in which each network lists its foreign layouts.

VDSR and SRCNN get luma as those were trained on it, BT.601 from 16 to 235, over 255. Weights trained on
full-range luma load as well, and see an image of a little less contrast than they are used to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["SAME", "Layout", "State", "convolutions", "count_blocks", "move", "numbered", "shuffle_scale"]

State = dict[str, Tensor]  # weights by key

SAME = ((r".+", r"\g<0>"),)  # names that are ours


@dataclass(frozen=True, slots=True)
class Layout:
    """How one code base saves one network.

    origin: the code base.  net: a key of `NETS`.
    names: pattern of a module's name (its keys without ".weight" and so on) and its name in our network;
        the first that matches the whole name counts.
    options: the arguments of our network's constructor, read from the renamed weights' shapes.
    prepare: what else has to be done to the renamed weights. Raises ValueError where they do not allow it.
    any_scale: the weights do not tell the scale, as the network works on an enlarged picture.
    """

    origin: str
    net: str
    names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    options: Callable[[State], dict[str, Any]]
    prepare: Callable[[State], State] = lambda state: state
    any_scale: bool = False


def numbered(name: str, factor: int = 1, offset: int = 0) -> Callable[[re.Match[str]], str]:
    """`name` with the pattern's groups, the first of them a number that we count differently from them."""
    return lambda match: name.format(int(match[1]) * factor + offset, *match.groups()[1:])


def convolutions(state: State, module: str) -> list[Tensor]:
    """The convolutions' weights, in order, of a module whose layers are numbered."""
    found = {}
    for key, value in state.items():
        match = re.fullmatch(rf"{module}\.(\d+)\.weight", key)
        if match is not None and value.dim() == 4:
            found[int(match[1])] = value
    return [found[number] for number in sorted(found)]


def count_blocks(state: State) -> int:
    return len({match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))})


def shuffle_scale(weights: list[Tensor]) -> int:
    """The product of the pixel shuffles that these convolutions feed."""
    return math.prod(math.isqrt(weight.shape[0] // weight.shape[1]) for weight in weights)


def move(state: State, old: str, new: str) -> State:
    """The weights with module `old` called `new`. Raises ValueError where there is one of that name."""
    moved = {new + key.removeprefix(old) if key.startswith(f"{old}.") else key: value for key, value in state.items()}
    if len(moved) < len(state):
        raise ValueError(f"two modules {new}")
    return moved
