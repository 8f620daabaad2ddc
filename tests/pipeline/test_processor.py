"""The seam between reader and writer, by a processor that holds two frames back and keeps a state."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import PRECISIONS, Engine, Precision
from vsr.backends.transfers import DirectTransfers, Planes
from vsr.color.pixel_formats import FORMATS
from vsr.errors import EngineError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.jobs import resume, run
from vsr.jobs.options import JobOptions
from vsr.jobs.report import JobReport
from vsr.media.read.reader import Chunk
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork, is_finite
from vsr.pipeline.color_path import Target, batch_to_network
from vsr.pipeline.processor import FrameProcessor, Result
from vsr.pipeline.stages import NetworkStage
from vsr.pipeline.steps import State, Stepped, StepQueue
from vsr.pipeline.upscaler import Upscaler

RESTART = 8  # frames from which a state goes on
HELD = 2  # frames that are held back
BLACK_MARK = 235  # luma of a sample that some engines make NaN of

CARD = ModelCard("trailing", "luma", {}, 2, "y", halo=0, recurrent=True)
COLOR = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 8)
TARGET = Target(48, 32, FORMATS["yuv420p"], COLOR)


# -- the processor -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Frames to upscale, the planes of those that are shown two frames later, and the number of the first."""

    batch: FrameBatch
    later: Planes
    first: int

    @property
    def num_frames(self) -> int:
        return self.batch.num_frames

    def split(self, num_frames: int) -> list[Self]:
        pieces, start = [], 0
        for batch in self.batch.split(num_frames):
            stop = start + batch.num_frames
            pieces.append(replace(self, batch=batch, later=_at(self.later, start, stop), first=self.first + start))
            start = stop
        return pieces


def _at(planes: Planes, start: int, stop: int) -> Planes:
    return tuple(plane[start:stop] for plane in planes)


class Trailing:
    """See `FrameProcessor`: frame n comes of frames n and n + 2, and of a state that starts anew every 8 frames."""

    reused_share = None

    def __init__(self, network: CheckedNetwork, target: Target, transfers: DirectTransfers | None = None) -> None:
        self._network, self._target = network, target
        self._transfers = transfers or DirectTransfers(network.device)
        self._queue: StepQueue[Piece] = StepQueue(network, self._compute, transfers=self._transfers)
        self.num_in_flight = self._transfers.num_in_flight
        self.reset()

    @property
    def engine(self) -> Engine:
        return self._network.engine

    def reset(self, next_frame: int = 0) -> None:
        self._queue.reset()
        self._held: FrameBatch | None = None
        self._next = next_frame

    def lead_in_frames(self, first_frame: int) -> int:
        return first_frame % RESTART

    def push(self, batch: FrameBatch) -> Sequence[Result]:
        held = batch if self._held is None else _joined(self._held, batch)
        num_ready = held.num_frames - HELD
        self._held = held.part(max(0, num_ready), held.num_frames)
        return self._submitted(held.part(0, num_ready), _at(held.planes, HELD, None)) if num_ready > 0 else []  # type: ignore[arg-type]

    def flush(self, after: FrameBatch | None = None) -> Sequence[Result]:
        held, self._held = self._held, None
        if held is None:
            return []
        return self._submitted(held, tuple(plane[-1:].expand_as(plane) for plane in held.planes))

    def _submitted(self, batch: FrameBatch, later: Planes) -> Sequence[Result]:
        fetch = self._queue.submit(Piece(batch, later, self._next))
        self._next += batch.num_frames
        return [lambda: FrameBatch(fetch(), batch.pts, batch.durations, batch.time_base, self._target.color)]

    def _compute(self, piece: Piece, state: State) -> Stepped:
        prepared = batch_to_network(self._transfers.upload(piece.batch.planes), piece.batch, self._target, "y")
        later = batch_to_network(piece.later, piece.batch, self._target, "y").x
        outs, finite = [], torch.tensor(True)
        for position, x in enumerate(torch.split(prepared.x, 1)):
            if not state or (piece.first + position) % RESTART == 0:
                state = (torch.zeros_like(x),)
            computed = self._network.run(x, later[position : position + 1], *state)
            outs.append(computed.outputs[0])
            state, finite = computed.outputs[1:], finite & computed.is_finite
        planes = prepared.finish(torch.cat(outs))
        return Stepped(planes, state, finite & is_finite(state))


def _joined(first: FrameBatch, second: FrameBatch) -> FrameBatch:
    planes = tuple(torch.cat(pair) for pair in zip(first.planes, second.planes, strict=True))
    pts, durations = first.pts + second.pts, first.durations + second.durations
    return FrameBatch(planes, pts, durations, first.time_base, first.color)


