"""FFmpeg's pixel formats as planes of tensors, in and out of PyAV frames with one copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
import torch
from torch import Tensor

from vsr.frames import FrameBatch

__all__ = ["FORMATS", "PixelFormat", "allocate_planes", "closest_native", "load_planes", "repeated", "store_planes"]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the samples of one FFmpeg pixel format lie in memory.

    chroma_shift: log2 of the (horizontal, vertical) subsampling; (0, 0) for gray and RGB.
    msb_shift: unused low bits of a 16 bit word (6 for p010), else 0.
    """

    name: str
    kind: Literal["gray", "yuv", "rgb"]
    layout: Literal["planar", "semiplanar", "packed"]
    bit_depth: int
    chroma_shift: tuple[int, int] = (0, 0)
    alpha: bool = False
    msb_shift: int = 0

    @property
    def sample_dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.bit_depth == 8 else np.uint16

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of a chroma plane: a last, partly used cell counts."""
        return -(-height // (1 << self.chroma_shift[1])), -(-width // (1 << self.chroma_shift[0]))


def _make_formats() -> dict[str, PixelFormat]:
    formats = [
        PixelFormat("gray", "gray", "planar", 8),
        PixelFormat("ya8", "gray", "packed", 8, alpha=True),
        PixelFormat("rgb24", "rgb", "packed", 8),
        PixelFormat("rgba", "rgb", "packed", 8, alpha=True),
        PixelFormat("gbrp", "rgb", "planar", 8),
        PixelFormat("gbrap", "rgb", "planar", 8, alpha=True),
    ]
    subsampling = {"420": (1, 1), "422": (1, 0), "444": (0, 0)}
    for name, shift in subsampling.items():
        formats += [
            PixelFormat(f"yuv{name}p", "yuv", "planar", 8, shift),
            PixelFormat(f"yuvj{name}p", "yuv", "planar", 8, shift),
            PixelFormat(f"yuva{name}p", "yuv", "planar", 8, shift, alpha=True),
        ]
        for depth in (9, 10, 12, 14, 16):
            formats.append(PixelFormat(f"yuv{name}p{depth}le", "yuv", "planar", depth, shift))
            if depth in (10, 16) or (depth == 12 and name != "420"):
                formats.append(PixelFormat(f"yuva{name}p{depth}le", "yuv", "planar", depth, shift, alpha=True))
    for depth in (9, 10, 12, 14, 16):
        formats.append(PixelFormat(f"gray{depth}le", "gray", "planar", depth))
        formats.append(PixelFormat(f"gbrp{depth}le", "rgb", "planar", depth))
        if depth in (10, 12, 14, 16):
            formats.append(PixelFormat(f"gbrap{depth}le", "rgb", "planar", depth, alpha=True))
    for name, digit, shift in (("nv12", 0, (1, 1)), ("nv16", 2, (1, 0)), ("nv24", 4, (0, 0))):
        formats.append(PixelFormat(name, "yuv", "semiplanar", 8, shift))
        formats += [
            PixelFormat(f"p{digit}{depth}le", "yuv", "semiplanar", depth, shift, msb_shift=16 - depth)
            for depth in (10, 12, 16)
        ]
    return {f.name: f for f in formats}


FORMATS: dict[str, PixelFormat] = _make_formats()


def closest_native(format_: av.VideoFormat) -> str:
    """The name of the format in `FORMATS` that keeps all, or the most, of what `format_` can hold."""
    if format_.name in FORMATS:
        return str(format_.name)
    alpha = any(c.is_alpha for c in format_.components)
    bits = max(c.bits for c in format_.components)
    depth = next((d for d in (8, 9, 10, 12, 14, 16) if d >= bits), 16)
    if format_.has_palette or format_.is_rgb or format_.is_bayer or format_.name.startswith("xyz"):
        if depth == 8:
            return "rgba" if alpha else "rgb24"
        alpha_depth = max(depth, 10)
        return f"gbrap{alpha_depth}le" if alpha else f"gbrp{depth}le"
    if len(format_.components) < 3:  # not by is_chroma: PyAV says False for chroma that is not subsampled
        if alpha:
            return "ya8" if depth == 8 else f"yuva444p{'10' if depth <= 10 else '16'}le"
        return "gray" if depth == 8 else f"gray{depth}le"
    halved_x, halved_y = format_.chroma_width(16) < 16, format_.chroma_height(16) < 16
    name = "420" if halved_x and halved_y else "422" if halved_x else "444"
    if alpha:
        deeper = (f"yuva{name}p{d}le" for d in (10, 12, 16) if d >= depth)
        return f"yuva{name}p" if depth == 8 else next(n for n in deeper if n in FORMATS)
    return f"yuv{name}p" if depth == 8 else f"yuv{name}p{depth}le"


def allocate_planes(format_: PixelFormat, num_frames: int, height: int, width: int) -> tuple[Tensor, ...]:
    """Uninitialised planes of a `FrameBatch`, in its order."""
    dtype = torch.uint8 if format_.bit_depth == 8 else torch.uint16
    planes = [torch.empty((num_frames, 3 if format_.kind == "rgb" else 1, height, width), dtype=dtype)]
    if format_.kind == "yuv":
        planes.append(torch.empty((num_frames, 2, *format_.chroma_size(height, width)), dtype=dtype))
    if format_.alpha:
        planes.append(torch.empty((num_frames, 1, height, width), dtype=dtype))
    return tuple(planes)


def _samples(plane: av.video.plane.VideoPlane, format_: PixelFormat, per_pixel: int) -> np.ndarray:
    """A plane's memory as (height, width, per_pixel) samples, without a copy."""
    stride = plane.line_size // np.dtype(format_.sample_dtype).itemsize
    samples: np.ndarray = np.frombuffer(plane, format_.sample_dtype)  # type: ignore[call-overload]
    rows = samples.reshape(-1, stride)[: plane.height]
    return rows[:, : plane.width * per_pixel].reshape(plane.height, plane.width, per_pixel)


