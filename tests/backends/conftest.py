"""The stand-in for TensorRT, for the tests of engines and of jobs on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tensorrt_double import Device


@pytest.fixture
def install_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Device]:
    """Puts a version's double where `import tensorrt` finds it; gives the pretended GPU that it runs on."""
    pytest.importorskip("onnxruntime")  # which does the double's work
    from tensorrt_double import Device, make_tensorrt

    def install(version: str) -> Device:
        device = Device()
        monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt(version, device))
        return device

    return install
