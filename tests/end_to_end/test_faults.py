"""What goes wrong on the way: the job ends at once, names the true cause, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import Engine, Precision
from vsr.backends.transfers import DirectTransfers, Planes
from vsr.cli import main
from vsr.errors import EngineError, InputError, OptionError, OutputError, StrictError, VerificationError
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.container_writer import VideoWriter
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

HANG_SECONDS = 60
INTERRUPTED, TERMINATED = 130, 143


class Identity:
    """An engine that gives back what it gets, after `before` was called with the number of the call."""

    name, device, dtype = "identity", torch.device("cpu"), torch.float32

    def __init__(self, before: Callable[[int, Tensor], None] = lambda number, x: None) -> None:
        self._before, self._count = before, 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._count += 1
        self._before(self._count, inputs[0])
        return inputs


def _upscaler(engine: Engine | None = None, note: Callable[[str], None] = lambda line: None) -> Upscaler:
    engine = engine or Identity()
    return Upscaler(
        CheckedNetwork(ModelCard("identity", "luma", {}, 1, "y", 0), lambda precision: engine, "fp32", note=note)
    )


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path], Track: Any) -> Path:
    """120 frames with sound: several times what fits between the stages."""
    return make_clip(tmp_path_factory.mktemp("long") / "long.mp4", pts=tuple(range(120)), audio=[Track()])


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _outcome(job: Callable[[], object]) -> BaseException | None:
    """What a job raised. It must end, and no thread that it started may be left."""
    before, caught = _threads(), []

    def body() -> None:
        try:
            job()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    assert not thread.is_alive(), "the job hangs"
    assert _threads() - before == set()
    return caught[0] if caught else None


def _job(
    source: Path,
    output: Path,
    upscaler: Upscaler | None = None,
    **options: Any,
) -> BaseException | None:
    chosen = JobOptions.of(**{"batch": 2, "preset": "ultrafast", **options})
    return _outcome(lambda: enhance_file(source, output, chosen, upscaler=upscaler or _upscaler()))


def test_the_undisturbed_job_succeeds(
    tmp_path: Path, long_clip: Path, read_back: Callable[..., Any], clean_folder: Callable[..., None]
) -> None:
    """What the tests below rely on: without a fault, the same job is done."""
    assert _job(long_clip, tmp_path / "out.mp4") is None
    assert len(read_back(tmp_path / "out.mp4").times) == 120
    clean_folder("out.mp4")


# -- a stage fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_number", [1, 7, 60])
def test_encoder_failure(
    chunk_number: int,
    tmp_path: Path,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    cause, write, chunks = OutputError("the encoder broke"), VideoWriter.write, []

    def failing(self: VideoWriter, chunk: Chunk) -> None:
        chunks.append(chunk)
        if len(chunks) == chunk_number:
            raise cause
        write(self, chunk)

    monkeypatch.setattr(VideoWriter, "write", failing)
    assert _job(long_clip, tmp_path / "out.mp4") is cause
    assert len(chunks) == chunk_number
    clean_folder()


def test_encoder_failure_at_the_end(
    tmp_path: Path, long_clip: Path, monkeypatch: pytest.MonkeyPatch, clean_folder: Callable[..., None]
) -> None:
    cause = OutputError("the encoder broke in its last frames")

    def failing(self: VideoWriter) -> None:
        raise cause

    monkeypatch.setattr(VideoWriter, "finish", failing)
    assert _job(long_clip, tmp_path / "out.mp4") is cause
    clean_folder()


@pytest.mark.parametrize("chunk_number", [0, 5])
def test_reader_failure(
    chunk_number: int,
    tmp_path: Path,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    cause, chunks = InputError("the disk went away"), VideoReader.chunks

    def failing(self: VideoReader, batch_size: int) -> Iterator[Chunk]:
        for number, chunk in enumerate(chunks(self, batch_size)):
            if number == chunk_number:
                raise cause
            yield chunk

    monkeypatch.setattr(VideoReader, "chunks", failing)
    assert _job(long_clip, tmp_path / "out.mp4") is cause
    clean_folder()


@pytest.mark.parametrize("call_number", [1, 5])
def test_network_that_throws(
    call_number: int, tmp_path: Path, long_clip: Path, clean_folder: Callable[..., None]
) -> None:
    cause = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")

    def throw(number: int, x: Tensor) -> None:
        if number == call_number:
            raise cause

    error = _job(long_clip, tmp_path / "out.mp4", _upscaler(Identity(throw)))
    assert isinstance(error, EngineError)
    assert error.__cause__ is cause
    frame = 2 * (call_number - 1) + 1
    expected = f"{long_clip}: at frame {frame}: identity failed (CUDA error: an illegal memory access was encountered)"
    assert str(error) == expected
    clean_folder()


def test_network_that_gives_nan(tmp_path: Path, long_clip: Path, clean_folder: Callable[..., None]) -> None:
    def poison(number: int, x: Tensor) -> None:
        if number == 3:
            x[0, 0, 5, 5] = float("nan")

    error = _job(long_clip, tmp_path / "out.mp4", _upscaler(Identity(poison)))
    assert isinstance(error, EngineError)
    assert "NaN" in str(error)
    assert "at frame 5:" in str(error)
    clean_folder()


def test_out_of_memory_drops_no_frame(tmp_path: Path, long_clip: Path, read_back: Callable[..., Any]) -> None:
    """A network that has memory for one small tile only, and from the third call on."""
    notes: list[str] = []

    def limit(number: int, x: Tensor) -> None:
        if number > 2 and x.numel() > 40 * 40:
            raise torch.OutOfMemoryError("out of memory")

    upscaler = _upscaler(Identity(limit), notes.append)
    assert _job(long_clip, tmp_path / "out.mkv", upscaler, batch=4, encoder_options={"qp": "0"}) is None
    assert any("batches of 1" in line for line in notes)
    assert any("tiles of" in line for line in notes)
    before, after = (read_back(path, keep_frames=True) for path in (long_clip, tmp_path / "out.mkv"))
    pairs = list(zip(before.frames, after.frames, strict=True))
    assert all(bytes(a.planes[0]) == bytes(b.planes[0]) for a, b in pairs)


# -- the network fails, and the job goes on ------------------------------------------------------------


class Dilation:
    """An engine that doubles the size and of halo 2: exact, so that tiles and batches change no bit.

    before: called with the number of the call and the input.  after: gives what becomes of the output.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(
        self,
        name: str = "fp32",
        before: Callable[[int, Tensor], None] = lambda number, x: None,
        after: Callable[[int, Tensor], Tensor] = lambda number, out: out,
    ) -> None:
        self.name, self.shapes = name, list[tuple[int, ...]]()
        self._before, self._after = before, after

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (x,) = inputs
        self.shapes.append(tuple(x.shape))
        self._before(len(self.shapes), x)
        out = F.interpolate(F.max_pool2d(x, 5, stride=1, padding=2), scale_factor=2.0, mode="nearest")
        return (self._after(len(self.shapes), out),)


