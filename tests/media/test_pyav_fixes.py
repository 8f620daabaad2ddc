"""Faults of PyAV and FFmpeg that are worked around."""

from __future__ import annotations

import av
import pytest

from vsr.media.pyav_fixes import mend_dts


def _mended(pairs: list[tuple[int, int]]) -> list[tuple[int | None, int | None]]:
    last, found = None, []
    for pts, dts in pairs:
        packet = av.Packet(b"x")
        packet.pts, packet.dts = pts, dts
        mend_dts(packet, last)
        last = packet.dts
        found.append((packet.pts, packet.dts))
    return found


def test_times_of_a_sound_encoder_stay() -> None:
    pairs = [(0, -2), (3, -1), (1, 0), (2, 1), (6, 2)]
    assert _mended(pairs) == pairs


@pytest.mark.parametrize("garbage", [375931271793082880, -375931271793082880])
def test_times_from_memory_that_nobody_wrote_are_made_anew(garbage: int) -> None:
    mended = _mended([(0, garbage), (2, garbage + 1), (1, garbage - 1)])
    dts = [dts for _, dts in mended if dts is not None]
    assert [pts for pts, _ in mended] == [0, 2, 1]
    assert dts == sorted(set(dts)) and len(dts) == 3
    assert all(pts is not None and one <= pts for (pts, _), one in zip(mended, dts, strict=True))
