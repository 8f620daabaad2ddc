"""Draw the image of docs/models.md: the sample before and after, cut from the output of vsr.

    python scripts/make_figures.py

Enhances a moment of samples/sample.mp4 with two models and writes samples/before_after.jpg: crops of one frame,
upscaled bicubically by swscale on the left, and by vsr beside it.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2
import numpy as np

import vsr
from vsr.compare.labels import labelled

ROOT = Path(__file__).parent.parent
CROPS = ((690, 80, 480, 230), (200, 10, 480, 230), (560, 400, 480, 230))  # x, y, width, height at x4
MODELS = ("fast", "video-fast")
ROW_HEIGHT = 200
GAP = 8


def frame_at(path: Path, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read frame `index` as (H, W, 3) uint8 RGB, resized by swscale's bicubic if a (width, height) is given."""
    with av.open(str(path)) as container:
        for position, frame in enumerate(container.decode(video=0)):
            if position == index:
                width, height = size or (frame.width, frame.height)
                shown = frame.reformat(width, height, "rgb24", interpolation="BICUBIC")
                return np.asarray(shown.to_ndarray())
    raise click.ClickException(f"{path} has no frame {index}")


def row(images: dict[str, np.ndarray], crop: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = crop
    parts = []
    for name, image in images.items():
        part = image[y : y + height, x : x + width]
        scaled = cv2.resize(part, (round(width * ROW_HEIGHT / height), ROW_HEIGHT), interpolation=cv2.INTER_LANCZOS4)
        parts += [labelled(scaled, name), np.full((ROW_HEIGHT, GAP, 3), 255, np.uint8)]
    return np.hstack(parts[:-1])


@click.command()
@click.option("--frame", default=60, help="Which frame of the sample to show; it has 30 a second.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "samples" / "before_after.jpg")
def main(frame: int, out: Path) -> None:
    sample = ROOT / "samples" / "sample.mp4"
    images = {"bicubic": frame_at(sample, frame, (1280, 720))}
    with tempfile.TemporaryDirectory() as folder:
        enhanced = Path(folder) / "enhanced.mp4"
        for model in MODELS:
            start = Fraction(frame, 30)
            report = vsr.enhance(
                sample, enhanced, model=model, crf=12, start_seconds=start, duration_seconds=0.1, overwrite=True
            )
            images[f"vsr, {model}"] = frame_at(enhanced, 0)
            click.echo(f"{model} on {report.engine}")
    rows = [row(images, crop) for crop in CROPS]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    image = np.vstack([part for r in rows for part in (r, gap)][:-1])
    cv2.imwrite(str(out), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
