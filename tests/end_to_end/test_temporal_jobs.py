"""Jobs with a network that carries what it saw before: parts, stops and hard material end as an unbroken run does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream
from torch import Tensor, nn

from vsr.backends.torch_engine import TorchEngine
from vsr.jobs import resume
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.models.cards import ModelCard
from vsr.models.weights import build_net
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

NUM_FRAMES, INTERVAL, WARM_UP = 46, 10, 3
CUT = 27  # the first frame of another scene
OPTIONS: dict[str, Any] = {"features": 4, "blocks": 1, "scale": 2}
CARD = ModelCard(
    "small",
    "recurrent",
    OPTIONS,
    2,
    "yuv",
    halo=4,
    recurrent=True,
    restart_interval=INTERVAL,
    warm_up=WARM_UP,
    run_in=4,
)


class Stopped(Exception):
    """What ends a job in the middle."""


class Engine:
    """A small recurrent network on the CPU, until it has been called often enough."""

    def __init__(self, net: nn.Module, num_calls: float = float("inf")) -> None:
        self._engine, self._calls_left = TorchEngine(net, torch.device("cpu"), "fp32"), num_calls
        self.name, self.device, self.dtype = self._engine.name, self._engine.device, self._engine.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._calls_left <= 0:
            raise Stopped
        self._calls_left -= 1
        return self._engine(*inputs)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(3)
    made = build_net(CARD)
    nn.init.normal_(made.tail.weight, std=0.05)  # type: ignore[arg-type, union-attr]
    return made.eval().requires_grad_(False)


def _pictures(num_frames: int, size: tuple[int, int] = (64, 48), seed: int = 1) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB: a texture that drifts by a part of a pixel a frame."""
    width, height = size
    noise = np.random.default_rng(seed).normal(0, 1, (height + 40, width + 60, 3)).astype(np.float32)
    texture = np.clip(cv2.GaussianBlur(noise, (0, 0), 1.5) * 250 + 128, 0, 255).astype(np.uint8)
    for index in range(num_frames):
        moved = np.array([[1, 0, -0.7 * index - 4], [0, 1, -0.3 * index - 4]], np.float32)
        yield cv2.warpAffine(texture, moved, size)


