"""`vsr enhance --dry-run`: the plan on stdout, an estimate that is called one, and not a byte written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command_line import Ended, Run, is_refused

INPUT, OUTPUT, OPTION, STRICT = 2, 3, 4, 8


def _line(ended: Ended, beginning: str) -> str:
    (line,) = [line for line in ended.out.splitlines() if line.startswith(beginning)]
    return line


def _bytes_in(line: str) -> float:
    number, unit = re.search(r"([\d.]+) (kB|MB|GB)", line).groups()  # type: ignore[union-attr]
    return float(number) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


@pytest.fixture
def clip(tmp_path: Path, make_clip: Callable[..., Path], Track: Any) -> Path:
    """Noise, which an encoder can do little about, with two tracks of sound and an attachment."""
    random = np.random.default_rng(1)

    def noise(index: int) -> Any:
        picture = random.integers(16, 236, (96, 96), np.uint8)
        return av.VideoFrame.from_ndarray(picture, format="gray8").reformat(format="yuv420p")

    tracks = [Track(metadata={"language": "eng"}), Track(codec="pcm_s16le")]
    pts = range(150)
    return make_clip(tmp_path / "in.mkv", size=(96, 96), pts=pts, audio=tracks, attachment=b"a font", picture=noise)


def test_what_is_refused_is_said_without_a_heading(
    run: Run, small_clip: Path, tmp_path: Path, tiny_model: Path
) -> None:
    size = ["--model", tiny_model, "--size", "16x16"]
    is_refused(run("enhance", small_clip, tmp_path / "out.mp4", *size, "--dry-run"), OPTION, "smaller than the input")


def test_a_stream_that_is_left_out_is_named_once(run: Run, clip: Path, tmp_path: Path, tiny_model: Path) -> None:
    ended = run("enhance", clip, tmp_path / "out.mp4", "--model", tiny_model, "--dry-run")
    assert len([line for line in ended.out.splitlines() if "attachment stream 3" in line]) == 1


def test_the_plan_is_what_the_job_does(
    run: Run, tmp_path: Path, clip: Path, tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    output = tmp_path / "out.mp4"
    words = [clip, output, "--model", tiny_model, "-crf", "20", "-preset", "ultrafast"]
    ended = run("enhance", *words, "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    clean_folder("in.mkv")
    assert ended.out.startswith(f"{clip} to {output}, if this were no dry run:\nmodel tiny (as asked)\n")
    assert "PyTorch" in _line(ended, "engine: ")
    assert re.fullmatch(r"input: h264, 96x96, yuv420p, 25 fps, about 15[01] frames", _line(ended, "input: "))
    described = _line(ended, "output: ")
    for words_of_it in ("mp4, libx264 (", "crf=20", "preset=ultrafast", "96x96, yuv420p"):
        assert words_of_it in described
    assert _line(ended, "video stream 0 ") == "video stream 0 (h264): upscaled"
    assert _line(ended, "audio stream 1 ") == "audio stream 1 (aac, eng): copied"
    assert "mp4 cannot hold it" in _line(ended, "attachment stream 3 ")
    time = r"time: about \d+ seconds?, by the first \d+ frames: decode .* network .* encode"
    assert re.match(time, _line(ended, "time"))
    done = run("enhance", *words, "--quiet")
    assert done.code == 0
    assert _bytes_in(_line(ended, "size: about ")) == pytest.approx(output.stat().st_size, rel=0.3)


def test_a_part_is_estimated_as_a_part(run: Run, tmp_path: Path, clip: Path, tiny_model: Path) -> None:
    whole = run("enhance", clip, tmp_path / "out.mkv", "--model", tiny_model, "--dry-run")
    part = run("enhance", clip, tmp_path / "out.mkv", "--model", tiny_model, "--dry-run", "-ss", "1", "-t", "2")
    assert "about 50 frames" in _line(part, "input: ")
    assert _bytes_in(_line(part, "size")) == pytest.approx(_bytes_in(_line(whole, "size")) / 3, rel=0.2)


def test_what_was_asked_for_is_no_loss(run: Run, tmp_path: Path, clip: Path, tiny_model: Path) -> None:
    words = [clip, tmp_path / "out.mp4", "--model", tiny_model, "--dry-run", "-map", "0:v", "-map", "0:a:0"]
    ended = run("enhance", *words, "--strict")
    assert ended.code == 0
    assert "lost:" not in ended.out
    assert _line(ended, "audio stream 2 ").endswith("left out as asked (-map)")


@pytest.mark.parametrize(
    ("output", "options", "code", "words"),
    [
        ("there.mp4", [], OUTPUT, "exists already"),
        ("no/such/folder/out.mp4", ["--codec", "libnothing"], OPTION, "libnothing"),
        ("out.mp4", ["--strict"], STRICT, "attachment"),
        ("out.mp4", ["-preset", "bogus"], OPTION, "bogus"),
        ("out.mkv", ["-c:v", "libx264", "--encoder-option", "bogus=1"], OPTION, "bogus"),
        ("out.xyz", [], OUTPUT, ".xyz"),
    ],
)
def test_what_would_fail_fails(
    output: str,
    options: list[str],
    code: int,
    words: str,
    run: Run,
    tmp_path: Path,
    clip: Path,
    tiny_model: Path,
    clean_folder: Callable[..., None],
) -> None:
    (tmp_path / "there.mp4").write_bytes(b"precious")
    ended = run("enhance", clip, tmp_path / output, "--model", tiny_model, "--dry-run", *options)
    assert ended.code == code
    (line,) = ended.lines
    assert words in line
    clean_folder("in.mkv", "there.mp4")


def test_an_input_of_unknown_length(run: Run, tmp_path: Path, make_clip: Callable[..., Path], tiny_model: Path) -> None:
    source = make_clip(tmp_path / "in.h264", pts=range(8))
    ended = run("enhance", source, tmp_path / "out.mkv", "--model", tiny_model, "--dry-run")
    assert ended.code == 0, ended.err
    assert "not counted" in _line(ended, "input: ")
    assert "does not say how long it is" in _line(ended, "time: ")
    assert _line(ended, "size: ") == "size: not estimated"


def test_a_picture(run: Run, tmp_path: Path, tiny_model: Path, clean_folder: Callable[..., None]) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.zeros((12, 16, 4), np.uint16))
    words = ["enhance", tmp_path / "in.png", tmp_path / "out.jpg", "--model", tiny_model, "--dry-run"]
    ended = run(*words, "--size", "32x24")
    assert (ended.code, ended.err) == (0, "")
    assert _line(ended, "picture: ") == "picture: 16x12 to 32x24, uint16, .jpg"
    assert "alpha" in _line(ended, "left out: alpha")
    assert run(*words, "--strict").code == STRICT
    clean_folder("in.png")


def test_pictures_in_and_pictures_out(
    run: Run, tmp_path: Path, make_clip: Callable[..., Path], tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    source = make_clip(tmp_path / "in.mkv", pts=range(10))
    ended = run("enhance", source, tmp_path / "out/%03d.png", "--model", tiny_model, "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert re.match(r"time: about \d+ seconds", _line(ended, "time"))
    assert _line(ended, "size: ") == "size: not estimated for pictures"
    clean_folder("in.mkv")
    (tmp_path / "frames").mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"frames/{number:02d}.png"), np.full((24, 32, 3), 9 * number, np.uint8))
    ended = run("enhance", tmp_path / "frames", tmp_path / "out.mp4", "--model", tiny_model, "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert "12 frames" in _line(ended, "input: ")
    assert "libx264" in _line(ended, "output: ")


def test_raw_video_is_as_large_as_its_samples(
    run: Run, tmp_path: Path, make_clip: Callable[..., Path], tiny_model: Path
) -> None:
    source = make_clip(tmp_path / "in.mkv", pts=range(10))
    ended = run("enhance", source, "-", "--model", tiny_model, "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert _line(ended, "output: ").startswith("output: yuv4mpegpipe, rawvideo")
    assert _bytes_in(_line(ended, "size")) == pytest.approx(10 * 64 * 48 * 3 / 2, rel=0.02)
    ended = run("enhance", "-", "out.mp4", "--dry-run")
    assert ended.code == OPTION
    assert "name a file" in ended.err


def test_several_inputs_and_a_folder_that_is_not_there(
    run: Run, tmp_path: Path, make_clip: Callable[..., Path], tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    sources = [make_clip(tmp_path / name, pts=range(4)) for name in ("a.mkv", "b.mkv")]
    (tmp_path / "c.mkv").write_bytes(b"")
    words = [*sources, tmp_path / "c.mkv", "--output-dir", tmp_path / "out", "--model", tiny_model]
    ended = run("enhance", *words, "--dry-run", "--quiet")
    assert ended.code == INPUT
    assert ended.out.count("if this were no dry run:") == 2
    assert ended.out.count("upscaled") == 2
    assert ended.lines == [f"vsr: {tmp_path / 'c.mkv'}: the file is empty (0 bytes)"]
    clean_folder("a.mkv", "b.mkv", "c.mkv")
