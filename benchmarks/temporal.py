"""Measure what networks with memory cost in a whole job, and what a restart of the memory does to the image.

    python benchmarks/temporal.py speed [--clip samples/sample.mp4] [--rounds 3]
    python benchmarks/temporal.py seams [--model video-fast]
    python benchmarks/temporal.py starts [--model video-fast]

`speed`: whole jobs with `fast` and with the network in turn, round after round, and beside them the parts of the
second: decoding, optical flow, the engine alone, all that is done between decoder and encoder on frames whose flow is
known (the engine, the warping around it, colours), encoding. Medians, and ratios of rounds:
    fps_ratio     frames per second of the job with memory over that of `fast`       goal: at least 0.6
    work_ratio    CPU of the job of `fast` over that of the job with memory: the same, whatever else runs
    cpu_ratio     CPU of the job with memory over decoding, flow, engine, encoding   goal: at most 1.15
    stage_ratio   the same with all between decoder and encoder in place of the engine: what running side by side costs
    motion_share  CPU of the optical flow over that of the job                       goal: at most 0.1
and for one frame the seconds of each network, from tensors to images, and of OpenCV's FSRCNN, per decibel over bicubic
on Vid4.
`seams`: clips of Vid4 with a restart at frame 24 after a run-up of so many frames, against no restart: the loss of
PSNR in the frames after it, and how far these frames are from those of the unbroken run, in code values.
`starts`: PSNR of the first frames of Vid4's clips, by the frames after the first that the network runs back through.
Each writes its part of temporal.json. `speed` writes after every round, so that it may be stopped.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import cv2
import numpy as np
import torch
from machine import describe_run
from overlap import decode_alone, encode_alone, timed, upscaled_frames
from torch import Tensor

from vsr.backends.engine import state_dtype
from vsr.bench.opencv_peer import load_opencv_peer
from vsr.color.pixel_formats import FORMATS
from vsr.color.shuffle import shuffled
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.media.endpoints import File
from vsr.media.images import find_images, read_rgb
from vsr.media.read.reader import VideoReader
from vsr.models.cards import shipped_cards
from vsr.models.nets.recurrent import CHROMA_GAIN, details
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import load_model
from vsr.pipeline.motion import Motion, estimate_motion, luma_8bit
from vsr.pipeline.processor import make_processor
from vsr.pipeline.temporal import TemporalProcessor
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.data_folder import data_folder
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.quality.protocols import clip_protocol

HERE = Path(__file__).parent
STILLS = ("fast", "nano", "srcnn")  # the quick ones: the others take many times as long
BICUBIC_DB = 23.78  # on Vid4
RESTART = 24  # frame
AFTER = 8  # frames that are looked at
WARM_UPS = (0, 4, 8, 12, 16, 24)
RUN_INS = (0, 2, 4, 6, 8, 12)
GRAY = Color(Matrix.SMPTE170M, Primaries.SMPTE170M, Transfer.SMPTE170M, Range.LIMITED, ChromaLocation.LEFT, 8)


@click.group()
def main() -> None:
    """Measure networks with memory."""


def write(part: str, values: dict[str, object], out: Path) -> None:
    """Replace a part of the results, and show it."""
    found = json.loads(out.read_text("utf-8")) if out.exists() else {}
    out.write_text(json.dumps({**found, part: {**describe_run(), **values}}, indent=2) + "\n", "utf-8")
    click.echo(json.dumps(values, indent=2))


# -- speed -----------------------------------------------------------------------------------------------------


@main.command()
@click.option("--clip", type=click.Path(path_type=Path), default=HERE.parent / "samples" / "sample.mp4")
@click.option("--model", default="video-fast")
@click.option("--rounds", default=3)
@click.option("--frame-rounds", default=3, help="Of single frames.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "temporal.json")
def speed(clip: Path, model: str, rounds: int, frame_rounds: int, out: Path) -> None:
    """Whole jobs, their parts, and single frames."""
    models = {name: load_model(name, device="cpu", backend="openvino") for name in ("fast", model)}
    batches = batches_of(clip)
    lumas = np.concatenate([luma_8bit(batch) for batch in batches])
    values = {
        "clip": clip.name,
        "model": model,
        "frames": len(lumas),
        "engines": [each.engine.name for each in models.values()],
        **frame_figures(model, frame_rounds),
    }
    write("speed", values, out)
    with tempfile.TemporaryDirectory() as folder:
        target, options = Path(folder) / "job.mp4", JobOptions.of(overwrite=True)

        def job(name: str) -> Callable[[], object]:
            return lambda: enhance_file(clip, target, options, upscaler=models[name])

        job(model)()
        frames = upscaled_frames(target)
        parts: dict[str, Callable[[], object]] = {
            "fast": job("fast"),
            "job": job(model),
            "decode": lambda: decode_alone(clip),
            "motion": lambda: [estimate_motion(*pair, models[model].card.both_flows) for pair in pairwise(lumas)],
            "network": network_alone(models[model], batches),
            "stage": stage_alone(models[model], batches),
            "encode": lambda: encode_alone(frames, Path(folder) / "encode.mp4"),
        }
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
        for _ in range(rounds):
            for name, action in parts.items():
                results[name].append(timed(action))
            write("speed", {**values, **job_figures(results, len(lumas))}, out)


def batches_of(clip: Path) -> list[FrameBatch]:
    with VideoReader(File(clip)) as reader:
        return [chunk.batch for chunk in reader.chunks(4) if chunk.batch is not None]


def network_alone(upscaler: Upscaler, batches: list[FrameBatch]) -> Callable[[], object]:
    """Run the network frame by frame on tensors that are there already, state and all."""
    height, width = batches[0].planes[0].shape[-2:]
    planes = torch.rand(1, 3, height, width)
    num_frames = sum(batch.num_frames for batch in batches)

    def run() -> None:
        state = torch.zeros(1, num_state_channels(upscaler), height, width, dtype=state_dtype(upscaler.engine))
        for _ in range(num_frames):
            state = upscaler.engine(planes, planes[:, :1], planes[:, 1:2], state)[-1]

    return run


def stage_alone(upscaler: Upscaler, batches: list[FrameBatch]) -> Callable[[], object]:
    """Run all that lies between decoder and encoder, but for the optical flow, which is known."""
    lumas = np.concatenate([luma_8bit(batch) for batch in batches])
    motions = [estimate_motion(*pair, upscaler.card.both_flows) for pair in pairwise(lumas)]
    height, width = (upscaler.card.scale * side for side in batches[0].planes[0].shape[-2:])

    def run() -> None:
        known = iter(motions)

        def submit(*_: object, both_flows: bool = False) -> Future[Motion | None]:
            future = Future[Motion | None]()
            future.set_result(next(known))
            return future

        with patch("vsr.pipeline.passages.submit_motion", submit):
            processor = make_processor(upscaler, Target(width, height, FORMATS["yuv420p"], batches[0].color))
            for batch in batches:
                for result in processor.push(batch):
                    result()
            for result in processor.flush():
                result()

    return run


def num_state_channels(upscaler: Upscaler) -> int:
    options = upscaler.card.options
    return int(options["features"]) + int(options["scale"]) ** 2 * 3 // 2


def job_figures(results: dict[str, list[tuple[float, float]]], num_frames: int) -> dict[str, object]:
    """Medians, and ratios round by round, as a machine's speed drifts."""
    names = ("fps_ratio", "work_ratio", "cpu_ratio", "stage_ratio", "motion_share")
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for fast, job, decode, motion, network, stage, encode in zip(*results.values(), strict=True):
        ratios["fps_ratio"].append(fast[1] / job[1])
        ratios["work_ratio"].append(fast[0] / job[0])
        ratios["cpu_ratio"].append(job[0] / (decode[0] + motion[0] + network[0] + encode[0]))
        ratios["stage_ratio"].append(job[0] / (decode[0] + motion[0] + stage[0] + encode[0]))
        ratios["motion_share"].append(motion[0] / job[0])
    return {
        "rounds": len(ratios["fps_ratio"]),
        "cpu_seconds": {name: round(statistics.median(r[0] for r in rows), 3) for name, rows in results.items()},
        "wall_seconds": {name: round(statistics.median(r[1] for r in rows), 3) for name, rows in results.items()},
        "job_frames_per_second": round(num_frames / statistics.median(r[1] for r in results["job"]), 2),
        **{name: round(statistics.median(rows), 3) for name, rows in ratios.items()},
        "of_rounds": {name: [round(value, 3) for value in rows] for name, rows in ratios.items()},
    }


