"""Interlaced frames to progressive ones, one for one, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import av
from av.filter import Graph

from vsr.color.pixel_formats import FORMATS

__all__ = ["DeinterlaceMode", "deinterlaced"]

DeinterlaceMode = Literal["auto", "on", "off"]
SMALLEST_SIDE = 3  # below, bwdif has no neighbours to look at


def deinterlaced(
    frames: Iterable[av.VideoFrame],
    every_frame: bool,
    begin: Callable[[av.VideoFrame], None] = lambda frame: None,
) -> Iterator[av.VideoFrame]:
    """As many frames as come in, with their own PTS and time base, of full height and one moment each.

    every_frame: also those that are not flagged as interlaced. The frames must share size and format, one of
        `vsr.media.av_frames`. What has a plane of fewer than 3 samples in a direction stays as it is.
    begin: called with the first frame that is deinterlaced, beforehand.
    """
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            if _is_small(frame) or not (every_frame or frame.interlaced_frame):
                yield frame
                continue
            begin(frame)
            graph = _graph(frame, every_frame)
        ticks = frame.time_base or Fraction(1)
        graph.push(frame)
        yield from _pull(graph, ticks)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, ticks)


def _is_small(frame: av.VideoFrame) -> bool:
    return min(*FORMATS[frame.format.name].chroma_size(frame.height, frame.width)) < SMALLEST_SIDE


def _graph(frame: av.VideoFrame, every_frame: bool) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name="in"
    )
    # bwdif takes planes alone; left to itself, the graph would turn packed RGB into Y'CbCr, and leave it so.
    planar = graph.add("format", _planar(frame.format.name))
    bwdif = graph.add("bwdif", f"mode=send_frame:parity=auto:deint={'all' if every_frame else 'interlaced'}")
    back = graph.add("format", frame.format.name)
    sink = graph.add("buffersink")
    for before, after in pairwise((source, planar, bwdif, back, sink)):
        before.link_to(after)
    graph.configure()
    return graph


def _planar(name: str) -> str:
    """The pixel format of bwdif that holds the same samples."""
    format_ = FORMATS[name]
    if format_.kind == "gray" and format_.bit_depth > 8:
        return "gray16le"
    same = (
        f.name
        for f in FORMATS.values()
        if f.layout == "planar"
        and (f.kind, f.bit_depth, f.chroma_shift, f.alpha)
        == (format_.kind, format_.bit_depth, format_.chroma_shift, format_.alpha)
    )
    return name if format_.layout == "planar" else next(same, "yuva444p")  # the latter for gray with alpha


def _pull(graph: Graph, time_base: Fraction) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):  # wants more, or has given all
            return
        assert isinstance(frame, av.VideoFrame) and frame.pts is not None and frame.time_base is not None
        factor = frame.time_base / time_base  # bwdif counts fields: its ticks are half as long
        frame.pts, frame.duration = round(frame.pts * factor), round(frame.duration * factor)
        frame.time_base = time_base
        yield frame
