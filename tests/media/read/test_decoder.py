"""Frames of packets: all of them, in order, also where packets are damaged, empty or without times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
from av.packet import Packet
from small_clips import NUM_FRAMES, MakeClip

from vsr.media.read.decoder import Decoder


@contextmanager
def _decoder(path: Path) -> Iterator[tuple[Decoder, list[Packet[Any]], Any]]:
    """A decoder, the packets of a clip, and its container."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = Decoder(stream, path, print, one_by_one=False)
        yield decoder, [packet for packet in container.demux(stream) if packet.size], container


def _decoded(decoder: Decoder, packets: list[Packet[Any]]) -> list[av.VideoFrame]:
    return [frame for packet in packets for frame in decoder.decode(packet)] + list(decoder.flush())


def _with_data(packet: Packet[Any], data: bytes) -> Packet[Any]:
    """A packet of the same stream and times."""
    other: Packet[Any] = Packet(data)
    other.stream, other.time_base = packet.stream, packet.time_base
    other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
    return other


def _brightness(frame: av.VideoFrame) -> float:
    return float(frame.to_ndarray()[:48].mean())


def test_frames_come_in_the_order_in_which_they_are_shown(make_clip: MakeClip) -> None:
    with _decoder(make_clip(bf="3")) as (decoder, packets, _):
        pts = [packet.pts for packet in packets]
        assert pts != sorted(pts), "the clip is not what the test needs"  # type: ignore[type-var]
        frames = _decoded(decoder, packets)
    assert [frame.pts for frame in frames] == sorted(pts)  # type: ignore[type-var]
    assert all(frame.time_base == packets[0].time_base for frame in frames)
    assert (decoder.num_lost, decoder.num_repeated, decoder.num_moved_pts) == (0, 0, 0)


def test_a_damaged_packet_repeats_the_frame_before(make_clip: MakeClip) -> None:
    with _decoder(make_clip(codec="mjpeg")) as (decoder, packets, _):
        pts = [packet.pts for packet in packets]
        packets[5] = _with_data(packets[5], b"no JPEG at all")
        frames = _decoded(decoder, packets)
    assert [frame.pts for frame in frames] == pts
    assert _brightness(frames[5]) == _brightness(frames[4]) != _brightness(frames[6])
    assert (decoder.num_lost, decoder.num_repeated) == (1, 1)


def test_an_empty_packet_is_counted_and_ends_nothing(make_clip: MakeClip) -> None:
    with _decoder(make_clip()) as (decoder, packets, _):
        empty = _with_data(packets[-1], b"")
        frames = [frame for packet in packets[:1] for frame in decoder.decode(packet)]
        frames += decoder.decode(empty)
        frames += _decoded(decoder, packets[1:])
    assert len(frames) == NUM_FRAMES
    assert decoder.num_lost == 1


def test_timestamps_that_do_not_increase_are_moved_on(make_clip: MakeClip) -> None:
    with _decoder(make_clip(codec="mjpeg")) as (decoder, packets, _):
        pts = [packet.pts or 0 for packet in packets]
        packets[3].pts = packets[3].dts = pts[2]
        frames = _decoded(decoder, packets)
    assert [frame.pts for frame in frames] == [*pts[:3], pts[2] + 1, *pts[4:]]
    assert decoder.num_moved_pts == 1


def test_an_empty_packet_of_theora_is_a_frame_like_the_one_before(data_file: Callable[[str], Path]) -> None:
    with _decoder(data_file("faults/static.ogv")) as (decoder, _, container):
        container.seek(0)
        frames = _decoded(decoder, [packet for packet in container.demux(video=0) if packet.pts is not None])
    assert [frame.pts for frame in frames] == list(range(len(frames)))
    assert len(frames) == 25
    assert _brightness(frames[1]) == _brightness(frames[0])
    assert (decoder.num_lost, decoder.num_repeated, decoder.num_moved_pts) == (0, 0, 0)


def test_times_that_swap_places_are_put_in_order(make_clip: MakeClip) -> None:
    with _decoder(make_clip(codec="mjpeg")) as (decoder, packets, _):
        pts = [packet.pts or 0 for packet in packets]
        packets[3].pts, packets[4].pts = pts[4], pts[3]
        frames = _decoded(decoder, packets)
    assert [frame.pts for frame in frames] == pts
    shown = [_brightness(frame) for frame in frames]
    assert shown[2] < shown[4] < shown[3] < shown[5]  # each at its own time
    assert (decoder.num_reordered, decoder.num_moved_pts) == (1, 0)


@pytest.mark.parametrize("places", [(4, 2, 1, 3), (5, 4, 3, 2, 1)], ids=["pyramid", "reversed"])
def test_times_that_are_far_from_their_places_are_put_in_order(make_clip: MakeClip, places: tuple[int, ...]) -> None:
    with _decoder(make_clip(codec="mjpeg")) as (decoder, packets, _):
        pts = [packet.pts or 0 for packet in packets]
        for index, place in enumerate(places):
            packets[1 + index].pts = pts[place]
        frames = _decoded(decoder, packets)
    assert [frame.pts for frame in frames] == pts
    shown = [_brightness(frame) for frame in frames]
    stored = [shown[place] for place in (0, *places)]
    assert stored == sorted(stored) and len(set(shown)) == len(shown)  # each at its own time
    assert decoder.num_moved_pts == 0


def test_frames_without_timestamps_follow_one_another_by_the_rate(make_clip: MakeClip) -> None:
    with _decoder(make_clip(codec="mjpeg")) as (decoder, packets, _):
        for packet in packets:
            packet.pts = packet.dts = None
            packet.duration = 0
        frames = _decoded(decoder, packets)
        ticks = round(1 / (25 * packets[0].time_base))
    assert [frame.pts for frame in frames] == [ticks * index for index in range(NUM_FRAMES)]


def test_after_a_reset_decoding_begins_anew(make_clip: MakeClip) -> None:
    with _decoder(make_clip()) as (decoder, packets, container):
        list(decoder.decode(packets[0]))
        container.seek(0)
        decoder.reset()
        again = [packet for packet in container.demux(video=0) if packet.size]
        frames = _decoded(decoder, again)
    assert [frame.pts for frame in frames] == sorted(packet.pts for packet in packets)  # type: ignore[type-var]
    assert decoder.num_moved_pts == 0