def _pairs(frame: av.VideoFrame, format_: PixelFormat, planes: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Matching views (samples of the PyAV frame, samples of one frame of the batch's planes)."""
    if format_.layout == "packed":
        whole = _samples(frame.planes[0], format_, sum(p.shape[0] for p in planes))
        pairs, channel = [], 0
        for plane in planes:
            pairs.append((whole[:, :, channel : channel + plane.shape[0]], plane.transpose(1, 2, 0)))
            channel += plane.shape[0]
        return pairs
    if format_.layout == "semiplanar":
        chroma = _samples(frame.planes[1], format_, 2)
        return [(_samples(frame.planes[0], format_, 1)[..., 0], planes[0][0]), (chroma, planes[1].transpose(1, 2, 0))]
    # FFmpeg stores planar RGB as G, B, R.
    targets = [planes[0][i] for i in (1, 2, 0)] if format_.kind == "rgb" else [planes[0][0]]
    if format_.kind == "yuv":
        targets += [planes[1][0], planes[1][1]]
    if format_.alpha:
        targets.append(planes[-1][0])
    return [(_samples(plane, format_, 1)[..., 0], t) for plane, t in zip(frame.planes, targets, strict=True)]


def load_planes(frame: av.VideoFrame, format_: PixelFormat, planes: tuple[Tensor, ...], position: int) -> None:
    """Copy a decoded frame into frame `position` of a batch's planes."""
    for source, target in _pairs(frame, format_, [p[position].numpy() for p in planes]):
        if format_.msb_shift:
            np.right_shift(source, format_.msb_shift, out=target)
        else:
            np.copyto(target, source)


def repeated(frame: av.VideoFrame, pts: int) -> av.VideoFrame:
    """A copy of a frame, to be shown at another PTS of its time base."""
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        old: np.ndarray = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)  # type: ignore[call-overload]
        new: np.ndarray = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)  # type: ignore[call-overload]
        width = min(source.line_size, target.line_size)
        new[: source.height, :width] = old[: source.height, :width]
    copy.pts, copy.time_base, copy.duration = pts, frame.time_base, frame.duration
    return copy


def store_planes(batch: FrameBatch, position: int, format_: PixelFormat) -> av.VideoFrame:
    """Frame `position` of a batch as a new PyAV frame; the planes must be on the CPU and fit the format."""
    frame = av.VideoFrame(batch.width, batch.height, format_.name)
    for target, source in _pairs(frame, format_, [p[position].numpy() for p in batch.planes]):
        if format_.msb_shift:
            np.left_shift(source, format_.msb_shift, out=target)
        else:
            np.copyto(target, source)
    return frame
