"""Tell by codec and bit rate whether a video was compressed so hard that its artefacts are worth a network's care."""

from __future__ import annotations

from dataclasses import dataclass

import av

from vsr.media.read.reader import VideoReader

__all__ = ["Compression", "compression_of"]

# Bits per pixel, of frames of 640x360, below which a network that was trained on decoded video is the better one.
# On held-out clips the two are even at about CRF 18 of x264 (0.7 dB apart on clean frames, 0.4 dB the other way at CRF
# 23). There x264 needs 0.94 bits a pixel at 72 lines and 0.62 at 144, which the fourth root and a bit extends to 0.32
# at 360 lines; other codecs of that PSNR need as much (HEVC, VP9), or 1.8 and 2.1 times (MPEG-4, MPEG-2). Those clips
# were of 16 frames; with key frames as far apart as usual about a quarter less is needed, and new codecs gain more.
_OLD, _H264, _NEW = 0.5, 0.25, 0.2
_LIMITS = {
    **dict.fromkeys(("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "h263", "flv1"), _OLD),
    **dict.fromkeys(("wmv1", "wmv2", "rv20", "svq3"), _OLD),
    **dict.fromkeys(("h264", "vc1", "wmv3", "vp8", "theora", "rv40"), _H264),
    **dict.fromkeys(("hevc", "vp9", "av1", "vvc"), _NEW),
}
_PIXELS_OF_LIMITS = 640 * 360
_SLOPE = 0.3  # neighbours in larger frames are more alike
_AUDIO_BITS = 128_000  # a second, of a stream that does not say


@dataclass(frozen=True, slots=True)
class Compression:
    """Describe how a video is compressed.

    codec: FFmpeg's name of it.  bits_per_pixel: of all frames; None where that is not known.
    pixels: of a frame.
    """

    codec: str
    bits_per_pixel: float | None
    pixels: int

    @property
    def is_strong(self) -> bool:
        """Tell whether artefacts are to be expected: never where the bit rate or the codec says nothing of it."""
        limit = _LIMITS.get(self.codec)
        if limit is None or self.bits_per_pixel is None:
            return False
        return self.bits_per_pixel < limit * float((_PIXELS_OF_LIMITS / self.pixels) ** _SLOPE)

    def __str__(self) -> str:
        if self.bits_per_pixel is None:
            return f"{self.codec} of unknown bit rate"
        return f"{self.codec} of {self.bits_per_pixel:.2g} bits a pixel"


def compression_of(reader: VideoReader) -> Compression:
    """Describe how the video of an opened source is compressed."""
    info, pixels = reader.info, reader.info.width * reader.info.height
    rate = _bits_per_second(reader)
    coded_rate = None if info.average_rate is None else float(info.average_rate) / (2 if reader.is_doubled else 1)
    per_pixel = rate / (pixels * coded_rate) if rate and coded_rate else None
    return Compression(info.codec, per_pixel, pixels)


def _bits_per_second(reader: VideoReader) -> float | None:
    """Return the bit rate of the video, by its stream or else by the size of the file; None where neither says."""
    own = _rate_of(reader.stream)
    if own or reader.pipe is not None or reader.images is not None:
        return own
    whole = reader.container.bit_rate
    if not whole:
        return None
    others = sum(_rate_of(s) or (_AUDIO_BITS if s.type == "audio" else 0) for s in reader.other_streams)
    return max(float(whole) - others, 0.5 * whole)


def _rate_of(stream: av.stream.Stream) -> float | None:
    rate = getattr(stream.codec_context, "bit_rate", None)
    return float(rate) if rate else None
