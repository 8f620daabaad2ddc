"""Decode the alpha of WebM, which lies beside the image in each packet; FFmpeg's own decoders leave it there."""

from __future__ import annotations

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

__all__ = ["decoder_with_alpha"]

_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_with_alpha(stream: VideoStream) -> VideoCodecContext | None:
    """Make a decoder that gives the alpha of a VP8 or VP9 stream; None without alpha or without such a decoder."""
    name = _DECODERS.get(stream.codec_context.name)
    has_alpha = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1"
    if name is None or not has_alpha or name not in av.codecs_available:
        return None
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 0
    return decoder