class LateTransfers(DirectTransfers):
    """What a device that computes by itself does: outputs are there when they are asked for, one batch later."""

    num_in_flight = 1

    def download(self, planes: Planes) -> Callable[[], Planes]:
        return lambda: tuple(plane.clone() for plane in planes)


TRANSFERS = [DirectTransfers(torch.device("cpu")), LateTransfers(torch.device("cpu"))]
either_transfers = pytest.mark.parametrize("transfers", TRANSFERS, ids=["at-once", "in-flight"])


def _dilating(
    engines: Sequence[Dilation], notes: list[str], transfers: DirectTransfers, tile: int | None = None
) -> Upscaler:
    """An upscaler that begins with the first of the engines, which are fp16, bf16 and fp32, or the last of these."""
    names: list[Precision] = ["fp16", "bf16", "fp32"]
    by_name = dict(zip(names[-len(engines) :], engines, strict=True))
    card = ModelCard("dilation", "luma", {}, 2, "y", halo=2)
    return Upscaler(CheckedNetwork(card, by_name.__getitem__, next(iter(by_name)), tile, notes.append), transfers)


@pytest.fixture(scope="module")
def moving_clip(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """23 frames of 160×90, all different everywhere, with gaps in time."""

    def picture(index: int) -> av.VideoFrame:
        values = np.random.default_rng(index).integers(16, 236, (90, 160), np.uint8)
        return av.VideoFrame.from_ndarray(values, "gray").reformat(threads=1, format="yuv420p")

    pts = tuple(index + 5 * (index > 9) for index in range(23))
    return make_clip(tmp_path_factory.mktemp("moving") / "moving.mkv", size=(160, 90), pts=pts, picture=picture)


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, moving_clip: Path, read_back: Callable[..., Any]
) -> tuple[list[Any], list[bytes]]:
    """Times and luma planes of the output of a job without a fault."""
    path = tmp_path_factory.mktemp("unbroken") / "out.mkv"
    upscaler = _dilating([Dilation()], [], TRANSFERS[0])
    assert _job(moving_clip, path, upscaler, batch=4, encoder_options={"qp": "0"}) is None
    return _contents(read_back(path, keep_frames=True))


