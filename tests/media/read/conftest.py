from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_clips import MakeClip, write_clip


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Write a clip to the test's folder: `write_clip` without a path, and with an optional name."""

    def call(name: str = "in.mkv", codec: str = "libx264", **options: Any) -> Path:
        return write_clip(tmp_path / name, codec, **options)

    return call
