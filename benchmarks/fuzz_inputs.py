"""Make small files of many containers and codecs, and damage them; all of it follows from a number."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

__all__ = ["MUTATIONS", "Source", "DamagedFile", "make_sources", "damage"]

SAMPLE_RATE = 48000
HEADER_BYTES = 600  # where most containers keep what matters most
MOST_BYTES = 400_000  # of a damaged file


@dataclass(frozen=True)
class Source:
    """Hold a sound file.

    Args:
        name: container and codec.
        suffix: of its file name.
    """

    name: str
    suffix: str
    data: bytes


@dataclass(frozen=True)
class DamagedFile:
    """Hold a damaged file.

    Args:
        mutations: their names, in order.
    """

    source: Source
    mutations: tuple[str, ...]
    data: bytes


# (name, suffix, video encoder, pixel format, audio encoder, options of the encoder)
_VIDEOS: tuple[tuple[str, str, str, str, str, dict[str, str]], ...] = (
    ("mp4 h264", ".mp4", "libx264", "yuv420p", "aac", {"preset": "veryfast", "g": "6", "bf": "2"}),
    ("mp4 hevc", ".mp4", "libx265", "yuv420p10le", "aac", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("mp4 av1", ".mp4", "libsvtav1", "yuv420p", "", {"preset": "12"}),
    ("mov prores", ".mov", "prores_ks", "yuva444p10le", "pcm_s16le", {"profile": "4444"}),
    ("mkv h264", ".mkv", "libx264", "yuv444p", "flac", {"preset": "veryfast", "g": "6", "bf": "2"}),
    ("mkv h264 interlaced", ".mkv", "libx264", "yuv420p", "", {"preset": "veryfast", "x264-params": "tff=1"}),
    ("mkv ffv1", ".mkv", "ffv1", "gray16le", "ac3", {}),
    ("webm vp9", ".webm", "libvpx-vp9", "yuv420p", "libopus", {"deadline": "realtime", "cpu-used": "8"}),
    ("webm vp8", ".webm", "libvpx", "yuv420p", "libvorbis", {"deadline": "realtime", "cpu-used": "8"}),
    ("ts mpeg2", ".ts", "mpeg2video", "yuv420p", "mp2", {"g": "6"}),
    ("ts h264", ".ts", "libx264", "yuv420p", "aac", {"preset": "veryfast", "g": "6", "bf": "2"}),
    ("avi mpeg4", ".avi", "mpeg4", "yuv420p", "libmp3lame", {"g": "6"}),
    ("avi mjpeg", ".avi", "mjpeg", "yuvj422p", "pcm_s16le", {}),
    ("flv", ".flv", "flv", "yuv420p", "libmp3lame", {"g": "6"}),
    ("ogg", ".ogv", "libtheora", "yuv420p", "libvorbis", {}),
    ("nut", ".nut", "huffyuv", "yuv422p", "pcm_s16le", {}),
    ("y4m", ".y4m", "wrapped_avframe", "yuv420p", "", {}),
    ("h264", ".h264", "libx264", "yuv420p", "", {"preset": "veryfast", "g": "6"}),
    ("apng", ".apng", "apng", "rgba", "", {}),
    ("gif", ".gif", "gif", "rgb8", "", {}),
)
_IMAGES = {".png": "uint16", ".jpg": "uint8", ".webp": "uint8", ".bmp": "uint8", ".tif": "uint16"}


def make_sources(folder: Path) -> list[Source]:
    """Make every kind of file that this FFmpeg can write."""
    sources = []
    for name, suffix, codec, pixel_format, audio, options in _VIDEOS:
        if codec in av.codecs_available and (not audio or audio in av.codecs_available):
            path = folder / f"source{suffix}"
            _write_video(path, codec, pixel_format, audio, options)
            sources.append(Source(name, suffix, path.read_bytes()))
    for suffix, dtype in _IMAGES.items():
        image = _image(3).astype(dtype) * (257 if dtype == "uint16" else 1)
        sources.append(Source(suffix[1:], suffix, cv2.imencode(suffix, image)[1].tobytes()))
    return sources


def _image(index: int) -> np.ndarray:
    """Draw (48, 64, 3) uint8: a slope that moves, with some noise."""
    y, x = np.mgrid[0:48, 0:64]
    noise = np.random.default_rng(index).integers(0, 12, (48, 64))
    return np.stack([(3 * x + 7 * index) % 200, (4 * y + noise) % 250, (x + y + noise)], -1).astype(np.uint8)


def _write_video(path: Path, codec: str, pixel_format: str, audio: str, options: dict[str, str]) -> None:
    container = {".y4m": "yuv4mpegpipe"}.get(path.suffix)
    with av.open(str(path), "w", format=container) as output:
        video = output.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 64, 48, pixel_format
        if "interlaced" in options or options.get("x264-params", "").startswith("tff"):
            video.codec_context.flags |= 1 << 29  # AV_CODEC_FLAG_INTERLACED_ME
        sound = output.add_stream(audio, rate=SAMPLE_RATE, layout="stereo") if audio else None
        if path.suffix in (".mkv", ".mp4"):
            output.set_chapters([_chapter()])  # type: ignore[list-item]
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(_image(index), "rgb24").reformat(format=pixel_format, threads=1)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound is not None:
            wave = (8000 * np.sin(np.arange(SAMPLE_RATE // 2) * 0.05)).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(np.repeat(wave, 2).reshape(1, -1), "s16", "stereo")
            samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            output.mux(sound.encode(samples))  # type: ignore[attr-defined]
            output.mux(sound.encode(None))  # type: ignore[attr-defined]


def _chapter() -> dict[str, object]:
    return {"id": 1, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}


# -- mutations -----------------------------------------------------------------------------------------

Mutation = Callable[[random.Random, bytearray, list[Source]], bytearray]


def _place(rng: random.Random, data: bytearray) -> int:
    """Choose a position; in a third of the cases near the start, in a sixth near the end, where indices lie."""
    where, length = rng.random(), len(data)
    if where < 1 / 3:
        return rng.randrange(min(length, HEADER_BYTES))
    if where < 1 / 2:
        return rng.randrange(max(0, length - 2 * HEADER_BYTES), length)
    return rng.randrange(length)


def _span(rng: random.Random, data: bytearray) -> tuple[int, int]:
    start = _place(rng, data)
    return start, min(len(data), start + int(2 ** rng.uniform(0, 12)))


def _flip(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    for _ in range(int(2 ** rng.uniform(0, 6))):
        data[_place(rng, data)] ^= 1 << rng.randrange(8)
    return data


def _overwrite(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    for _ in range(int(2 ** rng.uniform(0, 4))):
        data[_place(rng, data)] = rng.randrange(256)
    return data


def _field(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    """Change a number of 2, 4 or 8 bytes to an extreme one, or by one."""
    for _ in range(rng.randint(1, 3)):
        size, order = rng.choice((2, 4, 4, 8)), rng.choice(("big", "little"))
        start = min(_place(rng, data), max(0, len(data) - size))
        most = 256**size - 1
        was = int.from_bytes(data[start : start + size], order)  # type: ignore[arg-type]
        values = (0, 1, most, most // 2, most // 2 + 1, (was + 1) & most, (was - 1) & most, rng.randint(0, most))
        data[start : start + size] = rng.choice(values).to_bytes(size, order)  # type: ignore[arg-type]
    return data


def _truncate(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _behead(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    return data[_place(rng, data) :]


def _zero(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    start, end = _span(rng, data)
    data[start:end] = bytes(end - start)
    return data


def _noise(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    start, end = _span(rng, data)
    data[start:end] = rng.randbytes(end - start)
    return data


def _delete(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    start, end = _span(rng, data)
    del data[start:end]
    return data


def _duplicate(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    start, end = _span(rng, data)
    part = bytes(data[start:end]) * rng.randint(1, 20)
    data[end:end] = part
    return data


def _swap(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    start, end = _span(rng, data)
    part = data[start:end]
    del data[start:end]
    place = rng.randrange(len(data) + 1)
    data[place:place] = part
    return data


def _splice(rng: random.Random, data: bytearray, sources: list[Source]) -> bytearray:
    """Put a part of another file in the place of as much, between, or behind."""
    other = bytearray(rng.choice(sources).data)
    start, end = _span(rng, other)
    place = rng.choice((_place(rng, data), len(data)))
    data[place : place + rng.choice((0, end - start))] = other[start:end]
    return data


MUTATIONS: dict[str, Mutation] = {
    "flip": _flip,
    "overwrite": _overwrite,
    "field": _field,
    "truncate": _truncate,
    "behead": _behead,
    "zero": _zero,
    "noise": _noise,
    "delete": _delete,
    "duplicate": _duplicate,
    "swap": _swap,
    "splice": _splice,
}


def damage(rng: random.Random, sources: list[Source]) -> DamagedFile:
    """Damage one of the files by one to three mutations."""
    source = rng.choice(sources)
    data, names = bytearray(source.data), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(list(MUTATIONS))
        names.append(name)
        if data:
            data = MUTATIONS[name](rng, data, sources)[:MOST_BYTES]
    return DamagedFile(source, tuple(names), bytes(data))
