"""Benchmarks of quality, on small made images; the last ones on the field's own."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import pytest
import torch

from vsr.bench.contenders import contenders
from vsr.bench.datasets import find_dataset, truths
from vsr.bench.plots import plot_psnr
from vsr.bench.quality import measure_quality
from vsr.bench.report import table, write_report
from vsr.bench.results import Report, clip_means, overall_means
from vsr.color.resample import mod_crop, reduce_bicubic
from vsr.errors import InputError, MissingExtraError, OptionError, OutputError
from vsr.events import Progress
from vsr.export.onnx import export_model
from vsr.media.images import find_images, read_rgb
from vsr.models.cards import SHIPPED, find_card
from vsr.pipeline.loading import load_model
from vsr.quality.metrics import difference_psnr_db, flow_distance, luma_bt601, optical_flow, psnr_db, ssim
from vsr.quality.protocols import (
    Degradation,
    Measure,
    StillsBenchmark,
    clip_protocol,
    luma_psnr_db,
    measure_clip,
    measure_images,
    upscale_bicubic,
    upscale_frames_with,
)


def _measure(folder: Path, *models: str, **options: object) -> Report:
    return measure_quality(str(folder), models, data=folder, device="cpu", precision="fp32", **options)  # type: ignore[arg-type]


def test_every_frame_of_every_clip_is_measured_by_everything(clips: Path) -> None:
    seen: list[Progress] = []
    report = _measure(clips, "nano", on_progress=seen.append)
    assert list(report.models) == ["bicubic", "lanczos", "nano"]
    assert [(row.clip, row.index, row.model) for row in report.rows] == [
        (clip, index, model)
        for clip, count in (("harbour", 4), ("market", 3))
        for index in range(count)
        for model in report.models
    ]
    assert [(step.num_frames, step.num_frames_expected) for step in seen] == [(index, 7) for index in range(1, 8)]
    assert {row.frame for row in report.rows if row.clip == "market"} == {"000.png", "001.png", "002.png"}
    for row in report.rows:
        assert ("tof_pixels" in row.values) == ("difference_psnr_db" in row.values) == (row.index > 0)
        assert "lpips" not in row.values


def test_figures_are_those_of_the_metrics_on_the_protocol(clips: Path) -> None:
    report = _measure(clips)
    truth = [mod_crop(read_rgb(path), 4)[None] for path in find_images(clips / "market")]
    output = [upscale_bicubic(4)(reduce_bicubic(image[0], 4))[None] for image in truth]
    lumas = [(luma_bt601(a), luma_bt601(b)) for a, b in zip(output, truth, strict=True)]
    found = [row.values for row in report.rows if (row.clip, row.model) == ("market", "bicubic")]
    assert [each["luma_psnr_db"] for each in found] == [psnr_db(*pair) for pair in lumas]
    assert [each["rgb_psnr_db"] for each in found] == [psnr_db(*pair) for pair in zip(output, truth, strict=True)]
    assert [each["ssim"] for each in found] == [ssim(*pair) for pair in lumas]
    flows = [optical_flow(lumas[1][side], lumas[2][side]) for side in (0, 1)]
    assert found[2]["tof_pixels"] == flow_distance(*flows)
    assert found[2]["difference_psnr_db"] == difference_psnr_db((lumas[1][0], lumas[2][0]), (lumas[1][1], lumas[2][1]))


def test_means_are_of_frames_and_then_of_clips(clips: Path) -> None:
    rows = _measure(clips).rows
    by_clip = clip_means(rows)
    harbour = [row.values["ssim"] for row in rows if (row.clip, row.model) == ("harbour", "lanczos")]
    assert by_clip["harbour"]["lanczos"]["ssim"] == fmean(harbour)
    clip_values = [by_clip[clip]["lanczos"]["ssim"] for clip in ("harbour", "market")]
    assert overall_means(rows)["lanczos"]["ssim"] == fmean(clip_values)


def test_bd_is_another_reduction_without_the_edge(clips: Path) -> None:
    report = _measure(clips, degradation="bd")
    want = measure_images(
        find_images(clips / "harbour"),
        clip_protocol(4, "bd"),
        upscale_bicubic(4),
        {"psnr": lambda image, truth: psnr_db(luma_bt601(image), luma_bt601(truth))},
    )
    assert clip_means(report.rows)["harbour"]["bicubic"]["luma_psnr_db"] == pytest.approx(want["psnr"], abs=1e-9)
    assert report.protocol["crop"] == 8 and report.title == "clips BD ×4"


def test_stills_have_no_measures_over_time_and_may_differ_in_size(stills: Path) -> None:
    report = _measure(stills, scale=2)
    assert not any("tof_pixels" in row.values for row in report.rows)
    assert [strip.frame for strip in report.strips] == ["a.png", "b.png"]
    assert report.protocol["crop"] == 2
    with pytest.raises(OptionError, match="bd is a protocol of clips"):
        _measure(stills, degradation="bd")


def test_lpips_where_its_weights_are_given(data_folder: Path, stills: Path) -> None:
    report = _measure(stills, lpips=data_folder / "peers" / "squeezenet1_1_lpips.safetensors")
    assert all(0 < row.values["lpips"] < 2 for row in report.rows)


def test_networks_with_memory_walk_along_whole_clips(clips: Path) -> None:
    report = _measure(clips, "video-fast", "nano")
    upscale = upscale_frames_with(load_model("video-fast", device="cpu", precision="fp32"))
    for clip in ("harbour", "market"):
        want = measure_clip(find_images(clips / clip), clip_protocol(4, "bi"), upscale, {"psnr": luma_psnr_db})
        assert clip_means(report.rows)[clip]["video-fast"]["luma_psnr_db"] == pytest.approx(want["psnr"], abs=1e-9)
    card = find_card("video-fast")
    assert report.models["video-fast"]["restart_interval"] == card.restart_interval
    assert "restart_interval" not in report.models["nano"]


def test_networks_with_memory_are_refused_on_stills(stills: Path) -> None:
    with pytest.raises(OptionError, match="video-fast` needs the frames of a video, and stills is a set of stills"):
        _measure(stills, "video-fast")


def test_a_frame_of_another_size_begins_another_clip() -> None:
    upscale = upscale_frames_with(load_model("video-fast", device="cpu", precision="fp32"))
    small, large = (torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8) for size in ((20, 24), (28, 20)))
    together = list(upscale([*small, *large]))
    apart = [*upscale(small), *upscale(large)]
    assert [frame.shape[1:] for frame in together] == [(80, 96)] * 2 + [(112, 80)] * 2
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_plots_mark_restarts() -> None:
    pytest.importorskip("matplotlib")
    curves = {"video-fast": [30.0 + (n % 120) / 60 for n in range(300)]}
    assert plot_psnr("clip", "frame", curves, restarts=[120, 240]) != plot_psnr("clip", "frame", curves)


def test_frames_of_a_clip_must_be_of_one_size(clips: Path) -> None:
    cv2.imwrite(str(clips / "harbour" / "002.png"), np.zeros((48, 60, 3), np.uint8))
    with pytest.raises(InputError, match=r"harbour/002\.png: 60x48 pixels count, but 64x48"):
        _measure(clips)


def test_images_too_small_for_a_measure_are_named(stills: Path) -> None:
    cv2.imwrite(str(stills / "c.png"), np.zeros((18, 40, 3), np.uint8))
    with pytest.raises(InputError, match=r"c\.png: 32x8 pixels count, which is too small: 11"):
        _measure(stills)


def test_the_gate_stops_a_run_on_other_images(tmp_path: Path, stills: Path) -> None:
    (tmp_path / "Set5").mkdir()
    for index in range(5):
        (tmp_path / "Set5" / f"{index}.png").write_bytes((stills / "a.png").read_bytes())
    with pytest.raises(OptionError, match=r"Set5: bicubic scores .* and not 28\.42"):
        measure_quality("set5", (), data=tmp_path)


def test_networks_of_different_scales_are_refused() -> None:
    with pytest.raises(OptionError, match="fast-x2 upscales by 2 and not 4"):
        contenders(("nano", "fast-x2"), device="cpu")
    with pytest.raises(OptionError, match="nano upscales by 4 and not 2"):
        contenders(("nano",), scale=2, device="cpu")
    with pytest.raises(OptionError, match="two models are called 'nano'"):
        contenders(("nano", "nano"), device="cpu")


def test_networks_from_files_stand_in_the_same_table(stills: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    export_model("nano", tmp_path / "mine.onnx")
    checkpoint = tmp_path / "other.safetensors"
    checkpoint.write_bytes((SHIPPED / find_card("nano").weights).read_bytes())
    report = _measure(stills, "nano", str(tmp_path / "mine.onnx"), str(checkpoint))
    assert list(report.models) == ["bicubic", "lanczos", "nano", "mine", "other"]
    assert len(str(report.models["mine"]["sha256"])) == 64
    means = overall_means(report.rows)
    assert means["other"] == means["nano"] != means["bicubic"]
    assert means["mine"]["luma_psnr_db"] == pytest.approx(means["nano"]["luma_psnr_db"], abs=0.02)


def test_videos_are_read_as_the_images_they_show(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=32, height=24, pix_fmt="bgr0")
        images = [np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8) for seed in range(3)]
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    clip = find_dataset(str(tmp_path), tmp_path).clips[0]
    lines: list[str] = []
    for (_, shown), image in zip(truths(clip, lines.append), images, strict=True):
        assert shown.dtype is torch.uint8 and torch.equal(shown, torch.from_numpy(image).permute(2, 0, 1))
    assert len(lines) == 1 and "bgr0 is read as rgb24" in lines[0]


# -- what is written ---------------------------------------------------------------------------------------------


def test_a_report_is_complete_and_the_same_on_rerun(clips: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_report(_measure(clips), tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == [
        "frames.csv", "index.html", "psnr_harbour.png", "psnr_market.png",
        "results.json", "strip_harbour.png", "strip_market.png",
    ]  # fmt: skip
    for name in names:
        first, second = ((tmp_path / run / name).read_bytes() for run in ("first", "second"))
        if name in ("results.json", "index.html"):
            first, second = (re.sub(rb'("seconds": [\d.]+|\d{4}-\d\d-\d\dT[\d:+]+)', b"", x) for x in (first, second))
        assert first == second, name


def test_files_hold_what_was_measured(clips: Path, tmp_path: Path) -> None:
    report = _measure(clips)
    write_report(report, tmp_path / "out")
    with (tmp_path / "out" / "frames.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["clip"], line["frame"], line["model"]) for line in lines] == [
        (row.clip, row.frame, row.model) for row in report.rows
    ]
    assert float(lines[0]["luma_psnr_db"]) == pytest.approx(report.rows[0].values["luma_psnr_db"], abs=1e-5)
    assert lines[0]["tof_pixels"] == "" and lines[0]["lpips"] == ""
    content = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert content["overall"]["bicubic"]["ssim"] == pytest.approx(
        overall_means(report.rows)["bicubic"]["ssim"], abs=1e-5
    )
    assert {"command", "date", "commit", "device", "versions", "seconds", "models"} <= content.keys()
    assert len(content["frames"]) == len(report.rows)
    strip = cv2.imread(str(tmp_path / "out" / "strip_harbour.png"))
    assert strip.shape == (48 * 3, 3 * 64 * 3 + 2 * 8, 3)  # bicubic, lanczos, truth; three times as large; two gaps
    truth = cv2.imread(str(clips / "harbour" / "002.png"))
    assert np.array_equal(strip[-30::3, -64 * 3 :: 3], truth[-10:])


def test_the_page_needs_no_file_beside_it(clips: Path, tmp_path: Path) -> None:
    write_report(_measure(clips, "nano"), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', page)
    assert len(sources) == 2 * 3 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "prefers-color-scheme: dark" in page and "<td>nano</td>" in page


def test_equal_images_are_written_as_valid_json(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((32, 32, 3), 90, np.uint8))
    write_report(_measure(folder), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert content["overall"]["bicubic"]["luma_psnr_db"] == "inf"


def test_nothing_is_overwritten_unasked(clips: Path, tmp_path: Path) -> None:
    report, out = _measure(clips), tmp_path / "out"
    write_report(report, out)
    (out / "old").touch()
    with pytest.raises(OutputError, match="exists; `overwrite=True` replaces it"):
        write_report(report, out)
    write_report(report, out, overwrite=True)
    assert not (out / "old").exists() and (out / "index.html").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").touch()
    with pytest.raises(OutputError, match="holds something else"):
        write_report(report, mine, overwrite=True)
    assert (mine / "letter.txt").exists()


def test_a_failure_leaves_what_was_there(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, out = _measure(clips), tmp_path / "out"
    write_report(report, out)
    before = (out / "results.json").read_bytes()

    def no_space(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vsr.bench.report.page", no_space)
    with pytest.raises(OutputError, match="No space left"):
        write_report(report, out, overwrite=True)
    assert (out / "results.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "out"]


def test_without_matplotlib_it_is_said_before_anything_is_measured(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from vsr.cli.main import cli

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("vsr.bench.quality.measure_quality", lambda *_, **__: pytest.fail("measured"))
    result = CliRunner().invoke(cli, ["benchmark", str(clips), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, MissingExtraError) and "vsr-enhance[bench]" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table_and_writes_the_folder(clips: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from vsr.cli.main import cli

    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["benchmark", str(clips), "--out", str(out), "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()] == ["clips", "bicubic", "lanczos"]
    assert (out / "index.html").exists()
    unknown = CliRunner().invoke(cli, ["benchmark", "urban100"])
    assert isinstance(unknown.exception, OptionError)


# -- on the real images ------------------------------------------------------------------------------------------


def test_set5_with_published_figures_beside_it(data_folder: Path) -> None:
    report = measure_quality("set5", ("fast",), data=data_folder / "test", device="cpu", precision="fp32")
    means = overall_means(report.rows)
    assert means["fast"]["luma_psnr_db"] == pytest.approx(find_card("fast").figures["Set5"], abs=0.005)
    assert report.gates_db == {"Set5": 28.42} and means["bicubic"]["luma_psnr_db"] == pytest.approx(28.42, abs=0.05)
    lines = table(report).splitlines()
    assert any(line.startswith("VDSR (published)") and "31.35" in line for line in lines)


def test_the_gate_of_bsd100_holds(data_folder: Path) -> None:
    assert StillsBenchmark(data_folder / "test", 4, ("BSD100",)).bicubic_gate() == "BSD100 25.96"


def test_bicubic_on_vid4_under_bi_and_bd(data_folder: Path) -> None:
    """Every 8th frame. All 171 give 23.784 dB and 0.6347 (BI) and 21.825 dB (BD), which every run on Vid4 checks."""
    means: dict[str, list[float]] = {"bi": [], "ssim": [], "bd": []}
    measures: dict[Degradation, dict[str, Measure]] = {
        "bi": {"bi": luma_psnr_db, "ssim": lambda image, truth: ssim(luma_bt601(image), luma_bt601(truth))},
        "bd": {"bd": luma_psnr_db},
    }
    for clip in find_dataset("vid4", data_folder / "test").clips:
        for degradation, wanted in measures.items():
            protocol = clip_protocol(4, degradation)
            for name, mean in measure_images(list(clip.paths[::8]), protocol, upscale_bicubic(4), wanted).items():
                means[name].append(mean)
    assert fmean(means["bi"]) == pytest.approx(23.78, abs=0.02)
    assert fmean(means["ssim"]) == pytest.approx(0.6347, abs=0.003)
    assert fmean(means["bd"]) == pytest.approx(21.80, abs=0.1)


def test_a_damaged_image_of_ones_own_folder_is_left_out_and_named(stills: Path) -> None:
    (stills / "0.png").write_bytes(b"")
    (stills / "folder.png").mkdir()
    (stills / "gone.png").symlink_to(stills / "nowhere.png")
    notes: list[str] = []
    report = _measure(stills, note=notes.append)
    left_out = [note for note in notes if note.startswith("left out")]
    assert len(left_out) == 3 and all(name in "".join(left_out) for name in ("0.png", "folder.png", "gone.png"))
    assert {row.frame for row in report.rows} == {"a.png", "b.png"}
