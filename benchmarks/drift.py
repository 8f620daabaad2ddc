"""Measure whether the memory of a recurrent network drifts over thousands of frames.

    python benchmarks/drift.py [--model video-fast] [--model video]

Two sources of 96x72 pixels, made from the middle of Vid4's city: one image for 2,000 frames, with noise of a standard
deviation of one code that differs from frame to frame, and its 34 frames played to and fro for 5,000 frames. Each is
upscaled as `vsr enhance` does it, with the restarts of the model's card and without any. Mean luma PSNR of every 500
frames: it must not fall with time.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import torch
from machine import describe_run
from torch import Tensor

from vsr.color.resample import reduce_bicubic
from vsr.frames import FrameBatch
from vsr.media.images import find_images, read_rgb
from vsr.models.weights import load_net, resolve, save_model_file
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import load_model
from vsr.pipeline.processor import make_processor
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.data_folder import data_folder
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.train.codec import SD_COLOR, YUV420, yuv420_of_rgb

SCALE, WIDTH, HEIGHT = 4, 96, 72
BATCH, BLOCK = 10, 500  # frames
STILL_FRAMES, MOVING_FRAMES = 2_000, 5_000
NEVER = 1_000_000  # frames, of a restart interval

Source = Callable[[int], tuple[FrameBatch, Tensor]]  # of a frame number: the frame and its true luma


def read_clip() -> list[tuple[Tensor, FrameBatch]]:
    """Read the middle of city: for each frame the true luma (1, 1, H, W) and the small planes."""
    frames = []
    for path in find_images(data_folder() / "test" / "Vid4" / "city"):
        high = read_rgb(path)[None]
        top, left = (high.shape[2] - HEIGHT * SCALE) // 2, (high.shape[3] - WIDTH * SCALE) // 2
        high = high[:, :, top : top + HEIGHT * SCALE, left : left + WIDTH * SCALE]
        frames.append((luma_bt601(high), yuv420_of_rgb(reduce_bicubic(high[0], SCALE)[None] / 255)))
    return frames


def still(clip: list[tuple[Tensor, FrameBatch]]) -> Source:
    """Show the first frame for ever, with other noise each time."""
    truth, frame = clip[0]

    def at(number: int) -> tuple[FrameBatch, Tensor]:
        noise = torch.randn(frame.planes[0].shape, generator=torch.Generator().manual_seed(number))
        luma = (frame.planes[0] + noise).round().clamp(0, 255).to(torch.uint8)
        return replace(frame, planes=(luma, *frame.planes[1:])), truth

    return at


def to_and_fro(clip: list[tuple[Tensor, FrameBatch]]) -> Source:
    """Play the clip forwards and backwards, for ever."""
    order = [*range(len(clip)), *range(len(clip) - 2, 0, -1)]

    def at(number: int) -> tuple[FrameBatch, Tensor]:
        truth, frame = clip[order[number % len(order)]]
        return frame, truth

    return at


def score(model: Upscaler, source: Source, num_frames: int) -> list[float]:
    """Upscale a source; return the luma PSNR in dB of each frame."""
    processor = make_processor(model, Target(WIDTH * SCALE, HEIGHT * SCALE, YUV420, SD_COLOR))
    psnrs: list[float] = []
    for first in range(0, num_frames + BATCH, BATCH):
        batch = _joined([source(number)[0] for number in range(first, first + BATCH)], first)
        results = processor.push(batch) if first < num_frames else processor.flush()
        for result in results:
            for luma in result().planes[0]:
                psnrs.append(psnr_db(luma[None], source(len(psnrs))[1]))
    assert len(psnrs) == num_frames
    return psnrs


def _joined(frames: list[FrameBatch], first_pts: int) -> FrameBatch:
    planes = tuple(torch.cat(parts) for parts in zip(*(frame.planes for frame in frames), strict=True))
    pts = tuple(range(first_pts, first_pts + len(frames)))
    return replace(frames[0], planes=planes, pts=pts, durations=(1,) * len(frames))


def without_restarts(model: str, folder: Path) -> Path:
    """Write the model with a card that never restarts."""
    card, path = resolve(model)
    out = folder / f"{card.name}.safetensors"
    save_model_file(out, replace(card, restart_interval=NEVER), load_net(card, path).state_dict())
    return out


@click.command()
@click.option("--model", "names", multiple=True, default=("video-fast", "video"), show_default=True)
@click.option("--backend", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".json"))
def main(names: tuple[str, ...], backend: str, out: Path) -> None:
    """Measure whether a recurrent network drifts over thousands of frames."""
    started = time.monotonic()
    clip = read_clip()
    sources = {"still": (still(clip), STILL_FRAMES), "to and fro": (to_and_fro(clip), MOVING_FRAMES)}
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            variants = {name: name, f"{name}, no restarts": str(without_restarts(name, Path(folder)))}
            for label, model in variants.items():
                upscaler = load_model(model, device="cpu", backend=backend)
                for kind, (source, num_frames) in sources.items():
                    psnrs = iter(score(upscaler, source, num_frames))
                    blocks = [fmean(islice(psnrs, BLOCK)) for _ in range(num_frames // BLOCK)]
                    results.setdefault(kind, {})[label] = [round(mean, 3) for mean in blocks]
                    click.echo(f"{kind}, {label}: " + " ".join(f"{mean:.3f}" for mean in blocks))
    head = describe_run() | {"frames_per_mean": BLOCK, "mean_luma_psnr_db": results}
    out.write_text(json.dumps(head | {"seconds": round(time.monotonic() - started, 1)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
