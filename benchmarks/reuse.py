"""Measure the time that reuse saves on a screen recording and on slides, of which 80 % of the frames are still.

    python benchmarks/reuse.py [--model fast] [--backend auto] [--frames 100] [--rounds 5]

Makes two clips of 640x360 with x264: slides that change every five seconds, and a screen recording in which
a cursor moves and a line is typed in every fifth frame. In one process and in turn, round after round, each
is enhanced with reuse and without; at the end the video packets of both outputs are compared byte for byte.
Medians of wall seconds, and of the ratio of each round. Goal: at least 3 times as fast, output identical.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import av
import click
import numpy as np
from machine import describe_run

from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.pipeline.loading import load_model
from vsr.pipeline.upscaler import Upscaler

HERE = Path(__file__).parent
WIDTH, HEIGHT, FPS = 640, 360, 25
STILL_SHARE = 0.8  # of the frames
GOAL = 3.0


def page(seed: int) -> np.ndarray:
    """Draw gray (H, W) uint8 that looks like a page: a gradient, an image of noise, and lines of letters of 5x7."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    luma = (200 + rows * 40 // HEIGHT).astype(np.uint8)
    luma[40:160, 400:600] = (128 + 60 * np.sin(rows / 9 + seed) * np.cos(columns / 13))[40:160, 400:600]
    for top in range(30, HEIGHT - 40, 14):
        for left in range(20, int(rng.integers(200, 380)), 7):
            type_letter(luma, rng, top, left)
    return luma


def type_letter(luma: np.ndarray, rng: np.random.Generator, top: int, left: int) -> None:
    luma[top : top + 7, left : left + 5] = np.where(rng.random((7, 5)) < 0.45, 30, luma[top : top + 7, left : left + 5])


def slides(num_frames: int) -> list[np.ndarray]:
    """Draw pages that follow one another; a fade of new frames between them makes up the frames that are not still."""
    shown = 5 * FPS
    fading = round(shown * (1 - STILL_SHARE))
    frames = []
    for index in range(num_frames):
        number, position = divmod(index, shown)
        weight = min(1.0, (position + 1) / fading)
        frames.append(((1 - weight) * page(number) + weight * page(number + 1)).astype(np.uint8))
    return frames


def recording(num_frames: int) -> list[np.ndarray]:
    """Draw one page; every fifth frame is new, with a letter more and the cursor elsewhere."""
    rng, desk, frames = np.random.default_rng(9), page(1), []
    every = round(1 / (1 - STILL_SHARE))
    for index in range(num_frames):
        step = index // every
        if index % every == 0:
            type_letter(desk, rng, HEIGHT - 30, 20 + 7 * (step % 80))
        shown = desk.copy()
        row, column = 60 + 5 * step % 200, 80 + 11 * step % 500
        shown[row : row + 16, column : column + 10] = 0
        frames.append(shown)
    return frames


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    """Encode losslessly by x264, as screen recorders do, so that still frames stay equal."""
    chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"qp": "0", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, luma in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.vstack((luma, chroma)), "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def still_share(path: Path) -> float:
    """Return the share of the decoded frames that equal the one before."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return sum(np.array_equal(a, b) for a, b in pairwise(frames)) / len(frames)


def packets(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(video=0) if packet.size]


def measure(clip: Path, folder: Path, upscaler: Upscaler, rounds: int) -> dict[str, object]:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    outputs = {reuse: folder / f"{clip.stem}-{reuse}.mp4" for reuse in seconds}
    shares = set()
    for _ in range(rounds):
        for reuse, output in outputs.items():
            started = time.perf_counter()
            report = enhance_file(clip, output, JobOptions.of(reuse=reuse, overwrite=True), upscaler=upscaler)
            seconds[reuse].append(time.perf_counter() - started)
            shares.add(report.reused_share)
    if packets(outputs[True]) != packets(outputs[False]):
        raise click.ClickException(f"{clip.name}: the output with reuse is another one than without")
    ratios = [without / with_ for with_, without in zip(seconds[True], seconds[False], strict=True)]
    return {
        "frames": report.num_frames,
        "still_frames_share": round(still_share(clip), 3),
        "reused_pixels_share": round(max(share for share in shares if share is not None), 4),
        "output_identical": True,
        "seconds_with": round(statistics.median(seconds[True]), 3),
        "seconds_without": round(statistics.median(seconds[False]), 3),
        "speedup": round(statistics.median(ratios), 2),
        "speedup_rounds": [round(ratio, 2) for ratio in ratios],
    }


@click.command()
@click.option("--model", default="fast", show_default=True)
@click.option("--backend", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--frames", "num_frames", default=250, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "reuse.json")
def main(model: str, backend: str, precision: str, num_frames: int, rounds: int, out: Path) -> None:
    upscaler = load_model(model, backend=backend, precision=precision)
    with tempfile.TemporaryDirectory() as name:
        folder, clips = Path(name), {"slides": slides, "screen recording": recording}
        results = {}
        for title, draw in clips.items():
            clip = folder / f"{title.replace(' ', '-')}.mp4"
            write_clip(clip, draw(num_frames))
            results[title] = measure(clip, folder, upscaler, rounds)
    values = {
        **describe_run(),
        "model": model,
        "engine": upscaler.engine.name,
        "input": f"{WIDTH}x{HEIGHT}",
        "rounds": rounds,
        "goal_speedup": GOAL,
        "clips": results,
    }
    out.write_text(json.dumps(values, indent=2) + "\n")
    click.echo(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