def frame_figures(model: str, rounds: int) -> dict[str, object]:
    """CPU seconds for one frame of 320×180, and per decibel over bicubic on Vid4."""
    engines = {name: load_model(name, device="cpu", backend="openvino") for name in (model, *STILLS)}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    fsrcnn: list[float] = []
    cv2.setNumThreads(torch.get_num_threads())
    upscale, _ = load_opencv_peer(data_folder() / "peers" / "FSRCNN_x4.pb")
    frame = torch.randint(0, 256, (3, 180, 320), dtype=torch.uint8)
    upscale(frame)
    for _ in range(rounds):
        for name, upscaler in engines.items():
            seconds[name].append(timed(one_frame(upscaler))[0] / 8)
        fsrcnn.append(timed(lambda: upscale(frame))[0])
    medians = {name: statistics.median(rows) for name, rows in seconds.items()}
    gains = {name: shipped_cards()[name].figures["Vid4 BI"] - BICUBIC_DB for name in engines}
    return {
        "cpu_seconds_per_frame": {name: round(value, 4) for name, value in medians.items()}
        | {"FSRCNN, OpenCV": round(statistics.median(fsrcnn), 4)},
        "cpu_seconds_per_db": {name: round(medians[name] / gains[name], 4) for name in engines},
        "fsrcnn_ratio": round(statistics.median(fsrcnn) / medians[model], 2),
    }


