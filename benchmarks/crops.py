"""Draw crops of real clips, upscaled by several models: what figures do not say.

    python benchmarks/crops.py --model fast --model video-real [--model FILE.pth] [--only tractor]

Each row is a clip of the data folder, each column a model; bicubic comes first. Networks with memory see the 13 frames
up to the one that is shown. Every pixel of the output is two pixels wide.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import cv2
import numpy as np
import torch
from torch import Tensor

import vsr
from vsr.color.resample import imresize
from vsr.pipeline.loading import load_model
from vsr.pipeline.upscaler import Upscaler
from vsr.quality.data_folder import data_folder
from vsr.quality.protocols import upscale_frames_with

SCALE = 4
SIDE = 56  # of a crop in source pixels
MARGIN = 32  # source pixels around it that networks see
RUN_UP = 12  # frames before the one that is shown
ZOOM = 2


@dataclass(frozen=True, slots=True)
class Crop:
    """Name a part of a clip: its middle as shares of width and height, and the number of the frame."""

    clip: str
    x: float
    y: float
    frame: int = 20


CROPS = {
    "forest, H.264": Crop("test_res_change-69bae7a1.h264", 0.38, 0.62, 12),
    "news, H.264": Crop("sample_h264_Ateme_iframe_3-2fc1ef40.ts", 0.45, 0.34, 2),
    "foreman, MPEG-4": Crop("frame0123-a3a55758.m4v", 0.52, 0.45, 4),
    "webcam, H.264": Crop("sample_with_vtt_subtitles-5ba4d21f.mkv", 0.5, 0.45),
    "tractor, VP8": Crop("out8-cf664fe2.webm", 0.62, 0.4),
    "walkers, H.264": Crop("no-correct-videoframe-format-af85d36e.mov", 0.5, 0.45),
    "car, H.263": Crop("MOV00006-82547646.3gp", 0.5, 0.5),
    "shelves, H.264": Crop("fire2-80a8d99c.mp4", 0.85, 0.5),
}


def frames_of(crop: Crop, clips: Path) -> tuple[list[Tensor], tuple[int, int]]:
    """Read the crop with its margin from the frames up to the one that is shown.

    Returns (3, h, w) uint8 RGB tensors, and the place (top, left) of the crop in them.
    """
    frames: list[np.ndarray] = []
    with vsr.open_video(clips / crop.clip) as video:
        for number, frame in enumerate(video):
            image = np.asarray(frame.data)
            frames.append(image if image.dtype == np.uint8 else (image // 257).astype(np.uint8))
            if number == crop.frame:
                break
    size = frames[-1].shape[:2]
    frames = [frame for frame in frames[-RUN_UP - 1 :] if frame.shape[:2] == size]
    top, left = (
        min(max(0, int(share * full) - SIDE // 2), full - SIDE) // 2 * 2
        for share, full in zip((crop.y, crop.x), size, strict=True)
    )
    first = (max(0, top - MARGIN), max(0, left - MARGIN))
    rows, columns = slice(first[0], top + SIDE + MARGIN), slice(first[1], left + SIDE + MARGIN)
    parts = [torch.from_numpy(frame[rows, columns].copy()).permute(2, 0, 1) for frame in frames]
    return parts, (top - first[0], left - first[1])


def upscaled(model: Upscaler | None, frames: Sequence[Tensor]) -> Tensor:
    """Upscale the last of the frames, bicubically without a model."""
    if model is None:
        height, width = frames[-1].shape[-2:]
        return imresize(frames[-1][None], (height * SCALE, width * SCALE))[0]
    seen = frames if model.card.recurrent else frames[-1:]
    *_, last = upscale_frames_with(model)(seen)
    return last


def cell(image: Tensor, place: tuple[int, int], label: str) -> np.ndarray:
    """Cut the crop out of an upscaled image, enlarge it and write the label on it: (H, W, 3) uint8 BGR."""
    top, left = (SCALE * start for start in place)
    part = image[:, top : top + SCALE * SIDE, left : left + SCALE * SIDE]
    bgr = np.ascontiguousarray(part.permute(1, 2, 0).numpy()[..., ::-1])
    large = cv2.resize(bgr, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(large, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, thickness, cv2.LINE_AA)
    return large


@click.command()
@click.option("--model", "names", multiple=True, required=True, help="LABEL=MODEL, or a model by name or file.")
@click.option("--only", multiple=True, help="Part of a row's name; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_suffix(".jpg"))
def main(names: tuple[str, ...], only: tuple[str, ...], out: Path) -> None:
    """Draw crops of real clips, upscaled by several models."""
    models: dict[str, Upscaler | None] = {"bicubic": None}
    for name in names:
        label, _, model = name.rpartition("=")
        models[label or Path(model).stem] = load_model(model, device="cpu")
    rows = []
    for name, crop in CROPS.items():
        if only and not any(part in name for part in only):
            continue
        frames, place = frames_of(crop, data_folder() / "clips")
        labels = [f"{name}: {label}" if label == "bicubic" else label for label in models]
        cells = [cell(upscaled(m, frames), place, label) for label, m in zip(labels, models.values(), strict=True)]
        rows.append(np.hstack(cells))
    if not cv2.imwrite(str(out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 80]):
        raise click.ClickException(f"{out}: cannot be written")


if __name__ == "__main__":
    main()
