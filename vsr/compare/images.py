"""Images beside each other in one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.compare.canvas import Canvas, Layout, Planes
from vsr.compare.views import Comparison, View, common_sizes, note_scaling
from vsr.events import Note, NoteCode, OnNote
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.media.images import lost_in, read_image, write_image

__all__ = ["write_images"]


def write_images(
    sources: Sequence[Path], output: Path, layout: Layout, labels: Sequence[str], note: OnNote
) -> Comparison:
    """Write images beside each other, or two on both sides of a line, to OUTPUT. Arguments as of `write_comparison`."""
    images = [read_image(source) for source in sources]
    depth = 16 if any(image.dtype == np.uint16 for image in images) else 8
    format_, color = _rgb_format(depth), _rgb_color(depth)
    sizes = common_sizes(sources, [(image.shape[1], image.shape[0]) for image in images], layout)
    canvas = Canvas(sizes, labels, layout, format_, color)
    planes: list[Planes] = []
    for source, image, size in zip(sources, images, sizes, strict=True):
        note_scaling(note, source, (image.shape[1], image.shape[0]), size)
        if image.ndim == 3 and image.shape[2] == 4:
            note(Note(NoteCode.OMISSION, f"{source}: alpha is left out"))
        batch = _batch_of_image(image)
        planes.append(View(_rgb_format(batch.color.bit_depth), 0, size).fitted(batch, format_, color))
    image = canvas.compose(planes)[0][0].permute(1, 2, 0).contiguous().numpy()
    for line in lost_in(output, image):
        note(Note(NoteCode.OMISSION, line))
    write_image(output, image)
    return Comparison(output, 1, canvas.width, canvas.height)


def _batch_of_image(image: np.ndarray) -> FrameBatch:
    pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]
    plane = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    return FrameBatch((plane,), (0,), (0,), Fraction(1), _rgb_color(8 if image.dtype == np.uint8 else 16))


def _rgb_format(depth: int) -> PixelFormat:
    return FORMATS["gbrp" if depth == 8 else f"gbrp{depth}le"]


def _rgb_color(depth: int) -> Color:
    return Color(Matrix.RGB, Primaries.BT709, Transfer.SRGB, Range.FULL, ChromaLocation.LEFT, depth)
