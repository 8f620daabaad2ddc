"""Several inputs, and folders of them: what is done is skipped, what fails is named, the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import Run, is_refused

import vsr.jobs.model_cache
import vsr.jobs.run
import vsr.pipeline.checked_network

INPUT, OPTION, MODEL, INTERRUPTED = 2, 4, 5, 130


@pytest.fixture
def clips(tmp_path: Path, make_clip: Callable[..., Path]) -> list[Path]:
    """Three clips of four frames; the second is of another size."""
    sizes = {"a.mp4": (64, 48), "b.mkv": (48, 32), "c.mp4": (64, 48)}
    return [make_clip(tmp_path / name, pts=range(4), size=size) for name, size in sizes.items()]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_input_goes_to_the_folder_under_its_name(
    run: Run, clips: list[Path], out: Path, tiny_model: Path, read_back: Callable[..., Any]
) -> None:
    ended = run("enhance", *clips, "--output-dir", out, "--suffix", "_4x", "--model", tiny_model)
    assert (ended.code, ended.out) == (0, "")
    assert _names(out) == ["a_4x.mp4", "b_4x.mkv", "c_4x.mp4"]
    for path in out.iterdir():
        assert len(read_back(path).times) == 4
    assert read_back(out / "b_4x.mkv").first.width == 48
    assert ended.lines[-1] == "vsr: 3 files: 3 done, 0 skipped, 0 failed"


def test_one_input_may_go_to_a_folder(run: Run, clips: list[Path], out: Path, tiny_model: Path) -> None:
    ended = run("enhance", clips[0], "--output-dir", out / "deep", "--container", "mkv", "--model", tiny_model)
    assert ended.code == 0, ended.err
    assert _names(out / "deep") == ["a.mkv"]


def test_a_folder_gives_its_videos_and_pictures_and_nothing_else(
    run: Run, tmp_path: Path, clips: list[Path], out: Path, tiny_model: Path
) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.full((12, 16, 3), 90, np.uint8))
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".hidden.mp4").write_bytes(b"a partial file, maybe")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.mp4").write_bytes(clips[0].read_bytes())
    ended = run("enhance", tmp_path, "--output-dir", out, "--container", "mkv", "--model", tiny_model, "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert _names(out) == ["a.mkv", "b.mkv", "c.mkv", "p.png"]


def test_what_is_there_is_skipped_and_kept(
    run: Run, clips: list[Path], out: Path, tiny_model: Path, read_back: Callable[..., Any]
) -> None:
    out.mkdir()
    (out / "b.mkv").write_bytes(b"precious")
    arguments = ["enhance", *clips, "--output-dir", out, "--model", tiny_model]
    ended = run(*arguments)
    assert ended.code == 0
    assert (out / "b.mkv").read_bytes() == b"precious"
    assert _names(out) == ["a.mp4", "b.mkv", "c.mp4"]
    assert any("b.mkv" in line and "skipped" in line for line in ended.lines)
    assert ended.lines[-1] == "vsr: 3 files: 2 done, 1 skipped, 0 failed"
    assert run(*arguments, "-y", "--quiet").code == 0
    assert len(read_back(out / "b.mkv").times) == 4


def test_a_failure_is_named_and_the_rest_goes_on(run: Run, clips: list[Path], out: Path, tiny_model: Path) -> None:
    clips[0].write_bytes(b"These are only words.\n" * 40)
    clips[1].write_bytes(b"")
    ended = run("enhance", *clips, "--output-dir", out, "--model", tiny_model, "--quiet")
    assert ended.code == INPUT
    assert _names(out) == ["c.mp4"]
    assert len(ended.lines) == 3
    assert "a.mp4: not a media file" in ended.lines[0]
    assert "b.mkv: the file is empty" in ended.lines[1]
    assert ended.lines[2] == "vsr: 3 files: 1 done, 0 skipped, 2 failed (a.mp4, b.mkv)"


def test_the_exit_code_is_that_of_the_first_failure(run: Run, clips: list[Path], out: Path, tiny_model: Path) -> None:
    """Odd sides are asked for, which the first clip's 4:2:0 cannot have; the other file is missing."""
    sources = [clips[0], clips[1].with_name("missing.mp4")]
    options = ["--output-dir", out, "--model", tiny_model, "--size", "129x97", "--quiet"]
    ended = run("enhance", *sources, *options)
    assert ended.code == OPTION
    assert ended.lines[-1].endswith("2 failed (a.mp4, missing.mp4)")
    assert run("enhance", *reversed(sources), *options).code == INPUT


def test_a_model_that_is_none_ends_the_run_at_once(run: Run, clips: list[Path], out: Path) -> None:
    is_refused(run("enhance", *clips, "--output-dir", out, "--model", "nonesuch", "--quiet"), MODEL, "nonesuch")


