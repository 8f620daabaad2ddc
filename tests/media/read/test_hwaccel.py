"""Decoding on a GPU: the real one where there is one, else a container that behaves like it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch

from vsr.errors import InputError
from vsr.frames import FrameBatch
from vsr.media.pyav_fixes import choose_decoding_threads
from vsr.media.read import demuxer
from vsr.media.read.opening import open_input
from vsr.media.read.reader import VideoReader

SAMPLE = Path(__file__).resolve().parents[3] / "samples" / "sample.mp4"
NUM_FRAMES = 12


class _Instead:
    """An object of PyAV with some of its attributes replaced."""

    def __init__(self, real: Any, **instead: Any) -> None:
        self.__dict__.update(instead, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__["_real"])


class _GpuContainer:
    """What PyAV gives for hwaccel: the same frames, downloaded in a GPU's pixel format."""

    def __init__(self, real: Any, pixel_format: str = "nv12", fails_at: int | None = None) -> None:
        self._real, self._pixel_format, self._fails_at, self._num_decoded = real, pixel_format, fails_at, 0
        context = _Instead(real.streams.video[0].codec_context, is_hwaccel=True)
        stream = _Instead(real.streams.video[0], codec_context=context)
        self.streams = _Instead(real.streams, video=[stream])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def demux(self) -> Iterator[Any]:
        for packet in self._real.demux():
            is_video = packet.stream.index == self.streams.video[0].index
            yield _Instead(packet, decode=lambda packet=packet: self._decoded(packet)) if is_video else packet

    def _decoded(self, packet: Any) -> list[av.VideoFrame]:
        self._num_decoded += 1
        if self._num_decoded == self._fails_at:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
        return [frame.reformat(format=self._pixel_format, threads=1) for frame in packet.decode()]


def _on_a_gpu(monkeypatch: pytest.MonkeyPatch, **behaviour: Any) -> None:
    def opened_once(path: Path, hwaccel: Any = None, format_: Any = None, opened: Any = None) -> Any:
        return open_input(path) if hwaccel is None else _GpuContainer(open_input(path), **behaviour)

    monkeypatch.setattr(demuxer, "open_input", opened_once)


def _batch(path: Path = SAMPLE, gpu: int | None = None) -> tuple[FrameBatch, str, list[str]]:
    """The first frames of a clip, FFmpeg's name of their format, and what was said."""
    notes: list[str] = []
    with VideoReader(path, gpu=gpu, warn=notes.append) as video:
        batch = next(video.chunks(NUM_FRAMES)).batch
        assert batch is not None
        return batch, video.info.source_pixel_format, notes


def _assert_same(a: FrameBatch, b: FrameBatch) -> None:
    assert a.num_frames == b.num_frames == NUM_FRAMES
    assert (a.pts, a.durations, a.time_base, a.color) == (b.pts, b.durations, b.time_base, b.color)
    assert all(torch.equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


def test_planes_are_the_same_whatever_decodes() -> None:
    """On a machine with a GPU it decodes; on others the CPU does, and that is said."""
    on_gpu, pixel_format, notes = _batch(gpu=0)
    _assert_same(on_gpu, _batch()[0])
    if notes:
        assert len(notes) == 1 and "decoded on the CPU: FFmpeg finds no CUDA decoder" in notes[0]
        assert not torch.cuda.is_available(), notes[0]
    else:
        assert pixel_format == "nv12"


def test_frames_of_a_gpu_are_read_as_the_planes_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _batch()[0]
    _on_a_gpu(monkeypatch)
    on_gpu, pixel_format, notes = _batch(gpu=0)
    assert (pixel_format, notes) == ("nv12", [])
    _assert_same(on_gpu, expected)


def test_one_thread_feeds_a_gpu_and_all_cores_decode_without() -> None:
    """Frame threads would take surfaces beside those of the video, of which NVIDIA's decoders have 32."""
    for is_on_gpu, threads in ((True, 1), (False, 0)):  # 0 is FFmpeg's own choice
        stream: Any = SimpleNamespace(codec_context=SimpleNamespace(is_hwaccel=is_on_gpu, thread_count=None))
        choose_decoding_threads(stream, one_by_one=False)
        assert stream.codec_context.thread_count == threads


def test_a_stream_that_the_gpu_does_not_take_is_decoded_by_ffmpeg_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _batch()[0]
    _on_a_gpu(monkeypatch, pixel_format="yuv420p")
    on_cpu, _, notes = _batch(gpu=0)
    _assert_same(on_cpu, expected)
    assert len(notes) == 1 and "the GPU does not take yuv420p" in notes[0]


def test_a_gpu_that_fails_is_no_damage_but_an_error_that_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_a_gpu(monkeypatch, fails_at=5)
    with pytest.raises(InputError, match=r"GPU's decoder failed \(.+\); `hwaccel=\"none\"`"):
        _batch(gpu=0)


def test_what_a_gpu_may_decode_otherwise_stays_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(NUM_FRAMES):
            frame = av.VideoFrame(64, 48, "gray")
            frame.planes[0].update(bytes([20 * index]) * frame.planes[0].buffer_size)
            output.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        output.mux(stream.encode(None))
    expected = _batch(tmp_path / "in.mkv")[0]
    _on_a_gpu(monkeypatch)
    batch, _, notes = _batch(tmp_path / "in.mkv", gpu=0)
    _assert_same(batch, expected)
    assert len(notes) == 1 and "decoded on the CPU: of a GPU's mpeg4" in notes[0]
