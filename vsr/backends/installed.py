"""Find out which backends are installed, and describe them."""

from __future__ import annotations

import importlib.metadata
from typing import Literal

import torch

from vsr.errors import EngineError, install_hint
from vsr.extras import is_installed

__all__ = ["FASTEST", "PACKAGES", "Backend", "describe_auto", "describe_backends"]

Backend = Literal["auto", "tensorrt", "openvino", "pytorch"]
PACKAGES = {"tensorrt": ("TensorRT", "tensorrt"), "openvino": ("OpenVINO", "cpu")}  # title, extra
FASTEST: dict[str, Backend] = {"cuda": "tensorrt", "cpu": "openvino"}  # by kind of device


def describe_backends() -> list[str]:
    """Describe each backend in a line: its version, or the command that installs it."""
    lines = [f"backend pytorch: {torch.__version__}"]
    for name, (title, extra) in PACKAGES.items():
        if not is_installed(name):
            lines.append(f"backend {name}: {title} is not installed; {install_hint(extra)}")
        else:
            lines.append(f"backend {name}: {_version(name)}{_openvino_devices() if name == 'openvino' else ''}")
    return lines


def describe_auto(device: torch.device) -> str:
    """Name the backend that "auto" takes on a device, if that can run the network."""
    name = FASTEST.get(device.type, "pytorch")
    if name == "pytorch" or not is_installed(name):
        return "PyTorch"
    return "TensorRT" if name == "tensorrt" else "OpenVINO (short jobs: PyTorch)"


def _version(package: str) -> str:
    for distribution in importlib.metadata.packages_distributions().get(package, [package]):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _openvino_devices() -> str:
    from vsr.backends.openvino_engine import list_devices

    try:
        return f", devices {', '.join(list_devices())}"
    except EngineError as error:
        return f", {error}"
