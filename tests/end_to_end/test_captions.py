"""Closed captions (CEA-608/708), which lie in the frames of a broadcast, come with the frames."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type

import vsr
from vsr.jobs import resume

NUM_FRAMES = 24


def _message(index: int) -> bytes:
    """Two bytes of CEA-608 in H.264's user data, as ATSC A/53 has it: a NAL unit of its own."""
    body = b"\xb5\x00\x31GA94\x03\x41\xff" + bytes([0xFC, 65 + index, 66 + index]) + b"\xff"
    return b"\x00\x00\x00\x01\x06" + bytes([4, len(body)]) + body + b"\x80"


def _with_message(data: bytes, message: bytes) -> bytes:
    """Put a NAL unit before the first slice."""
    place = next(i for i in range(len(data)) if data[i : i + 3] == b"\x00\x00\x01" and data[i + 3] & 31 in (1, 5))
    place -= data[place - 1] == 0
    return data[:place] + message + data[place:]


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 96, 64, "yuv420p", Fraction(1, 25)
    encoder.options = {"preset": "ultrafast", "bf": "0", "g": "8", "x264-params": "annexb=1:repeat-headers=1"}
    packets = []
    for index in range(NUM_FRAMES):
        frame = av.VideoFrame.from_ndarray(np.full((96, 96), 40 + 5 * index, np.uint8), "yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    path = tmp_path / "captioned.h264"
    path.write_bytes(b"".join(_with_message(bytes(p), _message(index)) for index, p in enumerate(packets)))
    return path


def _captions(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        data = [[bytes(d) for d in frame.side_data if d.type == Type.A53_CC] for frame in container.decode(video=0)]  # type: ignore[attr-defined]
    return [b"".join(each) for each in data]


@pytest.mark.parametrize(
    ("codec", "name", "options"),
    [
        ("libx264", "out.mp4", {}),
        ("libx264", "resumed.mkv", {"resume": True, "batch": 2}),
        ("libx265", "out.mkv", {"size": "128x96"}),
        ("mpeg2video", "out.ts", {}),
    ],
)
def test_captions_stay_with_their_frames(
    codec: str,
    name: str,
    options: dict[str, Any],
    captioned: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 8)
    monkeypatch.setattr(resume, "_MOST_FRAMES", 8)
    expected = [bytes([0xFC, 65 + index, 66 + index]) for index in range(NUM_FRAMES)]
    assert _captions(captioned) == expected, "the clip is not what the test needs"
    vsr.enhance(captioned, tmp_path / name, model=str(tiny_model), codec=codec, strict=True, device="cpu", **options)
    assert _captions(tmp_path / name) == expected
    codes = [difference.code for difference in vsr.verify(captioned, tmp_path / name).differences]
    assert "captions" not in codes


def test_captions_that_another_tool_dropped_are_found(captioned: Path, tiny_model: Path, tmp_path: Path) -> None:
    vsr.enhance(captioned, tmp_path / "out.mp4", model=str(tiny_model), device="cpu")
    for name, kept in (("none.mp4", 0), ("half.mp4", NUM_FRAMES // 2)):
        with av.open(str(tmp_path / "out.mp4")) as source, av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream_from_template(source.streams.video[0])
            for index, packet in enumerate(source.demux(video=0)):
                if packet.size:
                    changed = av.Packet(bytes(packet) if index < kept else bytes(packet).replace(b"GA94", b"XXXX"))
                    changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                    changed.duration, changed.is_keyframe, changed.stream = packet.duration, packet.is_keyframe, stream
                    container.mux(changed)
    texts = [
        [d.text for d in vsr.verify(tmp_path / "out.mp4", tmp_path / name).differences if d.code == "captions"]
        for name in ("none.mp4", "half.mp4")
    ]
    assert texts == [
        ["the closed captions (CEA-608/708) are missing"],
        [f"the closed captions (CEA-608/708) are in {NUM_FRAMES // 2} frames of {NUM_FRAMES}"],
    ]


def test_captions_that_an_encoder_has_no_place_for_are_named(captioned: Path, tiny_model: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    vsr.enhance(captioned, tmp_path / "out.webm", model=str(tiny_model), device="cpu", note=notes.append)
    assert [note for note in notes if "closed captions (CEA-608/708)" in note]
    assert "captions" in [difference.code for difference in vsr.verify(captioned, tmp_path / "out.webm").differences]


def test_captions_of_a_part(captioned: Path, tiny_model: Path, tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    vsr.enhance(captioned, tmp_path / "whole.mkv", model=str(tiny_model), device="cpu")
    part = {"start_seconds": Fraction(8, 25), "duration_seconds": Fraction(4, 25)}
    vsr.enhance(tmp_path / "whole.mkv", tmp_path / "part.mkv", model=str(tiny_model), device="cpu", **part)
    assert _captions(tmp_path / "part.mkv") == _captions(tmp_path / "whole.mkv")[8:12]
