"""Frames of a GPU's decoder, by doubles: planes that export DLPack as PyAV's do, of memory on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.codec.hwaccel import HWAccel
from av.sidedata.sidedata import Type
from torch import Tensor

from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.media.av_frames import load_planes
from vsr.media.read.gpu_frames import GpuFrames, copied, open_on_gpu

WIDTH, HEIGHT, PITCH = 48, 32, 64


class Plane:
    """A plane of a hardware frame: it exports DLPack where nobody asks for a stream, which PyAV cannot serve."""

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if stream is not None:
            raise NotImplementedError("CUDA stream synchronization is not supported")
        return self.samples.__dlpack__()


class Frame:
    """A hardware frame in rows of `PITCH` samples. real: the same frame on the CPU, which PyAV downloads."""

    def __init__(self, number: int, format_: str = "nv12", **more: Any) -> None:
        dtype, peak = (torch.uint8, 256) if format_ == "nv12" else (torch.uint16, 1024)
        generator = torch.Generator().manual_seed(number)
        luma = torch.randint(peak, (HEIGHT, PITCH), generator=generator)
        chroma = torch.randint(peak, (HEIGHT // 2, PITCH // 2, 2), generator=generator)
        shift = 1 if dtype == torch.uint8 else 64
        self.surface = [(luma * shift).to(dtype)[:, :WIDTH], (chroma * shift).to(dtype)[:, : WIDTH // 2]]
        self.format, self.sw_format = SimpleNamespace(name="cuda"), SimpleNamespace(name=format_)
        self.width, self.height, self.num_downloads = WIDTH, HEIGHT, 0
        self.interlaced_frame, self.is_corrupt, self.side_data = False, False, list[Any]()
        self.pts, self.dts, self.duration, self.time_base = 10 * number, 10 * number - 2, 10, Fraction(1, 250)
        self.key_frame, self.pict_type = number == 0, 2
        self.colorspace, self.color_range, self.color_primaries, self.color_trc = 1, 1, 1, 1
        self.__dict__.update(more)

    @property
    def planes(self) -> tuple[Plane, ...]:
        return tuple(map(Plane, self.surface))

    def reformat(self, *, format: str) -> av.VideoFrame:
        self.num_downloads += 1
        frame = av.VideoFrame(WIDTH, HEIGHT, format)
        for plane, samples in zip(frame.planes, self.surface, strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
            data = samples.reshape(samples.shape[0], -1).contiguous().numpy().view(np.uint8)
            rows[:, : data.shape[1]] = data
        frame.pts, frame.time_base = self.pts, self.time_base
        return frame


def _samples(frame: av.VideoFrame) -> list[Tensor]:
    format_ = FORMATS[frame.format.name]
    planes = allocate_planes(format_, 1, frame.height, frame.width)
    load_planes(frame, format_, planes, 0)
    return list(planes)


@pytest.mark.parametrize("format_", ["nv12", "p010le"])
def test_frames_come_as_pyav_downloads_them_and_all_but_the_first_without_it(format_: str) -> None:
    notes: list[str] = []
    frames, fetch = [Frame(number, format_) for number in range(4)], GpuFrames(Path("in.mkv"), notes.append)
    fetched = [fetch.fetch(frame) for frame in frames]  # type: ignore[arg-type]
    assert [frame.num_downloads for frame in frames] == [1, 0, 0, 0], "the first one's side data describes the video"
    for frame, out in zip(frames, fetched, strict=True):
        wanted = frame.reformat(format=format_)
        assert all(torch.equal(a, b) for a, b in zip(_samples(out), _samples(wanted), strict=True))
        assert (out.pts, out.time_base, out.format.name) == (frame.pts, frame.time_base, format_)
    names = ("dts", "duration", "key_frame", "colorspace", "color_range", "color_primaries", "color_trc")
    for name in names:
        assert getattr(fetched[2], name) == getattr(frames[2], name), name
    assert notes == []


def test_a_surface_may_be_written_to_again_once_its_frame_is_fetched() -> None:
    frame, fetch = Frame(1), GpuFrames(Path("in.mkv"), lambda line: None)
    fetch.fetch(Frame(0))  # type: ignore[arg-type]
    wanted, out = _samples(frame.reformat(format="nv12")), fetch.fetch(frame)  # type: ignore[arg-type]
    for plane in frame.surface:
        plane.zero_()
    assert all(torch.equal(a, b) for a, b in zip(_samples(out), wanted, strict=True))


@pytest.mark.parametrize(
    "more",
    [
        {"interlaced_frame": True},
        {"is_corrupt": True},
        {"side_data": [SimpleNamespace(type=Type.A53_CC)]},  # type: ignore[attr-defined]
        {"width": WIDTH - 1},
    ],
)
def test_frames_of_which_more_than_samples_counts_are_downloaded_whole(more: dict[str, Any]) -> None:
    fetch, frame = GpuFrames(Path("in.mkv"), lambda line: None), Frame(1, **more)
    fetch.fetch(Frame(0))  # type: ignore[arg-type]
    fetch.fetch(frame)  # type: ignore[arg-type]
    assert frame.num_downloads == 1


def test_frames_that_pytorch_cannot_read_are_downloaded_and_that_is_said_once() -> None:
    notes: list[str] = []
    fetch = GpuFrames(Path("in.mkv"), notes.append)
    frames = [Frame(number) for number in range(4)]
    for frame in frames[1:]:
        frame.surface = [plane.to(torch.float64) for plane in frame.surface]  # of a type that PyAV refuses
        frame.reformat = lambda *, format, frame=frame: setattr(frame, "num_downloads", 1)  # type: ignore[method-assign]
    for frame in frames:
        fetch.fetch(frame)  # type: ignore[arg-type]
    assert [frame.num_downloads for frame in frames] == [1] * 4
    assert len(notes) == 1 and notes[0].startswith("in.mkv: the GPU's frames are fetched by PyAV, which is slower (")


def test_a_frame_on_the_cpu_is_handed_on() -> None:
    frame = av.VideoFrame(16, 16, "yuv420p")
    assert GpuFrames(Path("in.mkv"), print).fetch(frame) is frame


def test_copies_are_of_their_own() -> None:
    planes = [torch.arange(12, dtype=torch.uint8).reshape(3, 4)[:, :3]]
    (copy,) = copied(planes)
    assert copy.is_contiguous() and torch.equal(copy, planes[0]) and copy.data_ptr() != planes[0].data_ptr()


# -- opening ---------------------------------------------------------------------------------------------


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A PyTorch with CUDA; gives the GPUs whose contexts are current, the innermost last."""
    current: list[int] = []

    @contextmanager
    def device(index: int) -> Iterator[None]:
        current.append(index)
        try:
            yield
        finally:
            current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch, "empty", lambda *shape, device: None)
    return current


