"""What is said of sizes before the work, and square pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vsr
from vsr.events import Note
from vsr.jobs.options import JobOptions
from vsr.jobs.run import make_job


def _clip(path: Path, width: int, height: int, aspect: Fraction | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, width=width, height=height, pix_fmt="yuv420p")
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), "rgb24")
        for pts in range(2):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("options", "is_said"), [({}, True), ({"scale": 4.0}, False), ({"size": "2160p"}, False)])
def test_an_output_larger_than_4k_is_remarked_on(tmp_path: Path, options: dict[str, object], is_said: bool) -> None:
    source = _clip(tmp_path / "in.mp4", 1280, 720)
    notes: list[Note] = []
    make_job(source, tmp_path / "out.mp4", JobOptions.of(model="nano", **options), note=notes.append)
    said = [note for note in notes if "5120x2880, larger than 4K" in note and '`size="2160p"`' in note]
    assert bool(said) is is_said


@pytest.mark.parametrize(
    ("aspect", "options", "expected"),
    [
        (Fraction(8, 9), {"size": "1080p"}, (1440, 1080)),
        (Fraction(32, 27), {"size": "1080p"}, (1920, 1080)),
        (Fraction(8, 9), {"scale": 1.0}, (640, 480)),
        (None, {"scale": 1.0}, (720, 480)),
    ],
)
def test_square_pixels(
    tmp_path: Path, aspect: Fraction | None, options: dict[str, object], expected: tuple[int, int]
) -> None:
    source = _clip(tmp_path / "in.mp4", 720, 480, aspect)
    job = make_job(source, tmp_path / "out.mp4", JobOptions.of(model="nano", square=True, **options))
    settings = job.plan.settings  # type: ignore[union-attr]
    assert (settings.width, settings.height) == expected
    assert settings.sample_aspect_ratio in (None, 1)


def test_a_square_file_shows_square_pixels(tmp_path: Path) -> None:
    source = _clip(tmp_path / "in.mp4", 72, 48, Fraction(8, 9))
    vsr.enhance(source, tmp_path / "out.mp4", model="nano", square=True, scale=2, backend="pytorch")
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (128, 96) and stream.sample_aspect_ratio in (None, 1)