def _write(path: Path, pictures: Iterator[np.ndarray], pix_fmt: str = "yuv420p", codec: str = "libx264") -> Path:
    """Write a clip of variable frame rate; H.264 gets B-frames and a key frame every 14 frames."""
    steps = itertools.accumulate(itertools.cycle((40, 40, 20, 80, 41)), initial=0)
    with av.open(str(path), "w") as container:
        options = {"bf": "2", "g": "14"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        stream.pix_fmt = pix_fmt
        first = next(pictures)
        stream.height, stream.width = first.shape[:2]
        for picture, pts in zip(itertools.chain([first], pictures), steps, strict=False):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = itertools.chain(_pictures(CUT), _pictures(NUM_FRAMES - CUT, seed=2))
    return _write(tmp_path_factory.mktemp("clip") / "in.mkv", scenes)


def _run(source: Path, output: Path, net: nn.Module, num_calls: float = float("inf"), **options: Any) -> None:
    chosen = JobOptions.of(**{"batch": 3, "codec": "ffv1", "overwrite": True, **options})
    network = CheckedNetwork(CARD, lambda precision: Engine(net, num_calls), "fp32")
    enhance_file(source, output, chosen, upscaler=Upscaler(network))


def _frames(path: Path) -> tuple[list[Fraction], list[bytes]]:
    """Times in seconds, and the samples of every frame."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.pts * frame.time_base for frame in frames], [frame.to_ndarray().tobytes() for frame in frames]


@pytest.fixture(scope="module")
def whole(clip: Path, net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Fraction], list[bytes]]:
    output = tmp_path_factory.mktemp("whole") / "whole.mkv"
    _run(clip, output, net)
    times, frames = _frames(output)
    assert len(frames) == NUM_FRAMES
    return times, frames


@pytest.mark.parametrize("first", [2, 9, 10, CUT - 10, CUT, 33])  # the fourth ends with the first frame of a scene
def test_a_part_has_the_frames_of_the_whole(
    first: int, clip: Path, net: nn.Module, whole: tuple[list[Fraction], list[bytes]], tmp_path: Path
) -> None:
    times, frames = whole
    last = first + 11
    part = {"start_seconds": times[first] - Fraction(1, 1000), "duration_seconds": times[last] - times[first]}
    _run(clip, tmp_path / "part.mkv", net, **part)
    found_times, found = _frames(tmp_path / "part.mkv")
    assert found == frames[first:last]
    assert [time - found_times[0] for time in found_times] == [time - times[first] for time in times[first:last]]


def test_a_part_without_the_frames_beside_it_would_differ(
    clip: Path, net: nn.Module, whole: tuple[list[Fraction], list[bytes]], tmp_path: Path
) -> None:
    """Else the test above would show nothing: a file of the part alone has other frames."""
    part = _write(tmp_path / "alone.mkv", itertools.islice(_pictures(NUM_FRAMES), 14, 26), codec="ffv1")
    _run(part, tmp_path / "out.mkv", net)
    assert _frames(tmp_path / "out.mkv")[1][0] != whole[1][14]


@pytest.mark.parametrize("start", [None, 0.5])
def test_a_stopped_job_ends_as_an_unbroken_one(
    start: float | None, clip: Path, net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 6)
    monkeypatch.setattr(resume, "_MOST_FRAMES", 6)
    _run(clip, tmp_path / "whole.mkv", net, start_seconds=start)
    for num_calls in (16, 9, 14):
        with pytest.raises(Stopped):
            _run(clip, tmp_path / "out.mkv", net, num_calls, start_seconds=start, resume=True)
    _run(clip, tmp_path / "out.mkv", net, start_seconds=start, resume=True)
    assert _frames(tmp_path / "out.mkv") == _frames(tmp_path / "whole.mkv")


class _DriftsLater(Engine):
    """An engine whose state is wrong from its seventh step on, which is after the trial of a long job."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self._steps_left = 6

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *images, state = super().__call__(*inputs)
        self._steps_left -= 1
        return (*images, state + 1 if self._steps_left < 0 else state)


def test_the_trial_of_a_long_job_leaves_its_precision_to_be_checked_along_the_first_frames(
    clip: Path,
    net: nn.Module,
    whole: tuple[list[Fraction], list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume, "_MACS_NEVER_LONG", 0)
    monkeypatch.setattr(resume, "LONG_JOB_SECONDS", 0)
    network = CheckedNetwork(CARD, lambda precision: _DriftsLater(net) if precision == "bf16" else Engine(net), "bf16")
    options = JobOptions.of(batch=3, codec="ffv1", overwrite=True)
    enhance_file(clip, tmp_path / "out.mkv", options, upscaler=Upscaler(network))
    assert network.precision == "fp32"
    assert _frames(tmp_path / "out.mkv") == whole


def test_damage_takes_no_frame(
    clip: Path, net: nn.Module, whole: tuple[list[Fraction], list[bytes]], tmp_path: Path
) -> None:
    """The decoder repeats or conceals what it cannot read, and the memory goes on from there."""
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    for number in (5, 21):
        start = data.index(packets[number]) + 40
        end = start - 40 + len(packets[number])
        data[start:end] = bytes(255 - value for value in data[start:end])
    (tmp_path / "damaged.mkv").write_bytes(data)
    _run(tmp_path / "damaged.mkv", tmp_path / "out.mkv", net)
    times, frames = _frames(tmp_path / "out.mkv")
    assert times == whole[0]
    assert frames[:2] == whole[1][:2] and frames != whole[1]


def test_a_change_of_size_on_the_way_takes_no_frame(net: nn.Module, tmp_path: Path) -> None:
    parts = []
    for number, size in enumerate([(64, 48), (96, 72)]):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w", options={"mpegts_flags": "+initial_discontinuity"}) as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for index, image in enumerate(_pictures(12, size)):
                frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = 12 * number + index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(part.read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    _run(tmp_path / "in.ts", tmp_path / "out.mkv", net)
    with av.open(str(tmp_path / "out.mkv")) as container:
        frames = list(container.decode(video=0))
    assert {(frame.width, frame.height) for frame in frames} == {(128, 96)}
    times = [frame.pts * frame.time_base for frame in frames]
    assert len(times) == 24 and all(0 < b - a <= Fraction(1, 20) for a, b in itertools.pairwise(times))
