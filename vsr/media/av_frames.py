"""Copy planes of tensors from and to PyAV frames."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from torch import Tensor

from vsr.color.pixel_formats import FORMATS, PixelFormat, allocate_planes
from vsr.frames import FrameBatch
from vsr.media.pyav_fixes import has_chroma

__all__ = ["closest_native", "copy_frame", "load_batch", "load_planes", "pts_of", "store_planes"]

_ALIGNMENT = 32  # bytes that encoders read at a time: of a row, and of its address


def pts_of(frame: av.VideoFrame) -> int:
    """Return the PTS of a frame that has one, as all frames of the decoder do."""
    assert frame.pts is not None
    return frame.pts


def closest_native(format_: av.VideoFormat) -> str:
    """Name the format in `FORMATS` that keeps all, or the most, of the samples that `format_` can hold."""
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
    if not has_chroma(format_):
        if alpha:
            return "ya8" if depth == 8 else f"yuva444p{'10' if depth <= 10 else '16'}le"
        return "gray" if depth == 8 else f"gray{depth}le"
    halved_x, halved_y = format_.chroma_width(16) < 16, format_.chroma_height(16) < 16
    name = "420" if halved_x and halved_y else "422" if halved_x else "444"
    if alpha:
        deeper = (f"yuva{name}p{d}le" for d in (10, 12, 16) if d >= depth)
        return f"yuva{name}p" if depth == 8 else next(n for n in deeper if n in FORMATS)
    return f"yuv{name}p" if depth == 8 else f"yuv{name}p{depth}le"


def _samples(plane: av.video.plane.VideoPlane, format_: PixelFormat, per_pixel: int) -> np.ndarray:
    """View a plane's memory as (height, width, per_pixel) samples, without a copy."""
    stride = plane.line_size // np.dtype(format_.sample_dtype).itemsize
    samples: np.ndarray = np.frombuffer(plane, format_.sample_dtype)  # type: ignore[call-overload]
    rows = samples.reshape(-1, stride)[: plane.height]
    return rows[:, : plane.width * per_pixel].reshape(plane.height, plane.width, per_pixel)


def _pairs(frame: av.VideoFrame, format_: PixelFormat, planes: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pair views of a PyAV frame's samples with views of one frame of a batch's planes, component by component.

    Interleaved components are copied one at a time: NumPy's innermost loop would else be over the two or three of a
    pixel.
    """
    if format_.layout == "packed":
        components = [component for plane in planes for component in plane]
        whole = _samples(frame.planes[0], format_, len(components))
        return [(whole[..., number], component) for number, component in enumerate(components)]
    if format_.layout == "semiplanar":
        luma = (_samples(frame.planes[0], format_, 1)[..., 0], planes[0][0])
        chroma = _samples(frame.planes[1], format_, 2)
        if planes[1].transpose(1, 2, 0)[0].flags.c_contiguous:  # as `as_stored` lays it
            return [luma, (chroma.reshape(len(chroma), -1), planes[1].transpose(1, 2, 0).reshape(len(chroma), -1))]
        return [luma, *((chroma[..., number], component) for number, component in enumerate(planes[1]))]
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
        np.copyto(target, source)
        if format_.msb_shift:  # by itself, as NumPy shifts rows in one piece many samples at a time
            np.right_shift(target, format_.msb_shift, out=target)


def load_batch(frames: Sequence[av.VideoFrame], format_: PixelFormat) -> tuple[Tensor, ...]:
    """Copy decoded frames of one size and format into the planes of a batch, each (N, channels, height, width)."""
    planes = allocate_planes(format_, len(frames), frames[0].height, frames[0].width)
    for position, frame in enumerate(frames):
        load_planes(frame, format_, planes, position)
    return planes


def copy_frame(frame: av.VideoFrame, pts: int) -> av.VideoFrame:
    """Copy a frame, to be shown at another PTS of its time base."""
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        old: np.ndarray = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)  # type: ignore[call-overload]
        new: np.ndarray = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)  # type: ignore[call-overload]
        width = min(source.line_size, target.line_size)
        new[: source.height, :width] = old[: source.height, :width]
    copy.pts, copy.time_base, copy.duration = pts, frame.time_base, frame.duration
    return copy


def store_planes(
    batch: FrameBatch, position: int, format_: PixelFormat, into: av.VideoFrame | None = None
) -> av.VideoFrame:
    """Make a PyAV frame of frame `position` of a batch; the planes must be on the CPU and fit the format.

    Page-locked planes, which a GPU's results come in, are handed on as they are where they lie as the format wants it;
    then they must not be changed any more. Others are copied.

    into: a frame of that size and format to overwrite instead.
    """
    if into is None and _can_be_wrapped(batch, position, format_):
        return _wrapped(batch, position, format_)
    frame = into or av.VideoFrame(batch.width, batch.height, format_.name)
    for target, source in _pairs(frame, format_, [p[position].numpy() for p in batch.planes]):
        if not format_.msb_shift:
            np.copyto(target, source)
        elif target[0].flags.c_contiguous and source[0].flags.c_contiguous:
            np.left_shift(source, format_.msb_shift, out=target)
        else:  # by itself, as NumPy shifts rows in one piece many samples at a time
            np.copyto(target, source << format_.msb_shift)
    return frame


def _stored_planes(batch: FrameBatch, position: int, format_: PixelFormat) -> list[Tensor]:
    """View frame `position` of a batch as the planes of its format, if they lie in memory as that wants them."""
    luma, *others = (plane[position] for plane in batch.planes)
    if format_.layout == "semiplanar":
        return [luma[0], others[0].permute(1, 2, 0)]
    # FFmpeg stores planar RGB as G, B, R.
    first = [luma[i] for i in (1, 2, 0)] if format_.kind == "rgb" else [luma[0]]
    return [*first, *(component for plane in others for component in plane)]


def _can_be_wrapped(batch: FrameBatch, position: int, format_: PixelFormat) -> bool:
    """Tell whether a frame can be made of a batch's own memory: of the format's layout, and in rows for vectors."""
    cell_width, cell_height = (1 << shift for shift in format_.chroma_shift)
    is_taken = format_.layout == "planar" or (format_.layout == "semiplanar" and format_.chroma_shift == (1, 1))
    if not is_taken or format_.msb_shift or batch.width % cell_width or batch.height % cell_height:
        return False
    if not all(_is_page_locked(plane) for plane in batch.planes):
        return False
    planes = _stored_planes(batch, position, format_)
    begins = (begin for plane in planes for begin in (plane.data_ptr(), plane.stride(0) * plane.element_size()))
    return all(plane[0].is_contiguous() for plane in planes) and all(begin % _ALIGNMENT == 0 for begin in begins)


def _is_page_locked(plane: Tensor) -> bool:
    return plane.is_pinned()


def _wrapped(batch: FrameBatch, position: int, format_: PixelFormat) -> av.VideoFrame:
    """Make a frame of a batch's own memory, which lives as long as the frame."""
    return av.VideoFrame.from_dlpack(_stored_planes(batch, position, format_), format=format_.name)
