"""The scripts of scripts/, each run for real, by the shell, on a small clip."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
USAGE, OUTPUT, TERMINATED = 2, 3, 143

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("sh", "ffmpeg", "ffprobe")),
    reason="no shell, or ffmpeg is not installed",
)

Sh = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory, warm_python: str) -> dict[str, str]:
    """One in which `vsr` is this Python's, and temporary files lie in a folder of their own."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "vsr").write_text(f'#!/bin/sh\nexec "{warm_python}" -m vsr.cli "$@"\n')
    (folder / "vsr").chmod(0o755)
    (folder / "temporary").mkdir()
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(folder / "temporary"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }


@pytest.fixture
def sh(tmp_path: Path, environment: dict[str, str]) -> Sh:
    """Runs one of the scripts in the test's folder; it must leave no temporary file behind."""

    def run(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(SCRIPTS / script), *map(str, arguments)]
        environment_here = {**environment, **variables}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment_here, capture_output=True, text=True, timeout=120, check=False
        )
        assert list(Path(environment["TMPDIR"]).iterdir()) == []
        return done

    return run


@pytest.fixture
def clip(tmp_path: Path, make_clip: Callable[..., Path], Track: Any) -> Path:
    """50 frames of variable rate, 2 seconds, with sound and a chapter. Its name has a space in it."""
    pts = [1000 * index // 25 + index % 3 for index in range(50)]
    return make_clip(
        tmp_path / "the clip.mkv",
        pts=pts,
        time_base=Fraction(1, 1000),
        audio=[Track(metadata={"language": "eng"})],
        chapters=[(0, 1000, "One")],
    )


def _frame_numbers(reading: Any, brightness: Callable[[int], int]) -> list[int]:
    """Which frames of a made clip these are, by their brightness."""
    table = {index: brightness(index) * 63 / 64 + 16 / 64 for index in range(60)}
    return [min(table, key=lambda index: abs(table[index] - value)) for value in reading.brightness]


def test_every_script_is_here_and_says_how_it_is_used(sh: Sh) -> None:
    scripts = sorted(path.name for path in SCRIPTS.glob("*.sh"))
    names = ["ab_clip", "batch_folder", "extract_frames", "pipe", "preview", "split_join", "watch_folder"]
    assert scripts == [f"{name}.sh" for name in names]
    for script in scripts:
        assert os.access(SCRIPTS / script, os.X_OK)
        done = sh(script)
        assert done.returncode == USAGE
        assert "usage:" in done.stderr
        assert script in done.stderr


def test_every_script_is_among_the_recipes() -> None:
    recipes = (SCRIPTS.parent / "docs" / "recipes.md").read_text("utf-8")
    for path in SCRIPTS.glob("*.sh"):
        assert f"scripts/{path.name}" in recipes


@pytest.mark.slow
def test_batch_folder(
    sh: Sh, tmp_path: Path, clip: Path, small_clip: Path, tiny_model: Path, read_back: Callable[..., Any]
) -> None:
    (tmp_path / "in/deep er").mkdir(parents=True)
    clip.rename(tmp_path / "in/deep er/the clip.mkv")
    (tmp_path / "in/b.mp4").write_bytes(small_clip.read_bytes())
    (tmp_path / "in/bad.mp4").write_text("no video")
    (tmp_path / "in/notes.txt").write_text("no video")
    words = ["in/", "out", "--suffix", "_x", "-t", "0.2", "--model", tiny_model]
    done = sh("batch_folder.sh", *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == ["these failed:", "in/bad.mp4"]
    made = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(map(str, made)) == ["b_x.mp4", "deep er/the clip_x.mkv"]
    assert len(read_back(tmp_path / "out/deep er/the clip_x.mkv").times) == 5
    (tmp_path / "in/bad.mp4").unlink()
    again = sh("batch_folder.sh", *words)
    assert again.returncode == 0
    assert again.stderr.count("is skipped") == 2


def test_pipe(
    sh: Sh,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    Track: Any,
    tiny_model: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1

    pts = [1000 * index // 25 + index % 3 for index in range(50)]
    chapters, tick = [(0, 1000, "One")], Fraction(1, 1000)
    clip = make_clip(
        tmp_path / "the clip.mkv", pts=pts, time_base=tick, audio=[Track()], chapters=chapters, prepare=tag
    )
    filtered = {"FILTER": "hflip", "ENCODE": "-c:v libx264 -crf 4 -g 7"}
    done = sh("pipe.sh", clip, "out.mkv", "--model", tiny_model, "--quiet", **filtered)
    assert (done.returncode, done.stderr) == (0, "")
    source, output = read_back(clip, keep_frames=True), read_back(tmp_path / "out.mkv", keep_frames=True)
    for before, after in zip(source.frames, output.frames, strict=True):
        flipped = before.to_ndarray()[:48, ::-1].astype(int)
        assert np.abs(after.to_ndarray()[:48].astype(int) - flipped).mean() < 2
    assert output.tags == source.tags == (1, 1, 1, 1)
    assert _frame_numbers(output, brightness) == list(range(50))
    assert output.times == source.times
    for before, after in zip(source.others, output.others, strict=True):
        assert (after.packets, after.times) == (before.packets, before.times)
    assert output.chapters == source.chapters


@pytest.mark.parametrize(
    ("options", "variables"),
    [(["--model", "nonesuch"], {}), ([], {"ENCODE": "-nonesuch"})],
)
def test_a_pipe_that_breaks_leaves_nothing(
    options: list[str],
    variables: dict[str, str],
    sh: Sh,
    tmp_path: Path,
    clip: Path,
    tiny_model: Path,
    clean_folder: Callable[..., None],
) -> None:
    done = sh("pipe.sh", clip, "out.mkv", "--model", tiny_model, *options, **variables)
    assert done.returncode != 0
    assert "nonesuch" in done.stderr
    clean_folder(clip.name)


def test_split_join(
    sh: Sh,
    tmp_path: Path,
    clip: Path,
    tiny_model: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
    clean_folder: Callable[..., None],
) -> None:
    """Cuts lie between frames; one part is there already, as if another machine had done it."""
    options = ["--model", tiny_model, "--quiet"]
    (tmp_path / "whole.mkv.parts").mkdir()
    done = sh("split_join.sh", clip, "whole.mkv", "0.7", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("vsr enhance ") == 3
    source, output = read_back(clip), read_back(tmp_path / "whole.mkv")
    assert _frame_numbers(output, brightness) == list(range(50))
    assert output.times == source.times
    for before, after in zip(source.others, output.others, strict=True):
        assert (after.packets, after.times) == (before.packets, before.times)
    assert output.chapters == source.chapters
    clean_folder(clip.name, "whole.mkv")


def test_split_join_goes_on_after_a_failure(
    sh: Sh, tmp_path: Path, clip: Path, tiny_model: Path, read_back: Callable[..., Any]
) -> None:
    done = sh("split_join.sh", clip, "whole.mkv", "1", "--model", "nonesuch", "--quiet")
    assert done.returncode == 5
    assert not (tmp_path / "whole.mkv").exists()
    part = tmp_path / "whole.mkv.parts/0.mkv"
    done = sh("split_join.sh", clip, "whole.mkv", "1", "--model", tiny_model, "--quiet", "--strict")
    assert done.returncode == 0, done.stderr
    assert not part.exists()
    assert len(read_back(tmp_path / "whole.mkv").times) == 50


def test_preview(sh: Sh, tmp_path: Path, clip: Path, tiny_model: Path, read_back: Callable[..., Any]) -> None:
    done = sh("preview.sh", clip, "--model", tiny_model, "--quiet", "-preset", "ultrafast")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_back(tmp_path / "the clip_preview.mp4").times) == 50


def test_ab_clip(sh: Sh, tmp_path: Path, clip: Path, tiny_model: Path, read_back: Callable[..., Any]) -> None:
    options = ["-ss", "0.4", "-t", "0.2", "--size", "128x96", "--quiet"]
    done = sh("ab_clip.sh", clip, "ab.mp4", tiny_model, "nano", *options)
    assert done.returncode == 0, done.stderr
    reading = read_back(tmp_path / "ab.mp4")
    assert len(reading.times) == 5
    assert (reading.first.width, reading.first.height) == (128, 96)


def test_extract_frames(sh: Sh, tmp_path: Path, clip: Path, tiny_model: Path, brightness: Callable[[int], int]) -> None:
    done = sh("extract_frames.sh", clip, "frames", "-ss", "1", "-t", "0.2", "--model", tiny_model, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"{number:06d}.png" for number in range(1, 6)]
    picture = cv2.imread(str(tmp_path / "frames/000001.png"))
    assert picture.shape == (48, 64, 3)
    assert cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[0, 40] == pytest.approx((brightness(25) - 16) * 255 / 219, abs=4)


def _wait_for(is_so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_watch_folder(
    tmp_path: Path, environment: dict[str, str], clip: Path, small_clip: Path, tiny_model: Path, read_back: Any
) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    command = ["sh", str(SCRIPTS / "watch_folder.sh"), "in", "out", "--model", str(tiny_model), "-t", "0.2"]
    watching = subprocess.Popen(
        command, cwd=tmp_path, env={**environment, "EVERY": "0.5"}, stderr=subprocess.PIPE, text=True
    )
    try:
        (tmp_path / "in/bad.mp4").write_text("no video")
        (tmp_path / "in/the clip.mkv").write_bytes(clip.read_bytes())
        _wait_for((tmp_path / "out/the clip.mkv").exists)
        (tmp_path / "in/late.mp4").write_bytes(small_clip.read_bytes())
        _wait_for((tmp_path / "out/late.mp4").exists)
        time.sleep(1.2)  # a look or two, in which nothing is done again
    finally:
        watching.send_signal(signal.SIGTERM)
        _, said = watching.communicate(timeout=30)
    assert watching.returncode == TERMINATED
    assert said.count("bad.mp4: failed") == 1
    assert said.count("late.mp4: 5 frames") == 1
    assert len(read_back(tmp_path / "out/the clip.mkv").times) == 5
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


@pytest.mark.parametrize("script", ["pipe.sh", "split_join.sh", "ab_clip.sh"])
def test_what_is_there_is_kept(script: str, sh: Sh, tmp_path: Path, clip: Path) -> None:
    (tmp_path / "out.mkv").write_bytes(b"precious")
    done = sh(script, clip, "out.mkv", "1", "2")
    assert done.returncode == OUTPUT
    assert "exists already" in done.stderr
    assert (tmp_path / "out.mkv").read_bytes() == b"precious"
