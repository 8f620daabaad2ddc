"""Draw a strip for every clip of Vid4: one crop, bicubic and by models, beside the truth.

    python scripts/make_strip.py [--models NAME]...

Writes benchmarks/strip_<clip>.png. The middle frame of the clip is reduced by MATLAB's bicubic (BI), upscaled again,
cropped and enlarged without smoothing, so that its pixels are seen. Labels give the luma PSNR of the whole frame.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import click
import numpy as np

from vsr.bench.strips import crop_of, png, strip, telling_corner
from vsr.color.resample import mod_crop, reduce_bicubic
from vsr.media.images import find_images, read_rgb
from vsr.models.cards import shipped_cards
from vsr.pipeline.loading import load_model
from vsr.quality.data_folder import data_folder
from vsr.quality.protocols import (
    Upscale,
    luma_psnr_db,
    upscale_bicubic,
    upscale_with,
)

ROOT = Path(__file__).parent.parent
CLIPS = ("calendar", "city", "foliage", "walk")
SCALE = 4


def strip_of(clip: str, methods: dict[str, Upscale]) -> np.ndarray:
    """Draw the middle frame of a clip: a column for every contender and one for the truth."""
    paths = find_images(data_folder() / "test" / "Vid4" / clip)
    truth = mod_crop(read_rgb(paths[len(paths) // 2]), SCALE)
    low = reduce_bicubic(truth, SCALE)
    corner = telling_corner(clip, truth, upscale_bicubic(SCALE)(low))
    columns = []
    for name, upscale in methods.items():
        image = upscale(low)
        columns.append((f"{name}  {luma_psnr_db(image[None], truth[None]):.2f} dB", crop_of(image, corner)))
    return strip([*columns, ("ground truth", crop_of(truth, corner))])


def usable(models: tuple[str, ...]) -> list[str]:
    """List the models that are shipped and upscale by 4; print a line about each of the others."""
    cards = shipped_cards()
    for name in models:
        if name not in cards:
            click.echo(f"{name} is left out: it is not shipped")
        elif cards[name].scale != SCALE:
            click.echo(f"{name} is left out: it upscales by {cards[name].scale}, not {SCALE}")
        elif cards[name].recurrent:
            click.echo(f"{name} is left out: it needs the frames of a video")
    usable = {name for name, card in cards.items() if card.scale == SCALE and not card.recurrent}
    return [name for name in models if name in usable]


@click.command()
@click.option("--models", multiple=True, default=("srresnet", "srgan"), show_default=True, help="Columns, in order.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks")
def main(models: tuple[str, ...], out: Path) -> None:
    """Write a strip of images for each clip of Vid4."""
    methods = {"bicubic": upscale_bicubic(SCALE)}
    methods |= {name: upscale_with(load_model(name, precision="fp32")) for name in usable(models)}
    for clip in CLIPS:
        path = out / f"strip_{clip}.png"
        image = strip_of(clip, methods)
        path.write_bytes(png(image))
        click.echo(f"{path.name}: {image.shape[1]}×{image.shape[0]}")


if __name__ == "__main__":
    main()
