"""When sound and subtitles are heard and shown beside the video, and that the check of an output sees it."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import vsr
from vsr.errors import StrictError, VerificationError
from vsr.media.write.remuxer import Remuxer

DataFile = Callable[[str], Path]
ReadBack = Callable[..., Any]


@pytest.fixture
def enhance(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    def call(source: Path, name: str, **options: Any) -> Path:
        vsr.enhance(source, tmp_path / name, model=str(tiny_model), backend="pytorch", device="cpu", **options)
        return tmp_path / name

    return call


def _starts(reading: Any, index: int) -> list[float]:
    """The times of a stream's packets that hold something, in seconds."""
    stream = reading.streams[index]
    pairs = zip(stream.packets, stream.times, strict=True)
    return [round(float(time), 4) for data, time in pairs if data != b"\0\0"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_overlapping_subtitles_begin_when_they_should(
    suffix: str, data_file: DataFile, enhance: Callable[..., Path], read_back: ReadBack
) -> None:
    source, notes = data_file("faults/subs_overlap_sign.mkv"), []
    output = enhance(source, f"out{suffix}", note=lambda note: notes.append(str(note)))
    assert _starts(read_back(source), 2) == [0.523, 1.023, 2.023, 3.023, 4.023]
    assert _starts(read_back(output), 2) == [0.523, 1.023, 2.023, 3.023, 4.023]
    assert any("1 subtitle cut off where the next begins" in note for note in notes)
    again = enhance(output, f"again{suffix}")  # copied, this time
    assert _starts(read_back(again), 2) == [0.523, 1.023, 2.023, 3.023, 4.023]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".flv"])
def test_sound_keeps_its_place_beside_a_video_of_a_coarse_clock(
    suffix: str, data_file: DataFile, enhance: Callable[..., Path], read_back: ReadBack
) -> None:
    notes: list[str] = []
    output = enhance(data_file("faults/at25.mp4"), f"out{suffix}", note=lambda note: notes.append(str(note)))
    assert not any("time zero" in note for note in notes)
    assert abs(_starts(read_back(output), 1)[0] - 0.113) < 0.0011


@pytest.mark.parametrize("suffix", [".avi", ".mxf"])
def test_a_container_that_begins_with_its_first_frame_names_the_offset_of_the_sound(
    suffix: str, data_file: DataFile, enhance: Callable[..., Path]
) -> None:
    with pytest.raises(StrictError, match=r"audio stream 1 .* begins 0\.113 s after the video is left out"):
        enhance(data_file("faults/at25.mp4"), f"out{suffix}", strict=True)
    assert enhance(data_file("faults/at25.mp4"), f"out{suffix}").exists()


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_clock_of_nanoseconds(
    suffix: str, data_file: DataFile, enhance: Callable[..., Path], read_back: ReadBack
) -> None:
    output = enhance(data_file("faults/ns.nut"), f"out{suffix}")
    assert read_back(output).times == [0, 6, 12, 18]


def test_joined_transport_streams_go_on_in_all_streams(
    data_file: DataFile, enhance: Callable[..., Path], read_back: ReadBack, tmp_path: Path
) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(lzma.decompress(data_file("faults/catsparse.ts.xz").read_bytes()))
    output = read_back(enhance(joined, "out.mkv"))
    assert [float(output.times[index]) for index in (39, 40, 79)] == [1.56, 1.908, 3.468]
    sparse = _starts(output, 2)  # a sound that is seldom there, from 1.5 s on in the first, and 2.5 s in the second
    assert (sparse[0], sparse[16], sparse[17], sparse[-1]) == (1.5, 1.884, 4.408, 4.792)


def test_a_clock_that_jumps_ahead_makes_no_still_picture(
    data_file: DataFile, enhance: Callable[..., Path], read_back: ReadBack
) -> None:
    notes: list[str] = []
    output = read_back(enhance(data_file("faults/fwd.ts"), "out.mkv", note=lambda note: notes.append(str(note))))
    assert len(output.times) == 80
    assert 3.1 < float(output.times[-1] - output.times[0]) < 3.3
    assert any("jumps ahead by 3598" in note for note in notes)


@pytest.mark.parametrize("start", [None, 0.5])
def test_a_cover_belongs_to_every_part_of_its_file(
    start: float | None, data_file: DataFile, enhance: Callable[..., Path], read_back: ReadBack
) -> None:
    source = data_file("faults/cov.mp4")
    output = read_back(enhance(source, "out.mp4", start_seconds=start))
    assert output.streams[2].packets == read_back(source).streams[2].packets != []


class _Late(Remuxer):
    """Writes every packet of sound and text later than it is due, but for the first `num_on_time`."""

    num_on_time = 0

    def _write(self, packet: Any, target: Any) -> None:
        if target.type in ("audio", "subtitle"):
            self._num_written = getattr(self, "_num_written", 0) + 1
            if self._num_written > self.num_on_time:
                ticks = round(Fraction(1, 10) / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        super()._write(packet, target)


class _LaterOn(_Late):
    num_on_time = 5


@pytest.mark.parametrize(("remuxer", "audio"), [(_Late, "copy"), (_LaterOn, "copy"), (_Late, "aac"), (_LaterOn, "aac")])
def test_the_check_sees_sound_that_is_late(
    remuxer: type[Remuxer],
    audio: str,
    small_clip: Path,
    enhance: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    monkeypatch.setattr("vsr.media.write.container_writer.Remuxer", remuxer)
    with pytest.raises(VerificationError, match="stream 1: what is due at"):
        enhance(small_clip, "out.mkv", audio=audio)
    clean_folder()


def test_the_check_sees_a_text_that_is_late(
    data_file: DataFile, enhance: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsr.media.write.stream_plan.TEXT_TIME_BASE", Fraction(1, 1000))
    monkeypatch.setattr("vsr.media.write.remuxer.TEXT_TIME_BASE", Fraction(1, 1000))
    with pytest.raises(VerificationError, match=r"stream 2: what is due at 1\.023000 s is at 5\.52"):
        enhance(data_file("faults/subs_overlap_sign.mkv"), "out.mp4")
