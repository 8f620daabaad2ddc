"""The transparency of WebM, which lies beside the picture and which FFmpeg's own decoders leave there."""

from __future__ import annotations

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

__all__ = ["decoder_with_alpha"]

_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_with_alpha(stream: VideoStream) -> VideoCodecContext | None:
    """A decoder that gives the alpha of a VP8 or VP9 stream, or None where there is none, or no such decoder."""
    name = _DECODERS.get(stream.codec_context.name)
    has_alpha = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1"
    if name is None or not has_alpha or name not in av.codecs_available:
        return None
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 0
    return decoder
