"""Interlaced frames to progressive ones, one for one, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av
from av.filter import Graph

__all__ = ["DeinterlaceMode", "deinterlaced"]

DeinterlaceMode = Literal["auto", "on", "off"]


def deinterlaced(
    frames: Iterable[av.VideoFrame],
    every_frame: bool,
    begin: Callable[[av.VideoFrame], None] = lambda frame: None,
) -> Iterator[av.VideoFrame]:
    """As many frames as come in, with their own PTS and time base, of full height and one moment each.

    every_frame: also those that are not flagged as interlaced. The frames must share size and format.
    begin: called with the first frame that is deinterlaced, beforehand.
    """
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            if not (every_frame or frame.interlaced_frame):
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


def _graph(frame: av.VideoFrame, every_frame: bool) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base, name="in"
    )
    bwdif = graph.add("bwdif", f"mode=send_frame:parity=auto:deint={'all' if every_frame else 'interlaced'}")
    sink = graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


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
