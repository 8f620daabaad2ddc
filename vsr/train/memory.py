"""Keep freed memory in the process, so that a step need not fetch its tensors from the system anew."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3) in glibc's malloc.h, and values: freed memory is not given back, large blocks are
# not mapped one by one, and all threads share one arena, as the backward pass runs on a thread of its own.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_SETTINGS = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 128 << 20, _MMAP_MAX: 0, _ARENA_MAX: 1}


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep freed memory; return True if it does. Other systems are left alone.

    A training step on a CPU allocates and frees hundreds of megabytes; given back and fetched again page by page, that
    takes up to a third of its time.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(name, value) for name, value in _SETTINGS.items())
