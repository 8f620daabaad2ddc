"""Clips made on the spot, an identity network, and a reader that shares no code with vsr."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.sidedata.sidedata import Type
from command_line import Run, runner

from vsr.models.cards import ModelCard
from vsr.models.weights import build_net, save_model_file

ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
SAMPLE_RATE = 48000


# -- a network that changes nothing --------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ×1 luma network as a model file, its last layer zero: what goes in comes out."""
    card = ModelCard("tiny", "luma", {"features": 4, "depth": 0, "scale": 1}, 1, "y", 2)
    state = build_net(card).state_dict()
    state["tail.weight"] = torch.zeros_like(state["tail.weight"])
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model_file(path, card, state)
    return path


@pytest.fixture(scope="session")
def memory_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ×2 network with memory as a model file: its last layer is zero, so that it repeats pixels."""
    options = {"features": 4, "blocks": 1, "scale": 2}
    card = ModelCard(
        "memory", "recurrent", options, 2, "yuv", 4, recurrent=True, restart_interval=8, warm_up=2, run_in=3
    )
    state = build_net(card).state_dict()
    state["tail.weight"] = torch.zeros_like(state["tail.weight"])
    path = tmp_path_factory.mktemp("model") / "memory.safetensors"
    save_model_file(path, card, state)
    return path


# -- making clips --------------------------------------------------------------------------------------


def brightness(index: int) -> int:
    """The luma code value of a made clip's frame: no two within 60 frames are alike."""
    return 30 + 3 * (index % 60)


def _fill(plane: Any, value: int, dark_column: int | None = None) -> None:
    rows = np.full((plane.height, plane.line_size), value, np.uint8)
    if dark_column is not None:
        rows[:, dark_column] = 16
    plane.update(rows.tobytes())


def _picture(index: int, size: tuple[int, int], pix_fmt: str) -> av.VideoFrame:
    """A frame of one brightness and colour, with a darker bar that moves."""
    frame = av.VideoFrame(*size, "yuv420p")
    _fill(frame.planes[0], brightness(index), (5 * index) % size[0])
    _fill(frame.planes[1], 120)
    _fill(frame.planes[2], 140)
    return frame if pix_fmt == "yuv420p" else frame.reformat(threads=1, format=pix_fmt)


def _encode_audio(output: Any, stream: Any, seconds: Fraction) -> None:
    total = int(seconds * SAMPLE_RATE)
    wave = (8000 * np.sin(np.arange(total) * 0.05)).astype(np.int16)
    samples = np.repeat(wave[:, None], 2, 1).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


@dataclass
class Track:
    """An audio track of a made clip."""

    codec: str = "aac"
    metadata: dict[str, str] = field(default_factory=dict)


def _add_video(output: Any, codec: str, pix_fmt: str, size: tuple[int, int], time_base: Fraction) -> Any:
    stream = output.add_stream(codec, rate=25)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = *size, pix_fmt
    context.time_base = stream.time_base = time_base
    return stream


def make_clip(
    path: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    pts: Sequence[int] = tuple(range(8)),
    time_base: Fraction = Fraction(1, 25),
    audio: Sequence[Track] = (),
    chapters: Sequence[tuple[int, int, str]] = (),
    metadata: dict[str, str] | None = None,
    attachment: bytes | None = None,
    options: dict[str, str] | None = None,
    picture: Callable[[int], av.VideoFrame] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """Write a clip: frames at `pts` ticks, and beside them what is asked for.

    chapters: (start, end) in milliseconds, and a title.  picture: frame by index, instead of the usual.
    prepare: called with the video stream before it is opened, for tags, aspect ratio and rotation.
    """
    # The edit list of ISO files, which holds a late start, has ticks of its own.
    muxer = {"movie_timescale": "90000"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=muxer) as output:
        video = _add_video(output, codec, pix_fmt, size, time_base)
        video.options = {"preset": "ultrafast"} if options is None else options
        prepare(video)
        tracks = [output.add_stream(track.codec, rate=SAMPLE_RATE, layout="stereo") for track in audio]
        for stream, track in zip(tracks, audio, strict=True):
            stream.metadata.update(track.metadata)
        output.metadata.update(metadata or {})
        if chapters:
            output.set_chapters([_chapter(i, *chapter) for i, chapter in enumerate(chapters)])
        if attachment is not None:
            output.add_attachment("note.txt", "text/plain", attachment)
        for index, ticks in enumerate(pts):
            frame = _picture(index, size, pix_fmt) if picture is None else picture(index)
            frame.pts, frame.time_base = ticks, time_base
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for stream in tracks:
            _encode_audio(output, stream, (pts[-1] - min(0, pts[0]) + 1) * time_base)
    return path


def _chapter(number: int, start: int, end: int, title: str) -> dict[str, Any]:
    return {
        "id": number + 1,
        "start": start,
        "end": end,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


# -- reading back --------------------------------------------------------------------------------------


@dataclass
class StreamFacts:
    """One stream as plain PyAV sees it; packets hold what is in the file, byte for byte."""

    index: int
    type: str
    codec: str
    metadata: dict[str, str]
    packets: list[bytes] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)


@dataclass
class Reading:
    """A file, demuxed and decoded to its end by PyAV alone.

    times, brightness: of each decoded frame of the main video stream, in seconds and in 8 bit code values.
    first: the first of these frames.  tick: seconds per tick of that stream.
    """

    format: str
    metadata: dict[str, str]
    chapters: list[tuple[Fraction, Fraction, str]]
    streams: list[StreamFacts]
    video: StreamFacts
    tick: Fraction
    aspect: Fraction
    times: list[Fraction | None]
    brightness: list[float]
    frames: list[av.VideoFrame]
    first: av.VideoFrame

    @property
    def others(self) -> list[StreamFacts]:
        return [stream for stream in self.streams if stream is not self.video]

    @property
    def tags(self) -> tuple[int, int, int, int]:
        """Matrix, primaries, transfer, range, in FFmpeg's numbers."""
        frame = self.first
        color_range = 2 if frame.format.name.startswith("yuvj") else int(frame.color_range)
        return int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), color_range

    @property
    def display_matrix(self) -> tuple[int, ...] | None:
        data = self.side_data(Type.DISPLAYMATRIX)
        return None if data is None else struct.unpack("<9i", data[:36])

    def side_data(self, kind: Type) -> bytes | None:
        return next((bytes(data) for data in self.first.side_data if data.type == kind), None)


