"""Hold the limits of options that are checked before anything heavy is imported."""

from __future__ import annotations

__all__ = ["LEAST_TILE"]

LEAST_TILE = 16  # input pixels that a user can ask for: below, nearly all work is done on overlaps