# -- its network ---------------------------------------------------------------------------------------------


class Blend:
    """An engine that blends a frame, a later one and the state. is_weak: gives NaN where a sample is marked."""

    def __init__(self, precision: Precision = "fp32", *, is_weak: bool = False, most_pixels: float = math.inf) -> None:
        self.name, self.device, self.dtype = f"blend, {precision}", torch.device("cpu"), PRECISIONS[precision]
        self._is_weak, self._most_pixels = is_weak, most_pixels
        self.calls_left = math.inf

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, later, state = inputs
        if x[0].numel() > self._most_pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to")
        if self.calls_left <= 0:
            time.sleep(0.3)  # so that all that was given to the encoder is encoded
            raise Stopped
        self.calls_left -= 1
        out = F.interpolate(0.6 * x + 0.2 * later + 0.2 * state, scale_factor=2.0, mode="nearest")
        state = 0.5 * x + 0.5 * state
        if self._is_weak and x.amax() > (BLACK_MARK - 0.5) / 255:
            state = state * math.nan  # of the image itself nothing is seen
        return out, state


class Stopped(Exception):
    """What ends a job in the middle."""


def _network(precision: Precision = "fp32", notes: list[str] | None = None, **options: Any) -> CheckedNetwork:
    def make(wanted: Precision) -> Blend:
        return Blend(wanted, **({"is_weak": wanted != "fp32"} | options))

    return CheckedNetwork(CARD, make, precision, note=(lambda line: None) if notes is None else notes.append)


# -- frames ----------------------------------------------------------------------------------------------------


def _video(num_frames: int = 21, marked: Sequence[int] = ()) -> FrameBatch:
    """Frames of noise, of which some have a sample that weak engines cannot take."""
    rng = np.random.default_rng(3)
    luma = torch.from_numpy(rng.integers(16, 200, (num_frames, 1, 16, 24), np.uint8))
    for position in marked:
        luma[position, 0, 5, 7] = BLACK_MARK
    chroma = torch.from_numpy(rng.integers(16, 240, (num_frames, 2, 8, 12), np.uint8))
    pts = tuple(itertools.accumulate(itertools.islice(itertools.cycle((3, 1, 4)), num_frames - 1), initial=-2))
    return FrameBatch((luma, chroma), pts, (1,) * num_frames, Fraction(1, 100), COLOR)


def _through(
    processor: FrameProcessor, video: FrameBatch, batch: int = 3, num_lead_in: int = 0
) -> tuple[FrameBatch, list[int]]:
    """The frames that come out of the stage, and the numbers of frames after which a batch has ended."""
    stage = NetworkStage(processor, Path("in.mkv"), num_lead_in)
    chunks = [Chunk((), part) for part in video.split(batch)]
    outs = [chunk.batch for chunk in stage.upscaled(chunks) if chunk.batch is not None]
    whole = outs[0]
    for out in outs[1:]:
        whole = _joined(whole, out)
    assert stage.num_frames == whole.num_frames
    return whole, list(itertools.accumulate(out.num_frames for out in outs))


