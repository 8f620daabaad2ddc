"""What a benchmark's figures were measured with."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path

import av
import torch

from vsr.version import __version__


def describe_run() -> dict[str, object]:
    """Command, date, machine and versions, for the head of a result."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {
            "vsr": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "av": av.__version__,
            "ffmpeg": str(av.ffmpeg_version_info),
        },
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    return next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), "")
