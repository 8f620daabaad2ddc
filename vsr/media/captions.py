"""Carry the closed captions (CEA-608/708) of frames from a decoder to an encoder.

PyAV reads the side data of frames and writes none; FFmpeg's filters keep it. So a tiny copy of each frame with captions
is kept, scaled to the output's size when its turn comes, and given the samples that were upscaled meanwhile.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from itertools import pairwise

import av
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import PictureType

__all__ = ["Captions", "carries_captions"]

CARRIER_SIDE = 16  # pixels


@functools.cache
def carries_captions(encoder: str) -> bool:
    """Tell whether an encoder writes the captions of its frames. encoder: FFmpeg's name."""
    context = av.CodecContext.create(encoder, "w")
    return any(option.name == "a53cc" for option in context.supported_options.private)


class Captions:
    """Hold the captions of frames that are between the decoder and the encoder, by PTS on the output's clock.

    One thread keeps, another takes.  is_wanted: whether somebody takes them; else none is kept.
    num_seen: frames with captions, kept or not.
    """

    def __init__(self) -> None:
        self.is_wanted, self.num_seen = False, 0
        self._carriers: dict[int, av.VideoFrame] = {}

    def keep(self, frame: av.VideoFrame, pts: int) -> None:
        """Keep the captions of a decoded frame, if it has any. pts: in ticks."""
        if not any(data.type == Type.A53_CC for data in frame.side_data):  # type: ignore[attr-defined]
            return
        self.num_seen += 1
        if self.is_wanted:
            self._carriers[pts] = _scaled(frame, CARRIER_SIDE, CARRIER_SIDE, frame.format.name)

    def take(self, pts: int, width: int, height: int, format_: str) -> av.VideoFrame | None:
        """Return a frame with the captions of a PTS, whose samples are to be overwritten; None where there are none.

        width, height: in pixels.  format_: FFmpeg's name of the pixel format.
        """
        while self._carriers and (first := next(iter(self._carriers))) < pts:  # of frames that are not written
            del self._carriers[first]
        carrier = self._carriers.pop(pts, None)
        if carrier is None:
            return None
        frame = _scaled(carrier, width, height, format_)
        frame.pict_type = PictureType.NONE  # else the encoder would take over the source's types of frames
        return frame


def _scaled(frame: av.VideoFrame, width: int, height: int, format_: str) -> av.VideoFrame:
    """Scale a frame coarsely, with all its side data."""
    graph = Graph()
    nodes = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("scale", f"{width}:{height}:flags=neighbor"),
        graph.add("format", format_),
        graph.add("buffersink"),
    ]
    for before, after in pairwise(nodes):
        before.link_to(after)
    graph.configure()
    graph.push(frame)
    scaled = graph.pull()
    assert isinstance(scaled, av.VideoFrame)
    return scaled
