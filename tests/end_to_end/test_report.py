"""The report of a job, and its frames against a reference."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

import av
import cv2
import numpy as np
import pytest

from vsr.bench.video import compare_files
from vsr.errors import InputError, OptionError, OutputError
from vsr.jobs.options import JobOptions
from vsr.jobs.report import JobReport
from vsr.jobs.run import enhance_file

LOSSLESS = {"preset": "ultrafast", "crf": "0"}
SIZE = (64, 48)


def _noisy(seed: int, pix_fmt: str = "yuv420p") -> Callable[[int], av.VideoFrame]:
    """Pictures of one pattern, each seed and frame with its own noise."""

    def picture(index: int) -> av.VideoFrame:
        pattern = np.random.default_rng(index).integers(60, 180, (48, 64, 3))
        noise = np.random.default_rng((seed, index)).integers(-3 * seed, 3 * seed + 1, (48, 64, 3))
        return av.VideoFrame.from_ndarray((pattern + noise).astype(np.uint8), "rgb24").reformat(format=pix_fmt)

    return picture


@pytest.fixture
def clips(tmp_path: Path, make_clip: Callable[..., Path]) -> tuple[Path, Path]:
    """An input with uneven steps and a late start, and a reference, losslessly coded."""
    pts = (5, 6, 9, 10, 11, 14)
    source = make_clip(tmp_path / "in.mp4", pts=pts, picture=_noisy(1), options=LOSSLESS)
    return source, make_clip(tmp_path / "reference.mp4", pts=pts, picture=_noisy(3), options=LOSSLESS)


def _enhance(model: Path, source: Path, output: Path, **options: Any) -> JobReport:
    return enhance_file(source, output, JobOptions.of(model=str(model), crf=0, preset="ultrafast", **options))


def _quality(report: Path) -> Any:
    return json.loads(report.read_text("utf-8"))["quality"]


def test_psnr_is_that_of_a_lossless_output(tmp_path: Path, tiny_model: Path, clips: tuple[Path, Path]) -> None:
    source, reference = clips
    done = _enhance(tiny_model, source, tmp_path / "out.mp4", reference=reference, report=tmp_path / "r.json", batch=4)
    quality = _quality(tmp_path / "r.json")
    measured = compare_files(reference, tmp_path / "out.mp4")
    assert measured.protocol["luma"] == quality["luma"] == "the luma planes as they are coded"
    expected = [row.values["luma_psnr_db"] for row in measured.rows]
    assert [frame["luma_psnr_db"] for frame in quality["frames"]] == pytest.approx(expected, abs=1e-5)
    assert 20 < min(expected) < max(expected) < 50 and len(set(expected)) == 6
    assert [frame["pts_seconds"] for frame in quality["frames"]] == [t / 25 for t in (5, 6, 9, 10, 11, 14)]
    assert quality["mean_luma_psnr_db"] == pytest.approx(fmean(expected), abs=1e-5)
    assert quality["pooled_luma_psnr_db"] == pytest.approx(measured.pooled_psnr_db["out.mp4"], abs=1e-5)
    assert done.mean_psnr_db == pytest.approx(fmean(expected), abs=1e-5)
    assert done.stage_seconds["measure"] > 0


def test_a_reference_of_other_samples(
    tmp_path: Path, tiny_model: Path, clips: tuple[Path, Path], make_clip: Callable[..., Path]
) -> None:
    """Full range and RGB are compared by what they show."""
    for index, (suffix, codec, pix_fmt) in enumerate((("mov", "png", "rgb24"), ("mp4", "libx264", "yuvj420p"))):
        other = make_clip(
            tmp_path / f"other{index}.{suffix}",
            codec=codec,
            pix_fmt=pix_fmt,
            pts=(5, 6, 9, 10, 11, 14),
            picture=_noisy(3, pix_fmt),
            options=LOSSLESS if codec == "libx264" else {},
        )
        output, report = tmp_path / f"out{index}.mp4", tmp_path / f"{index}.json"
        _enhance(tiny_model, clips[0], output, reference=other, report=report)
        expected = [row.values["luma_psnr_db"] for row in compare_files(other, output).rows]
        assert [frame["luma_psnr_db"] for frame in _quality(report)["frames"]] == pytest.approx(expected, abs=1e-5)
        assert _quality(report)["luma"].startswith("BT.601 of the RGB")


def test_the_same_part_of_the_reference_is_read(tmp_path: Path, tiny_model: Path, clips: tuple[Path, Path]) -> None:
    source, reference = clips
    part: Any = {"start_seconds": Fraction(1, 10), "duration_seconds": Fraction(2, 10)}
    _enhance(tiny_model, source, tmp_path / "all.mp4", reference=reference, report=tmp_path / "all.json")
    _enhance(tiny_model, source, tmp_path / "out.mp4", reference=reference, report=tmp_path / "r.json", **part)
    whole, frames = _quality(tmp_path / "all.json")["frames"], _quality(tmp_path / "r.json")["frames"]
    assert 0 < len(frames) < len(whole)
    assert [f["luma_psnr_db"] for f in frames] == [
        f["luma_psnr_db"]
        for f in whole
        if 0.3 <= f["pts_seconds"] < 0.5  # the file starts at 0.2 s
    ]


def test_equal_frames_are_infinite_and_valid_json(tmp_path: Path, tiny_model: Path, clips: tuple[Path, Path]) -> None:
    _enhance(tiny_model, clips[0], tmp_path / "out.mp4", reference=clips[0], report=tmp_path / "r.json")
    quality = _quality(tmp_path / "r.json")
    assert quality["mean_luma_psnr_db"] == quality["frames"][0]["luma_psnr_db"] == "inf"


def test_a_report_without_a_reference(
    tmp_path: Path,
    tiny_model: Path,
    small_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the last line of --progress json says, and where it comes from."""
    import sys

    from vsr.cli import main

    output, report = tmp_path / "out.mp4", tmp_path / "r.json"
    command = ["vsr", "enhance", small_clip, output, "--model", tiny_model, "--progress", "json", "--report", report]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    found = json.loads(report.read_text("utf-8"))
    summary = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert summary.pop("event") == "done"
    assert found == found | summary
    assert (found["frames"], found["width"], found["height"], found["model"]) == (20, 64, 48, "tiny")
    assert found["input"] == str(small_clip) and found["quality"] is None
    assert found["command"].startswith("vsr enhance ") and "torch" in found["versions"]