def test_the_decoder_is_opened_in_pytorchs_context_and_keeps_its_frames(contexts: list[int]) -> None:
    opened: list[tuple[HWAccel, list[int]]] = []
    open_on_gpu(1, lambda settings: opened.append((settings, list(contexts))), print)  # type: ignore[func-returns-value, arg-type, return-value]
    ((settings, where),) = opened
    assert where == [1] and contexts == []
    assert settings.is_hw_owned and settings.options == {"primary_ctx": "0", "current_ctx": "1"}
    assert settings.device_id == 1


def test_a_decoder_that_refuses_pytorchs_context_works_beside_it_and_that_is_said(contexts: list[int]) -> None:
    opened: list[HWAccel] = []
    lines: list[str] = []

    def open_with(settings: HWAccel) -> Any:
        opened.append(settings)
        if settings.is_hw_owned:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
        return "opened"

    assert open_on_gpu(0, open_with, lines.append) == "opened"
    assert [settings.is_hw_owned for settings in opened] == [True, False]
    assert len(lines) == 1 and "does not work in PyTorch's context, but beside it" in lines[0]


def test_without_cuda_in_pytorch_nothing_changes() -> None:
    if torch.cuda.is_available():
        pytest.skip("it has CUDA")
    opened: list[HWAccel] = []
    open_on_gpu(0, opened.append, print)  # type: ignore[arg-type]
    assert [settings.is_hw_owned for settings in opened] == [False]
