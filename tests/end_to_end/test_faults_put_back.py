"""Faults that were mended, put back on purpose: `vsr verify` finds each."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import pytest
from av.packet import Packet
from av.stream import Disposition
from click.testing import CliRunner
from faulty_copies import NUM_FRAMES, SIZE, copy, frame_of

import vsr
from vsr.cli.verify import verify
from vsr.media.packet_times import PacketClock
from vsr.media.read.trimmed_input import TrimmedInput
from vsr.media.write import container_writer
from vsr.media.write.remuxer import Remuxer

DataFile = Callable[[str], Path]
PutBack = Callable[[pytest.MonkeyPatch], None]


def _coarse_texts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vsr.media.write.stream_plan.TEXT_TIME_BASE", Fraction(1, 1000))
    patch.setattr("vsr.media.write.remuxer.TEXT_TIME_BASE", Fraction(1, 1000))


def _coarse_file(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(container_writer, "_COARSEST_FILE_CLOCK", 1)


def _unchecked_search(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TrimmedInput, "_is_exact", lambda self, seconds_before: True)


def _sparse_streams_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PacketClock, "_is_left_over", lambda self, seconds: True)


def _jumps_are_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vsr.media.packet_times.JUMP_SECONDS", 1_000_000)


def _height_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("vsr.media.read.color_tags._HD_FEWEST_COLUMNS", 1_000_000)


def _usual_tags_alone(patch: pytest.MonkeyPatch) -> None:
    options = container_writer._muxer_options
    patch.setattr(container_writer, "_muxer_options", lambda *given: options(*given[:3]))


def _no_covers(patch: pytest.MonkeyPatch) -> None:
    mux = Remuxer.mux

    def without(self: Remuxer, packet: Packet[Any]) -> None:
        if Disposition.attached_pic not in packet.stream.disposition:
            mux(self, packet)

    patch.setattr(Remuxer, "mux", without)


@pytest.mark.parametrize(
    ("put_back", "source", "name", "options", "code"),
    [
        (_coarse_texts, "subs_overlap_sign.mkv", "out.mp4", {}, "times"),
        (_coarse_file, "at25.mp4", "out.mp4", {}, "times"),
        (_unchecked_search, "sk.ts", "out.mkv", {"start_seconds": Fraction(3, 2)}, "frame"),
        (_sparse_streams_stay, "catsparse.ts", "out.mkv", {}, "times"),
        (_jumps_are_time, "fwd.ts", "out.mkv", {}, "times"),
        (_height_alone, "wide709.mkv", "out.mkv", {}, "color"),
        (_usual_tags_alone, "iphone.mov", "out.mov", {}, "metadata"),
        (_no_covers, "cov.mp4", "out.mp4", {"start_seconds": Fraction(1, 2)}, "stream"),
    ],
    ids=["A1-text", "A1-sound", "A2", "A3-sparse", "A3-jump", "A4", "A5", "A6"],
)
def test_a_fault_that_is_put_back_is_found(
    put_back: PutBack,
    source: str,
    name: str,
    options: dict[str, Any],
    code: str,
    data_file: DataFile,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = data_file(f"faults/{source}.xz") if source == "catsparse.ts" else data_file(f"faults/{source}")
    if path.suffix == ".xz":
        (tmp_path / source).write_bytes(lzma.decompress(path.read_bytes()))
        path = tmp_path / source
    values = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu", "preset": "ultrafast", **options}
    vsr.enhance(path, tmp_path / f"right_{name}", **values)
    with monkeypatch.context() as patch:
        put_back(patch)
        vsr.enhance(path, tmp_path / name, verify=False, **values)
    part = ["--start", str(float(options["start_seconds"]))] if options else []
    right, found = (_differences(path, tmp_path / each, *part) for each in (f"right_{name}", name))
    if put_back is not _coarse_texts:  # MP4 shows one text at a time, and has a form of its own for them
        assert not right
    assert any(code in each for each, text in found.items() if right.get(each) != text), found


@pytest.mark.parametrize("part", [(), ("-ss", "0.1")])  # the latter between the fields of a frame
def test_a_frame_for_each_field(part: tuple[str, ...], tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "interlaced.mkv"
    with av.open(str(path), "w") as container:
        encoder = container.add_stream("libx264", rate=25)
        encoder.width, encoder.height, encoder.pix_fmt = *SIZE, "yuv420p"
        encoder.codec_context.options = {"x264-params": "interlaced=1", "preset": "ultrafast"}
        for index in range(NUM_FRAMES):
            container.mux(encoder.encode(frame_of(index)))
        container.mux(encoder.encode(None))
    output = tmp_path / "doubled.mkv"
    start = {"start_seconds": float(part[1])} if part else {}
    values = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu", "preset": "ultrafast", "crf": 4}
    vsr.enhance(path, output, deinterlace="double", **start, **values)
    number = 2 * NUM_FRAMES - (5 if part else 0)
    with av.open(str(output)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == number
    assert _differences(path, output, *part) == _differences(path, output, *part, "--deinterlace", "double") == {}
    assert "frames" in _differences(path, output, *part, "--deinterlace", "off")
    seen = count()
    wrong = copy(output, tmp_path / "wrong.mkv", change=lambda p: None if next(seen) == number - 1 else p)
    found = _differences(path, wrong, *part)
    assert f"the source has {number} frames and the output {number - 1}" in found["frames"]


def _differences(source: Path, output: Path, *options: str) -> dict[str, str]:
    """The texts that the command prints, by their codes."""
    result = CliRunner().invoke(verify, [str(source), str(output), "--json", *options], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert result.exit_code == (0 if report["same"] else 7)
    return {each["code"]: each["text"] for each in report["differences"]}
