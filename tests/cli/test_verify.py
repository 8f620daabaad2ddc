"""`vsr verify` on copies that lack something, made on purpose by another program than vsr."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from av.packet import Packet
from click.testing import CliRunner
from faulty_copies import BT601, NUM_FRAMES, copy, frame_of, make_source

from vsr.cli.verify import verify
from vsr.errors import InputError, OptionError

Change = Callable[["Packet[Any]"], "Packet[Any] | None"]


@pytest.fixture(scope="module", params=[".mkv", ".mp4"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("clips") / f"source{request.param}")


def differences(source: Path, output: Path, *options: str) -> dict[str, str]:
    """The texts that the command prints, by their codes."""
    result = CliRunner().invoke(verify, [str(source), str(output), "--json", *options], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert result.exit_code == (0 if report["same"] else 7)
    assert report["same"] == (not report["differences"])
    return {each["code"]: each["text"] for each in report["differences"]}


def moved(kind: str, seconds: float) -> Change:
    def change(packet: Packet[Any]) -> Packet[Any]:
        if packet.stream.type == kind:
            ticks = round(seconds / packet.time_base)
            assert packet.pts is not None and packet.dts is not None
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    return change


def without(kind: str, position: int) -> Change:
    seen: list[int] = []

    def change(packet: Packet[Any]) -> Packet[Any] | None:
        if packet.stream.type == kind:
            seen.append(0)
        return None if packet.stream.type == kind and len(seen) == position + 1 else packet

    return change


def test_a_true_copy_has_no_difference(source: Path, tmp_path: Path) -> None:
    assert differences(source, copy(source, tmp_path / f"copy{source.suffix}")) == {}


def test_another_size_and_encoding_are_no_difference(source: Path, tmp_path: Path) -> None:
    assert differences(source, copy(source, tmp_path / f"copy{source.suffix}", size=(128, 96))) == {}


@pytest.mark.parametrize("position", [0, 5, NUM_FRAMES - 1])
def test_a_dropped_frame(source: Path, tmp_path: Path, position: int) -> None:
    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", change=without("video", position)))
    assert list(found) == ["frames"]
    assert f"the source has {NUM_FRAMES} frames and the output {NUM_FRAMES - 1}" in found["frames"]
    assert (
        f"frame {position} of the source, shown at {0.04 * position:.6f} s, is the first that is missing"
        in (found["frames"])
    )


def test_a_frame_at_another_time(source: Path, tmp_path: Path) -> None:
    late = moved("video", 0.01)

    def change(packet: Packet[Any]) -> Packet[Any] | None:
        is_last = packet.stream.type == "video" and float(packet.pts * packet.time_base) > 0.43
        return late(packet) if is_last else packet

    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", change=change))
    assert "frame 11 is shown at 0.450000 s and not at 0.440000 s" in found.pop("timestamps")
    assert found == {}


def test_everything_later_by_the_same_time_is_one_difference(source: Path, tmp_path: Path) -> None:
    def change(packet: Packet[Any]) -> Packet[Any]:
        return moved(packet.stream.type, 0.5)(packet)

    # Chapters stay where they are.
    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", change=change))
    assert set(found) == {"start", "chapters"}
    assert "0.500000 s later" in found["start"]


def test_a_shifted_sound_track(source: Path, tmp_path: Path) -> None:
    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", change=moved("audio", 0.1)))
    assert list(found) == ["stream-times"]
    said = re.fullmatch(r"audio stream 1 \(aac, deu\) is (.*) s late beside the frames", found["stream-times"])
    assert said is not None
    assert abs(float(said[1]) - 0.1) < 0.001  # an ISO file's start is rounded


def test_late_subtitles(source: Path, tmp_path: Path) -> None:
    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", change=moved("subtitle", 0.05)))
    assert list(found) == ["stream-times"]
    assert "subtitle stream 2" in found["stream-times"]


def test_a_subtitle_that_stays_longer(source: Path, tmp_path: Path) -> None:
    def change(packet: Packet[Any]) -> Packet[Any]:
        if packet.stream.type == "subtitle" and packet.duration:
            packet.duration = packet.duration // 2
        return packet

    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", change=change))
    assert list(found) == ["stream-times"]
    assert "the text at 0.080000 s is shown for 0.060000 s more or less" in found["stream-times"]


def test_lost_streams(source: Path, tmp_path: Path) -> None:
    output = copy(source, tmp_path / f"copy{source.suffix}", leave_out=["subtitle"])
    found = differences(source, output)
    assert list(found) == ["stream-missing"]
    assert "subtitle stream 2" in found["stream-missing"]
    assert set(differences(output, source)) == {"stream-added"}


def test_lost_and_damaged_packets_of_sound(source: Path, tmp_path: Path) -> None:
    output = copy(source, tmp_path / f"a{source.suffix}", change=without("audio", 4))
    assert "stream-packets" in differences(source, output)

    def change(packet: Packet[Any]) -> Packet[Any]:
        if packet.stream.type != "audio" or packet.pts is None or packet.pts * packet.time_base < 0.2:
            return packet
        other = Packet(bytes(packet)[:-1] + b"\x55")
        other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
        other.time_base = packet.time_base
        return other

    assert set(differences(source, copy(source, tmp_path / f"b{source.suffix}", change=change))) == {"stream-bytes"}


def test_lost_chapters(source: Path, tmp_path: Path) -> None:
    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", keep_chapters=False))
    assert found == {"chapters": "the source has 2 chapters and the output 0"}


def test_wrong_color_tags(source: Path, tmp_path: Path) -> None:
    found = differences(source, copy(source, tmp_path / f"copy{source.suffix}", matrix=BT601))
    assert list(found) == ["color"]
    assert "SMPTE170M" in found["color"] and "BT709" in found["color"]


def test_an_image_that_turned_gray(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gray_frame(index: int) -> Any:
        frame = frame_of(index)
        for plane in frame.planes[1:]:
            plane.update(b"\x80" * plane.buffer_size)
        return frame

    monkeypatch.setattr("faulty_copies.frame_of", gray_frame)
    found = differences(source, make_source(tmp_path / f"gray{source.suffix}"))
    assert list(found) == ["color"]
    assert "mean red, green and blue" in found["color"]


def test_lost_metadata_and_language(source: Path, tmp_path: Path) -> None:
    found = differences(source, copy(source, tmp_path / f"a{source.suffix}", tags={}))
    assert found == {"metadata": "the file: the tag title (A film) is missing"}
    found = differences(source, copy(source, tmp_path / f"b{source.suffix}", language="fra"))
    assert list(found) == ["language"]
    assert "its language is fra" in found["language"]


def test_both_codes_of_a_language_are_the_same(source: Path, tmp_path: Path) -> None:
    assert differences(source, copy(source, tmp_path / f"copy{source.suffix}", language="ger")) == {}


def test_what_is_ignored_is_no_difference(source: Path, tmp_path: Path) -> None:
    output = copy(source, tmp_path / f"copy{source.suffix}", tags={}, keep_chapters=False)
    assert list(differences(source, output, "--ignore", "chapters")) == ["metadata"]
    assert differences(source, output, "--ignore", "chapters", "--ignore", "metadata") == {}
    with pytest.raises(OptionError, match="there are"):
        CliRunner().invoke(verify, [str(source), str(output), "--ignore", "colour"], catch_exceptions=False)


def test_an_output_that_is_no_video_fails_the_check(source: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[:100])
    assert list(differences(source, cut)) == ["unreadable"]
    with pytest.raises(InputError):
        CliRunner().invoke(verify, [str(source), str(tmp_path / "none.mp4")], catch_exceptions=False)


def test_the_report_for_people(source: Path, tmp_path: Path) -> None:
    output = copy(source, tmp_path / f"copy{source.suffix}", keep_chapters=False)
    result = CliRunner().invoke(verify, [str(source), str(output)])
    assert result.exit_code == 7
    assert result.stdout.splitlines() == [
        f"{output}: 1 difference from {source}",
        "  chapters: the source has 2 chapters and the output 0",
    ]
    result = CliRunner().invoke(verify, [str(source), str(source)])
    assert result.exit_code == 0
    assert f"{NUM_FRAMES} frames and the timestamps, 2 other streams, 2 chapters" in result.stdout
