"""What Debian's ffprobe and ffmpeg see in a file: a reader that shares no code with vsr, nor with PyAV's FFmpeg."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

__all__ = ["Chapter", "Probe", "ProbedFrame", "ProbedPacket", "ProbedStream", "needs_ffprobe", "probe", "run_ffmpeg"]

TIMEOUT_SECONDS = 120
GRID = 8  # a frame is reduced to so many means of luma in each direction

needs_ffprobe = pytest.mark.skipif(
    not (shutil.which("ffprobe") and shutil.which("ffmpeg")), reason="ffprobe and ffmpeg are not installed"
)


@dataclass(frozen=True)
class ProbedPacket:
    """pts, dts, duration: in ticks of the stream, or None.  digest: of the payload."""

    pts: int | None
    dts: int | None
    duration: int | None
    size: int
    digest: str


@dataclass(frozen=True)
class ProbedFrame:
    """A decoded frame. seconds: its PTS, or None.  side_data: by ffprobe's name of its type."""

    seconds: Fraction | None
    width: int
    height: int
    pixel_format: str
    is_interlaced: bool
    repeat_pict: int
    side_data: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ProbedStream:
    """One stream. tags are in lower case; color holds matrix, primaries, transfer, range and chroma location."""

    index: int
    type: str
    codec: str
    time_base: Fraction
    start_seconds: Fraction | None
    field_order: str
    color: dict[str, str]
    aspect: Fraction
    dispositions: frozenset[str]
    tags: dict[str, str]
    side_data: dict[str, dict[str, Any]]
    extradata_digest: str
    packets: list[ProbedPacket] = field(default_factory=list)
    frames: list[ProbedFrame] = field(default_factory=list)

    @property
    def language(self) -> str:
        return self.tags.get("language", "und")

    @property
    def rotation_degrees(self) -> int:
        return int(self.side_data.get("Display Matrix", {}).get("rotation", 0))

    @property
    def display_matrix(self) -> list[int]:
        """The nine numbers, or none where the picture is shown as it is stored."""
        text = self.side_data.get("Display Matrix", {}).get("displaymatrix", "")
        return [int(number) for line in text.splitlines() for number in line.partition(":")[2].split()]

    @property
    def packet_seconds(self) -> list[Fraction]:
        """When each packet is shown or heard; its DTS where it has no PTS, as in AVI."""
        times = (packet.pts if packet.pts is not None else packet.dts for packet in self.packets)
        return [(time or 0) * self.time_base for time in times]


@dataclass(frozen=True)
class Chapter:
    start_seconds: Fraction
    end_seconds: Fraction
    title: str


@dataclass(frozen=True)
class Probe:
    """A file, read to its end."""

    path: Path
    format: str
    tags: dict[str, str]
    streams: list[ProbedStream]
    chapters: list[Chapter]

    @property
    def video(self) -> ProbedStream:
        """The stream that is upscaled: the default one among those that are no covers, or the first."""
        moving = [s for s in self.streams if s.type == "video" and "attached_pic" not in s.dispositions]
        return next((s for s in moving if "default" in s.dispositions), moving[0])

    @property
    def others(self) -> list[ProbedStream]:
        return [stream for stream in self.streams if stream.index != self.video.index]

    def of_type(self, *types: str) -> list[ProbedStream]:
        return [stream for stream in self.others if stream.type in types]

    @property
    def times(self) -> list[Fraction | None]:
        return [frame.seconds for frame in self.video.frames]

    @property
    def first(self) -> ProbedFrame:
        return self.video.frames[0]

    def grids(self, *before: str) -> np.ndarray:
        """(frames, 8, 8) means of luma in 8 bit code values, as float32, of every frame as it is stored.

        before: filters that it goes through first.
        """
        filters = ",".join([*before, f"scale={GRID}:{GRID}:flags=area,format=gray"])
        raw = self._decoded("-vf", filters, "-f", "rawvideo")
        return np.frombuffer(raw, np.uint8).reshape(-1, GRID, GRID).astype(np.float32)

    def digests(self, pixel_format: str) -> list[str]:
        """The MD5 of every decoded frame in a pixel format, for comparisons to the bit."""
        lines = self._decoded("-pix_fmt", pixel_format, "-f", "framemd5")
        return [line.rpartition(",")[2].strip() for line in lines.decode().splitlines() if not line.startswith("#")]

    def _decoded(self, *output: str) -> bytes:
        """What ffmpeg makes of every frame as it is stored."""
        stream = ["-map", f"0:{self.video.index}", "-fps_mode", "passthrough"]
        return run_ffmpeg(["-noautorotate", "-i", self.path, *stream, *output, "-"])


