"""Turn frames into pixel formats that encoders take and the upscaler does not make, such as palettes."""

from __future__ import annotations

import av
from av.filter import Graph

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.media.av_frames import closest_native
from vsr.media.pyav_fixes import resize_frame

__all__ = ["coarseness", "native_format", "to_stored_format"]

PALETTE = "pal8"


def native_format(name: str) -> PixelFormat | None:
    """Return the format in which frames are made that are to be stored in a format of FFmpeg; None for none such.

    That is the format itself, where the upscaler makes it; a palette's is RGB with alpha.
    """
    if name in FORMATS:
        return FORMATS[name]
    if name == PALETTE:
        return FORMATS["rgba"]
    try:
        format_ = av.VideoFormat(name)
    except ValueError:
        return None
    is_of_samples = not (
        format_.is_bayer or format_.name.startswith("xyz") or "float" in name or name.endswith("f32le")
    )
    return FORMATS[closest_native(format_)] if format_.components and is_of_samples else None


def coarseness(name: str) -> int:
    """Return how coarse a format's colours are: 0 for 8 bits or more a sample, 1 for a palette, 2 for fewer bits."""
    if name in FORMATS:
        return 0
    if name == PALETTE:
        return 1
    return 2 if min(component.bits for component in av.VideoFormat(name).components) < 8 else 0


def to_stored_format(frame: av.VideoFrame, name: str) -> av.VideoFrame:
    """Convert a frame to a format of FFmpeg, by a palette of its own where the format has one."""
    if name == PALETTE:
        return _with_palette(frame)
    stored = resize_frame(frame, frame.width, frame.height, name, converts_colors=False)
    stored.pts, stored.time_base = frame.pts, frame.time_base
    return stored


def _with_palette(frame: av.VideoFrame) -> av.VideoFrame:
    """Choose the 256 colours that suit a frame best, one of them transparent, and dither the others."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    both, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single:reserve_transparent=1")
    use, sink = graph.add("paletteuse", "new=1:alpha_threshold=128"), graph.add("buffersink")
    source.link_to(both)
    both.link_to(palette, 0, 0)
    both.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    graph.push(frame)
    graph.push(None)
    stored = graph.pull()
    assert isinstance(stored, av.VideoFrame)
    stored.pts, stored.time_base = frame.pts, frame.time_base
    return stored
