"""Measure the overlap of decode, network and encode, and the tool's overhead.

    python benchmarks/overlap.py [--clip samples/sample.mp4] [--model fast] [--rounds 5]

In one process and in turn, round after round: plain PyAV decoding of the clip, the engine alone on its
luma, plain PyAV encoding of the upscaled frames with the job's encoder and settings, and the whole job
(with its check of the output). Medians of CPU seconds (all threads) and wall seconds, and two ratios:
    cpu_ratio   job CPU / (decode + network + encode CPU)     goal: at most 1.15
    wall_ratio  job wall / (job CPU / cores)                  goal: at most 1.10 on 2 cores
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import av
import click
from machine import describe_run
from torch import Tensor

from vsr.jobs.options import JobOptions
from vsr.jobs.plan import choose_batch
from vsr.jobs.run import enhance_file
from vsr.media.endpoints import File
from vsr.media.read.reader import VideoReader
from vsr.media.write.encoder import encoder_threads
from vsr.pipeline.loading import load_model
from vsr.pipeline.upscaler import Upscaler

HERE = Path(__file__).parent


def decode_alone(clip: Path) -> None:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            pass


def network_alone(upscaler: Upscaler, batches: list[Tensor]) -> None:
    for batch in batches:
        upscaler.engine(batch)


def encode_alone(frames: list[av.VideoFrame], target: Path) -> None:
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context.time_base, context.thread_count = frames[0].time_base, encoder_threads("libx264")
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def luma_batches(clip: Path, batch_size: int) -> list[Tensor]:
    with VideoReader(File(clip)) as reader:
        return [c.batch.planes[0].float() / 255 for c in reader.chunks(batch_size) if c.batch is not None]


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Run an action; return (CPU seconds of all threads, wall seconds)."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def upscaled_frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    for frame in frames:
        frame.pict_type = 0  # the encoder decides, as in the job
    return frames


@click.command()
@click.option("--clip", type=click.Path(path_type=Path), default=HERE.parent / "samples" / "sample.mp4")
@click.option("--model", default="fast")
@click.option("--rounds", default=5)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "overlap.json")
def main(clip: Path, model: str, rounds: int, out: Path) -> None:
    upscaler = load_model(model, device="cpu")
    with VideoReader(File(clip)) as reader:
        width, height = reader.info.width, reader.info.height
    batches = luma_batches(clip, choose_batch(None, width, height, upscaler.device))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "job.mp4"
        options = JobOptions.of(overwrite=True)

        def job() -> object:
            return enhance_file(clip, target, options, upscaler=upscaler)

        job()
        frames = upscaled_frames(target)
        parts: dict[str, Callable[[], object]] = {
            "decode": lambda: decode_alone(clip),
            "network": lambda: network_alone(upscaler, batches),
            "encode": lambda: encode_alone(frames, Path(folder) / "encode.mp4"),
            "job": job,
        }
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
        for _ in range(rounds):
            for name, action in parts.items():
                results[name].append(timed(action))
    report(clip, upscaler, results, len(frames), out)


def report(
    clip: Path, upscaler: Upscaler, results: dict[str, list[tuple[float, float]]], num_frames: int, out: Path
) -> None:
    cores = len(os.sched_getaffinity(0))
    cpu = {name: statistics.median(r[0] for r in rounds) for name, rounds in results.items()}
    wall = {name: statistics.median(r[1] for r in rounds) for name, rounds in results.items()}
    # Ratios round by round, as a machine's speed drifts; then their medians.
    cpu_ratios, wall_ratios = [], []
    for decode, network, encode, job in zip(*results.values(), strict=True):
        cpu_ratios.append(job[0] / (decode[0] + network[0] + encode[0]))
        wall_ratios.append(job[1] / (job[0] / cores))
    values = {
        **describe_run(),
        "clip": clip.name,
        "frames": num_frames,
        "engine": upscaler.engine.name,
        "rounds": len(cpu_ratios),
        "cpu_seconds": {k: round(v, 3) for k, v in cpu.items()},
        "wall_seconds": {k: round(v, 3) for k, v in wall.items()},
        "job_frames_per_second": round(num_frames / wall["job"], 2),
        "cpu_ratio": round(statistics.median(cpu_ratios), 3),
        "wall_ratio": round(statistics.median(wall_ratios), 3),
        "cpu_ratio_rounds": [round(r, 3) for r in cpu_ratios],
        "wall_ratio_rounds": [round(r, 3) for r in wall_ratios],
    }
    out.write_text(json.dumps(values, indent=2) + "\n")
    click.echo(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