def _contents(reading: Any) -> tuple[list[Any], list[bytes]]:
    return reading.times, [bytes(frame.planes[0]) for frame in reading.frames]


@pytest.fixture
def goes_on(
    tmp_path: Path, moving_clip: Path, unbroken: tuple[list[Any], list[bytes]], read_back: Callable[..., Any]
) -> Callable[[Upscaler], None]:
    """Asserts that a job with an upscaler ends well, and with the very output of the unbroken job."""

    def check(upscaler: Upscaler) -> None:
        assert len(unbroken[0]) == len(set(unbroken[1])) == 23
        assert _job(moving_clip, tmp_path / "out.mkv", upscaler, batch=4, encoder_options={"qp": "0"}) is None
        assert _contents(read_back(tmp_path / "out.mkv", keep_frames=True)) == unbroken

    return check


@either_transfers
def test_out_of_memory_halves_the_batch_then_tiles_then_shrinks_the_tiles(
    transfers: DirectTransfers, goes_on: Callable[[Upscaler], None]
) -> None:
    def limit(number: int, x: Tensor) -> None:
        if number > 3 and x.numel() > 60 * 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to")

    notes: list[str] = []
    engine = Dilation(before=limit)
    goes_on(_dilating([engine], notes, transfers))
    assert notes == [
        "out of memory: going on with batches of 2",
        "out of memory: going on with batches of 1",
        "out of memory: going on with tiles of 80 pixels",
        "out of memory: going on with tiles of 40 pixels",
    ]
    assert len({shape[-2:] for shape in engine.shapes if shape[-1] < 60}) == 1


@either_transfers
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_in_the_middle_of_a_job_leads_to_the_next_safer_precision(
    value: float, transfers: DirectTransfers, goes_on: Callable[[Upscaler], None]
) -> None:
    def spoil(number: int, out: Tensor) -> Tensor:
        if number == 4:
            out[2, 0, 100, 7] = value
        return out

    notes: list[str] = []
    engines = [Dilation("fp16", after=spoil), Dilation("bf16"), Dilation("fp32")]
    upscaler = _dilating(engines, notes, transfers)
    goes_on(upscaler)
    assert notes == ["fp16 gave NaN or Inf: going on in bf16"]
    assert upscaler.engine is engines[1]
    # Of six batches the fourth is done twice; with one in flight, the fifth is done before that is known.
    assert [len(engine.shapes) for engine in engines[:2]] == ([5, 2] if transfers.num_in_flight else [4, 3])


@either_transfers
def test_every_precision_that_breaks_down_is_left_in_its_turn(
    transfers: DirectTransfers, goes_on: Callable[[Upscaler], None]
) -> None:
    def spoil(number: int, out: Tensor) -> Tensor:
        return out * float("nan") if number >= 2 else out

    notes: list[str] = []
    engines = [Dilation("fp16", after=spoil), Dilation("bf16", after=spoil), Dilation("fp32")]
    goes_on(_dilating(engines, notes, transfers))
    assert notes == ["fp16 gave NaN or Inf: going on in bf16", "bf16 gave NaN or Inf: going on in fp32"]


