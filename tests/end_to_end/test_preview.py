"""`vsr preview`: a few seconds, before left of a moving line and after right of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command_line import Run, is_refused

from vsr.models.cards import ModelCard
from vsr.models.weights import build_net, save_model_file

INPUT, OUTPUT, OPTION, INTERRUPTED = 2, 3, 4, 130


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go; asserted to be empty by `_left_behind`."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="module")
def dark_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ×2 luma network that makes everything darker, so that both sides of the line can be told apart."""
    card = ModelCard("dark", "luma", {"features": 4, "depth": 0, "scale": 2}, 2, "y", 2)
    state = build_net(card).state_dict()
    state["tail.weight"].zero_()
    state["tail.bias"].fill_(-0.1)
    path = tmp_path_factory.mktemp("model") / "dark.safetensors"
    save_model_file(path, card, state)
    return path


def _left_behind(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def test_left_is_before_and_right_is_after(
    run: Run,
    tmp_path: Path,
    temporary_files: Path,
    dark_model: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
    Track: Any,
) -> None:
    source = make_clip(tmp_path / "in.mkv", pts=range(50), size=(160, 120), audio=[Track()])
    ended = run("preview", source, "--at", "0.4", "--duration", "0.8", "--model", dark_model, "-crf", "4")
    assert (ended.code, ended.out) == (0, ""), ended.err
    reading = read_back(tmp_path / "in_preview.mp4", keep_frames=True)
    assert (reading.first.width, reading.first.height) == (320, 240)
    assert reading.times == [Fraction(index, 25) for index in range(20)]
    for index, frame in enumerate(reading.frames):
        luma = frame.to_ndarray()[:240]
        before, after = np.median(luma[120:, :24]), np.median(luma[120:, -24:])
        assert before == pytest.approx(brightness(10 + index), abs=2)
        assert after == pytest.approx(brightness(10 + index) - 0.1 * 255, abs=2)
    (sound,) = reading.others
    assert sound.codec == "aac"
    assert sound.times[-1] > Fraction(7, 10)
    assert "in.mkv: scaled from 160x120 to 320x240 (bicubic)" in ended.err
    assert ended.lines[-1] == "vsr: in_preview.mp4: 20 frames at 320x240"
    assert str(temporary_files) not in ended.err
    assert _left_behind(temporary_files) == []


def test_defaults_and_options(
    run: Run, tmp_path: Path, dark_model: Path, small_clip: Path, read_back: Callable[..., Any]
) -> None:
    """Five seconds from the start, which is more than there is; another encoder, size and name."""
    options = ["--model", dark_model, "--size", "200x150", "-c:v", "ffv1", "--quiet"]
    ended = run("preview", small_clip, tmp_path / "look.mkv", *options)
    assert (ended.code, ended.err) == (0, "")
    reading = read_back(tmp_path / "look.mkv")
    assert (reading.video.codec, len(reading.times)) == ("ffv1", 20)
    assert (reading.first.width, reading.first.height) == (200, 150)


def test_a_phones_video_is_shown_upright(
    run: Run, tmp_path: Path, dark_model: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    def turn(stream: Any) -> None:
        stream.set_display_matrix((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))

    source = make_clip(tmp_path / "in.mp4", pts=range(3), prepare=turn)
    ended = run("preview", source, "--model", dark_model, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    reading = read_back(tmp_path / "in_preview.mp4")
    assert (reading.first.width, reading.first.height) == (96, 128)
    assert reading.display_matrix is None


def test_10_bit_stay_10_bit(
    run: Run, tmp_path: Path, dark_model: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    source = make_clip(tmp_path / "in.mkv", pts=range(3), pix_fmt="yuv420p10le")
    ended = run("preview", source, "--model", dark_model, "--quiet", "-preset", "ultrafast")
    assert (ended.code, ended.err) == (0, "")
    assert read_back(tmp_path / "in_preview.mp4").first.format.name == "yuv420p10le"


@pytest.mark.parametrize(("source", "name"), [("frames/%03d.png", "frames"), ("frames", "frames")])
def test_pictures_that_make_a_video(
    source: str, name: str, run: Run, tmp_path: Path, dark_model: Path, read_back: Callable[..., Any]
) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(30):
        cv2.imwrite(str(tmp_path / f"frames/{number:03d}.png"), np.full((24, 32, 3), 8 * number, np.uint8))
    ended = run("preview", source, "-r", "10", "--at", "1", "-t", "0.5", "--model", dark_model, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    reading = read_back(tmp_path / f"{name}_preview.mp4")
    assert [float(seconds) for seconds in reading.times] == [0, 0.1, 0.2, 0.3, 0.4]
    assert (reading.first.width, reading.first.height) == (64, 48)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.mp4"], INPUT, "missing.mp4"),
        (["in.mp4", "--at", "60"], INPUT, "in.mp4: has no frame at or after 60 s"),
        (["in.mp4", "--at", "-1"], OPTION, "start"),
        (["in.mp4", "--duration", "0"], OPTION, "duration"),
        (["in.mp4", "there.mp4"], OUTPUT, "there.mp4: exists"),
        (["in.mp4", "in.mp4", "-y"], OUTPUT, "is the input itself"),
        (["in.mp4", "out.png"], OPTION, "a preview is a video"),
        (["photo.png"], OPTION, "is an image"),
        (["-"], OPTION, "reads its input twice"),
        (["in.mp4", "--codec", "libnothing"], OPTION, "libnothing"),
        (["in.mp4", "out.mp4", "-vf", "scale=2"], OPTION, "--size"),
    ],
)
def test_what_cannot_be_previewed(
    arguments: list[str],
    code: int,
    words: str,
    run: Run,
    tmp_path: Path,
    temporary_files: Path,
    small_clip: Path,
    dark_model: Path,
    clean_folder: Callable[..., None],
) -> None:
    (tmp_path / "in.mp4").write_bytes(small_clip.read_bytes())
    (tmp_path / "there.mp4").write_bytes(b"precious")
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((8, 8, 3), np.uint8))
    is_refused(run("preview", *arguments, "--model", dark_model, "--quiet"), code, words)
    assert (tmp_path / "there.mp4").read_bytes() == b"precious"
    assert _left_behind(temporary_files) == []
    clean_folder("in.mp4", "there.mp4", "photo.png", "temporary")


def test_ctrl_c_leaves_nothing_behind(
    run: Run,
    tmp_path: Path,
    temporary_files: Path,
    dark_model: Path,
    small_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    """It arrives while the preview itself is written, when both temporary files are there."""
    seen: list[list[Path]] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        seen.append(_left_behind(temporary_files))
        raise KeyboardInterrupt

    monkeypatch.setattr("vsr.compare.preview.write_comparison", interrupted)
    ended = run("preview", small_clip, "--model", dark_model, "--quiet")
    assert ended.code == INTERRUPTED
    assert {path.name for path in seen[0]} >= {"before.mkv", "after.mkv"}
    assert _left_behind(temporary_files) == []
    clean_folder("temporary")


def test_sound_that_the_preview_cannot_copy_is_transcoded(
    run: Run, tmp_path: Path, dark_model: Path, make_clip: Callable[..., Path], Track: Any
) -> None:
    source = make_clip(tmp_path / "in.mkv", pts=range(25), audio=[Track(codec="pcm_s16le")])
    assert run("preview", source, "look.webm", "--model", dark_model, "-t", "0.4", "--quiet").code == 0
    with av.open("look.webm") as container:
        assert [stream.codec_context.name for stream in container.streams] == ["vp9", "opus"]
