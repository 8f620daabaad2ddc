"""Packets of an input: which, in which order, and what is said where the file is not whole."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from small_clips import NUM_FRAMES, MakeClip

from vsr.errors import InputError
from vsr.media.endpoints import parse_source
from vsr.media.read.demuxer import Demuxer
from vsr.media.read.opening import InputFormat


def _opened(path: Path, notes: list[str] | None = None, maps: tuple[str, ...] = ()) -> Demuxer:
    demuxer = Demuxer(parse_source(path), InputFormat(), maps, ([] if notes is None else notes).append)
    demuxer.open()
    return demuxer


def test_packets_are_those_of_the_file_and_none_besides(make_clip: MakeClip) -> None:
    path = make_clip(audio_seconds=1)
    with av.open(str(path)) as container:
        expected = [(p.stream.index, p.pts, bytes(p)) for p in container.demux() if p.size]
    demuxer = _opened(path)
    packets = [(p.stream.index, p.pts, bytes(p)) for p in demuxer.packets()]
    assert packets == expected
    assert [stream.type for stream in demuxer.other_streams] == ["audio"]
    assert (demuxer.damage, demuxer.num_missing) == (None, 0)
    demuxer.close()


def test_an_input_opens_again_at_its_beginning_and_says_a_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        cv2.imwrite(f"{index}.png", np.full((8, 8), index, np.uint8))
    notes: list[str] = []
    demuxer = _opened(Path("%d.png"), notes)
    first = [packet.pts for packet in demuxer.packets()]
    demuxer.open()
    assert [packet.pts for packet in demuxer.packets()] == first == [0, 1, 2]
    assert len(notes) == 1 and "25 a second" in notes[0]
    demuxer.close()


def test_a_cut_frame_at_the_end_of_raw_video_is_left_out_and_named(make_clip: MakeClip) -> None:
    path = make_clip("in.y4m", "rawvideo")
    path.write_bytes(path.read_bytes()[:-100])
    notes: list[str] = []
    demuxer = _opened(path, notes)
    assert len(list(demuxer.packets())) == NUM_FRAMES - 1
    assert demuxer.num_missing == 1
    assert len(notes) == 1 and "ends in the middle of a frame" in notes[0]
    demuxer.close()


def test_a_file_that_shrinks_is_refused(make_clip: MakeClip) -> None:
    path = make_clip("in.y4m", "rawvideo")
    demuxer = _opened(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(InputError, match="has become shorter"):
        list(demuxer.packets())
    demuxer.close()


def test_seeking_goes_to_a_key_frame_before(make_clip: MakeClip) -> None:
    path = make_clip(**{"x264-params": "keyint=4:scenecut=0:bframes=0"})
    demuxer = _opened(path)
    assert demuxer.stream.time_base is not None
    demuxer.seek(round(6 / 25 / demuxer.stream.time_base))
    packet = next(demuxer.packets())
    assert packet.is_keyframe and packet.pts == round(4 / 25 / demuxer.stream.time_base)
    demuxer.close()
