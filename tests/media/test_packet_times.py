from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vsr.media.packet_times import PacketClock, PacketOrder

NUM_PACKETS = 6


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Packets of MP2 in a container whose clock may start anew."""
    path = tmp_path / "sound.ts"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mp2", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * NUM_PACKETS), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _packets(path: Path, times: list[tuple[int | None, int | None]]) -> tuple[Any, list[Any]]:
    """The container, and as many of its packets as there are times: DTS and PTS in its ticks of 1/90000 s."""
    container = av.open(str(path))
    packets = [packet for packet in container.demux() if packet.size][: len(times)]
    assert len(packets) == len(times)
    for packet, (dts, pts) in zip(packets, times, strict=True):
        packet.dts, packet.pts, packet.duration = dts, pts, 100
    return container, packets


def _times(packets: list[Any]) -> list[tuple[int, int]]:
    return [(packet.dts, packet.pts) for packet in packets]


@pytest.mark.parametrize(
    ("times", "expected", "num_moved"),
    [
        ([(0, 0), (100, 100), (200, 230)], [(0, 0), (100, 100), (200, 230)], 0),
        ([(0, 0), (100, 100), (40, 40), (200, 200)], [(0, 0), (100, 100), (101, 101), (200, 200)], 1),
        ([(0, 0), (0, 0), (0, 0)], [(0, 0), (1, 1), (2, 2)], 2),
        ([(50, 20)], [(50, 50)], 1),
        ([(0, None), (100, None)], [(0, 0), (100, 100)], 0),
        ([(0, 0), (None, None), (150, 150)], [(0, 0), (100, 100), (150, 150)], 0),
        ([(-40, -40), (60, 60)], [(-40, -40), (60, 60)], 0),
    ],
    ids=["in-order", "backwards", "standing", "shown-too-early", "no-pts", "no-time", "negative"],
)
def test_packets_go_on(sound: Path, times: Any, expected: Any, num_moved: int) -> None:
    container, packets = _packets(sound, times)
    order = PacketOrder()
    for packet in packets:
        order.put(packet)
    assert _times(packets) == expected
    assert order.num_moved == num_moved
    container.close()


def test_packets_may_coincide_where_the_muxer_takes_it(sound: Path) -> None:
    container, packets = _packets(sound, [(0, 0), (0, 0), (-5, -5)])
    order = PacketOrder(is_strict=False)
    for packet in packets:
        order.put(packet)
    assert _times(packets) == [(0, 0), (0, 0), (0, 0)]
    container.close()


def test_a_second_recording_follows_the_first(sound: Path) -> None:
    times = [(900000, 900000), (990000, 990000), (0, 0), (90000, 90000), (45000, 45000)]
    container, packets = _packets(sound, times)
    clock = PacketClock(container)
    for packet in packets:
        clock.shift(packet)
    assert clock.num_restarts == 2
    first = [(900000, 900000), (990000, 990000)]
    second = [(990100, 990100), (1080100, 1080100)]
    assert _times(packets) == [*first, *second, (1080200, 1080200)]
    container.close()


def test_a_small_step_back_is_no_new_recording(sound: Path) -> None:
    container, packets = _packets(sound, [(90000, 90000), (80000, 80000)])
    clock = PacketClock(container)
    for packet in packets:
        clock.shift(packet)
    assert clock.num_restarts == 0
    assert _times(packets) == [(90000, 90000), (80000, 80000)]
    container.close()
