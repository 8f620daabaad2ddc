"""Choose options by a word that says what a video is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vsr.errors import OptionError

__all__ = ["PURPOSES", "describe_purpose", "options_for"]

# Of each word, the options that it stands for. A network with two forms is chosen by `restore`; a size or scale, as it
# suits what such videos are shown on.
PURPOSES: dict[str, dict[str, Any]] = {
    "old-video": {"model": "fast-real", "restore": 1.0, "deinterlace": "auto", "size": "1080p"},
    "phone": {"model": "fast-real", "restore": 0.5, "deinterlace": "off", "scale": 2.0},
    "web": {"model": "fast-real", "restore": 0.8, "deinterlace": "auto", "scale": 2.0},
    "clean": {"model": "fast", "restore": 0.0, "deinterlace": "auto"},
    "screen": {"model": "fast-x2", "deinterlace": "off", "scale": 2.0},
    "anime": {"model": "fast-real", "restore": 0.3, "deinterlace": "auto"},
}
_DEFAULTS: Mapping[str, Any] = {"model": "auto", "deinterlace": "auto"}


def options_for(purpose: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a word stands for, without those that the user has given otherwise.

    Args:
        purpose: a key of `PURPOSES`.
        given: all options by name; those that differ from their defaults win.

    Raises OptionError for another word.
    """
    if purpose not in PURPOSES:
        raise OptionError(f'`purpose="{purpose}"`: there are {", ".join(PURPOSES)}')
    chosen = {name: value for name, value in PURPOSES[purpose].items() if given.get(name) == _DEFAULTS.get(name)}
    if given.get("scale") is not None or given.get("size") is not None:
        chosen.pop("scale", None)
        chosen.pop("size", None)
    if given.get("fidelity") is not None or given.get("model", "auto") != "auto":
        chosen.pop("model", None)
        chosen.pop("restore", None)
    return chosen


def describe_purpose(purpose: str, chosen: Mapping[str, Any]) -> str:
    """Describe what a word stands for, with the options by their Python names."""
    words = [
        f"`{name}={value:g}`" if isinstance(value, float) else f'`{name}="{value}"`' for name, value in chosen.items()
    ]
    return f"{purpose} stands for {', '.join(words) or 'nothing beside what was given'}"
