"""A line of ffmpeg's with its verb changed gives the frames, the times and the streams that ffmpeg gives."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from command_line import Run, enhance, is_refused

OPTION, OUTPUT, STRICT = 4, 3, 8
FFMPEG = shutil.which("ffmpeg")

needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,900\nHello\n\n2\n00:00:01,000 --> 00:00:01,500\nthere\n"


def _ffmpeg(*arguments: object) -> None:
    assert FFMPEG is not None
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """50 frames at 25 fps with B-frames and a key frame every 10."""
    options = {"preset": "veryfast", "g": "10", "bf": "2"}
    return make_clip(tmp_path_factory.mktemp("lines") / "in.mkv", pts=range(50), options=options)


@pytest.fixture(scope="module")
def rich_clip(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path], Track: Any) -> Path:
    """Two videos (streams 0 and 1), two tracks of sound (2 and 3), and subtitles (4)."""
    folder = tmp_path_factory.mktemp("rich")
    tracks = [Track(metadata={"language": "eng"}), Track(codec="libopus", metadata={"language": "ger"})]
    first = make_clip(folder / "first.mkv", pts=range(50), audio=tracks)
    second = make_clip(folder / "second.mkv", pts=range(50), size=(32, 24))
    (folder / "words.srt").write_text(SUBTITLES)
    maps = ["-map", "0:v", "-map", "1:v", "-map", "0:a", "-map", "2:s"]
    _ffmpeg("-i", first, "-i", second, "-i", folder / "words.srt", *maps, "-c", "copy", folder / "rich.mkv")
    return folder / "rich.mkv"


def _frame_numbers(reading: Any, brightness: Callable[[int], int]) -> list[int]:
    """Which frames of a made clip these are, by their brightness."""
    table = {index: brightness(index) * 63 / 64 + 16 / 64 for index in range(60)}
    return [min(table, key=lambda index: abs(table[index] - value)) for value in reading.brightness]


@needs_ffmpeg
@pytest.mark.parametrize(
    "line",
    [
        "-i IN OUT",
        "-ss 0.4 -i IN OUT",
        "-i IN -ss 0.4 OUT",
        "-ss 0.4 -i IN -t 0.5 OUT",
        "-ss 0.4 -t 0.5 -i IN OUT",
        "-ss 0.4 -to 1.2 -i IN OUT",
        "-i IN -ss 0.4 -to 1.2 OUT",
        "-ss 0.4 -i IN -to 1.2 OUT",
        "-ss 0.4 -i IN -ss 0.2 -t 0.5 OUT",
        "-ss 0.4 -t 0.8 -i IN -ss 0.2 -t 5 OUT",
        "-ss 00:00:00.84 -i IN -t 00:00:00.3 OUT",
        "-ss 400ms -i IN -t 500000us OUT",
        "-t 0.6 -to 1.2 -i IN OUT",
    ],
)
def test_the_same_part_as_ffmpeg(
    line: str,
    tmp_path: Path,
    run: Run,
    clip: Path,
    tiny_model: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    theirs, ours = tmp_path / "theirs.mkv", tmp_path / "ours.mkv"
    options = ["-c:v", "libx264", "-crf", "10", "-preset", "ultrafast", "-an"]

    def words(output: Path) -> list[object]:
        *before, last = line.split()
        assert last == "OUT"
        return [*(clip if word == "IN" else word for word in before), *options, output]

    _ffmpeg(*words(theirs))
    assert enhance(run, *words(ours), "--model", tiny_model, "--quiet") == []
    expected, found = read_back(theirs), read_back(ours)
    assert _frame_numbers(found, brightness) == _frame_numbers(expected, brightness)
    assert len(found.times) > 5
    # ffmpeg puts frames on a clock of the frame rate; vsr leaves them where they are.
    for ours_seconds, theirs_seconds in zip(found.times, expected.times, strict=True):
        assert abs(ours_seconds - theirs_seconds) <= Fraction(1, 50)


def _kinds(path: Path) -> list[tuple[str, str, str]]:
    """Type, codec and language of every stream."""
    with av.open(str(path)) as container:
        return [(s.type, s.codec_context.name, s.metadata.get("language", "")) for s in container.streams]


@needs_ffmpeg
@pytest.mark.parametrize(
    "maps",
    [
        "-map 0",
        "-map 0:v:0 -map 0:a",
        "-map 0:0 -map 0:3",
        "-map 0:v:0 -map 0:a:1 -map 0:s",
        "-map 0 -map -0:s",
        "-map 0 -map -0:a:0 -map -0:v:1",
        "-map 0:v:0 -map 0:m:language:ger",
        "-map 0:v:0 -map 0:a:m:language:eng",
        "-map 0:v:0 -map 0:d? -map 0:a:7?",
        "-map 0:V:0 -map 0:s:0",
        "-map 0 -sn -map -0:v:1",
        "-map 0 -map -0:v:1 -an",
        "-map 0 -map -0:v:1 -dn",
        "-map 0:v:1 -map 0:a:0",
    ],
)
def test_the_same_streams_as_ffmpeg(maps: str, tmp_path: Path, run: Run, rich_clip: Path, tiny_model: Path) -> None:
    theirs, ours = tmp_path / "theirs.mkv", tmp_path / "ours.mkv"
    words = ["-i", rich_clip, *maps.split(), "-t", "0.4", "-c", "copy", "-c:v", "libx264", "-preset", "ultrafast"]
    _ffmpeg(*words, theirs)
    assert enhance(run, *words, ours, "--model", tiny_model, "--quiet", "--strict") == []
    assert _kinds(ours) == _kinds(theirs)


@needs_ffmpeg
def test_the_mapped_video_is_the_one_that_is_enhanced(
    tmp_path: Path, run: Run, rich_clip: Path, read_back: Callable[..., Any]
) -> None:
    output = tmp_path / "out.mkv"
    assert enhance(run, "-i", rich_clip, "-map", "0:v:1", "-t", "0.2", output, "--model", "nano", "--quiet") == []
    reading = read_back(output)
    assert (reading.first.width, reading.first.height) == (128, 96)
    assert reading.others == []


@needs_ffmpeg
def test_what_was_not_mapped_is_said_to_be_left_out(
    tmp_path: Path, run: Run, rich_clip: Path, tiny_model: Path
) -> None:
    words = ["-i", rich_clip, "-map", "0:v:0", "-map", "0:a:0", "-t", "0.2", tmp_path / "out.mkv"]
    ended = run("enhance", *words, "--model", tiny_model)
    assert ended.code == 0
    left = [line for line in ended.lines if "left out as asked (-map)" in line]
    assert len(left) == 3
    assert "subtitle stream 4" in left[2]


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ("-map 0:a:7", "no such stream"),
        ("-map 0:v -map 0:t", "no such stream"),
        ("-map 0:a", "takes no video"),
        ("-map 1:v", "one input"),
        ("-map [out]", "no filters"),
        ("-map 0:nonsense", "not understood"),
        ("-map video", "give 0"),
    ],
)
def test_maps_that_take_nothing(
    maps: str, words: str, tmp_path: Path, run: Run, small_clip: Path, clean_folder: Callable[..., None]
) -> None:
    ended = run("enhance", "-i", small_clip, *maps.split(), tmp_path / "out.mkv", "--quiet")
    is_refused(ended, OPTION, maps.split()[-1], words)
    clean_folder()


def test_n_keeps_what_is_there(tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    words = ["-y", "-n", "-i", small_clip, tmp_path / "out.mp4", "--model", tiny_model, "-v", "error"]
    is_refused(run("enhance", *words), OUTPUT, "exists")
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize(("level", "says_more"), [("error", False), ("quiet", False), ("info", True), ("32", True)])
def test_loglevel(level: str, says_more: bool, tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path) -> None:
    words = ["-loglevel", level, "-i", small_clip, "-t", "0.1", tmp_path / "out.mp4"]
    ended = run("enhance", *words, "--model", tiny_model)
    assert ended.code == 0
    assert bool(ended.err) == says_more


def test_encoder_words_reach_the_encoder(
    tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path, read_back: Callable[..., Any]
) -> None:
    options = ["-tune", "film", "-g", "1", "-profile:v", "main", "-b:v", "200k", "-x264-params", "ref=1"]
    assert enhance(run, "-i", small_clip, *options, tmp_path / "out.mkv", "--model", tiny_model, "--quiet") == []
    reading = read_back(tmp_path / "out.mkv", keep_frames=True)
    assert all(frame.key_frame for frame in reading.frames)
    said_by_x264 = (tmp_path / "out.mkv").read_bytes()
    for words in (b"psy_rd=1.00:0.15", b"keyint=1 ", b"8x8dct=0", b"rc=abr", b"bitrate=200 ", b"ref=1 "):
        assert words in said_by_x264
    ended = run("enhance", "-i", small_clip, "-c:v", "ffv1", "-tune", "film", tmp_path / "b.mkv", "--model", tiny_model)
    assert ended.code == OPTION
    assert "ffv1 has no option tune" in ended.lines[-1]


# -- -progress ---------------------------------------------------------------------------------------------------


def _blocks(text: str) -> list[dict[str, str]]:
    """Blocks of key=value lines, as a program reads them that was written for ffmpeg."""
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        assert equals, line
        blocks[-1][key] = value
        if key == "progress":
            blocks.append({})
    assert blocks.pop() == {}
    return blocks


@needs_ffmpeg
@pytest.mark.parametrize("target", ["-", "pipe:1", "file", "file:file"])
def test_progress_as_ffmpeg_writes_it(
    target: str,
    tmp_path: Path,
    run: Run,
    small_clip: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("enhance", "-progress", target, "-i", small_clip, "out.mp4", "--model", tiny_model, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    ours = _blocks(Path("file").read_text() if "file" in target else ended.out)
    _ffmpeg("-progress", "theirs", "-i", small_clip, "-c:v", "libx264", "-preset", "ultrafast", "theirs.mp4")
    theirs = _blocks(Path("theirs").read_text())
    assert set(ours[-1]) <= set(theirs[-1])
    assert (ours[-1]["frame"], ours[-1]["progress"]) == (theirs[-1]["frame"], "end") == ("20", "end")
    assert [block["progress"] for block in ours[:-1]] == ["continue"] * (len(ours) - 1)
    assert ours[-1]["out_time"] == "00:00:00.760000"  # when the last frame is shown
    assert ours[-1]["out_time_us"] == ours[-1]["out_time_ms"] == "760000"
    assert float(ours[-1]["speed"].removesuffix("x")) > 0


def test_progress_ends_also_where_the_job_fails(tmp_path: Path, run: Run, tiny_model: Path) -> None:
    ended = run("enhance", "-progress", "-", "-i", tmp_path / "missing.mp4", tmp_path / "out.mp4", "-v", "error")
    assert ended.code == 2
    (block,) = _blocks(ended.out)
    assert (block["frame"], block["out_time"], block["progress"]) == ("0", "N/A", "end")


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("http://127.0.0.1/x", OPTION, "pipe:N"),
        ("no/such/folder/file", OUTPUT, "No such file"),
        ("pipe:99", OUTPUT, "pipe:99"),
    ],
)
def test_progress_that_cannot_be_written(
    target: str, code: int, words: str, tmp_path: Path, run: Run, small_clip: Path
) -> None:
    is_refused(run("enhance", "-progress", target, "-i", small_clip, tmp_path / "out.mp4"), code, words)


def test_progress_and_output_cannot_both_be_stdout(run: Run, small_clip: Path) -> None:
    is_refused(run("enhance", "-progress", "-", "-i", small_clip, "-f", "nut", "-"), OPTION, "stdout")
