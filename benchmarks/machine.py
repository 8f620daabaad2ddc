"""Describe the circumstances of a benchmark."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

from vsr.backends.tuning import processor_name
from vsr.quality.provenance import versions


def describe_run() -> dict[str, object]:
    """Return command, date, machine and versions, for the head of a result."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
    }
