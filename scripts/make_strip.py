"""A look at every clip of Vid4: one crop, bicubic and by models, beside the truth.

    python scripts/make_strip.py [--models NAME]...

Writes benchmarks/strip_<clip>.png. The middle frame of the clip is reduced by MATLAB's bicubic (BI), upscaled again,
cropped and enlarged without smoothing, so that its pixels are seen. Labels give the luma PSNR of the whole frame.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import cv2
import numpy as np
from make_figures import GAP, ROOT, labelled
from torch import Tensor

from vsr.media.pictures import find_images, read_rgb
from vsr.media.resample import mod_crop, reduce_bicubic
from vsr.models.cards import shipped_cards
from vsr.pipeline.evaluate import (
    Upscale,
    luma_psnr_db,
    upscale_bicubic,
    upscale_with,
)
from vsr.pipeline.upscaler import load_model

VID4 = Path(os.environ.get("VSR_DATA", "../shared/data")) / "test" / "Vid4"
SCALE = 4
SIDE = (132, 112)  # width and height of a crop
ENLARGE = 3
CORNERS = {  # x, y of what tells most: lettering over stripes, a facade, a car behind leaves, a face over a coat
    "calendar": (164, 148),
    "city": (448, 160),
    "foliage": (340, 228),
    "walk": (310, 84),
}


def enlarged(picture: Tensor, corner: tuple[int, int]) -> np.ndarray:
    """(3, H, W) RGB to the crop at a corner, (h, w, 3), every pixel a square."""
    (x, y), (width, height) = corner, SIDE
    crop = picture[:, y : y + height, x : x + width]
    return crop.repeat_interleave(ENLARGE, 1).repeat_interleave(ENLARGE, 2).permute(1, 2, 0).numpy()


def strip(clip: str, columns: dict[str, Upscale]) -> np.ndarray:
    """The middle frame of a clip, a column for every way up and one for the truth."""
    paths = find_images(VID4 / clip)
    truth = mod_crop(read_rgb(paths[len(paths) // 2]), SCALE)
    low = reduce_bicubic(truth, SCALE)
    pictures = []
    for name, upscale in columns.items():
        picture = upscale(low)
        label = f"{name}  {luma_psnr_db(picture[None], truth[None]):.2f} dB"
        pictures.append(labelled(enlarged(picture, CORNERS[clip]), label))
    pictures.append(labelled(enlarged(truth, CORNERS[clip]), "ground truth"))
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, gap)][:-1])


def usable(models: tuple[str, ...]) -> list[str]:
    """Those of the models that are shipped and upscale by 4; a line is said about each of the others."""
    cards = shipped_cards()
    for name in models:
        if name not in cards:
            click.echo(f"{name} is left out: it is not shipped")
        elif cards[name].scale != SCALE:
            click.echo(f"{name} is left out: it upscales by {cards[name].scale}, not {SCALE}")
    return [name for name in models if name in cards and cards[name].scale == SCALE]


@click.command()
@click.option("--models", multiple=True, default=("srresnet", "srgan"), show_default=True, help="Columns, in order.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks")
def main(models: tuple[str, ...], out: Path) -> None:
    """Write a strip of pictures for each clip of Vid4."""
    columns = {"bicubic": upscale_bicubic(SCALE)}
    columns |= {name: upscale_with(load_model(name, precision="fp32")) for name in usable(models)}
    for clip in CORNERS:
        path = out / f"strip_{clip}.png"
        picture = cv2.cvtColor(strip(clip, columns), cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
            raise click.ClickException(f"{path} cannot be written")
        click.echo(f"{path.name}: {picture.shape[1]}×{picture.shape[0]}")


if __name__ == "__main__":
    main()