def test_json_has_an_event_for_every_file(run: Run, clips: list[Path], out: Path, tiny_model: Path) -> None:
    clips[1].write_bytes(b"")
    ended = run("enhance", *clips, "--output-dir", out, "--model", tiny_model, "--progress", "json")
    events = [json.loads(line) for line in ended.lines]
    assert [event["event"] for event in events if event["event"] in ("done", "error")] == ["done", "error", "done"]
    assert events[-1]["event"] == "summary"
    assert events[-1]["done"] == [str(clips[0]), str(clips[2])]
    assert events[-1]["failed"] == [str(clips[1])]
    assert events[-1]["skipped"] == []


def test_the_model_stays_loaded_and_is_checked_for_every_file(
    run: Run,
    tmp_path: Path,
    out: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of one size, one of another, and two of the first again."""
    sizes = {"a": (64, 48), "b": (64, 48), "c": (48, 32), "d": (64, 48), "e": (64, 48)}
    clips = [make_clip(tmp_path / f"{name}.mkv", pts=range(3), size=size) for name, size in sizes.items()]
    loaded, checked = [], []
    load, gate = vsr.jobs.model_cache.upscaler_of_net, vsr.pipeline.checked_network.PrecisionGate

    def counted_load(card: Any, *more: Any, **others: Any) -> Any:
        loaded.append(card.name)
        return load(card, *more, **others)

    def counted_gate(*arguments: Any) -> Any:
        checked.append(arguments)
        return gate(*arguments)

    monkeypatch.setattr(vsr.jobs.model_cache, "upscaler_of_net", counted_load)
    monkeypatch.setattr(vsr.pipeline.checked_network, "PrecisionGate", counted_gate)
    options = ["--model", "nano", "--precision", "bf16", "-crf", "0", "--quiet"]
    assert run("enhance", *clips, "--output-dir", out, *options).code == 0
    assert loaded == ["nano"]
    assert len(checked) == 5
    assert run("enhance", clips[4], tmp_path / "alone.mkv", *options).code == 0
    together, alone = (read_back(path, keep_frames=True).frames for path in (out / "e.mkv", tmp_path / "alone.mkv"))
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.to_ndarray(), other.to_ndarray())


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a.mp4", "sub/a.mp4"], [], "both become"),
        (["a.mp4", "a.mkv"], ["--container", "mp4"], "both become"),
        (["a.mp4", "a.mp4"], [], "both become"),
    ],
)
def test_two_inputs_of_one_name_are_an_error_before_any_work(
    names: list[str], options: list[str], words: str, tmp_path: Path, run: Run, out: Path, small_clip: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(small_clip.read_bytes())
    paths = [tmp_path / name for name in names]
    is_refused(run("enhance", *paths, "--output-dir", out, *options), OPTION, "a.mp4", words)
    assert not out.exists()


def test_an_output_must_not_be_an_input(
    run: Run, clips: list[Path], tmp_path: Path, clean_folder: Callable[..., None]
) -> None:
    before = clips[0].read_bytes()
    is_refused(run("enhance", *clips, "--output-dir", tmp_path, "-y"), OPTION, "one of the inputs", "--suffix")
    assert clips[0].read_bytes() == before
    clean_folder("a.mp4", "b.mkv", "c.mp4")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.mp4", "b.mkv", "c.mp4"], INPUT, "--output-dir"),
        (["a.mp4", "b.mp4", "--suffix", "_x"], INPUT, "--output-dir"),
        (["a.mp4", "b.mp4", "--container", "mkv"], INPUT, "--output-dir"),
        (["--output-dir", "out"], INPUT, "INPUT"),
        (["a.mp4", "--output-dir", "out", "--report", "r.json"], OPTION, "--report"),
        ([".", "--output-dir", "a.mp4"], 3, "a.mp4"),
        (["empty", "--output-dir", "out"], INPUT, "no video and no picture"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    run: Run,
    clips: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    is_refused(run("enhance", *arguments), code, words)
    assert _names(tmp_path) == ["a.mp4", "b.mkv", "c.mp4", "empty"]


def test_ctrl_c_stops_all(
    run: Run, clips: list[Path], out: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives in the middle of the second file."""
    enhance_file, seen = vsr.jobs.run.enhance_file, []

    def interrupted(source: Path, output: Path, options: Any, **hooks: Any) -> Any:
        seen.append(source)
        if source == clips[1]:
            hooks["on_progress"] = _interrupt
        return enhance_file(source, output, options, **hooks)

    def _interrupt(progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vsr.jobs.run, "enhance_file", interrupted)
    ended = run("enhance", *clips, "--output-dir", out, "--model", tiny_model)
    assert ended.code == INTERRUPTED
    assert ended.lines[-1] == "vsr: interrupted"
    assert seen == clips[:2]
    assert _names(out) == ["a.mp4"]
