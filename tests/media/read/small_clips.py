"""Clips of a dozen frames to read."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

NUM_FRAMES, RATE = 12, 25
MakeClip = Callable[..., Path]  # `write_clip` to the folder of a test, by the name of the file


def _write_sound(output: OutputContainer, stream: AudioStream | None, second: int) -> None:
    assert stream is not None
    sound = av.AudioFrame.from_ndarray(np.full((1, 8000), second, np.int16), "s16", "mono")
    sound.sample_rate, sound.pts, sound.time_base = 8000, 8000 * second, Fraction(1, 8000)
    output.mux(stream.encode(sound))


def write_clip(
    path: Path, codec: str = "libx264", *, start_seconds: int = 0, audio_seconds: int = 0, **options: str
) -> Path:
    """Write frames of 64x48 pixels that get brighter, and a PCM track around them where it is asked for."""
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=RATE, options=options)
        video.width, video.height = 64, 48
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        audio = output.add_stream("pcm_s16le", rate=8000, layout="mono") if audio_seconds else None
        for second in range(min(start_seconds + 1, audio_seconds)):
            _write_sound(output, audio, second)
        for index in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 40 + 10 * index, np.uint8), video.pix_fmt)
            frame.pts, frame.time_base = start_seconds * RATE + index, Fraction(1, RATE)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for second in range(start_seconds + 1, audio_seconds):
            _write_sound(output, audio, second)
    return path
