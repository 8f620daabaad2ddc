"""The README's moving picture: the sample before and after, on both sides of a moving line.

    python scripts/make_moving_figure.py [--model video-fast] [--quality 60]

Enhances samples/sample.mp4 and writes samples/before_after.webp, an animated WebP of a part of every second frame:
upscaled bicubically by swscale on the left of the line, and by vsr on its right.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import click
import cv2
import numpy as np

import vsr
from vsr.compare.labels import labelled

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "samples" / "sample.mp4"
SIZE = (1280, 720)  # width and height of the output
CROP = (300, 40, 860, 360)  # x, y, width and height of the part that is shown, in pixels of the output
STEP = 2  # every second of 30 frames a second
LINE_WIDTH = 2
LABEL_WIDTH = 140  # of the right-hand label


def cropped(path: Path) -> Iterator[np.ndarray]:
    """Decode the shown part of every frame: (360, 860, 3) uint8 RGB, resized bicubically where the video is smaller."""
    x, y, width, height = CROP
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % STEP == 0:
                shown = frame.reformat(*SIZE, "rgb24", interpolation="BICUBIC").to_ndarray()
                yield shown[y : y + height, x : x + width].copy()


def parted(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """Put `before` on the left of a white line and `after` on its right; share: of the width, on the left."""
    column = round(share * before.shape[1])
    image = after.copy()
    image[:, :column] = before[:, :column]
    image[:, max(0, column - LINE_WIDTH // 2) : column + LINE_WIDTH // 2] = 255
    return image


@click.command()
@click.option("--model", default="video-fast", show_default=True)
@click.option("--quality", default=60, show_default=True, help="Of the WebP, 1 to 100.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "samples" / "before_after.webp")
def main(model: str, quality: int, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        enhanced = Path(folder) / "enhanced.mp4"
        report = vsr.enhance(SAMPLE, enhanced, model=model, crf=10)
        click.echo(f"{model} on {report.engine}")
        pairs = list(zip(cropped(SAMPLE), cropped(enhanced), strict=True))
    images = []
    for index, (before, after) in enumerate(pairs):
        share = 0.5 - 0.4 * math.cos(2 * math.pi * index / len(pairs))  # there and back, so that it repeats smoothly
        after[:, -LABEL_WIDTH:] = labelled(after[:, -LABEL_WIDTH:], f"vsr, {model}")
        images.append(cv2.cvtColor(parted(labelled(before, "bicubic"), after, share), cv2.COLOR_RGB2BGR))
    animation = cv2.Animation()
    animation.frames, animation.durations = images, [round(1000 * STEP / 30)] * len(images)
    cv2.imwriteanimation(str(out), animation, [cv2.IMWRITE_WEBP_QUALITY, quality])
    click.echo(f"{out}: {out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