def run_ffmpeg(arguments: Sequence[object]) -> bytes:
    """Run ffmpeg, which must succeed, and return what it writes to stdout."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def probe(path: Path) -> Probe:
    """Read all of a file: streams, chapters, every packet, and every frame of video."""
    asked = ["-show_streams", "-show_format", "-show_chapters", "-show_packets", "-show_data_hash", "md5"]
    facts = _ffprobe(path, [*asked])
    streams = [_stream(values) for values in facts.get("streams", [])]
    by_index = {stream.index: stream for stream in streams}
    for values in facts.get("packets", []):
        by_index[values["stream_index"]].packets.append(_packet(values))
    result = Probe(
        path, facts["format"]["format_name"], _lower(facts["format"].get("tags", {})), streams,
        [_chapter(values) for values in facts.get("chapters", [])],
    )  # fmt: skip
    if any(s.type == "video" and "attached_pic" not in s.dispositions for s in streams):
        video = result.video
        for values in _ffprobe(path, ["-select_streams", str(video.index), "-show_frames"]).get("frames", []):
            video.frames.append(_frame(values, video.time_base))
    return result


def _ffprobe(path: Path, asked: Sequence[str]) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", *asked, f"file:{path}"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.stdout, f"ffprobe {path}: {done.stderr.decode(errors='replace')}"
    facts: dict[str, Any] = json.loads(done.stdout.decode("utf-8", "replace"))
    return facts


def _lower(tags: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in tags.items()}  # Matroska writes its keys in capitals


def _ratio(text: str, otherwise: Fraction) -> Fraction:
    """A ratio as ffprobe writes it, "4:3"; 0:1 means that there is none."""
    numerator, _, denominator = text.partition(":")
    return Fraction(int(numerator), int(denominator)) if int(denominator or 0) and int(numerator) else otherwise


def _side_data(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {data["side_data_type"]: data for data in values.get("side_data_list", []) if "side_data_type" in data}


def _stream(values: dict[str, Any]) -> ProbedStream:
    colors = ("color_space", "color_primaries", "color_transfer", "color_range", "chroma_location")
    start = values.get("start_pts")
    time_base = Fraction(values["time_base"])
    return ProbedStream(
        index=values["index"],
        type=values.get("codec_type", "unknown"),
        codec=values.get("codec_name", "unknown"),
        time_base=time_base,
        start_seconds=None if start is None else start * time_base,
        field_order=values.get("field_order", "unknown"),
        color={name: values.get(name, "unknown") for name in colors},
        aspect=_ratio(values.get("sample_aspect_ratio", "1:1"), Fraction(1)),
        dispositions=frozenset(name for name, is_set in values.get("disposition", {}).items() if is_set),
        tags=_lower(values.get("tags", {})),
        side_data=_side_data(values),
        extradata_digest=values.get("extradata_hash", ""),
    )


def _packet(values: dict[str, Any]) -> ProbedPacket:
    duration = values.get("duration")
    return ProbedPacket(
        values.get("pts"), values.get("dts"), duration, int(values.get("size", 0)), values.get("data_hash", "")
    )


def _frame(values: dict[str, Any], time_base: Fraction) -> ProbedFrame:
    ticks = values.get("pts", values.get("best_effort_timestamp"))
    return ProbedFrame(
        seconds=None if ticks is None else ticks * time_base,
        width=values["width"],
        height=values["height"],
        pixel_format=values["pix_fmt"],
        is_interlaced=bool(values["interlaced_frame"]),
        repeat_pict=values["repeat_pict"],
        side_data=_side_data(values),
    )


def _chapter(values: dict[str, Any]) -> Chapter:
    base = Fraction(values["time_base"])
    return Chapter(values["start"] * base, values["end"] * base, values.get("tags", {}).get("title", ""))
