"""Wait for something that comes and stays, on machines that have other things to do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 240


def until(is_so: Callable[[], object], failure: str = "it does not come") -> None:
    """Wait until a condition holds. Raises AssertionError once nobody would wait any longer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, failure
        time.sleep(0.01)
