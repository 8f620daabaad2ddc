"""Video super-resolution that loses nothing on the way: every frame, timestamp and stream.

import vsr

vsr.enhance("input.mp4", "output.mp4")            # a file to a file, with all that is in it
with vsr.open_video("input.mp4") as video:        # the same, frame by frame
    vsr.save_video("output.mp4", vsr.upscale(video), like=video)
sharp = vsr.upscale_image(image, model="fast")    # (H, W, 3) uint8 RGB in and out
print(vsr.verify("input.mp4", "output.mp4"))      # what differs, whichever tool made the output

docs/python.md shows more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vsr.errors import VsrError
from vsr.version import __version__

if TYPE_CHECKING:
    from vsr.api import enhance, load_model, save_video, upscale, upscale_image, verify
    from vsr.media.verification.difference import Difference, DifferenceCode
    from vsr.media.verification.verify import Verification
    from vsr.video import Frame, Video, open_video

__all__ = [
    "Difference",
    "DifferenceCode",
    "Frame",
    "Verification",
    "Video",
    "VsrError",
    "__version__",
    "enhance",
    "load_model",
    "open_video",
    "save_video",
    "upscale",
    "upscale_image",
    "verify",
]

# torch takes seconds to import; `vsr --version` and error classes need not wait for it.
_MODULES = {
    "Difference": "vsr.media.verification.difference",
    "DifferenceCode": "vsr.media.verification.difference",
    "Frame": "vsr.video",
    "Verification": "vsr.media.verification.verify",
    "Video": "vsr.video",
    "enhance": "vsr.api",
    "load_model": "vsr.api",
    "open_video": "vsr.video",
    "save_video": "vsr.api",
    "upscale": "vsr.api",
    "upscale_image": "vsr.api",
    "verify": "vsr.api",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'vsr' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
