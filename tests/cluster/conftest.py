"""Share the clips of the end-to-end tests, and short segments."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "end_to_end"))  # hard_clips and ffprobe_reading

from vsr.jobs import resume, segmented_sink

FRAMES_PER_SEGMENT = 6


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", FRAMES_PER_SEGMENT)
    monkeypatch.setattr(resume, "_MOST_FRAMES", FRAMES_PER_SEGMENT)
    # On a slow machine, one process cuts its first segments by the clock.
    monkeypatch.setattr(segmented_sink, "_FIRST_SEGMENT_SECONDS", math.inf)