@either_transfers
def test_a_first_batch_that_strays_from_fp32_is_done_again(
    transfers: DirectTransfers, goes_on: Callable[[Upscaler], None]
) -> None:
    notes: list[str] = []
    engines = [
        Dilation("fp16", after=lambda number, out: out + 9 / 255),
        Dilation("bf16", after=lambda number, out: out - 4 / 255),
        Dilation("fp32"),
    ]
    goes_on(_dilating(engines, notes, transfers))
    assert notes == [
        "fp16 differs from fp32 by 9.0 code values: going on in bf16",
        "bf16 differs from fp32 by 4.0 code values: going on in fp32",
    ]
    assert [len(engine.shapes) for engine in engines[:2]] == [1, 1]


@either_transfers
def test_faults_of_several_kinds_in_one_job(transfers: DirectTransfers, goes_on: Callable[[Upscaler], None]) -> None:
    """Out of memory while a batch is done again, after tiles were asked for."""

    def limit(number: int, x: Tensor) -> None:
        if x.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to")

    def spoil(number: int, out: Tensor) -> Tensor:
        return out * float("nan") if number > 8 else out

    notes: list[str] = []
    goes_on(_dilating([Dilation("bf16", after=spoil), Dilation("fp32", limit)], notes, transfers, tile=90))
    assert notes == ["bf16 gave NaN or Inf: going on in fp32", "out of memory: going on with batches of 2"]


@either_transfers
@pytest.mark.parametrize(
    "cause",
    [RuntimeError("CUDA error: device-side assert triggered\nCompile with"), EngineError("TensorRT: no device")],
    ids=["torch", "backend"],
)
def test_a_lost_device_ends_the_job_and_says_where(
    cause: Exception,
    transfers: DirectTransfers,
    tmp_path: Path,
    moving_clip: Path,
    clean_folder: Callable[..., None],
) -> None:
    def lose(number: int, x: Tensor) -> None:
        if number >= 4:  # frames 13 to 16
            raise cause

    error = _job(moving_clip, tmp_path / "out.mkv", _dilating([Dilation(before=lose)], [], transfers), batch=4)
    assert isinstance(error, EngineError)
    assert error.__cause__ is cause
    # What the device was at when it was lost is not known while two batches are in flight.
    where = f"{moving_clip}: at frame {9 if transfers.num_in_flight else 13}: "
    assert str(error).startswith(where)
    assert str(cause).splitlines()[0] in str(error) and "\n" not in str(error)
    clean_folder()


def test_a_device_that_is_lost_on_the_way_back_ends_the_job(
    tmp_path: Path, moving_clip: Path, clean_folder: Callable[..., None]
) -> None:
    class Lost(LateTransfers):
        num_downloads = 0

        def download(self, planes: Planes) -> Callable[[], Planes]:
            self.num_downloads += 1
            return self._fail if self.num_downloads == 3 else super().download(planes)

        def _fail(self) -> Planes:
            raise RuntimeError("CUDA error: unspecified launch failure")

    upscaler = _dilating([Dilation()], [], Lost(torch.device("cpu")))
    error = _job(moving_clip, tmp_path / "out.mkv", upscaler, batch=4)
    assert isinstance(error, EngineError)
    assert "at frame 9: " in str(error) and "launch failure" in str(error)
    clean_folder()


def test_the_command_line_says_in_one_line_that_a_device_is_lost(
    tmp_path: Path,
    moving_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    clean_folder: Callable[..., None],
) -> None:
    def lose(number: int, x: Tensor) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")

    upscaler = _dilating([Dilation(before=lose)], [], TRANSFERS[0])
    monkeypatch.setattr("vsr.jobs.model_cache.upscaler_of_net", lambda *args, **kwargs: upscaler)
    monkeypatch.setattr(sys, "argv", ["vsr", "enhance", str(moving_clip), str(tmp_path / "out.mkv"), "--quiet"])
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    assert ended.value.code == EngineError.exit_code == 6
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"vsr: {moving_clip}: at frame 1: ") and "illegal memory access" in line
    clean_folder()


def test_callback_that_throws(tmp_path: Path, long_clip: Path, clean_folder: Callable[..., None]) -> None:
    cause = ValueError("the caller's own")

    def on_progress(progress: object) -> None:
        raise cause

    def job() -> None:
        output, options = tmp_path / "out.mp4", JobOptions.of(batch=2)
        enhance_file(long_clip, output, options, upscaler=_upscaler(), on_progress=on_progress)

    assert _outcome(job) is cause
    clean_folder()


