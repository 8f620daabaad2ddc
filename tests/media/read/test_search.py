"""A start time gives the frames and the sound that a full decode has from there on, in whatever container."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from small_clips import MakeClip

from vsr.errors import InputError
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader

NUM_STARTS = 19
Frames = list[tuple[Fraction, str]]
Sounds = dict[int, list[bytes]]


def _read(path: Path, start: Fraction | None = None) -> tuple[Frames, Sounds, Fraction]:
    """Frames (times in seconds, and their planes' hashes), packets of other streams, and the file's first time."""
    frames: Frames = []
    packets: Sounds = {}
    with VideoReader(path, InputOptions(start_seconds=start, deinterlace="off")) as reader:
        origin = Fraction(reader.container.start_time or 0, 1_000_000)
        for chunk in reader.chunks(1):
            for packet in chunk.packets:
                packets.setdefault(packet.stream.index, []).append(bytes(packet))
            if chunk.batch is not None:
                digest = hashlib.md5(chunk.batch.planes[0].numpy().tobytes()).hexdigest()
                frames.append((chunk.batch.pts[0] * chunk.batch.time_base, digest))
    return frames, packets, origin


@pytest.mark.parametrize("name", ["sk.ts", "sk2.mpg", "skx.avi", "sko.mp4", "sk.flv", "base.ts"])
def test_every_start_gives_what_a_full_decode_has(name: str, data_file: Callable[[str], Path]) -> None:
    path = data_file(f"faults/{name}")
    whole, sounds, origin = _read(path)
    length = whole[-1][0] - origin
    for number in range(1, NUM_STARTS + 1):
        start = Fraction(round(length * number / (NUM_STARTS + 1) * 1000), 1000)
        frames, packets, _ = _read(path, start)
        expected = [(time - origin - start, digest) for time, digest in whole if time >= origin + start]
        assert [digest for _, digest in frames] == [digest for _, digest in expected], f"from {float(start)} s on"
        assert all(abs(a - b) < Fraction(1, 1000) for (a, _), (b, _) in zip(frames, expected, strict=True))
        for index, found in packets.items():
            assert found == sounds[index][-len(found) :]


def test_a_start_behind_the_end_names_the_time_that_was_typed(make_clip: MakeClip) -> None:
    path = make_clip("late.ts", start_seconds=20)
    with pytest.raises(InputError, match=r"no frame at or after 5 s; start earlier"):
        _read(path, Fraction(5))
