"""Score models on video that went through a codec, as most video has.

    python benchmarks/real.py --model fast --model fast-real --model video-real [--squeezenet FILE]

The clips of Vid4 and those held out of `train/video` are reduced by MATLAB's bicubic, converted to 4:2:0, encoded and
decoded as one clip each, and upscaled from the decoded planes as `vsr enhance` does. "clean" leaves the codec out.
Luma and RGB PSNR of all frames, no crop, and LPIPS of every fourth frame: the mean of each clip, then of the clips.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import numpy as np
import torch
from machine import describe_run
from torch import Tensor

from vsr.color.resample import imresize, mod_crop, reduce_bicubic
from vsr.frames import FrameBatch
from vsr.media.images import find_images, read_rgb
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import load_model
from vsr.pipeline.processor import make_processor
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.data_folder import data_folder
from vsr.quality.lpips import LPIPS, load_lpips
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.train.codec import CODECS, SD_COLOR, YUV420, rgb_of_yuv420, round_trip, yuv420_of_rgb
from vsr.train.footage import find_material, read_footage

SCALE = 4
BATCH = 4  # frames at a time
LPIPS_EVERY = 4
HELD_OUT_FRAMES = 16
SETS = ("Vid4", "held-out")
# x264's assembly for macroblock-tree differs from run to run, by up to 0.01 dB here.
_X264 = {"preset": "medium", "x264-params": "no-asm=1"}
_MPEG4 = {"qmin": "6", "qmax": "6", "g": "250", "bf": "2"}
ENCODINGS: dict[str, tuple[str, dict[str, str]] | None] = {
    "clean": None,
    "x264 crf 23": ("h264", {"crf": "23", **_X264}),
    "x264 crf 28": ("h264", {"crf": "28", **_X264}),
    "mpeg2 1.5 Mbit/s": ("mpeg2", {"b": "1500000", "g": "15", "bf": "2"}),
    "mpeg4 q 6": ("mpeg4", _MPEG4),
    "vp9 crf 36": ("vp9", {"crf": "36", "b": "0", "deadline": "good", "cpu-used": "2"}),
}


Scores = dict[str, dict[str, list[float]]]  # by model, then by measure: one value a clip


def clips_of(data: Path, sets: tuple[str, ...]) -> Iterator[tuple[str, str, Tensor]]:
    """Read the clips: the set, the name, and (T, 3, H, W) uint8 RGB whose sides are multiples of 2 x scale."""
    if "Vid4" in sets:
        for folder in sorted((data / "test" / "Vid4").iterdir()):
            frames = [mod_crop(read_rgb(path), 2 * SCALE) for path in find_images(folder)]
            yield "Vid4", folder.name, torch.stack(frames)
    if "held-out" in sets:
        _, held_out = find_material([data / "train" / "video"], HELD_OUT_FRAMES).split()
        for source in held_out.clips:
            footage = read_footage(replace(source, num_parts=1), HELD_OUT_FRAMES, 2 * SCALE, np.random.default_rng(0))
            yield "held-out", source.path.stem, footage.rgb


def coded(low: FrameBatch, encoding: tuple[str, dict[str, str]] | None) -> FrameBatch:
    """Encode and decode low-resolution frames."""
    if encoding is None:
        return low
    name, options = encoding
    return round_trip(low, CODECS[name], options)


def upscaled(model: Upscaler | None, low: FrameBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """Upscale a clip, bicubically without a model; give the luma (n, 1, H, W) and RGB (n, 3, H, W) of some frames."""
    size = (low.height * SCALE, low.width * SCALE)
    if model is None:
        for batch in batches(low):
            yield imresize(batch.planes[0], size), imresize(rgb_of_yuv420(batch), size)
        return
    processor = make_processor(model, Target(size[1], size[0], YUV420, SD_COLOR))
    for batch in batches(low):
        for result in processor.push(batch):
            out = result()
            yield out.planes[0], rgb_of_yuv420(out)
    for result in processor.flush():
        out = result()
        yield out.planes[0], rgb_of_yuv420(out)


def batches(frames: FrameBatch) -> Iterator[FrameBatch]:
    for first in range(0, frames.num_frames, BATCH):
        part = slice(first, first + BATCH)
        planes = tuple(plane[part] for plane in frames.planes)
        yield FrameBatch(planes, frames.pts[part], frames.durations[part], frames.time_base, frames.color)


def score_clip(high: Tensor, low: FrameBatch, model: Upscaler | None, lpips: LPIPS | None) -> dict[str, float]:
    """Compute the mean of each measure over the frames of a clip."""
    values: dict[str, list[float]] = defaultdict(list)
    number = 0
    for luma, rgb in upscaled(model, low):
        for frame in range(len(luma)):
            truth = high[number : number + 1]
            image = rgb[frame : frame + 1]
            values["luma_psnr_db"].append(psnr_db(luma[frame : frame + 1], luma_bt601(truth)))
            values["rgb_psnr_db"].append(psnr_db(image, truth))
            if lpips is not None and number % LPIPS_EVERY == 0:
                with torch.inference_mode():
                    values["lpips"].append(float(lpips(image / 255, truth / 255)))
            number += 1
    assert number == len(high)
    return {name: fmean(parts) for name, parts in values.items()}


@click.command()
@click.option("--model", "names", multiple=True, required=True, help="A model by name or .safetensors file.")
@click.option("--set", "sets", multiple=True, type=click.Choice(SETS), default=SETS, show_default=True)
@click.option("--encoding", "encodings", multiple=True, type=click.Choice(list(ENCODINGS)), default=list(ENCODINGS))
@click.option("--squeezenet", type=click.Path(path_type=Path), help="SqueezeNet with LPIPS heads; adds LPIPS.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".json"))
def main(
    names: tuple[str, ...],
    sets: tuple[str, ...],
    encodings: tuple[str, ...],
    squeezenet: Path | None,
    backend: str,
    out: Path,
) -> None:
    """Score models on video that went through a codec."""
    models: dict[str, Upscaler | None] = {"bicubic": None}
    models |= {Path(name).stem: load_model(name, device="cpu", backend=backend) for name in names}
    lpips = load_lpips(squeezenet) if squeezenet else None
    started = time.monotonic()
    scores: dict[str, dict[str, Scores]] = {}
    for kind, clip, high in clips_of(data_folder(), sets):
        small = torch.stack([reduce_bicubic(image, SCALE) for image in high])
        planes = yuv420_of_rgb(small / 255)
        for encoding in encodings:
            low = coded(planes, ENCODINGS[encoding])
            rows = scores.setdefault(kind, {}).setdefault(encoding, {})
            for name, model in models.items():
                for measure, value in score_clip(high, low, model, lpips).items():
                    rows.setdefault(name, {}).setdefault(measure, []).append(value)
        click.echo(f"{clip}: {time.monotonic() - started:.0f} s", err=True)
    means = {kind: {e: means_of(rows) for e, rows in by.items()} for kind, by in scores.items()}
    click.echo(table(means, list(models)))
    head = describe_run() | {"frames": "Vid4: all; held-out: 11 clips of at most 16", "sets": means}
    out.write_text(json.dumps(head | {"seconds": round(time.monotonic() - started, 1)}, indent=2) + "\n")


def means_of(rows: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {name: {measure: round(fmean(v), 4) for measure, v in by.items()} for name, by in rows.items()}


def table(means: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]], names: list[str]) -> str:
    """Format Markdown tables: luma PSNR, RGB PSNR and LPIPS by set and encoding; the mean leaves "clean" out."""
    lines: list[str] = []
    for kind, by in means.items():
        coded_only = [rows for encoding, rows in by.items() if encoding != "clean"] or list(by.values())
        mean = {n: {m: fmean(r[n][m] for r in coded_only) for m in coded_only[0][n]} for n in names}
        lines += [
            "",
            f"| {kind}: luma dB / RGB dB / LPIPS | " + " | ".join(names) + " |",
            "|---" * (1 + len(names)) + "|",
        ]
        for encoding, rows in [*by.items(), ("mean of the encoded", mean)]:
            lines.append(f"| {encoding} | " + " | ".join(cell(rows[name]) for name in names) + " |")
    return "\n".join(lines)


def cell(row: Mapping[str, float]) -> str:
    parts = [f"{row['luma_psnr_db']:.2f}", f"{row['rgb_psnr_db']:.2f}"]
    return " / ".join(parts + ([f"{row['lpips']:.3f}"] if "lpips" in row else []))


if __name__ == "__main__":
    main()
