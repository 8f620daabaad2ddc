"""Hold the numbers of a job's options to their ranges.

It imports nothing that takes long, so that a wrong number is refused before PyTorch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vsr.errors import OptionError
from vsr.pipeline.limits import LEAST_TILE

__all__ = ["check_ranges"]

_HIGHEST_CRF = {"libx264": 51, "libx265": 51}
_LEAST = {"batch": 1, "tile": LEAST_TILE}


def check_ranges(values: Mapping[str, Any]) -> None:
    """Raise OptionError for the first number that lies outside its range.

    Args:
        values: the options by their names; those that are missing or None are not checked.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if not 1 <= given.get("scale", 1) <= 16:
        raise OptionError(f"`scale={given['scale']:g}`: must lie between 1 and 16")
    for name, least in _LEAST.items():
        if given.get(name, least) < least:
            raise OptionError(f"`{name}={given[name]}`: must be at least {least}")
    for name in ("fidelity", "restore"):
        if not 0 <= given.get(name, 0) <= 1:
            raise OptionError(f"`{name}={given[name]:g}`: must lie between 0 and 1")
    highest = _HIGHEST_CRF.get(given.get("codec", ""), 63)
    if not -1 <= given.get("crf", 0) <= highest:
        raise OptionError(f"`crf={given['crf']:g}`: must lie between 0 and {highest}; lower is better and larger")
    if given.get("start_seconds", 0) < 0:
        raise OptionError("`start_seconds`: must not be negative")
    if given.get("duration_seconds", 1) <= 0:
        raise OptionError("`duration_seconds`: must be greater than zero")
