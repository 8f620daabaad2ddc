"""Segments that are made apart, in any order, join to the very file that one process makes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import hard_clips
import pytest
import torch
from ffprobe_reading import needs_ffprobe
from inline_pool import InlinePool
from torch import nn

from vsr.backends.torch_engine import TorchEngine
from vsr.cluster.run import enhance_file_on
from vsr.errors import InputError, StrictError
from vsr.jobs import resume
from vsr.jobs.model_cache import GivenModel
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.media.read.reader import VideoReader
from vsr.models.cards import ModelCard
from vsr.models.weights import build_net
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

FRAME_WISE = ModelCard("small", "luma", {"features": 4, "depth": 1, "scale": 2}, 2, "y", 3)
TEMPORAL = ModelCard(
    "small-video", "recurrent", {"features": 4, "blocks": 1, "scale": 2}, 2, "yuv", halo=4, recurrent=True,
    restart_interval=10, warm_up=3, run_in=4,
)  # fmt: skip


def _model(card: ModelCard) -> GivenModel:
    torch.manual_seed(3)
    net = build_net(card)
    nn.init.normal_(net.tail.weight, std=0.05)  # type: ignore[arg-type, union-attr]
    net = net.eval().requires_grad_(False)
    network = CheckedNetwork(card, lambda precision: TorchEngine(net, torch.device("cpu"), "fp32"), "fp32")
    return GivenModel(Upscaler(network))


def _packets(path: Path) -> list[tuple[Any, ...]]:
    """All packets of a file, with their times and bytes."""
    with av.open(str(path)) as container:
        return [
            (packet.stream.index, packet.pts, packet.dts, packet.duration, packet.time_base, bytes(packet))
            for packet in container.demux()
            if packet.size
        ]


def _frames(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(f.pts * f.time_base, f.to_ndarray().tobytes()) for f in container.decode(video=0)]


def _compare(
    source: Path, card: ModelCard, *, suffix: str | None = None, notes: list[str] | None = None, **options: Any
) -> int:
    """Run a job in one process and on workers, and compare; return how many segments there were."""
    values = {"batch": 2, "preset": "veryfast", **options}
    whole, output = (source.with_name(f"{name}{suffix or source.suffix}") for name in ("one", "many"))
    report = enhance_file(source, whole, JobOptions.of(**values, resume=True), models=_model(card))
    model = _model(card)
    with InlinePool(models=model, seed=len(source.name)) as pool:
        note = (lambda line: None) if notes is None else notes.append
        on_workers = enhance_file_on(pool, source, output, JobOptions.of(**values), note=note, models=model)
    assert _packets(output) == _packets(whole)
    assert _frames(output) == _frames(whole)
    assert on_workers.num_frames == report.num_frames
    assert not [path for path in source.parent.iterdir() if "vsr-unfinished" in path.name]
    return len(pool.made)


CLIPS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "variable_rate": ("in.mkv", hard_clips.variable_rate),
    "variable_rate_mp4": ("in.mp4", hard_clips.variable_rate),
    "late_start_with_sound": ("in.mkv", hard_clips.late_start),
    "edit_list": ("in.mp4", hard_clips.edit_list),
    "negative_dts": ("in.mp4", hard_clips.negative_dts),
    "b_pyramid": ("in.mkv", hard_clips.b_pyramid),
    "b_pyramid_hevc": ("in.mp4", hard_clips.b_pyramid_hevc),
    "hidden_frames": ("in.webm", hard_clips.hidden_frames),
    "wrapping_clock": ("in.ts", hard_clips.wrapping_clock),
    "clock_that_restarts": ("in.ts", hard_clips.clock_that_restarts),
    "open_gop": ("in.ts", hard_clips.open_gop),
    "starts_without_key": ("in.ts", hard_clips.starts_without_key),
    "interlaced": ("in.mkv", lambda path: hard_clips.interlaced(path, "libx264", True)),
    "interlaced_later": ("in.ts", hard_clips.interlaced_later),
    "pulled_down": ("in.mkv", hard_clips.pulled_down),
    "ten_bits": ("in.mkv", lambda path: hard_clips.deep_h264(path, "yuv420p10le")),
    "hlg": ("in.mp4", hard_clips.hlg),
    "many_tracks": ("in.mkv", hard_clips.many_tracks),
}
SLOW = {"hidden_frames", "negative_dts", "variable_rate", "b_pyramid"}
SLOW |= {"clock_that_restarts", "interlaced_later", "pulled_down"}


@needs_ffprobe
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CLIPS])
def test_hard_clips(name: str, tmp_path: Path) -> None:
    """Their parts are found without decoding, or else by decoding once."""
    file, made = CLIPS[name]
    options = {"suffix": ".mkv"} if file.endswith(".webm") else {}
    num_segments = _compare(made(tmp_path / file), FRAME_WISE, **options)
    assert num_segments >= 2 if name == "hlg" else num_segments >= 3


@needs_ffprobe
@pytest.mark.parametrize("numbers", [(4,), (5, 12)])
def test_damage_gives_the_same_frames_and_the_same_count(numbers: Sequence[int], tmp_path: Path) -> None:
    source = hard_clips.damaged(tmp_path / "in.ts", numbers)
    assert _compare(source, FRAME_WISE) >= 3
    with (
        pytest.raises(StrictError, match=f"{len(numbers)} damaged packets"),
        InlinePool(models=(m := _model(FRAME_WISE))) as pool,
    ):
        enhance_file_on(pool, source, tmp_path / "strict.ts", JobOptions.of(batch=2, strict=True), models=m)


@needs_ffprobe
@pytest.mark.parametrize("part", [{}, {"start_seconds": Fraction(6, 10), "duration_seconds": Fraction(1)}])
def test_a_network_with_memory(part: dict[str, Fraction], tmp_path: Path) -> None:
    """Each segment begins with the frames before it that the network must see, and sees the one after it."""
    pattern = hard_clips.pattern("noise=alls=8:allf=t", frames=46)
    source = hard_clips.make(tmp_path / "in.mkv", *pattern, *hard_clips.X264, "-bf", "2", "-g", "14")
    assert _compare(source, TEMPORAL, codec="ffv1", preset=None, **part) >= 4


@needs_ffprobe
def test_vsr_s_own_choice_of_segments_is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short video is cut finer than a minute of work would ask for, so that all workers have segments."""
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 2)
    monkeypatch.setattr(resume, "_MOST_FRAMES", 240)
    monkeypatch.setattr(resume, "_FEWEST_SEGMENTS", 8)
    pattern = hard_clips.pattern("noise=alls=8:allf=t", frames=46)
    source = hard_clips.make(tmp_path / "in.mkv", *pattern, *hard_clips.X264, "-bf", "2", "-g", "14")
    assert _compare(source, FRAME_WISE) == 8
    assert _compare(source, TEMPORAL, codec="ffv1", preset=None, overwrite=True) == 5, "cut where the state starts anew"


