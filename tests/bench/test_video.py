"""Two files against each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import av
import cv2
import numpy as np
import pytest

from vsr.bench.video import compare_files, paired_frames
from vsr.errors import InputError, OptionError
from vsr.quality.metrics import psnr_db

SIZE = (64, 48)


def _images(count: int, noise: int = 0, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    width, height = size
    pattern = cv2.resize(rng.integers(0, 256, (12, 24, 3)).astype(np.uint8), (width + 2 * count, height))
    dirt = rng.integers(-noise, noise + 1, (count, height, width, 3))
    return [
        (pattern[:, 2 * i : 2 * i + width].astype(int) + dirt[i]).clip(0, 255).astype(np.uint8) for i in range(count)
    ]


def _write(
    path: Path,
    images: list[np.ndarray],
    *,
    pts: Sequence[int] = (),
    time_base: Fraction = Fraction(1, 25),
    format_: str = "yuv420p",
    full_range: bool = False,
) -> Path:
    """Lossless, so that the samples are known."""
    with av.open(str(path), "w") as container:
        height, width = images[0].shape[:2]
        stream = container.add_stream("ffv1", rate=25, width=width, height=height, pix_fmt=format_)
        stream.codec_context.time_base = time_base
        if full_range:
            stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format=format_, dst_color_range="JPEG" if full_range else "MPEG"
            )
            frame.pts, frame.time_base = (pts[index] if pts else index), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _ffmpeg_psnr(reference: Path, distorted: Path, log: Path) -> tuple[list[float], float]:
    """Luma PSNR in dB by ffmpeg's filter: of each frame, and its average."""
    command = ["ffmpeg", "-v", "info", "-i", str(distorted), "-i", str(reference)]
    command += ["-lavfi", f"psnr=stats_file={log}", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frames = [float(value) for value in re.findall(r"psnr_y:([\d.]+)", log.read_text())]
    return frames, float(re.findall(r"PSNR y:([\d.]+)", done.stderr)[-1])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg's program is not here")
@pytest.mark.parametrize("format_", ["yuv420p", "yuv422p10le"])
def test_luma_psnr_is_that_of_ffmpeg_s_filter(format_: str, tmp_path: Path) -> None:
    reference = _write(tmp_path / "a.mkv", _images(5), format_=format_)
    distorted = _write(tmp_path / "b.mkv", _images(5, noise=9), format_=format_)
    report = compare_files(reference, distorted)
    frames, average = _ffmpeg_psnr(reference, distorted, tmp_path / "log")
    assert [row.values["luma_psnr_db"] for row in report.rows] == pytest.approx(frames, abs=0.01)
    assert report.pooled_psnr_db["b.mkv"] == pytest.approx(average, abs=0.01)
    assert report.pooled_psnr_db["b.mkv"] <= fmean(frames) + 0.01
    assert report.protocol["luma"] == "the luma planes as they are coded"


def test_equal_files_are_equal(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mkv", _images(3))
    for row in compare_files(path, path).rows:
        assert row.values["luma_psnr_db"] == row.values["rgb_psnr_db"] == float("inf")
        assert row.values["ssim"] == pytest.approx(1)
        assert row.values.get("tof_pixels", 0) == 0


def test_frames_belong_together_by_their_time(tmp_path: Path) -> None:
    """One on a clock of milliseconds, as Matroska's, the other on that of the rate; variable steps."""
    images = _images(4)
    ticks = [0, 1, 4, 5]
    exact = _write(tmp_path / "a.nut", images, pts=ticks, time_base=Fraction(1, 24))
    rounded = _write(tmp_path / "b.nut", images, pts=[round(t * 1000 / 24) for t in ticks], time_base=Fraction(1, 1000))
    report = compare_files(exact, rounded)
    assert len(report.rows) == 4 and report.pooled_psnr_db["b.nut"] == float("inf")
    late = _write(tmp_path / "c.nut", images, pts=[0, 1, 3, 5], time_base=Fraction(1, 24))
    with pytest.raises(InputError, match=r"c\.nut: its frame 3 is at 0\.125000 s, and that of .*a\.nut at 0\.166667 s"):
        compare_files(exact, late)


@pytest.mark.parametrize("shorter_first", [False, True])
def test_different_lengths_are_refused(shorter_first: bool, tmp_path: Path) -> None:
    short = _write(tmp_path / "short.mkv", _images(4)[:3])
    long = _write(tmp_path / "long.mkv", _images(4))
    files = (short, long) if shorter_first else (long, short)
    with pytest.raises(InputError, match=r"short\.mkv: has 3 frames, and .*long\.mkv has more"):
        compare_files(*files)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """A frame that would have to be made up must not be measured."""
    good, bad = tmp_path / "good.mov", tmp_path / "bad.mov"
    for path in (good, bad):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("png", rate=25, width=SIZE[0], height=SIZE[1], pix_fmt="rgb24")
            for index, image in enumerate(_images(4)):
                for packet in stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")):
                    sent = av.Packet(b"not an image") if path == bad and index == 2 else packet
                    sent.pts, sent.dts, sent.time_base, sent.stream = index, index, packet.time_base, stream
                    container.mux(sent)
    assert compare_files(good, good).protocol["luma"] == "BT.601 of the RGB, 16 to 235, unrounded"
    with pytest.raises(InputError, match=r"bad\.mov: is damaged"):
        compare_files(good, bad)


def test_different_sizes_are_refused(tmp_path: Path) -> None:
    small = _write(tmp_path / "small.mkv", _images(2, size=(60, 48)))
    with pytest.raises(InputError, match="60x48, not 64x48"):
        compare_files(_write(tmp_path / "a.mkv", _images(2)), small)


def test_files_of_different_range_are_compared_by_what_they_show(tmp_path: Path) -> None:
    images = _images(3)
    limited = _write(tmp_path / "a.mkv", images, format_="yuv444p")
    full = _write(tmp_path / "b.mkv", images, format_="yuv444p", full_range=True)
    report = compare_files(limited, full)
    assert report.protocol["luma"].startswith("BT.601 of the RGB")  # type: ignore[attr-defined]
    assert report.pooled_psnr_db["b.mkv"] > 45


def test_folders_are_compared_in_order(tmp_path: Path, write_clip: Callable[..., Path]) -> None:
    first, second = write_clip(tmp_path / "a", 5), write_clip(tmp_path / "b", 5)
    for index in (0, 4):  # bad frames, which are left out
        cv2.imwrite(str(second / f"{index:03}.png"), np.zeros((48, 64, 3), np.uint8))
    report = compare_files(first, second, skip=1)
    assert [row.frame for row in report.rows] == ["001.png", "002.png", "003.png"]
    assert report.pooled_psnr_db["b"] == float("inf")
    (second / "002.png").unlink()
    with pytest.raises(InputError, match=r"has 4 images, and .*a has 5"):
        compare_files(first, second)
    with pytest.raises(OptionError, match="two videos, or two folders"):
        compare_files(first, second / "001.png")


def test_the_edge_does_not_count_where_it_is_cropped(tmp_path: Path, write_clip: Callable[..., Path]) -> None:
    first, second = write_clip(tmp_path / "a", 2), write_clip(tmp_path / "b", 2)
    for path in second.iterdir():
        image = cv2.imread(str(path))
        image[:8] = image[:, -8:] = 0
        cv2.imwrite(str(path), image)
    assert compare_files(first, second).pooled_psnr_db["b"] < 20
    assert compare_files(first, second, crop=8).pooled_psnr_db["b"] == float("inf")


def test_nothing_is_left_of_a_clip_that_is_too_short(tmp_path: Path, write_clip: Callable[..., Path]) -> None:
    folder = write_clip(tmp_path / "a", 4)
    with pytest.raises(InputError, match="no frame is left without the first and last 2"):
        compare_files(folder, folder, skip=2)


def test_a_failed_comparison_leaves_nothing(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from vsr.cli.main import cli

    files = [_write(tmp_path / f"{count}.mkv", _images(count)) for count in (2, 3)]
    result = CliRunner().invoke(cli, ["benchmark", "video", *map(str, files), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.mkv", "3.mkv"]
    done = CliRunner().invoke(cli, ["benchmark", "video", *[str(files[0])] * 2, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.exception
    assert {"psnr_2.mkv.png", "strip_2.mkv.png"} < {path.name for path in (tmp_path / "out").iterdir()}


def test_duf_s_published_frames_score_30_63_db(data_folder: Path) -> None:
    walk, duf = data_folder / "test" / "Vid4" / "walk", data_folder / "peers" / "duf52_walk_bd"
    scores = [psnr_db(pair.output.luma, pair.truth.luma) for pair in paired_frames(walk, duf, crop=8, skip=2)]
    assert len(scores) == 43
    assert fmean(scores) == pytest.approx(30.63, abs=0.005)
