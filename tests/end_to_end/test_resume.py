"""A long job that is stopped goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from torch import Tensor

from vsr.errors import InputError, OptionError, OutputError
from vsr.jobs import resume
from vsr.jobs.journal import work_folder
from vsr.jobs.options import JobOptions
from vsr.jobs.report import JobReport
from vsr.jobs.run import enhance_file
from vsr.jobs.segmented_sink import SegmentedSink
from vsr.media.read.reader import Chunk
from vsr.media.write.segments import decode_times
from vsr.models.cards import ModelCard
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.upscaler import Upscaler

FRAMES_PER_SEGMENT = 8
NUM_FRAMES = 60


class Stopped(Exception):
    """What ends a job in the middle."""


class Identity:
    """An engine that gives back what it gets, until it has been called often enough."""

    name, device, dtype = "identity", torch.device("cpu"), torch.float32

    def __init__(self, num_calls: float = float("inf")) -> None:
        self._calls_left, self.num_frames = num_calls, 0

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._calls_left <= 0:
            time.sleep(0.3)  # so that all that was given to the encoder is encoded
            raise Stopped
        self._calls_left -= 1
        self.num_frames += inputs[0].shape[0]
        return inputs


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", FRAMES_PER_SEGMENT)
    monkeypatch.setattr(resume, "_MOST_FRAMES", FRAMES_PER_SEGMENT)


def _run(
    source: Path, output: Path, engine: Identity | None = None, notes: list[str] | None = None, **options: Any
) -> JobReport:
    chosen = JobOptions.of(**{"batch": 2, "preset": "veryfast", "reuse": False, "resume": True, **options})
    network = engine or Identity()
    upscaler = Upscaler(CheckedNetwork(ModelCard("identity", "luma", {}, 1, "y", 0), lambda precision: network, "fp32"))
    note = (lambda line: None) if notes is None else notes.append
    return enhance_file(source, output, chosen, upscaler=upscaler, note=note)


def _run_until(source: Path, output: Path, num_calls: int, **options: Any) -> None:
    with pytest.raises(Stopped):
        _run(source, output, Identity(num_calls), **options)


def _contents(reading: Any) -> tuple[list[Any], list[bytes], list[list[bytes]]]:
    """Times, decoded pixels and the packets of the other streams."""
    return (
        reading.times,
        [frame.to_ndarray().tobytes() for frame in reading.frames],
        [s.packets for s in reading.others],
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path], Track: Any) -> Path:
    """Variable rate with B-frames, a late start, sound and chapters."""
    steps = itertools.cycle((3600, 3600, 1800, 7200, 3599))
    pts = tuple(itertools.accumulate(itertools.islice(steps, NUM_FRAMES - 1), initial=9000))
    return make_clip(
        tmp_path_factory.mktemp("resume") / "in.mkv",
        pts=pts,
        time_base=Fraction(1, 90000),
        audio=[Track("aac", {"language": "deu"}), Track("ac3")],
        chapters=[(0, 900, "One"), (900, 2000, "Two")],
        metadata={"title": "A film"},
        options={"preset": "medium", "bf": "3", "g": "20"},
    )


@pytest.mark.parametrize(
    ("network", "num_frames", "step", "length"),
    [
        (1e9, 1500, 4, 48),  # a minute of video: as short as encoders make no ado about
        (1e9, 7500, 4, 116),  # five minutes: 64 segments and a part
        (1e9, 180_000, 4, 240),
        (1e9, None, 4, 240),
        (1e12, 180_000, 4, 48),  # a network that takes a second a frame
        (1e9, 1500, 30, 60),
        (1e9, 180_000, 100, 200),
    ],
)
def test_segments_are_as_long_as_the_video_and_the_network_ask_for(
    network: float, num_frames: int | None, step: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the short ones of all other tests
    assert resume.segment_length(network, num_frames, step) == length


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".ts"])
def test_a_stopped_job_ends_as_an_unbroken_one(
    suffix: str, clip: Path, tmp_path: Path, read_back: Callable[..., Any], clean_folder: Callable[..., None]
) -> None:
    whole, output, plain = (tmp_path / f"{name}{suffix}" for name in ("whole", "out", "plain"))
    _run(clip, plain, resume=False)
    assert _run(clip, whole).num_frames == NUM_FRAMES
    for num_calls in (1, 7, 13):  # in the first segment, in the second, in a later one
        _run_until(clip, output, num_calls)
    engine, notes = Identity(), []
    report = _run(clip, output, engine, notes)
    assert report.num_frames == NUM_FRAMES
    assert report.num_frames_before >= 4 * FRAMES_PER_SEGMENT
    assert engine.num_frames == NUM_FRAMES - report.num_frames_before
    assert [line for line in notes if "going on after" in line]

    expected, found = read_back(whole, keep_frames=True), read_back(output, keep_frames=True)
    assert _contents(found) == _contents(expected)
    assert found.chapters == expected.chapters
    assert found.metadata.get("title") == expected.metadata.get("title")
    unsegmented = read_back(plain)
    assert found.times == unsegmented.times
    assert (found.aspect, found.tags, found.tick) == (unsegmented.aspect, unsegmented.tags, unsegmented.tick)
    assert [s.packets for s in found.others] == [s.packets for s in unsegmented.others]
    clean_folder(whole.name, output.name, plain.name)


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx265", ".mp4", {}),
        ("libsvtav1", ".mkv", {"preset": "12"}),
        ("libvpx-vp9", ".webm", {"preset": None, "audio": "opus"}),
        ("ffv1", ".mkv", {"preset": None}),
        ("prores_ks", ".mov", {"preset": None}),
        ("mpeg4", ".mp4", {"preset": None}),
    ],
)
def test_other_encoders(
    codec: str, suffix: str, options: dict[str, Any], clip: Path, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    """The joined file decodes to what an unsegmented one has at each time, but for where its key frames lie."""
    values = {"codec": codec, **({"preset": "ultrafast"} | options), "size": "128x96"}
    plain, output = tmp_path / f"plain{suffix}", tmp_path / f"out{suffix}"
    _run(clip, plain, resume=False, **values)
    _run_until(clip, output, 14, **values)
    assert _run(clip, output, **values).num_frames_before >= 2 * FRAMES_PER_SEGMENT
    expected, found = read_back(plain), read_back(output)
    assert found.times == expected.times
    assert (found.tags, found.tick, found.video.codec) == (expected.tags, expected.tick, expected.video.codec)
    assert max(abs(a - b) for a, b in zip(found.brightness, expected.brightness, strict=True)) < 4
    rates = []
    for path in (plain, output):
        with av.open(str(path)) as container:
            rates.append(container.streams.video[0].average_rate)
    assert rates[0] == rates[1]


def test_what_is_done_is_kept_and_said(clip: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    with pytest.raises(Stopped):
        _run(clip, tmp_path / "out.mp4", Identity(10), notes)
    assert [line for line in notes if "16 frames are done and kept" in line]
    folder = work_folder(tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert sorted(path.name for path in folder.iterdir()) == ["000000.mkv", "000001.mkv", "journal.jsonl", "lock"]


class Pressed(Identity):
    """An engine during whose last call Ctrl-C is pressed, when all frames of the calls before are encoded."""

    def __init__(self, num_calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._calls, self._written, write = num_calls, threading.Semaphore(0), SegmentedSink.write

        def counted(sink: SegmentedSink, chunk: Chunk) -> None:
            write(sink, chunk)
            if chunk.batch is not None:
                self._written.release()

        monkeypatch.setattr(SegmentedSink, "write", counted)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._calls -= 1
        if self._calls >= 0:
            return super().__call__(*inputs)
        for _ in range(self.num_frames // inputs[0].shape[0]):
            assert self._written.acquire(timeout=60)
        raise KeyboardInterrupt


def test_ctrl_c_keeps_the_segment_that_was_being_written(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_back: Callable[..., Any],
    clean_folder: Callable[..., None],
) -> None:
    """In the middle of the first segment, and of a later one; each frame is then computed once."""
    lossless = {"codec": "ffv1", "preset": None}
    whole, output = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    _run(clip, whole, **lossless)
    for num_calls, num_kept in ((3, 6), (4, 14)):
        notes: list[str] = []
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            _run(clip, output, Pressed(num_calls, patch), notes, **lossless)
        assert [line for line in notes if f"{num_kept} frames are done and kept; the same command" in line]
    engine = Identity()
    assert _run(clip, output, engine, **lossless).num_frames_before == 14
    assert engine.num_frames == NUM_FRAMES - 14
    expected, found = read_back(whole, keep_frames=True), read_back(output, keep_frames=True)
    assert _contents(found) == _contents(expected)
    clean_folder(whole.name, output.name)


def test_ctrl_c_before_the_first_frame_leaves_nothing(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_folder: Callable[..., None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(clip, tmp_path / "out.mp4", Pressed(0, monkeypatch))
    clean_folder()


def test_segments_at_the_start_are_short(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_back: Callable[..., Any]
) -> None:
    """A network so slow that the time for a first segment is over after each batch."""
    lossless = {"codec": "ffv1", "preset": None}
    _run(clip, tmp_path / "whole.mkv", **lossless)
    monkeypatch.setattr("vsr.jobs.segmented_sink._FIRST_SEGMENT_SECONDS", 0)
    monkeypatch.setattr("vsr.jobs.segmented_sink._LARGEST_SHARE", 0)
    _run_until(clip, tmp_path / "out.mkv", 3, **lossless)  # and killed
    assert _run(clip, tmp_path / "out.mkv", **lossless).num_frames_before == 6
    expected, found = (read_back(tmp_path / name, keep_frames=True) for name in ("whole.mkv", "out.mkv"))
    assert _contents(found) == _contents(expected)


def test_a_job_that_has_nothing_to_keep_leaves_nothing(
    clip: Path, tmp_path: Path, clean_folder: Callable[..., None]
) -> None:
    _run_until(clip, tmp_path / "out.mp4", 2)
    clean_folder()


def test_a_part_of_a_file(clip: Path, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    part = {"start_seconds": Fraction(1, 2), "duration_seconds": Fraction(3, 2)}
    whole, output = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    num_frames = _run(clip, whole, **part).num_frames
    assert 3 * FRAMES_PER_SEGMENT < num_frames < NUM_FRAMES
    _run_until(clip, output, 9, **part)
    assert _run(clip, output, **part).num_frames_before == 2 * FRAMES_PER_SEGMENT
    assert _contents(read_back(output, keep_frames=True)) == _contents(read_back(whole, keep_frames=True))


def _raw_h264(make_clip: Callable[..., Path], path: Path) -> Path:
    """Without timestamps, so that no place can be searched for."""
    return make_clip(path, pts=tuple(range(NUM_FRAMES)), options={"preset": "medium", "bf": "2"})


def test_a_file_that_cannot_be_searched_is_decoded_again(
    tmp_path: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    source = _raw_h264(make_clip, tmp_path / "in.h264")
    _run(source, tmp_path / "whole.mp4")
    _run_until(source, tmp_path / "out.mp4", 11)
    notes: list[str] = []
    _run(source, tmp_path / "out.mp4", notes=notes)
    assert [line for line in notes if "decoding from the start" in line]
    expected, found = (read_back(tmp_path / name, keep_frames=True) for name in ("whole.mp4", "out.mp4"))
    assert _contents(found) == _contents(expected)
    assert len(found.times) == NUM_FRAMES


@pytest.mark.parametrize(("mode", "num_frames"), [("on", NUM_FRAMES), ("double", 2 * NUM_FRAMES)])
def test_interlaced_video(
    mode: str, num_frames: int, tmp_path: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    options = {"x264-params": "interlaced=1", "preset": "ultrafast", "g": "10"}
    source = make_clip(tmp_path / "in.mkv", pts=tuple(range(NUM_FRAMES)), options=options)
    _run(source, tmp_path / "whole.mp4", deinterlace=mode)
    _run_until(source, tmp_path / "out.mp4", 14, deinterlace=mode)
    assert _run(source, tmp_path / "out.mp4", deinterlace=mode).num_frames == num_frames
    expected, found = (read_back(tmp_path / name, keep_frames=True) for name in ("whole.mp4", "out.mp4"))
    assert _contents(found) == _contents(expected)


# -- what must not be gone on with ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [({"crf": 30}, "encoder"), ({"size": "128x96"}, "size"), ({"batch": 4}, "batch"), ({"audio": "none"}, "streams")],
)
def test_another_job_is_refused(
    options: dict[str, Any], word: str, clip: Path, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    output = tmp_path / "out.mp4"
    _run_until(clip, output, 10)
    with pytest.raises(OutputError, match=f"another {word}; .*`resume=False`"):
        _run(clip, output, **options)
    assert _run(clip, output).num_frames_before == 2 * FRAMES_PER_SEGMENT  # nothing was lost by that


def test_no_resume_starts_anew(clip: Path, tmp_path: Path, clean_folder: Callable[..., None]) -> None:
    output = tmp_path / "out.mp4"
    _run_until(clip, output, 10)
    report = _run(clip, output, resume=False)
    assert (report.num_frames, report.num_frames_before) == (NUM_FRAMES, 0)
    clean_folder("out.mp4")


def test_an_output_that_came_meanwhile_is_kept_without_y(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    _run_until(clip, output, 10)
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already; `overwrite=True`"):
        _run(clip, output)
    assert output.read_bytes() == b"precious"
    assert _run(clip, output, overwrite=True).num_frames_before == 2 * FRAMES_PER_SEGMENT


def test_another_input_is_refused(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    source = make_clip(tmp_path / "in.mkv", pts=tuple(range(NUM_FRAMES)))
    _run_until(source, tmp_path / "out.mkv", 10)
    make_clip(source, pts=tuple(range(NUM_FRAMES + 1)))
    with pytest.raises(OutputError, match="another input"):
        _run(source, tmp_path / "out.mkv")


def test_an_input_with_other_frames_is_refused(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    """Of the same size and date: the frames themselves are compared."""
    source = make_clip(tmp_path / "in.nut", codec="rawvideo", pts=tuple(range(NUM_FRAMES)), options={})
    before = source.stat()
    _run_until(source, tmp_path / "out.mkv", 10)
    data = source.read_bytes()
    source.write_bytes(data.replace(b"\x78" * 32, b"\x79" * 32))  # chroma
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match="does not have the frames"):
        _run(source, tmp_path / "out.mkv")


def test_a_damaged_segment_is_found(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    _run_until(clip, output, 10)
    segment = work_folder(output) / "000001.mkv"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    with pytest.raises(OutputError, match=r"000001\.mkv: is damaged"):
        _run(clip, output)


@pytest.mark.parametrize("num_bytes_lost", [1, 40])
def test_a_journal_that_was_cut_short(
    num_bytes_lost: int, clip: Path, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    """Killed while it wrote a line: the segment of that line counts as not done."""
    _run(clip, tmp_path / "whole.mp4")
    output = tmp_path / "out.mp4"
    _run_until(clip, output, 14)
    journal = work_folder(output) / "journal.jsonl"
    text = journal.read_bytes()
    journal.write_bytes(text[:-num_bytes_lost])
    assert _run(clip, output).num_frames_before == 2 * FRAMES_PER_SEGMENT
    expected, found = (read_back(tmp_path / name, keep_frames=True) for name in ("whole.mp4", "out.mp4"))
    assert _contents(found) == _contents(expected)


def test_a_journal_that_makes_no_sense_is_named(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    _run_until(clip, output, 10)
    (work_folder(output) / "journal.jsonl").write_text("[]\n{}\n", "utf-8")
    with pytest.raises(OutputError, match="is damaged; `resume=False`"):
        _run(clip, output)


def test_killed_after_the_output_was_put_in_place(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_folder: Callable[..., None]
) -> None:
    output = tmp_path / "out.mp4"
    with monkeypatch.context() as patch:
        patch.setattr("vsr.jobs.journal.Journal.forget", lambda self: None)
        _run(clip, output)
    assert work_folder(output).exists()
    data, notes, engine = output.read_bytes(), [], Identity()
    report = _run(clip, output, engine, notes)
    assert (report.num_frames, engine.num_frames) == (NUM_FRAMES, 0)
    assert output.read_bytes() == data
    assert [line for line in notes if "complete already" in line]
    clean_folder("out.mp4")


def test_two_at_work_on_one_output(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    errors: list[BaseException] = []

    class Second(Identity):
        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            if not errors:
                with pytest.raises(OutputError, match="another process is at work on it") as caught:
                    _run(clip, output)
                errors.append(caught.value)
            return super().__call__(*inputs)

    assert _run(clip, output, Second()).num_frames == NUM_FRAMES
    assert errors


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("out.nut", {}, "cannot be joined in nut"), ("out.mp4", {"reference": Path("x.mp4")}, "go with `reference`")],
)
def test_resume_that_cannot_be(
    name: str, options: dict[str, Any], words: str, clip: Path, tmp_path: Path, clean_folder: Callable[..., None]
) -> None:
    if options:
        options = {"reference": clip, "report": tmp_path / "r.json"}
    with pytest.raises(OptionError, match=words):
        _run(clip, tmp_path / name, **options)
    clean_folder()


# -- by itself -----------------------------------------------------------------------------------------


def test_a_short_job_is_not_made_resumable_by_itself(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _run(clip, tmp_path / "out.mp4", Identity(20), resume=None)
    assert not list(tmp_path.iterdir())


def test_a_job_that_will_take_long_is_made_resumable_by_itself(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, notes = tmp_path / "out.mp4", []
    monkeypatch.setattr(resume, "_MACS_NEVER_LONG", 0)
    monkeypatch.setattr(resume, "LONG_JOB_SECONDS", 0)
    _run_until(clip, output, 12, resume=None, notes=notes)
    assert work_folder(output).exists()
    assert [line for line in notes if "the same command goes on where it was" in line]
    monkeypatch.undo()
    assert _run(clip, output, resume=None, batch=2).num_frames_before  # an unfinished job is gone on with


# -- killed --------------------------------------------------------------------------------------------

_SCRIPT = """
import os
import sys
from pathlib import Path
from vsr.jobs import resume
resume._FEWEST_FRAMES = resume._MOST_FRAMES = {frames}
import vsr
print(os.getpid(), flush=True)
vsr.enhance({source!r}, {output!r}, model={model!r}, preset="veryfast", resume=True, batch=2)
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments(
    clip: Path,
    tmp_path: Path,
    tiny_model: Path,
    warm_python: str,
    read_back: Callable[..., Any],
    clean_folder: Callable[..., None],
) -> None:
    """benchmarks/kills.py does so a hundred times."""
    values = {"frames": FRAMES_PER_SEGMENT, "source": str(clip), "model": str(tiny_model)}
    whole, output = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    begun = time.monotonic()
    subprocess.run([warm_python, "-c", _SCRIPT.format(output=str(whole), **values)], check=True, capture_output=True)
    longest, moments = time.monotonic() - begun, random.Random(1)
    for _ in range(2):
        script = _SCRIPT.format(output=str(output), **values)
        with subprocess.Popen([warm_python, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            number = int(process.stdout.readline())
            time.sleep(moments.uniform(0, longest / 4))
            with contextlib.suppress(ProcessLookupError):  # it is done
                os.kill(number, signal.SIGKILL)
    if not output.exists() or work_folder(output).exists():
        script = _SCRIPT.format(output=str(output), **values)
        subprocess.run([warm_python, "-c", script], check=True, capture_output=True)
    expected, found = (read_back(path, keep_frames=True) for path in (whole, output))
    assert _contents(found) == _contents(expected)
    clean_folder("out.mp4", "whole.mp4")


_COMMAND = """
import resource, sys
from vsr.jobs import resume
resume._FEWEST_FRAMES = resume._MOST_FRAMES = {frames}
limit = int(sys.argv.pop(1))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from vsr.cli import main
main()
"""


@pytest.fixture
def command(warm_python: str) -> Callable[..., list[str]]:
    """`_command`, run by a Python that starts in an instant."""
    return functools.partial(_command, warm_python)


def _command(python: str, source: Path, output: Path, model: object, *, largest_file: int = 0) -> list[str]:
    script = _COMMAND.format(frames=FRAMES_PER_SEGMENT)
    options = ["--resume", "--batch", "1", "--preset", "ultrafast", "--progress", "json", "--model", str(model)]
    return [python, "-c", script, str(largest_file), "enhance", str(source), str(output), *options]


def _said(stderr: str) -> list[str]:
    """Errors and notes, the latter without their dress."""
    lines = [json.loads(line) if line.startswith("{") else {"text": line} for line in stderr.splitlines()]
    return [line["text"] for line in lines if line.get("text")]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_and_gone_on_with(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    command: Callable[..., list[str]],
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    source = make_clip(tmp_path / "in.mkv", size=(320, 240), pts=tuple(range(100)))
    output = tmp_path / "out.mp4"
    with subprocess.Popen(command(source, output, "fast"), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (work_folder(output) / "000001.mkv").exists():
            assert process.stderr.readline(), "the job ended before it could be interrupted"
        process.send_signal(number)
        said = _said(process.communicate(timeout=60)[1])
    assert process.returncode == code
    assert len(said) == 2
    assert "frames are done and kept; the same command goes on from there" in said[0]
    clean_folder("in.mkv", work_folder(output).name)
    done = subprocess.run(command(source, output, "fast"), capture_output=True, text=True, timeout=60, check=True)
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["frames"] == 100
    assert report["frames_before"] >= 2 * FRAMES_PER_SEGMENT
    clean_folder("in.mkv", "out.mp4")


def test_full_disk_keeps_what_is_done(
    tmp_path: Path,
    command: Callable[..., list[str]],
    tiny_model: Path,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    """A limit on file size, which the joined file exceeds, stands for a disk that is full."""
    source, output = make_clip(tmp_path / "in.mkv", pts=tuple(range(NUM_FRAMES))), tmp_path / "out.mkv"
    limited = command(source, output, tiny_model, largest_file=6000)
    full = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert full.returncode == OutputError.exit_code, full.stderr
    said = _said(full.stderr)
    assert f"{NUM_FRAMES} frames are done and kept" in said[-2]
    assert "File too large" in said[-1]
    clean_folder("in.mkv", work_folder(output).name)
    again = command(source, output, tiny_model)
    done = subprocess.run(again, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stderr.splitlines()[-1])["frames_before"] == NUM_FRAMES
    clean_folder("in.mkv", "out.mkv")


def test_the_journal_is_json_a_line(clip: Path, tmp_path: Path) -> None:
    _run_until(clip, tmp_path / "out.mp4", 10)
    lines = (work_folder(tmp_path / "out.mp4") / "journal.jsonl").read_text("utf-8").splitlines()
    head, *segments = (json.loads(line) for line in lines)
    assert head["num_frames_per_segment"] == FRAMES_PER_SEGMENT
    assert [len(segment["pts"]) for segment in segments] == [FRAMES_PER_SEGMENT] * 2


# -- the clock of decoding -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pts",
    [
        [],
        [5],
        [0, 1, 2, 3],
        [0, 4, 2, 1, 3, 8, 6, 5, 7],
        [10, 40, 20, 30, 41, 900, 50, 60],  # of variable rate
        [0, 2, 1, 100, 300, 200],  # two closed groups
        [7, 3],
    ],
)
def test_decode_times(pts: list[int]) -> None:
    times = decode_times(pts)
    assert len(times) == len(pts)
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert all(time <= shown for time, shown in zip(times, pts, strict=True))
    if pts == sorted(pts):
        assert times == pts
