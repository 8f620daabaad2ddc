"""The README's picture: the sample before and after, cut from the tool's own output.

    python scripts/make_figures.py

Enhances samples/sample.mp4 with the default model and writes samples/before_after.jpg: crops of one frame,
upscaled bicubically by swscale on the left and by vsr on the right.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import click
import cv2
import numpy as np

import vsr

ROOT = Path(__file__).parent.parent
CROPS = ((690, 80, 480, 230), (200, 10, 480, 230), (560, 400, 480, 230))  # x, y, width, height at x4
ROW_HEIGHT = 288
GAP = 8


def frame_at(path: Path, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """Frame `index` as (H, W, 3) uint8 RGB, resized by swscale's bicubic where a (width, height) is given."""
    with av.open(str(path)) as container:
        for position, frame in enumerate(container.decode(video=0)):
            if position == index:
                width, height = size or (frame.width, frame.height)
                shown = frame.reformat(width, height, "rgb24", interpolation="BICUBIC")
                return np.asarray(shown.to_ndarray())
    raise click.ClickException(f"{path} has no frame {index}")


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    picture = np.ascontiguousarray(picture)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, text, (9, 23), font, 0.6, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.putText(picture, text, (9, 23), font, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def row(before: np.ndarray, after: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = crop
    parts = []
    for picture, name in ((before, "bicubic"), (after, "vsr")):
        part = picture[y : y + height, x : x + width]
        scaled = cv2.resize(part, (round(width * ROW_HEIGHT / height), ROW_HEIGHT), interpolation=cv2.INTER_LANCZOS4)
        parts += [labelled(scaled, name), np.full((ROW_HEIGHT, GAP, 3), 255, np.uint8)]
    return np.hstack(parts[:-1])


@click.command()
@click.option("--frame", default=60, help="Which frame to show.")
@click.option("--model", default="auto")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "samples" / "before_after.jpg")
def main(frame: int, model: str, out: Path) -> None:
    sample = ROOT / "samples" / "sample.mp4"
    with tempfile.TemporaryDirectory() as folder:
        enhanced = Path(folder) / "enhanced.mp4"
        report = vsr.enhance(sample, enhanced, model=model, crf=12)
        after = frame_at(enhanced, frame)
    before = frame_at(sample, frame, (report.width, report.height))
    rows = [row(before, after, crop) for crop in CROPS]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    picture = np.vstack([part for r in rows for part in (r, gap)][:-1])
    cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    click.echo(f"{out}: {report.model} on {report.engine}")


if __name__ == "__main__":
    main()
