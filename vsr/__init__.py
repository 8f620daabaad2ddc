"""Video super-resolution that loses nothing on the way: every frame, timestamp and stream.

import vsr

vsr.enhance("input.mp4", "output.mp4")
sharp = vsr.upscale_image(picture, model="fast")  # (H, W, 3) uint8 RGB in and out
model = vsr.load_model("fast")                    # the same, loaded once for many pictures
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsr.errors import VsrError
from vsr.version import __version__

if TYPE_CHECKING:
    from vsr.api import enhance, load_model, upscale_image, verify

__all__ = ["VsrError", "__version__", "enhance", "load_model", "upscale_image", "verify"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `vsr --version` and error classes need not wait for it.
    if name in ("enhance", "load_model", "upscale_image", "verify"):
        from vsr import api

        return getattr(api, name)
    raise AttributeError(f"module 'vsr' has no attribute '{name}'")
