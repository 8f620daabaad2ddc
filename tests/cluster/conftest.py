"""Share the clips of the end-to-end tests, and short segments."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "end_to_end"))  # hard_clips and ffprobe_reading

from cluster_clips import write_clip

from vsr.jobs import resume, segmented_sink
from vsr.models.cards import ModelCard
from vsr.models.weights import build_net, save_model_file

FRAMES_PER_SEGMENT = 6


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", FRAMES_PER_SEGMENT)
    monkeypatch.setattr(resume, "_MOST_FRAMES", FRAMES_PER_SEGMENT)
    # On a slow machine, one process cuts its first segments by the clock.
    monkeypatch.setattr(segmented_sink, "_FIRST_SEGMENT_SECONDS", math.inf)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 40 frames of a changing brightness, with B-frames."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mkv", 40, step=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small network of ×2."""
    card = ModelCard("small", "luma", {"features": 4, "depth": 1, "scale": 2}, 2, "y", 3)
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model_file(path, card, build_net(card).state_dict())
    return path
