"""A clip with all that a copy has to keep, and copies of it that lack something, made with PyAV alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

NUM_FRAMES = 12
SIZE = (64, 48)
TITLES = ("One", "Two")
BT709, BT601 = 1, 6


def frame_of(index: int) -> av.VideoFrame:
    """A frame with a brightness of its own."""
    frame = av.VideoFrame(*SIZE, "yuv420p")
    for plane, value in zip(frame.planes, (40 + 12 * index, 110, 150), strict=True):
        plane.update(np.full((plane.height, plane.line_size), value, np.uint8).tobytes())
    frame.pts, frame.time_base, frame.duration = 512 * index, Fraction(1, 12800), 512
    return frame


def _add_video(output: Any, matrix: int, size: tuple[int, int]) -> Any:
    stream = output.add_stream("libx264", rate=25)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.time_base = stream.time_base = Fraction(1, 12800)
    context.colorspace = context.color_primaries = context.color_trc = matrix
    context.color_range = 1
    context.options = {"crf": "10", "preset": "ultrafast", "g": "1", "bf": "0", "x264-params": "cpu-independent=1"}
    return stream


def make_source(path: Path) -> Path:
    """Twelve frames of BT.709 at 25 a second, each a key frame, with sound, two subtitles, two chapters and a title."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        video = _add_video(output, BT709, SIZE)
        audio = output.add_stream("aac", rate=48000)
        audio.codec_context.layout = "mono"
        audio.metadata["language"] = "deu"
        audio.metadata["title"] = "Commentary"
        text = output.add_stream("subrip" if path.suffix == ".mkv" else "mov_text")
        text.time_base = Fraction(1, 1000)
        text.metadata["language"] = "eng"
        text.disposition = 64  # forced
        text.codec_context.subtitle_header = b"[Script Info]\n"
        output.metadata["title"] = "A film"
        starts = (0, 240)
        output.set_chapters(
            [
                {"id": i, "start": starts[i], "end": starts[i] + 240, "time_base": Fraction(1, 1000),
                 "metadata": {"title": title}}
                for i, title in enumerate(TITLES)
            ]
        )  # fmt: skip
        packets = [p for i in range(NUM_FRAMES) for p in video.encode(frame_of(i))] + video.encode(None)
        wave = (8000 * np.sin(np.arange(23040) * 0.05)).astype(np.int16)[None]
        sound = av.AudioFrame.from_ndarray(wave, "s16", "mono")
        sound.sample_rate, sound.pts, sound.time_base = 48000, 0, Fraction(1, 48000)
        packets += audio.encode(sound) + audio.encode(None)
        packets += [_text(text, "Hello", 80), _text(text, "World", 280)]
        for packet in packets:
            output.mux(packet)
    return path


def _text(stream: Any, words: str, milliseconds: int) -> Packet[Any]:
    data = words.encode()
    packet = Packet(data if stream.codec_context.name in ("srt", "subrip") else len(data).to_bytes(2, "big") + data)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = milliseconds
    packet.duration = 120
    return packet


def _add_copy(output: Any, stream: Any, language: str | None) -> Any:
    copied = output.add_stream_from_template(stream, opaque=True)
    copied.metadata.update({"title" if k == "name" else k: v for k, v in stream.metadata.items()})
    copied.disposition = stream.disposition
    if language is not None and stream.type == "audio":
        copied.metadata["language"] = language
    return copied


def copy(
    source: Path,
    output: Path,
    *,
    change: Callable[[Packet[Any]], Packet[Any] | None] = lambda packet: packet,
    leave_out: Collection[str] = (),
    keep_chapters: bool = True,
    tags: dict[str, str] | None = None,
    language: str | None = None,
    matrix: int | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Copy a file packet by packet, but for what is asked otherwise.

    change: gives the packet to be written for each of the source, or None.  leave_out: types of streams.
    tags: of the file, instead of the source's.  language: of the audio.  matrix, size: encode the video anew with it.
    """
    with av.open(str(source)) as before, av.open(str(output), "w", options={"avoid_negative_ts": "disabled"}) as after:
        streams: dict[int, Any] = {}
        encoder = None
        for stream in before.streams:
            if stream.type in (*leave_out, "data"):  # the track of chapters, which muxers make anew
                continue
            if stream.type == "video" and (matrix is not None or size != SIZE):
                streams[stream.index] = encoder = _add_video(after, matrix or BT709, size)
                continue
            streams[stream.index] = _add_copy(after, stream, language)
        after.metadata.update(before.metadata if tags is None else tags)
        if keep_chapters:
            after.set_chapters(before.chapters())
        for packet in before.demux():
            if packet.stream.index not in streams or packet.dts is None:
                continue
            target = streams[packet.stream.index]
            if target is encoder:
                for frame in packet.decode():
                    larger = frame.reformat(*size, threads=1)
                    larger.pts, larger.time_base = frame.pts, frame.time_base
                    after.mux(encoder.encode(larger))
                continue
            changed = change(packet)
            if changed is not None:
                changed.stream = target
                after.mux(changed)
        if encoder is not None:
            after.mux(encoder.encode(None))
    return output