def one_frame(upscaler: Upscaler) -> Callable[[], object]:
    """Run an engine eight times on a frame."""
    planes = torch.rand(1, 3, 180, 320)
    if upscaler.card.recurrent:
        return one_step(upscaler, planes)
    inputs = (planes[:, :1] if upscaler.card.color == "y" else planes,)
    upscaler.engine(*inputs)
    return lambda: [upscaler.engine(*inputs) for _ in range(8)]


def one_step(upscaler: Upscaler, planes: Tensor) -> Callable[[], object]:
    """Run a network with memory eight times, each with the state before, to the image, as other engines give it."""
    scale, luma = upscaler.card.scale, planes[:, :1]

    def run() -> None:
        state = torch.zeros(1, num_state_channels(upscaler), *planes.shape[2:], dtype=state_dtype(upscaler.engine))
        for _ in range(8):
            (state,) = upscaler.engine(planes, luma, luma, state)
            detail, correction = details(state, scale)
            shuffled(detail + luma, scale), shuffled(correction * CHROMA_GAIN, scale // 2)

    run()
    return run


# -- seams -----------------------------------------------------------------------------------------------------


@main.command()
@click.option("--model", default="video-fast")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "temporal.json")
def seams(model: str, out: Path) -> None:
    """The loss at a restart, by the number of frames that run up to it."""
    upscaler = load_model(model, device="cpu", backend="openvino")
    rows: dict[int, list[dict[str, float]]] = {warm_up: [] for warm_up in WARM_UPS}
    for folder in sorted(path for path in (data_folder() / "test" / "Vid4").iterdir() if path.is_dir()):
        low, sharp = frames_of(folder)
        whole = torch.cat(list(upscaled(upscaler, low, run_in=0)))[RESTART : RESTART + AFTER]
        for warm_up in WARM_UPS:
            first = RESTART - warm_up
            found = torch.cat(list(upscaled(upscaler, low[first:], run_in=0)))[warm_up : warm_up + AFTER]
            rows[warm_up].append(seam(found, whole, sharp[RESTART : RESTART + AFTER]))
            click.echo(f"{folder.name}, {warm_up} frames: {rows[warm_up][-1]}", err=True)
    table = {
        str(warm_up): {name: round(statistics.fmean(r[name] for r in found), 4) for name in found[0]}
        for warm_up, found in rows.items()
    }
    write("seams", {"model": model, "restart_at_frame": RESTART, "by_warm_up": table}, out)