def test_failure_keeps_what_y_was_to_replace(
    tmp_path: Path, long_clip: Path, clean_folder: Callable[..., None]
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")

    def throw(number: int, x: Tensor) -> None:
        raise RuntimeError

    assert _job(long_clip, tmp_path / "out.mp4", _upscaler(Identity(throw)), overwrite=True) is not None
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    clean_folder("out.mp4")


# -- the input is damaged ------------------------------------------------------------------------------


@pytest.fixture
def damaged_clip(tmp_path: Path, make_clip: Callable[..., Path], Track: Any) -> Path:
    """30 frames that stand alone, the tenth of them spoilt."""
    path, options = tmp_path / "damaged.mp4", {"g": "1", "preset": "ultrafast"}
    make_clip(path, pts=tuple(range(30)), options=options, audio=[Track()])
    with av.open(str(path)) as container:
        packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][9]
    path.write_bytes(path.read_bytes().replace(packet, b"\xff" * len(packet)))
    return path


def test_damaged_packet_is_named_and_all_else_is_kept(
    tmp_path: Path, damaged_clip: Path, read_back: Callable[..., Any]
) -> None:
    notes: list[str] = []
    options = JobOptions.of(preset="ultrafast")
    enhance_file(damaged_clip, tmp_path / "out.mp4", options, upscaler=_upscaler(), note=notes.append)
    assert len([line for line in notes if "1 damaged packet" in line]) == 1
    output = read_back(tmp_path / "out.mp4")
    assert [time * 25 for time in output.times] == [*range(30)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    changes = [abs(b - a).mean() for a, b in pairwise(frames)]
    assert changes[8] < 0.2 * min(*changes[:8], *changes[9:])  # frame 9 repeats frame 8, and no other does
    assert len(output.others[0].packets) > 50


def test_damaged_sound_that_is_transcoded_is_named(tmp_path: Path, long_clip: Path) -> None:
    with av.open(str(long_clip)) as container:
        sound = [bytes(packet) for packet in container.demux(audio=0) if packet.size > 20]
    data, packet = long_clip.read_bytes(), sound[len(sound) // 2]
    source = tmp_path / "in.mp4"
    source.write_bytes(data.replace(packet, b"\xff" * len(packet), 1))
    notes: list[str] = []
    options = JobOptions.of(audio="opus", batch=2, preset="ultrafast")
    enhance_file(source, tmp_path / "out.mkv", options, upscaler=_upscaler(), note=notes.append)
    assert len([line for line in notes if "1 damaged audio or subtitle packet" in line]) == 1


def test_damaged_packet_is_an_error_when_strict(
    tmp_path: Path, damaged_clip: Path, clean_folder: Callable[..., None]
) -> None:
    error = _job(damaged_clip, tmp_path / "out.mp4", strict=True)
    assert isinstance(error, StrictError)
    assert "damaged" in str(error)
    clean_folder("damaged.mp4")


def test_file_that_breaks_off(tmp_path: Path, long_clip: Path, read_back: Callable[..., Any]) -> None:
    """A recording that was cut: every frame and packet that is there goes through."""
    options = JobOptions.of(preset="ultrafast", encoder_options={"qp": "0"})
    enhance_file(long_clip, tmp_path / "whole.mkv", options, upscaler=_upscaler())
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    enhance_file(tmp_path / "cut.mkv", tmp_path / "out.mkv", options, upscaler=_upscaler())
    before, after = read_back(tmp_path / "cut.mkv"), read_back(tmp_path / "out.mkv")
    assert 40 < len(before.times) < 100
    assert after.times == before.times
    assert after.others[0].packets == before.others[0].packets


# -- the target cannot be written ----------------------------------------------------------------------


def test_target_in_a_folder_without_permission(tmp_path: Path, long_clip: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    error = _job(long_clip, folder / "out.mp4")
    assert isinstance(error, OutputError)
    assert "permission" in str(error)


def test_target_that_the_file_system_refuses(tmp_path: Path, long_clip: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder in which nobody can make files; this system has no /proc")
    error = _job(long_clip, Path("/proc/self/out.mp4"))
    assert isinstance(error, OutputError)
    assert "out.mp4" in str(error)
    assert "\n" not in str(error)


def test_target_that_cannot_be_put_in_place(
    tmp_path: Path, long_clip: Path, monkeypatch: pytest.MonkeyPatch, clean_folder: Callable[..., None]
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))

    # A new name is taken by a link, and where a file system has none, by moving.
    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(os, "link", lambda source, target: refuse(source, target))
    error = _job(long_clip, tmp_path / "out.mp4")
    assert isinstance(error, OutputError)
    assert "Read-only file system" in str(error)
    clean_folder()


@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_encoder_of_a_gpu_that_is_not_there(
    codec: str, tmp_path: Path, moving_clip: Path, read_back: Callable[..., Any], clean_folder: Callable[..., None]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg is built without {codec}")
    upscaler = _dilating([Dilation()], [], TRANSFERS[0])
    error = _job(moving_clip, tmp_path / "out.mkv", upscaler, codec=codec, preset="p1")
    if error is None:  # the GPU is there, after all
        assert len(read_back(tmp_path / "out.mkv").times) == 23
        return
    assert isinstance(error, OptionError)
    instead = {"h264_nvenc": "libx264", "hevc_nvenc": "libx265", "av1_nvenc": "libsvtav1"}[codec]
    assert f'`codec="{codec}"`' in str(error) and f'use `codec="{instead}"`' in str(error)
    if not torch.cuda.is_available():
        assert "libcuda" in str(error) or "nvcuda" in str(error), "FFmpeg's own reason"
    assert "\n" not in str(error)
    clean_folder()


# -- the check afterwards ------------------------------------------------------------------------------


class _Leaky:
    """An output container that loses one packet of a stream, the third."""

    def __init__(self, real: Any, index: int) -> None:
        self._real, self._index, self._seen = real, index, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def mux(self, packets: Any) -> None:
        for packet in [packets] if not isinstance(packets, (list, tuple)) else packets:
            self._seen += packet.stream.index == self._index
            if packet.stream.index != self._index or self._seen != 3:
                self._real.mux(packet)


@pytest.mark.parametrize("index", [0, 1], ids=["frame", "audio-packet"])
def test_what_the_muxer_loses_is_found(
    index: int,
    tmp_path: Path,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    write = VideoWriter.write

    def leaking(self: VideoWriter, chunk: Chunk) -> None:
        if not isinstance(self.container, _Leaky):
            self.container = self._remuxer._output = _Leaky(self.container, index)
        write(self, chunk)

    monkeypatch.setattr(VideoWriter, "write", leaking)
    error = _job(long_clip, tmp_path / "out.mp4")
    assert isinstance(error, VerificationError)
    assert error.exit_code == 7
    assert "out.mp4" in str(error)
    clean_folder()


def _without_last_frame(chunk: Chunk) -> Chunk:
    batch = chunk.batch
    assert batch is not None
    planes = tuple(plane[:-1] for plane in batch.planes)
    shorter = type(batch)(planes, batch.pts[:-1], batch.durations[:-1], batch.time_base, batch.color)
    return Chunk(chunk.packets, shorter)


def _with_last_frame_late(chunk: Chunk) -> Chunk:
    assert chunk.batch is not None
    pts = (*chunk.batch.pts[:-1], chunk.batch.pts[-1] + 1)
    return Chunk(chunk.packets, dataclasses.replace(chunk.batch, pts=pts))


def _without_last_packet(chunk: Chunk) -> Chunk:
    assert chunk.packets
    return Chunk(chunk.packets[:-1], chunk.batch)


@pytest.mark.parametrize(
    "spoil",
    [_without_last_frame, _with_last_frame_late, _without_last_packet],
    ids=["frame", "time", "audio-packet"],
)
def test_what_never_reaches_the_encoder_whole_is_found(
    spoil: Callable[[Chunk], Chunk],
    tmp_path: Path,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    write, chunks = VideoWriter.write, []

    def spoiling(self: VideoWriter, chunk: Chunk) -> None:
        chunks.append(chunk)
        write(self, spoil(chunk) if len(chunks) == 5 else chunk)

    monkeypatch.setattr(VideoWriter, "write", spoiling)
    error = _job(long_clip, tmp_path / "out.mp4")
    assert isinstance(error, VerificationError)
    clean_folder()


def test_bytes_changed_on_the_way_are_found(
    tmp_path: Path,
    long_clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    finish = VideoWriter.finish

    def tampering(self: VideoWriter) -> None:
        finish(self)
        data = self.partial.read_bytes()
        self.partial.write_bytes(_with_one_bit_of_sound_flipped(self.partial, data))

    monkeypatch.setattr(VideoWriter, "finish", tampering)
    assert isinstance(_job(long_clip, tmp_path / "out.mp4"), VerificationError)
    clean_folder()


def _with_one_bit_of_sound_flipped(path: Path, data: bytes) -> bytes:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size > 20]
    place = data.index(bytes(packets[len(packets) // 2])) + 10
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_no_verify_trusts_the_writer(
    tmp_path: Path, long_clip: Path, monkeypatch: pytest.MonkeyPatch, clean_folder: Callable[..., None]
) -> None:
    write, chunks = VideoWriter.write, []

    def spoiling(self: VideoWriter, chunk: Chunk) -> None:
        chunks.append(chunk)
        write(self, _without_last_frame(chunk) if len(chunks) == 5 else chunk)

    monkeypatch.setattr(VideoWriter, "write", spoiling)
    assert _job(long_clip, tmp_path / "out.mp4", verify=False) is None
    clean_folder("out.mp4")


# -- a process of its own ------------------------------------------------------------------------------


def _wait_for_progress(process: subprocess.Popen[str]) -> None:
    """Returns once frames come out."""
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["event"] == "progress":
            return
    pytest.fail("the job ended before it could be interrupted")


def _last_words(process: subprocess.Popen[str]) -> str:
    """What a process still says until it ends, which it must."""
    try:
        return process.communicate(timeout=HANG_SECONDS)[1]
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, INTERRUPTED, "interrupted"),
        (signal.SIGTERM, TERMINATED, "terminated"),
        (signal.SIGHUP, 129, "terminated"),
    ],
)
def test_signal_stops_a_job(
    number: signal.Signals,
    code: int,
    word: str,
    tmp_path: Path,
    warm_python: str,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    source = make_clip(tmp_path / "in.mkv", size=(320, 240), pts=tuple(range(400)))
    options = ["--model", "fast", "--progress", "json", "--batch", "1"]
    command = [warm_python, "-m", "vsr.cli", "enhance", str(source), str(tmp_path / "out.mp4"), *options]
    before = signal.signal(number, signal.SIG_DFL)  # a job under nohup goes on, and so would this one under it
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, before)
    with process:
        _wait_for_progress(process)
        assert len(list(tmp_path.iterdir())) == 2  # the partial file is there: the job is at work
        process.send_signal(number)
        rest = _last_words(process)
    assert process.returncode == code
    said = [line for line in rest.splitlines() if line and not line.startswith("{")]
    assert said == [f"vsr: {word}"]
    clean_folder("in.mkv")


_WITH_LITTLE_ROOM = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from vsr.cli import main
main()
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_full_disk(
    suffix: str,
    tmp_path: Path,
    warm_python: str,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    """A limit on file size stops the writer as a full disk does, with another number."""

    def noise(index: int) -> av.VideoFrame:
        values = np.random.default_rng(index).integers(0, 256, (144, 160, 3), np.uint8)
        return av.VideoFrame.from_ndarray(values, "rgb24").reformat(threads=1, format="yuv420p")

    source = make_clip(tmp_path / "in.mkv", size=(160, 144), pts=tuple(range(30)), picture=noise)
    options = ["--model", tiny_model, "--quiet", "--crf", "0", "--preset", "ultrafast"]
    command = [warm_python, "-c", _WITH_LITTLE_ROOM, "enhance", source, tmp_path / f"out{suffix}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == OutputError.exit_code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert f"out{suffix}" in lines[0]
    assert "File too large" in lines[0]
    clean_folder("in.mkv")
