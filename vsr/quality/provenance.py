"""Describe the circumstances of a measurement: command, date, commit, machine and versions."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from vsr.backends.tuning import processor_name
from vsr.version import __version__

__all__ = ["describe_run", "versions"]


def describe_run() -> dict[str, object]:
    """Describe the running command for the head of a result. All but the date is the same on a rerun here."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": {
            "cpu": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of all that a result depends on, by name."""
    return {
        "vsr": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "av": av.__version__,
        "ffmpeg": str(av.ffmpeg_version_info),
    }


def _commit() -> str | None:
    """Return the commit of the running source, "-dirty" where it was changed; None for an installed package."""
    if _git("ls-files", "--error-unmatch", "provenance.py") is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