def _mean(frame: av.VideoFrame) -> float:
    """The mean of the first plane, in 8 bit code values."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    width = plane.line_size // (2 if bits > 8 else 1)
    rows = np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8).reshape(-1, width)
    per_row = plane.width * (3 if frame.format.name == "rgb24" else 1)
    return float(rows[: plane.height, :per_row].mean()) / 2 ** (bits - 8)


def _facts(stream: Any) -> StreamFacts:
    codec = getattr(stream.codec_context or stream, "name", None) or "?"
    return StreamFacts(stream.index, stream.type, codec, _lower(stream.metadata))


def _lower(metadata: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in metadata.items()}  # Matroska writes its keys in capitals


def read_back(path: Path, *, keep_frames: bool = False) -> Reading:
    """Demux all and decode the main video stream of a file. keep_frames: also keep them, in memory."""
    with av.open(str(path), metadata_errors="replace") as container:
        video = next(s for s in container.streams.video if not int(s.disposition) & ATTACHED_PICTURE)
        video.thread_type = "AUTO"
        streams = [_facts(stream) for stream in container.streams]
        frames, times, means, first = [], [], [], None
        for packet in container.demux():
            if packet.size and packet.stream.index != video.index:
                facts = streams[packet.stream.index]
                facts.packets.append(bytes(packet))
                time = packet.pts if packet.pts is not None else packet.dts
                facts.times.append((time or 0) * packet.time_base)
            for frame in packet.decode() if packet.stream.index == video.index else ():
                first = first or frame
                times.append(None if frame.pts is None else frame.pts * frame.time_base)
                means.append(_mean(frame))
                frames += [frame] if keep_frames else []
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title", ""))
            for c in container.chapters()
        ]
        return Reading(
            container.format.name,
            _lower(container.metadata),
            chapters,
            streams,
            streams[video.index],
            video.time_base,
            Fraction(video.sample_aspect_ratio or 1),
            times,
            means,
            frames,
            first,
        )


# The helpers above as fixtures: test modules have no way to import a conftest.


@pytest.fixture(scope="session", name="make_clip")
def make_clip_fixture() -> Callable[..., Path]:
    return make_clip


@pytest.fixture(scope="session", name="read_back")
def read_back_fixture() -> Callable[..., Reading]:
    return read_back


@pytest.fixture(scope="session", name="brightness")
def brightness_fixture() -> Callable[[int], int]:
    return brightness


@pytest.fixture(scope="session", name="Track")
def track_fixture() -> type[Track]:
    return Track


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 64×48 at 25 fps with AAC sound. Do not write to it."""
    pts = tuple(range(20))
    return make_clip(tmp_path_factory.mktemp("clip") / "small.mp4", pts=pts, audio=[Track()])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, through the entry point of `vsr`."""
    return runner(monkeypatch, capfd)


@pytest.fixture
def clean_folder(tmp_path: Path) -> Callable[..., None]:
    """Asserts that the test's folder holds the named files and nothing else, hidden files included."""

    def check(*expected: str) -> None:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)

    return check
