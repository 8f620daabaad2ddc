"""Compare an engine's output for the first batch of a job with that of a trusted engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from vsr.models.cards import ModelCard
from vsr.pipeline.tiles import TiledNetwork

__all__ = ["GATE_TOLERANCE", "PrecisionGate"]

GATE_TOLERANCE = 2 / 255  # largest difference anywhere: two code values of 8 bit

_CROP_SIDE = 128  # input pixels, at least
_CROP_INTERIOR = 64  # input pixels of a crop's side that see nothing outside of the crop, at least


class PrecisionGate:
    """Compare outputs for one batch, (N, C, H, W) on the device, with those of a trusted engine.

    The engine in question is built for whole frames, maybe for minutes; the trusted one may be slow. So
    it is the trusted one that runs on a crop, and the part that the crop's borders reach is left out. Where that
    differs it runs on whole frames too: some networks see further than their halo says.
    Of several outputs the first, the image, is compared.
    """

    def __init__(self, trusted: TiledNetwork, inputs: tuple[Tensor, ...]) -> None:
        self._trusted, self._inputs = trusted, inputs
        self._rows, self._columns = (_spans(length, trusted.card) for length in inputs[0].shape[-2:])
        crop = trusted(*(x[..., self._rows.crop, self._columns.crop] for x in inputs))[0]
        self._crop = crop[..., self._rows.inside_crop, self._columns.inside_crop].clamp(0, 1)
        self._whole: Tensor | None = None

    def difference(self, out: Tensor) -> float:
        """Return the largest difference between images in [0, 1]; `GATE_TOLERANCE` passes. NaN where there is NaN."""
        found = _largest(out[..., self._rows.inside, self._columns.inside], self._crop)
        if found <= GATE_TOLERANCE or math.isnan(found) or self._crop.shape == out.shape:
            return found
        if self._whole is None:
            self._whole = self._trusted(*self._inputs)[0].clamp(0, 1)
        return _largest(out, self._whole)


def _largest(out: Tensor, reference: Tensor) -> float:
    return (out.clamp(0, 1) - reference).abs().max().item()


@dataclass(frozen=True, slots=True)
class _Spans:
    """Spans along one side of an image.

    crop: in input pixels.  inside: the part of the crop that sees nothing outside of it, in output pixels of the
    whole image; inside_crop: the same in output pixels of the crop.
    """

    crop: slice
    inside: slice
    inside_crop: slice


def _spans(length: int, card: ModelCard) -> _Spans:
    halo, scale, multiple = card.halo, card.scale, card.multiple_of
    side = -(-max(_CROP_SIDE, _CROP_INTERIOR + 2 * halo) // multiple) * multiple
    # The cells of a network that needs a multiple must fall as in the whole image.
    start = max(0, length - side) // 2 // multiple * multiple
    end = min(length, start + side)
    inner_start = start + halo if start > 0 else 0
    inner_end = end - halo if end < length else length
    return _Spans(
        slice(start, end),
        slice(inner_start * scale, inner_end * scale),
        slice((inner_start - start) * scale, (inner_end - start) * scale),
    )
