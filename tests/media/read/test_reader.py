"""Frames and packets of a video as the pipeline gets them, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from small_clips import NUM_FRAMES, MakeClip

from vsr.events import Note
from vsr.media.read import other_packets
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import Chunk, FramePosition, VideoReader

MOST_BYTES = 2**15


@pytest.fixture
def clip(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Video from 20 s on in a file with sound from 0 to 40 s, and room for little of it at a time."""
    monkeypatch.setattr(other_packets, "MOST_BYTES", MOST_BYTES)
    return make_clip(start_seconds=20, audio_seconds=40)


def _sound(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def _pts(chunks: list[Chunk]) -> list[int]:
    return [pts for chunk in chunks if chunk.batch is not None for pts in chunk.batch.pts]


def test_packets_come_in_pieces_however_long_the_sound_is(clip: Path) -> None:
    with VideoReader(clip) as reader:
        chunks = list(reader.chunks(5))
        checksum = reader.checksums[1].num_packets
    packets = [packet for chunk in chunks for packet in chunk.packets]
    assert [(packet.pts, bytes(packet)) for packet in packets] == _sound(clip)
    assert checksum == len(packets)
    largest = max(packet.size for packet in packets)
    for chunk in chunks:
        assert sum(packet.size for packet in chunk.packets) < MOST_BYTES + largest
    assert chunks[0].batch is None, "the sound before the video comes first"
    assert _pts(chunks) == list(range(20_000, 20_000 + 40 * NUM_FRAMES, 40))


def test_the_packets_alone_are_the_same(clip: Path) -> None:
    with VideoReader(clip) as reader:
        assert [(packet.pts, bytes(packet)) for packet in reader.other_packets()] == _sound(clip)


def test_the_first_frame_can_be_tried_before_the_file_is_read(clip: Path) -> None:
    with VideoReader(clip) as reader:
        trial = reader.first_batch(2)
        batches = [chunk.batch for chunk in reader.chunks(1) if chunk.batch is not None]
    assert trial.num_frames == 2
    assert all((a[0] == b[0]).all() for a, b in zip(trial.planes, batches[0].planes, strict=True))
    assert len(batches) == NUM_FRAMES


def test_reading_goes_on_after_a_frame_that_is_done(clip: Path) -> None:
    with VideoReader(clip) as reader:
        done = next(chunk.batch for chunk in reader.chunks(5) if chunk.batch is not None)
    with VideoReader(clip) as reader:
        assert reader.skip_through(FramePosition.of_last(done), search=False)
        assert _pts(list(reader.chunks(5))) == list(range(20_200, 20_000 + 40 * NUM_FRAMES, 40))


def test_the_place_to_go_on_from_is_searched_for(make_clip: MakeClip) -> None:
    path = make_clip()
    with VideoReader(path) as reader:
        done = next(reader.chunks(5)).batch
        assert done is not None
    with VideoReader(path) as reader:
        assert reader.skip_through(FramePosition.of_last(done), search=True)
        assert _pts(list(reader.chunks(5))) == list(range(200, 40 * NUM_FRAMES, 40))


def test_a_search_makes_no_timestamp_wrong(data_file: Callable[[str], Path]) -> None:
    path = data_file("faults/subs_overlap_sign.mkv")
    with VideoReader(path) as reader:
        pts = [p for chunk in reader.chunks(8) if chunk.batch is not None for p in chunk.batch.pts]
    notes: list[Note] = []
    with VideoReader(path, warn=notes.append) as reader:
        assert reader.skip_to(pts[40], search=True) is not None
        assert _pts(list(reader.chunks(8))) == pts[41:]
    assert notes == []


def test_another_frame_in_its_place_is_found_out(clip: Path) -> None:
    with VideoReader(clip) as reader:
        done = next(chunk.batch for chunk in reader.chunks(5) if chunk.batch is not None)
    with VideoReader(clip) as reader:
        assert not reader.skip_through(FramePosition(done.pts[-1], "0" * 64), search=False)


def test_a_part_begins_at_zero_with_its_sound(clip: Path) -> None:
    part = InputOptions(start_seconds=Fraction(20), duration_seconds=Fraction(3, 2))
    with VideoReader(clip, part) as reader:
        chunks = list(reader.chunks(5))
    assert _pts(chunks) == list(range(0, 40 * NUM_FRAMES, 40))
    sound = [packet.pts for chunk in chunks for packet in chunk.packets]
    assert 1000 in sound and set(sound) <= {0, 1000}
