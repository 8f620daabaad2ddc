"""Import OpenVINO without the notice of its use that it would send to its maker."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["import_openvino"]

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import the library; it sends nothing anywhere. Raises what the import raises."""
    # Its import counts the use by a web service and leaves an id in the user's folder, unless this package is missing.
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # so an import statement raises ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            sys.modules.pop(_TELEMETRY, None)
