"""The number of frames that progress and dry runs count to."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from vsr.jobs.source import expected_frames
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader


@pytest.mark.parametrize(
    ("name", "start", "duration"),
    [
        *((name, None, Fraction(2, 5)) for name in ("sk2.mpg", "sk.ts", "sko.mp4", "sk.flv")),
        *((name, Fraction(1), Fraction(2, 5)) for name in ("sk2.mpg", "sk.ts", "sko.mp4", "sk.flv")),
        *((name, Fraction(1), None) for name in ("sk.ts", "sko.mp4")),  # the others' headers know no better
    ],
    ids=str,
)
def test_the_frames_of_a_part_are_counted_wherever_a_file_s_clock_begins(
    name: str, start: Fraction | None, duration: Fraction | None, data_file: Callable[[str], Path]
) -> None:
    options = InputOptions(start_seconds=start, duration_seconds=duration)
    with VideoReader(data_file(f"faults/{name}"), options) as reader:
        expected = expected_frames(reader)
        found = sum(chunk.batch.num_frames for chunk in reader.chunks(8) if chunk.batch is not None)
    assert expected is not None and abs(expected - found) <= 1


@pytest.mark.parametrize(("duration", "frames"), [("0.1", 3), ("0.08", 2), ("0.081", 3)])
def test_a_frame_that_begins_within_the_part_counts_whole(
    duration: str, frames: int, data_file: Callable[[str], Path]
) -> None:
    with VideoReader(data_file("faults/base.mp4"), InputOptions(duration_seconds=Fraction(duration))) as reader:
        assert reader.info.average_rate == 25
        found = sum(chunk.batch.num_frames for chunk in reader.chunks(8) if chunk.batch is not None)
        assert expected_frames(reader) == found == frames
