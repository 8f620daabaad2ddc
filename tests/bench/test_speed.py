"""`vsr benchmark speed`, on sizes that take no time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from vsr.bench.speed import Case, cases, make_clip, measure, table, to_json
from vsr.errors import MissingExtraError, ModelError, OptionError, VsrError

pytestmark = pytest.mark.usefixtures("quick_spawn")


def test_every_combination_is_a_case() -> None:
    made = cases(["fast", "srresnet"], ["auto", "pytorch"], ["fp32"], [(64, 48), (32, 32)], batch=2)
    assert len(made) == 8 and Case("srresnet", "pytorch", "fp32", 32, 32, 2) in made


@pytest.mark.slow
def test_engines_are_measured_in_turns_and_reported() -> None:
    lines: list[str] = []
    wanted = cases(["fast"], ["pytorch"], ["fp32", "bf16"], [(32, 24)], batch=3, device="cpu")
    speeds = measure(wanted, rounds=3, round_seconds=0.01, note=lines.append)
    assert [speed.case for speed in speeds] == wanted
    for speed in speeds:
        assert len(speed.fps_rounds) == 3 and min(speed.fps_rounds) <= speed.fps <= max(speed.fps_rounds)
        assert len(speed.job_fps_rounds) == 3 and min(speed.job_fps_rounds) <= speed.job_fps
        assert speed.batch == 3 and speed.start_seconds > 0
        assert speed.peak_rss_mib is None or 50 < speed.peak_rss_mib < 50_000
        # 51 k weights, each multiplied and added once per input pixel; biases and activations are little beside.
        assert speed.flops is not None and 2 * 50e3 < speed.flops / (32 * 24) < 2 * 52e3
        assert speed.utilization is not None and speed.utilization > 0
    assert [line.rpartition(", ")[2] for line in lines] == ["fp32", "bf16"]
    assert table(speeds).splitlines()[1:] == lines
    report = json.loads(to_json(speeds))
    assert report["speeds"][1]["case"]["precision"] == "bf16" and report["machine"]["threads"] >= 1


@pytest.mark.slow
def test_int8_is_measured_beside_the_others() -> None:
    pytest.importorskip("openvino")
    wanted = cases(["fast"], ["openvino"], ["fp32", "int8"], [(32, 24)], batch=1, device="cpu")
    speeds = measure(wanted, rounds=1, round_seconds=0.01)
    assert [speed.engine.rpartition(", ")[2] for speed in speeds] == ["fp32", "int8"]
    assert speeds[0].flops == speeds[1].flops and speeds[1].matmul_flops_per_second > 0


@pytest.mark.parametrize("size", [(64, 48), (33, 25)])
def test_the_clip_of_a_job_repeats_no_frame(size: tuple[int, int], tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", *size, 12)
    with av.open(str(tmp_path / "in.mp4")) as container:
        frames = [frame.to_ndarray(format="gray").astype(float) for frame in container.decode(video=0)]
    assert len(frames) == 12
    assert frames[0].shape == (size[1], size[0]) and frames[0].std() > 20
    assert all(np.abs(a - b).mean() > 5 for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("case", "kind", "named"),
    [
        (Case("nonsense"), ModelError, "nonsense"),
        (Case("fast", "pytorch", "int8", device="cpu"), OptionError, "OpenVINO"),
        (Case("fast", "tensorrt", device="cpu"), (MissingExtraError, VsrError), "ensor"),
    ],
)
def test_the_error_of_a_case_surfaces(case: Case, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        measure([case], rounds=1)
