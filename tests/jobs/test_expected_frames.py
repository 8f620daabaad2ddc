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
