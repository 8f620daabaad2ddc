"""Score models on Vid4 encoded by a video codec: PSNR on compressed low-resolution clips.

    python scripts/score_encoded.py --model fast [--model runs/fast-real/weights.safetensors] [--crf 23 --crf 25]

Each clip of Vid4 is reduced by MATLAB's bicubic, encoded by libx264 as one clip (preset medium, BT.601), decoded and
upscaled from its decoded planes as `vsr enhance` does. Luma PSNR of all frames, no crop: the mean of each clip, then
of the clips. All models must be of one scale.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from pathlib import Path

import av
import click
import torch
from torch import Tensor

from vsr.color.resample import imresize, mod_crop, reduce_bicubic
from vsr.frames import FrameBatch
from vsr.media.images import find_images, read_rgb
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import load_model
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.data_folder import data_folder
from vsr.quality.metrics import luma_bt601, psnr_db
from vsr.train.codec import SD_COLOR, YUV420, x264_round_trip, yuv420_of_rgb
from vsr.version import __version__

ROOT = Path(__file__).parent.parent
PRESET = "medium"
REPEATABLE = "no-asm=1"  # x264's assembly for macroblock-tree differs from run to run, by up to 0.01 dB here
BATCH = 4  # frames of Vid4's size at a time


def frames_of(frames: FrameBatch, first: int, end: int) -> FrameBatch:
    planes = tuple(plane[first:end] for plane in frames.planes)
    return FrameBatch(planes, frames.pts[first:end], frames.durations[first:end], frames.time_base, frames.color)


def upscaled_luma(model: Upscaler | None, frames: FrameBatch, scale: int) -> Tensor:
    """Upscale the luma of frames, bicubically without a model, to (N, 1, H, W) uint8."""
    height, width = frames.height * scale, frames.width * scale
    if model is None:
        return imresize(frames.planes[0], (height, width))
    return model.upscale(frames, Target(width, height, YUV420, SD_COLOR)).planes[0]


def clip_scores(
    folder: Path, models: dict[str, Upscaler | None], scale: int, crfs: tuple[int, ...]
) -> dict[int, dict[str, float]]:
    """Compute the mean PSNR in dB of a clip, by CRF and by model."""
    high = torch.stack([mod_crop(read_rgb(path), 2 * scale) for path in find_images(folder)])
    low = yuv420_of_rgb(torch.stack([reduce_bicubic(image, scale) for image in high]) / 255)
    targets = torch.cat([luma_bt601(image[None]) for image in high])
    scores: dict[int, dict[str, float]] = {}
    for crf in crfs:
        coded = x264_round_trip(low, {"crf": str(crf), "preset": PRESET, "x264-params": REPEATABLE})
        sums = dict.fromkeys(models, 0.0)
        for first in range(0, len(high), BATCH):
            batch = frames_of(coded, first, first + BATCH)
            for name, model in models.items():
                luma = upscaled_luma(model, batch, scale)
                pairs = zip(luma, targets[first : first + BATCH], strict=True)
                sums[name] += sum(psnr_db(out, target) for out, target in pairs)
        scores[crf] = {name: total / len(high) for name, total in sums.items()}
    return scores


@click.command()
@click.option("--model", "names", multiple=True, required=True, help="A model by name or .safetensors file.")
@click.option("--crf", "crfs", type=int, multiple=True, default=(23, 25, 28), show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "encoded.json")
def main(names: tuple[str, ...], crfs: tuple[int, ...], device: str, out: Path) -> None:
    """Score models on Vid4 encoded by H.264."""
    loaded = {name: load_model(name, device=device, precision="fp32") for name in names}
    scale, *other_scales = {upscaler.card.scale for upscaler in loaded.values()}
    if other_scales:
        raise click.UsageError("the models are of different scales")
    models: dict[str, Upscaler | None] = {"bicubic": None, **loaded}
    started = time.monotonic()
    folder = data_folder() / "test" / "Vid4"
    clips = {path.name: clip_scores(path, models, scale, crfs) for path in sorted(folder.iterdir())}
    means = {crf: {n: sum(c[crf][n] for c in clips.values()) / len(clips) for n in models} for crf in crfs}
    click.echo(table({**clips, "mean": means}, list(models), crfs))
    result = {
        "command": " ".join(["python", "scripts/score_encoded.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"vsr": __version__, "torch": torch.__version__, "ffmpeg": str(av.ffmpeg_version_info)},
        "encoder": f"libx264, preset {PRESET}, {REPEATABLE}",
        "measure": "luma PSNR in dB of all frames, no crop",
        "mean_psnr_db": _rounded(means),
        "clip_psnr_db": {name: _rounded(scores) for name, scores in clips.items()},
        "seconds": round(time.monotonic() - started, 1),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")


def table(clips: dict[str, dict[int, dict[str, float]]], names: list[str], crfs: tuple[int, ...]) -> str:
    """Format a Markdown table: one row per clip and CRF; after bicubic, each model with its gain over it."""
    lines = ["| clip | CRF | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for clip, scores in clips.items():
        for crf in crfs:
            row = scores[crf]
            cells = [f"{row[n]:.2f}" + ("" if n == "bicubic" else f" ({row[n] - row['bicubic']:+.2f})") for n in names]
            lines.append(f"| {clip} | {crf} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rounded(scores: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {f"crf {crf}": {name: round(value, 3) for name, value in row.items()} for crf, row in scores.items()}


if __name__ == "__main__":
    main()