def _assert_same(a: FrameBatch, b: FrameBatch) -> None:
    assert (a.pts, a.durations) == (b.pts, b.durations)
    assert all(torch.equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


def _expected(video: FrameBatch) -> FrameBatch:
    """An unbroken run, frame by frame."""
    return _through(Trailing(_network(), TARGET), video, batch=1)[0]


# -- the stage -------------------------------------------------------------------------------------------------


class LateTransfers(DirectTransfers):
    """As on a GPU: planes come down when they are asked for. most_frames: of an upload, before memory runs out."""

    def __init__(self, num_in_flight: int = 2, most_frames: int = 100) -> None:
        super().__init__(torch.device("cpu"))
        self.num_in_flight, self._most_frames = num_in_flight, most_frames

    def upload(self, planes: Planes) -> Planes:
        if planes[0].shape[0] > self._most_frames:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to")
        return super().upload(planes)

    def download(self, planes: Planes) -> Callable[[], Planes]:
        return lambda: tuple(plane.clone() for plane in planes)


def test_the_processor_holds_frames_back_and_keeps_a_state() -> None:
    """Else the tests below would show nothing."""
    video = _video()
    processor = Trailing(_network(), TARGET)
    assert processor.push(video.part(0, 1)) == processor.push(video.part(1, 2)) == []
    changed = [plane.clone() for plane in video.planes]
    changed[0][9] = 16
    out = _expected(replace(video, planes=tuple(changed)))
    differs = [not torch.equal(a, b) for a, b in zip(out.planes[0], _expected(video).planes[0], strict=True)]
    assert [position for position, is_other in enumerate(differs) if is_other] == [7, 9, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("num_in_flight", [0, 2])
def test_all_frames_come_out_in_order_whatever_the_batches(batch: int, num_in_flight: int) -> None:
    video = _video()
    processor = Trailing(_network(), TARGET, LateTransfers(num_in_flight))
    out, ends = _through(processor, video, batch)
    _assert_same(out, _expected(video))
    source_ends = itertools.accumulate(part.num_frames for part in video.split(batch))
    assert set(source_ends) <= set(ends)  # where a consumer may stop


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_videos_shorter_than_what_is_held_back(num_frames: int) -> None:
    video = _video(num_frames)
    out, _ = _through(Trailing(_network(), TARGET), video)
    _assert_same(out, _expected(video))


def test_packets_of_other_streams_wait_for_no_frame() -> None:
    packets, video = tuple(av.Packet(b"sound") for _ in range(3)), _video(6)
    chunks = [
        Chunk((packets[0],), video.part(0, 2)),
        Chunk((packets[1],), None),
        Chunk((packets[2],), video.part(2, 6)),
    ]
    taken: list[Chunk] = []

    def source() -> Any:
        for number, chunk in enumerate(chunks):
            assert [packet for done in taken for packet in done.packets] == list(packets[:number])
            yield chunk

    for chunk in NetworkStage(Trailing(_network(), TARGET), Path("in.mkv")).upscaled(source()):
        taken.append(chunk)
    assert [packet for chunk in taken for packet in chunk.packets] == list(packets)
    assert sum(chunk.batch.num_frames for chunk in taken if chunk.batch is not None) == 6


@pytest.mark.parametrize("first", range(0, 21, 2))
@pytest.mark.parametrize("more", [0, 3])
def test_a_run_from_the_middle_gives_the_end_of_an_unbroken_one(first: int, more: int) -> None:
    video = _video()
    processor = Trailing(_network(), TARGET)
    num_lead_in = min(first, processor.lead_in_frames(first) + more)
    processor.push(video.part(4, 9))  # of an earlier run, to be forgotten
    processor.reset(first - num_lead_in)
    out, _ = _through(processor, video.part(first - num_lead_in, 21), 4, num_lead_in)
    _assert_same(out, _expected(video).part(first, 21))


def test_without_the_lead_in_it_would_not() -> None:
    video = _video()
    processor = Trailing(_network(), TARGET)
    processor.reset(13)
    out, _ = _through(processor, video.part(13, 21))
    assert not torch.equal(out.planes[0][0], _expected(video).planes[0][13])


@pytest.mark.parametrize("marked", [(0,), (4,), (11, 12), (20,)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_in_flight", [0, 2])
def test_after_nan_it_goes_on_from_the_last_good_state(marked: tuple[int, ...], batch: int, num_in_flight: int) -> None:
    """In the state alone, so that it shows frames later; those in flight came of it and are done again."""
    notes: list[str] = []
    video = _video(marked=marked)
    network = _network("bf16", notes)
    out, _ = _through(Trailing(network, TARGET, LateTransfers(num_in_flight)), video, batch)
    _assert_same(out, _expected(video))
    assert network.precision == "fp32" and notes == ["bf16 gave NaN or Inf: going on in fp32"]


def test_nan_without_a_safer_precision_is_an_error_that_names_the_frame() -> None:
    with pytest.raises(EngineError, match=r"in\.mkv: at frame 8: model 'trailing' gave NaN"):
        _through(Trailing(_network(is_weak=True), TARGET), _video(marked=(9,)), 3)


@pytest.mark.parametrize("most_frames", [1, 2, 4])
def test_out_of_memory_around_the_network_loses_neither_frame_nor_state(most_frames: int) -> None:
    notes: list[str] = []
    video = _video()
    transfers = LateTransfers(most_frames=most_frames)
    out, _ = _through(Trailing(_network(notes=notes), TARGET, transfers), video, 7)
    _assert_same(out, _expected(video))
    assert notes and all("out of memory" in line for line in notes)


def test_out_of_memory_in_the_network_cuts_state_and_frames_into_the_same_tiles() -> None:
    notes: list[str] = []
    video = _large(_video(11))
    target = replace(TARGET, width=144, height=96)
    out, _ = _through(Trailing(_network(notes=notes, most_pixels=40 * 40), target), video)
    expected, _ = _through(Trailing(_network(), target), video)
    _assert_same(out, expected)
    assert notes == ["out of memory: going on with tiles of 36 pixels"]


def _large(video: FrameBatch) -> FrameBatch:
    planes = tuple(plane.repeat_interleave(3, 2).repeat_interleave(3, 3) for plane in video.planes)
    return replace(video, planes=planes)


@pytest.mark.parametrize(("num_kept", "num_made"), [(1, 1), (3, 2)])
def test_a_processor_that_loses_or_invents_frames_is_found_out(num_kept: int, num_made: int) -> None:
    class Careless(Trailing):
        def _submitted(self, batch: FrameBatch, later: Planes) -> Sequence[Result]:
            results = super()._submitted(batch.part(0, num_kept), _at(later, 0, num_kept))
            return [*results, *([lambda: _expected(_video(30))] if num_made > 1 else [])]

    with pytest.raises(EngineError, match=r"in\.mkv: .*frames came out of"):
        _through(Careless(_network(), TARGET), _video(), 7)


# -- jobs --------------------------------------------------------------------------------------------------------


def _write(path: Path, num_frames: int = 45) -> Path:
    """A clip of noise that is still a little, coded without loss, with sound."""
    video = _video(num_frames)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        sound = output.add_stream("flac", rate=8000, layout="mono")
        for index in range(num_frames):
            luma = np.repeat(np.repeat(video.planes[0][index, 0].numpy(), 2, 0), 2, 1)
            frame = av.VideoFrame.from_ndarray(luma, "gray").reformat(format="yuv420p", threads=1)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
            samples = av.AudioFrame.from_ndarray(np.full((1, 320), 7 * index, np.int16), "s16", "mono")
            samples.sample_rate, samples.pts, samples.time_base = 8000, 320 * index, Fraction(1, 8000)
            output.mux(sound.encode(samples))
        output.mux(stream.encode(None))
        output.mux(sound.encode(None))
    return path


def _contents(path: Path) -> tuple[list[tuple[int, bytes]], list[tuple[int | None, bytes]]]:
    """Decoded frames with their PTS, and the packets of sound."""
    with av.open(str(path)) as container:
        frames = [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        return frames, [(p.pts, bytes(p)) for p in container.demux(audio=0) if p.size]


@pytest.fixture
def trailing_jobs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have jobs run by the processor, in segments of 12 frames. Gives the first frame that each was reset to."""
    resets: list[int] = []

    class Watched(Trailing):
        def reset(self, next_frame: int = 0) -> None:
            super().reset(next_frame)
            resets.append(next_frame)

    def make(upscaler: Upscaler, target: Target, **options: Any) -> FrameProcessor:
        processor = Watched(upscaler.network, target)
        resets.clear()
        return processor

    monkeypatch.setattr(run, "make_processor", make)
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 12)
    monkeypatch.setattr(resume, "_MOST_FRAMES", 12)
    return resets


def _job(source: Path, output: Path, network: CheckedNetwork | None = None, **options: Any) -> JobReport:
    chosen = JobOptions.of(**{"batch": 3, "crf": 0, "preset": "ultrafast", **options})
    return run.enhance_file(source, output, chosen, upscaler=Upscaler(network or _network()))


def test_a_job_keeps_frames_times_and_sound(tmp_path: Path, trailing_jobs: list[int]) -> None:
    source = _write(tmp_path / "in.mkv")
    _job(source, tmp_path / "out.mkv", resume=False)
    _job(source, tmp_path / "single.mkv", resume=False, batch=1)
    frames, sound = _contents(tmp_path / "out.mkv")
    assert [pts for pts, _ in frames] == [pts for pts, _ in _contents(source)[0]] and len(frames) == 45
    assert sound == _contents(source)[1] and sound
    assert _contents(tmp_path / "single.mkv") == (frames, sound)


@pytest.mark.parametrize("num_calls", [5, 17, 31, 44])
def test_a_stopped_job_ends_as_an_unbroken_one(tmp_path: Path, trailing_jobs: list[int], num_calls: int) -> None:
    source = _write(tmp_path / "in.mkv")
    _job(source, tmp_path / "whole.mkv", resume=True)
    network = _network()
    network.engine.calls_left = num_calls  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        _job(source, tmp_path / "out.mkv", network, resume=True)
    report = _job(source, tmp_path / "out.mkv", resume=True)
    assert report.num_frames == 45
    num_done = report.num_frames_before
    assert num_done % 12 == 0 and (num_done > 0) is (num_calls > 12)
    # Read again is what the state needs, from the end of a segment on.
    assert trailing_jobs[-1] == {0: 0, 12: 0, 24: 24, 36: 24}[num_done]
    assert _contents(tmp_path / "out.mkv") == _contents(tmp_path / "whole.mkv")
