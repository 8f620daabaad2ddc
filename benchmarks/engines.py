"""Measure the backends on a CPU, beside OpenCV's dnn_superres.

    python benchmarks/engines.py [--rounds 5]

Times `fast` and `nano` on frames of 640x360, by each backend and precision and as `auto` chooses; FSRCNN x4 by OpenCV
on frames of that size; `video-fast` on frames of 320x180, and `edsr` on an image of that size. Engines run in processes
of their own and take turns, round after round; OpenCV's turns come right after them, in this process, on as many
threads. Medians of all rounds; the PSNR of each is that of Set5. Writes benchmarks/engines.json.

Which precision is the fastest depends on the processor, so the goals are ratios that any processor must reach: `auto`
within 5 % of the best of the others, and each network over FSRCNN. Beside them stand aims, which one machine may reach
and another not: a share of what PyTorch multiplies here at best, and frames a second that are shown live. The machine
must be quiet; the load that others put on it before is written down.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import cv2
import torch
from machine import describe_run

from vsr.bench.opencv_peer import load_opencv_peer
from vsr.bench.speed import Case, Speed, measure
from vsr.models.cards import shipped_cards
from vsr.quality.data_folder import data_folder
from vsr.quality.protocols import StillsBenchmark, luma_psnr_db

HERE = Path(__file__).parent
FRAME, IMAGE = (640, 360), (320, 180)  # an image, and a frame of a network with memory
CASES = {
    "fast, auto": Case("fast", "auto", "auto", *FRAME),
    "fast, PyTorch, fp32": Case("fast", "pytorch", "fp32", *FRAME),
    "fast, PyTorch, bf16": Case("fast", "pytorch", "bf16", *FRAME),
    "fast, OpenVINO, fp32": Case("fast", "openvino", "fp32", *FRAME),
    "fast, OpenVINO, bf16": Case("fast", "openvino", "bf16", *FRAME),
    "fast, OpenVINO, int8": Case("fast", "openvino", "int8", *FRAME),
    "nano, auto": Case("nano", "auto", "auto", *FRAME),
    "nano, OpenVINO, fp32": Case("nano", "openvino", "fp32", *FRAME),
    "nano, OpenVINO, bf16": Case("nano", "openvino", "bf16", *FRAME),
    "video-fast, auto": Case("video-fast", "auto", "auto", *IMAGE),
    "video-fast, PyTorch, bf16": Case("video-fast", "pytorch", "bf16", *IMAGE),
    "video-fast, OpenVINO, bf16": Case("video-fast", "openvino", "bf16", *IMAGE),
    "video-fast, OpenVINO, int8": Case("video-fast", "openvino", "int8", *IMAGE),
    "edsr, auto": Case("edsr", "auto", "auto", *IMAGE),
}
GOALS = {  # at least; by (faster, slower)
    **{
        (f"{name}, auto", title): 0.95
        for name in ("fast", "nano", "video-fast")
        for title in CASES
        if title.startswith(f"{name}, ") and title != f"{name}, auto"
    },
    ("fast, auto", "FSRCNN, OpenCV"): 3.0,
    ("nano, auto", "FSRCNN, OpenCV"): 5.0,
}

LIVE, SHARE = 25.0, 0.6  # aims: frames a second of `nano`; of the multiplications that PyTorch reaches at best


def aims(speeds: dict[str, list[Speed]]) -> dict[str, dict[str, float]]:
    """Return what is aimed at, and what was found: medians."""
    found = {"nano, auto, frames a second": {"found": median(row.fps for row in speeds["nano, auto"]), "aim": LIVE}}
    for title, rows in speeds.items():
        shares = [row.utilization for row in rows if row.utilization is not None]
        if shares:
            found[f"{title}, share of the best multiplications"] = {"found": median(shares), "aim": SHARE}
    return {title: {name: round(value, 3) for name, value in row.items()} for title, row in found.items()}


def fsrcnn_seconds(rounds: int) -> list[float]:
    """Time FSRCNN on one frame, colour included, as dnn_superres does it."""
    upscale, _ = load_opencv_peer(data_folder() / "peers" / "FSRCNN_x4.pb")
    frame = torch.randint(0, 256, (3, FRAME[1], FRAME[0]), dtype=torch.uint8)
    upscale(frame)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        upscale(frame)
        seconds.append(time.perf_counter() - begun)
    return seconds


def psnr_db() -> dict[str, float]:
    """Return the PSNR on Set5: the cards' figures, and FSRCNN's measured."""
    upscale, scale = load_opencv_peer(data_folder() / "peers" / "FSRCNN_x4.pb")
    stills = StillsBenchmark(data_folder() / "test", scale, ("Set5",))
    cards = {name: shipped_cards()[name].figures["Set5"] for name in ("fast", "nano", "edsr")}
    return {**cards, "FSRCNN": round(stills.measure("Set5", upscale, {"psnr": luma_psnr_db})["psnr"], 3)}


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "engines.json")
def main(rounds: int, out: Path) -> None:
    cv2.setNumThreads(torch.get_num_threads())
    load = os.getloadavg()[0]
    speeds: dict[str, list[Speed]] = {title: [] for title in CASES}
    opencv: list[float] = []
    for _ in range(rounds):
        for title, speed in zip(CASES, measure(list(CASES.values()), rounds=1), strict=True):
            speeds[title].append(speed)
        opencv.extend(fsrcnn_seconds(3))
    seconds = {title: median(1 / speed.fps for speed in rows) for title, rows in speeds.items()}
    seconds["FSRCNN, OpenCV"] = median(opencv)
    values = {
        **describe_run(),
        "threads": torch.get_num_threads(),
        "load_before": round(load, 2),
        "rounds": rounds,
        "seconds_per_frame": {title: round(value, 5) for title, value in seconds.items()},
        "seconds_of_rounds": {title: [round(1 / speed.fps, 5) for speed in rows] for title, rows in speeds.items()}
        | {"FSRCNN, OpenCV": [round(value, 5) for value in opencv]},
        "ratios": {
            f"{fast} over {slow}": {"times_as_fast": round(seconds[slow] / seconds[fast], 2), "goal": goal}
            for (fast, slow), goal in GOALS.items()
        },
        "aims": aims(speeds),
        "psnr_db_set5": psnr_db(),
    }
    out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    click.echo(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