def seam(found: Tensor, whole: Tensor, sharp: Tensor) -> dict[str, float]:
    """Compare the frames after a restart with those of the unbroken run, (N, 1, H, W) uint8.

    flash is what a difference video would show: how much the first frame is further from the unbroken run than the
    last, in code values of the whole image's mean.
    """
    losses = [
        psnr_db(w[None], t[None]) - psnr_db(f[None], t[None]) for f, w, t in zip(found, whole, sharp, strict=True)
    ]
    differences = (found.float() - whole.float()).abs().mean((1, 2, 3))
    return {
        "first_frame_loss_db": losses[0],
        "mean_loss_db": statistics.fmean(losses),
        "difference_codes": float(differences[0]),
        "flash_codes": float(differences[0] - differences[-1]),
    }


# -- starts ----------------------------------------------------------------------------------------------------


@main.command()
@click.option("--model", default="video-fast")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "temporal.json")
def starts(model: str, out: Path) -> None:
    """The PSNR of the first frames, by the number of frames that the network runs back through."""
    upscaler = load_model(model, device="cpu", backend="openvino")
    table = {}
    folders = sorted(path for path in (data_folder() / "test" / "Vid4").iterdir() if path.is_dir())
    clips = [tuple(part[: 2 * AFTER] for part in frames_of(folder)) for folder in folders]
    for run_in in RUN_INS:
        by_frame = []
        for low, sharp in clips:
            found = torch.cat(list(upscaled(upscaler, low, run_in)))
            by_frame.append([psnr_db(f[None], t[None]) for f, t in zip(found, sharp, strict=True)])
        means = [statistics.fmean(values) for values in zip(*by_frame, strict=True)]
        table[str(run_in)] = {
            "frame_psnr_db": [round(value, 3) for value in means],
            "mean_psnr_db": statistics.fmean(means),
        }
        click.echo(f"{run_in} frames: {table[str(run_in)]}", err=True)
    write("starts", {"model": model, "num_frames": 2 * AFTER, "by_run_in": table}, out)


def frames_of(folder: Path) -> tuple[Tensor, Tensor]:
    """Read the luma of a clip, reduced and whole, (N, 1, H, W) uint8, as far as it is looked at."""
    protocol, low, sharp = clip_protocol(4, "bi"), [], []
    for path in find_images(folder)[: RESTART + AFTER + 1]:
        image = read_rgb(path)
        image = image[:, : image.shape[1] // 4 * 4, : image.shape[2] // 4 * 4]
        low.append(to_codes(luma_bt601(protocol.reduce(image)[None])))
        sharp.append(to_codes(luma_bt601(image[None])))
    return torch.cat(low), torch.cat(sharp)


def to_codes(luma: Tensor) -> Tensor:
    return luma.round().clamp(0, 255).to(torch.uint8)


def upscaled(upscaler: Upscaler, luma: Tensor, run_in: int) -> Iterator[Tensor]:
    """Upscale luma, without any restart but that at its beginning."""
    height, width = (4 * side for side in luma.shape[-2:])
    network = upscaler.network
    network.card = replace(network.card, restart_interval=10**6, run_in=run_in)
    processor = TemporalProcessor(network, Target(width, height, FORMATS["gray"], GRAY))
    batches = [
        FrameBatch((part,), tuple(range(len(part))), (1,) * len(part), Fraction(1, 25), GRAY)
        for part in torch.split(luma, 4)
    ]
    for batch in batches:
        for result in processor.push(batch):
            yield result().planes[0]
    for result in processor.flush():
        yield result().planes[0]


if __name__ == "__main__":
    main()
