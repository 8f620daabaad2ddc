"""Choose how an output is encoded."""

from __future__ import annotations

from dataclasses import dataclass, field

from vsr.errors import OptionError
from vsr.media.write.stream_plan import AudioMode

__all__ = ["EncodingOptions"]


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """The part of a job's options that says how its output is encoded; names and values are FFmpeg's.

    codec: the video encoder; None for the container's usual one.
    crf: quality, where lower is better, in the encoder's own range (51 at most for libx264).  preset: its speed.
    pix_fmt: pixel format; None for that of the source, or the closest the encoder has.
    encoder_options: further options of the encoder, passed on as they are.
    format: the container; None for the one of the output's suffix.
    audio: "copy", "aac" or "opus" (transcoded) or "none" (left out).
    audio_bitrate: Of audio that is transcoded, in bits a second; None for the encoder's own.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder_options: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    audio: AudioMode = "copy"
    audio_bitrate: int | None = None

    def __post_init__(self) -> None:
        """Raise OptionError where a number is out of its range."""
        if self.audio_bitrate is not None and not 500 <= self.audio_bitrate <= 10_000_000:
            raise OptionError(f"`audio_bitrate={self.audio_bitrate}`: give bits a second, 500 to 10000000")
