"""What goes wrong on the way: the job ends at once, names the true cause, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from vsr.backends.engine import Engine
from vsr.errors import EngineError, InputError, OutputError, StrictError, VerificationError
from vsr.media.reader import Chunk, VideoReader
from vsr.media.writer import VideoWriter
from vsr.models.cards import ModelCard
from vsr.pipeline.job import enhance_video
from vsr.pipeline.plan import JobOptions
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
    return Upscaler(ModelCard("identity", "luma", {}, 1, "y", 0), lambda precision: engine, "fp32", note=note)


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
    chosen = JobOptions(**{"batch": 2, "preset": "ultrafast", **options})
    return _outcome(lambda: enhance_video(source, output, chosen, upscaler=upscaler or _upscaler()))


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
    cause = RuntimeError("CUDA error: an illegal memory access was encountered")

    def throw(number: int, x: Tensor) -> None:
        if number == call_number:
            raise cause

    assert _job(long_clip, tmp_path / "out.mp4", _upscaler(Identity(throw))) is cause
    clean_folder()


def test_network_that_gives_nan(tmp_path: Path, long_clip: Path, clean_folder: Callable[..., None]) -> None:
    def poison(number: int, x: Tensor) -> None:
        if number == 3:
            x[0, 0, 5, 5] = float("nan")

    error = _job(long_clip, tmp_path / "out.mp4", _upscaler(Identity(poison)))
    assert isinstance(error, EngineError)
    assert "NaN" in str(error)
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


def test_callback_that_throws(tmp_path: Path, long_clip: Path, clean_folder: Callable[..., None]) -> None:
    cause = ValueError("the caller's own")

    def on_progress(progress: object) -> None:
        raise cause

    def job() -> None:
        output, options = tmp_path / "out.mp4", JobOptions(batch=2)
        enhance_video(long_clip, output, options, upscaler=_upscaler(), on_progress=on_progress)

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
    options = JobOptions(preset="ultrafast")
    enhance_video(damaged_clip, tmp_path / "out.mp4", options, upscaler=_upscaler(), note=notes.append)
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
    options = JobOptions(audio="opus", batch=2, preset="ultrafast")
    enhance_video(source, tmp_path / "out.mkv", options, upscaler=_upscaler(), note=notes.append)
    assert len([line for line in notes if "damaged audio packets" in line]) == 1


def test_damaged_packet_is_an_error_when_strict(
    tmp_path: Path, damaged_clip: Path, clean_folder: Callable[..., None]
) -> None:
    error = _job(damaged_clip, tmp_path / "out.mp4", strict=True)
    assert isinstance(error, StrictError)
    assert "damaged" in str(error)
    clean_folder("damaged.mp4")


def test_file_that_breaks_off(tmp_path: Path, long_clip: Path, read_back: Callable[..., Any]) -> None:
    """A recording that was cut: every frame and packet that is there goes through."""
    options = JobOptions(preset="ultrafast", encoder_options={"qp": "0"})
    enhance_video(long_clip, tmp_path / "whole.mkv", options, upscaler=_upscaler())
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    enhance_video(tmp_path / "cut.mkv", tmp_path / "out.mkv", options, upscaler=_upscaler())
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

    monkeypatch.setattr(Path, "replace", refuse)
    error = _job(long_clip, tmp_path / "out.mp4")
    assert isinstance(error, OutputError)
    assert "Read-only file system" in str(error)
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
        if not isinstance(self._output, _Leaky):
            self._output = self._remuxer._output = _Leaky(self._output, index)
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


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vsr.cli", *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


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
    [(signal.SIGINT, INTERRUPTED, "interrupted"), (signal.SIGTERM, TERMINATED, "terminated")],
)
def test_signal_stops_a_job(
    number: signal.Signals,
    code: int,
    word: str,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    source = make_clip(tmp_path / "in.mkv", size=(320, 240), pts=tuple(range(400)))
    options = ["--model", "fast", "--progress", "json", "--batch", "1"]
    command = _command("enhance", source, tmp_path / "out.mp4", *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment()) as process:
        _wait_for_progress(process)
        assert len(list(tmp_path.iterdir())) == 2  # the partial file is there: the job is at work
        process.send_signal(number)
        started = time.monotonic()
        rest = _last_words(process)
        assert time.monotonic() - started < 10
    assert process.returncode == code
    said = [line for line in rest.splitlines() if line and not line.startswith("{")]
    assert said == [f"vsr: {word}"]
    clean_folder("in.mkv")


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_full_disk(
    suffix: str,
    tmp_path: Path,
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
    done = subprocess.run(
        _command("enhance", source, tmp_path / f"out{suffix}", *options),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env=_environment(),
        preexec_fn=_limit_file_size,
        check=False,
    )
    assert done.returncode == OutputError.exit_code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert f"out{suffix}" in lines[0]
    assert "File too large" in lines[0]
    clean_folder("in.mkv")
