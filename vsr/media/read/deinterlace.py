"""Turn interlaced frames into progressive ones, one for a frame or for a field, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import av
from av.filter import Graph

from vsr.color.pixel_formats import FORMATS

__all__ = ["DeinterlaceMode", "Deinterlacer"]

DeinterlaceMode = Literal["auto", "on", "off", "double"]
SMALLEST_SIDE = 3  # below, bwdif has no neighbours to look at


class Deinterlacer:
    """Turn interlaced frames into progressive ones of full height: as many, with their own PTS and time base.

    At the double rate each field gives a frame, and ticks are half as long. Frames pass through unchanged up to the
    first one that is to be deinterlaced, and always where they have a plane of fewer than 3 samples in a direction.
    """

    def __init__(
        self,
        *,
        every_frame: bool,
        every_field: bool = False,
        on_begin: Callable[[av.VideoFrame], None] = lambda frame: None,
    ) -> None:
        """Prepare to deinterlace frames of one size and of one format in `vsr.media.av_frames`.

        Args:
            every_frame: deinterlace also frames that are not flagged as interlaced.
            every_field: make a frame of each field.
            on_begin: called with the first frame that is deinterlaced, beforehand.
        """
        self._every_frame, self._every_field, self._on_begin = every_frame, every_field, on_begin
        self._graph: Graph | None = None
        self._time_base = Fraction(1)

    def push(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Take a frame; hand out the frames that it completes. bwdif holds one back."""
        if self._graph is None:
            if _is_small(frame) or not (self._every_frame or frame.interlaced_frame):
                yield _in_ticks(frame, self._ticks_of(frame))
                return
            self._on_begin(frame)
            self._graph = _graph(frame, self._every_frame, self._every_field)
        self._time_base = self._ticks_of(frame)
        self._graph.push(frame)
        yield from _pull(self._graph, self._time_base)

    def flush(self) -> Iterator[av.VideoFrame]:
        """Hand out the frames that are held back, after the last."""
        if self._graph is not None:
            self._graph.push(None)
            yield from _pull(self._graph, self._time_base)

    def _ticks_of(self, frame: av.VideoFrame) -> Fraction:
        return (frame.time_base or Fraction(1)) / (2 if self._every_field else 1)


def _is_small(frame: av.VideoFrame) -> bool:
    return min(*FORMATS[frame.format.name].chroma_size(frame.height, frame.width)) < SMALLEST_SIDE


def _graph(frame: av.VideoFrame, every_frame: bool, every_field: bool) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name="in"
    )
    # bwdif takes planes alone; left to itself, the graph would turn packed RGB into Y'CbCr, and leave it so.
    planar = graph.add("format", _planar(frame.format.name))
    which = f"mode={'send_field' if every_field else 'send_frame'}:deint={'all' if every_frame else 'interlaced'}"
    bwdif = graph.add("bwdif", f"{which}:parity=auto")
    back = graph.add("format", frame.format.name)
    sink = graph.add("buffersink")
    for before, after in pairwise((source, planar, bwdif, back, sink)):
        before.link_to(after)
    graph.configure()
    return graph


def _planar(name: str) -> str:
    """Name the pixel format of bwdif that holds the same samples."""
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
        assert isinstance(frame, av.VideoFrame)
        yield _in_ticks(frame, time_base)


def _in_ticks(frame: av.VideoFrame, time_base: Fraction) -> av.VideoFrame:
    """Give a frame's times in other ticks; bwdif counts fields, in ticks half as long as those that it got."""
    if frame.pts is not None and frame.time_base is not None and frame.time_base != time_base:
        factor = frame.time_base / time_base
        frame.pts, frame.duration = round(frame.pts * factor), round(frame.duration * factor)
        frame.time_base = time_base
    return frame