@needs_ffprobe
def test_a_part_of_a_file(tmp_path: Path) -> None:
    source = hard_clips.edit_list(tmp_path / "in.mp4")
    part = {"start_seconds": Fraction(2, 10), "duration_seconds": Fraction(7, 10)}
    assert _compare(source, FRAME_WISE, **part) >= 3


@needs_ffprobe
def test_still_frames_are_reused_within_segments(tmp_path: Path) -> None:
    source = hard_clips.make(tmp_path / "in.mkv", *hard_clips.pattern("loop=10:1:4", frames=24), *hard_clips.X264)
    assert _compare(source, FRAME_WISE, reuse=True) >= 3


# One of each kind; VSR_CLUSTER_CLIPS=1 takes all.
_SOME_CLIPS = ("IMG_0034-c31f3431.mov", "h264-sample-8d6dd0ba.mp4", "sample_with_vobsub-434e7e7e.mkv")
_SAME_SUFFIX = (".mp4", ".mov", ".mkv", ".m4v", ".ts")  # of the output; others become Matroska
_FEWEST_FRAMES = 2 * 6 + 1  # for three segments


def _data_clips() -> list[Path]:
    folder = Path(os.environ.get("VSR_DATA", "")) / "clips"
    if not os.environ.get("VSR_DATA") or not folder.is_dir():
        return []
    takes_all = bool(os.environ.get("VSR_CLUSTER_CLIPS"))
    return [p for p in sorted(folder.iterdir()) if p.suffix != ".json" and (takes_all or p.name in _SOME_CLIPS)]


@pytest.mark.slow
@pytest.mark.parametrize("clip", _data_clips(), ids=lambda path: path.name)
def test_clips_of_the_data_folder(clip: Path, tmp_path: Path) -> None:
    """Two seconds of each; shorter ones have fewer segments."""
    source = tmp_path / clip.name
    source.symlink_to(clip)
    suffix = clip.suffix if clip.suffix in _SAME_SUFFIX else ".mkv"
    options = {"preset": "ultrafast", "duration_seconds": Fraction(2), "scale": 1}
    try:
        VideoReader(source).close()
    except InputError as error:  # there are sounds and broken files among them
        with InlinePool() as pool, pytest.raises(InputError, match=re.escape(str(error))):
            enhance_file_on(
                pool, source, tmp_path / f"many{suffix}", JobOptions.of(**options), models=_model(FRAME_WISE)
            )
        return
    num_segments = _compare(source, FRAME_WISE, suffix=suffix, **options)
    num_frames = len(_frames(source.with_name(f"many{suffix}")))
    assert num_segments >= 3 or num_frames < _FEWEST_FRAMES
