"""Lay out the images of a comparison, side by side or parted by a moving line, and label them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.color.pixel_formats import PixelFormat
from vsr.color.rgb import planes_of_rgb
from vsr.compare.labels import labelled
from vsr.frames import Color

__all__ = ["Canvas", "Layout", "Planes"]

Layout = Literal["side", "split"]
Planes = tuple[Tensor, ...]  # as in `FrameBatch`, of one frame and without alpha

_PERIOD_SECONDS = 8.0  # of the line's way there and back
_REACH = 0.45  # of the width, from the middle
_LABEL_LINES = 360  # of an image in which a label has its own size; it doubles as they do
_LABEL_ROOM = 40  # lines that the label's text fits in


class Canvas:
    """Compose frames out of images in the samples of the output."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        labels: Sequence[str],
        layout: Layout,
        format_: PixelFormat,
        color: Color,
    ) -> None:
        """Prepare frames and labels.

        Args:
            sizes: (width, height) of each image in pixels; two equal ones for "split".
            labels: text for the upper corner of each image; "" for none.
            layout: "side" or "split".
            format_: pixel format of the output.
            color: meaning of the output's samples.
        """
        self._format, self.color, self._layout = format_, color, layout
        self._step = (1 << format_.chroma_shift[0], 1 << format_.chroma_shift[1])
        widths = [_rounded_up(width, self._step[0]) for width, _ in sizes]
        self._lefts = [0, *accumulate(widths[:-1])] if layout == "side" else [0, 0]
        self.width = self._lefts[-1] + widths[-1]
        self.height = _rounded_up(max(height for _, height in sizes), self._step[1])
        self._black = self._flat(self.width, 0.0)
        self._line_width = _rounded_up(max(2, self.height // 360), self._step[0])
        self._line = self._flat(self._line_width, 1.0)
        self._labels = [
            self._label(text, left, width)
            for text, left, width in zip(labels, self._lefts, widths, strict=True)
            if text
        ]
        if layout == "split" and len(labels) == 2 and labels[1]:
            planes, _ = self._label(labels[1], 0, self.width // 2)
            left = (self.width - planes[0].shape[-1]) // self._step[0] * self._step[0]
            self._labels[-1] = (planes, left)

    def compose(self, images: Sequence[Planes | None], seconds: float = 0.0) -> Planes:
        """Compose one frame.

        Args:
            images: planes in the canvas's samples, each of its size; None for black.
            seconds: time since the start, by which the line of "split" moves; it begins in the middle.
        """
        frame = tuple(plane.clone() for plane in self._black)
        cuts = [0] * len(images)
        if self._layout == "split":
            cuts[1] = self._line_left(seconds)
            images = [self._black if image is None else image for image in images]
        for image, left, cut in zip(images, self._lefts, cuts, strict=True):
            self._paste(frame, image, left, cut)
        if self._layout == "split":
            self._paste(frame, self._line, cuts[1])
        for planes, left in self._labels:
            self._paste(frame, planes, left)
        return frame

    def _line_left(self, seconds: float) -> int:
        share = 0.5 + _REACH * math.sin(2 * math.pi * seconds / _PERIOD_SECONDS)
        left = round(self.width * share) - self._line_width // 2
        return max(0, min(self.width - self._line_width, left)) // self._step[0] * self._step[0]

    def _paste(self, frame: Planes, image: Planes | None, left: int, cut: int = 0) -> None:
        """Put an image into a frame, `left` columns from its edge, without the image's first `cut` columns."""
        for target, plane in zip(frame, image or (), strict=False):
            shift = self._format.chroma_shift[0] if plane.shape[1] == 2 else 0
            part = plane[..., cut >> shift :]
            start = (left + cut) >> shift
            target[..., : part.shape[-2], start : start + part.shape[-1]] = part

    def _flat(self, width: int, value: float) -> Planes:
        return self._planes(torch.full((1, 3, self.height, width), value))

    def _planes(self, rgb: Tensor) -> Planes:
        return planes_of_rgb(rgb, self._format, self.color)

    def _label(self, text: str, left: int, width: int) -> tuple[Planes, int]:
        """Draw a label for an image of that width; return its planes and its left column."""
        times = max(1, self.height // _LABEL_LINES)
        image = labelled(np.zeros((_LABEL_ROOM, width // times, 3), np.uint8), text)
        box = np.asarray(image.max(2) > 0)  # its ground is not quite black
        image = image[: int(box.any(1).sum()), : int(box.any(0).sum())]
        image = cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
        height, width = (side // step * step for side, step in zip(image.shape[:2], self._step[::-1], strict=True))
        rgb = torch.from_numpy(image[: min(height, self.height), :width]).permute(2, 0, 1)[None].float() / 255
        return self._planes(rgb), left


def _rounded_up(length: int, step: int) -> int:
    return -(-length // step) * step