def test_a_picture(tmp_path: Path, tiny_model: Path) -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(40, 200, (16, 24, 3)).astype(np.uint8)
    for name, picture in (("low.png", low), ("high.png", low + 2), ("large.png", np.tile(low, (2, 2, 1)))):
        cv2.imwrite(str(tmp_path / name), picture)
    options = {"reference": tmp_path / "high.png", "report": tmp_path / "r.json"}
    done = _enhance(tiny_model, tmp_path / "low.png", tmp_path / "out.png", **options)
    expected = 20 * math.log10(255 / (2 * 219 / 255))  # two more of 255 are as much of 219 in luma
    assert done.mean_psnr_db == pytest.approx(expected, abs=0.2)  # the network's 8 bit rounding
    assert _quality(tmp_path / "r.json")["frames"] == [
        {"pts_seconds": 0, "luma_psnr_db": pytest.approx(done.mean_psnr_db, abs=1e-5)}
    ]
    large = {"reference": tmp_path / "large.png", "report": tmp_path / "large.json"}
    with pytest.raises(InputError, match=r"large\.png: is 48x32, and the output will be 24x16"):
        _enhance(tiny_model, tmp_path / "low.png", tmp_path / "b.png", **large)
    assert not (tmp_path / "b.png").exists()


# -- what does not belong together ---------------------------------------------------------------------


@pytest.mark.parametrize("container", ["mp4", "mkv"])  # mkv's header tells no number of frames
@pytest.mark.parametrize("num_frames", [4, 9])
def test_other_lengths(
    container: str,
    num_frames: int,
    tmp_path: Path,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    source = make_clip(tmp_path / f"in.{container}", pts=range(6))
    reference = make_clip(tmp_path / f"reference.{container}", pts=range(num_frames))
    with pytest.raises(InputError) as raised:
        _enhance(tiny_model, source, tmp_path / "out.mp4", reference=reference, report=tmp_path / "r.json", batch=1)
    words = {("mp4", 4): "has 4 frames in 0.160 s, and", ("mp4", 9): "has 9 frames in 0.360 s, and"}
    words |= {("mkv", 4): "ends after 4 frames, and", ("mkv", 9): "goes on after the 6 frames of"}
    assert words[container, num_frames] in str(raised.value)
    assert str(source) in str(raised.value) and str(reference) in str(raised.value)
    clean_folder(source.name, reference.name)


def test_a_frame_is_missing(
    tmp_path: Path, tiny_model: Path, make_clip: Callable[..., Path], clean_folder: Callable[..., None]
) -> None:
    source = make_clip(tmp_path / "in.mp4", pts=(0, 1, 2, 3, 4, 5))
    reference = make_clip(tmp_path / "reference.mp4", pts=(0, 1, 3, 4, 5, 6))
    with pytest.raises(InputError, match=r"its frame 3 is at 0\.120000 s, and that of .*in\.mp4 at 0\.080000 s"):
        _enhance(tiny_model, source, tmp_path / "out.mp4", reference=reference, report=tmp_path / "r.json")
    clean_folder("in.mp4", "reference.mp4")


def test_what_is_refused_before_any_work(
    tmp_path: Path,
    tiny_model: Path,
    clips: tuple[Path, Path],
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, reference = clips
    make_clip(tmp_path / "large.mp4", size=(128, 96))
    (tmp_path / "taken.json").write_text("{}")
    monkeypatch.setattr("vsr.jobs.run.run_stages", lambda *args: pytest.fail("work began"))
    output, report = tmp_path / "out.mp4", tmp_path / "r.json"
    for error, words, options in (
        (OptionError, "`reference`: needs `report`", {"reference": reference}),
        (InputError, "large.mp4: is 128x96, and the output will be 64x48", {"reference": tmp_path / "large.mp4"}),
        (InputError, "none.mp4: no such file", {"reference": tmp_path / "none.mp4"}),
        (InputError, "not a media file", {"reference": tmp_path / "taken.json"}),
        (OptionError, "a video with a video", {"reference": tmp_path / "photo.png"}),
        (OutputError, "exists already", {"report": tmp_path / "taken.json"}),
        (OutputError, "is the input itself", {"report": source, "overwrite": True}),
        (OutputError, "is the reference", {"report": reference, "reference": reference, "overwrite": True}),
        (OptionError, "is the output's name", {"report": output}),
        (OutputError, "does not exist; make it first", {"report": tmp_path / "none" / "r.json"}),
    ):
        needs = {} if words == "`reference`: needs `report`" else {"report": report}
        with pytest.raises(error, match=words):
            _enhance(tiny_model, source, output, **needs | options)
    with pytest.raises(OutputError, match=r"reference\.mp4: is the reference"):
        _enhance(tiny_model, source, reference, reference=reference, report=report, overwrite=True)
    clean_folder("in.mp4", "reference.mp4", "large.mp4", "taken.json")
