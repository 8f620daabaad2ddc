"""Faults of PyAV and FFmpeg that are worked around."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


SCHEDULING = """
import os, sys
import numpy as np
import vsr
frames = [np.zeros((64, 64, 3), np.uint8)] * 3
vsr.save_video(sys.argv[1], frames, codec="libsvtav1", frame_rate=25)
print({os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")} == {os.SCHED_OTHER})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="real-time scheduling is Linux's")
@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="PyAV has no SVT-AV1")
def test_no_encoder_makes_the_process_a_real_time_one(tmp_path: Path) -> None:
    """SVT-AV1 does where root runs it, and everybody else waits."""
    command = [sys.executable, "-c", SCHEDULING, str(tmp_path / "out.mkv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "True"


CLOSING = """
import logging
import sys
import av
from vsr.media.pyav_fixes import close_input
av.logging.set_level(av.logging.DEBUG)  # so that the decoder's threads have something to report
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False
for _ in range(60):
    container = av.open(sys.argv[1])
    stream = container.streams.video[0]
    stream.thread_type, stream.codec_context.thread_count = "FRAME", 4
    for _, packet in zip(range(4), container.demux(stream)):
        packet.decode()
    close_input(container)
    del packet, stream, container
"""


def test_an_input_is_closed_while_its_decoder_is_at_work() -> None:
    """Without care the decoder's threads and Python's wait for one another within some ten times."""
    sample = Path(__file__).resolve().parents[2] / "samples" / "sample.mp4"
    done = subprocess.run([sys.executable, "-c", CLOSING, str(sample)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
