"""stdin and stdout: what ffmpeg sends arrives frame for frame, and a pipe that breaks or stands still ends a job well.

Debian's ffmpeg and ffprobe make and read the streams, not vsr's own libraries.
"""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import vsr
from vsr.cli import main
from vsr.errors import InputError, OptionError, OutputError, StrictError

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="needs ffmpeg and ffprobe on the PATH"
)

INTERRUPTED, READER_GONE = 130, 141
SIZE, NUM_FRAMES = (64, 48), 12
PROMPT_SECONDS = 30  # the pipe stays open for 60
Pipe = Callable[..., bytes]

_VIDEO = ("-f", "lavfi", "-i", f"testsrc2=s={SIZE[0]}x{SIZE[1]}:r=25", "-frames:v", NUM_FRAMES)
_QUICK = ("-preset", "ultrafast")
_SOUND = ("-f", "lavfi", "-i", "sine=duration=0.48")


def _ffmpeg(*arguments: object, data: bytes | None = None) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _probe(data: bytes, *arguments: str) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:  # of what is short, ffprobe finds not all times in a pipe
        file.write(data)
        file.flush()
        command = ["ffprobe", "-v", "error", "-of", "json", *arguments, file.name]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return dict(json.loads(done.stdout))


def _frames(data: bytes, pix_fmt: str = "yuv420p") -> list[str]:
    """A checksum of every decoded frame."""
    lines = _ffmpeg(
        "-i", "-", "-map", "0:v", "-pix_fmt", pix_fmt, "-fps_mode", "passthrough", "-f", "framemd5", "-", data=data
    )
    return [line.split(",")[-1].strip() for line in lines.decode().splitlines() if not line.startswith("#")]


def _times(data: bytes, stream: str = "v") -> list[str]:
    """The presentation times of all packets of a stream, in seconds."""
    packets = _probe(data, "-select_streams", stream, "-show_entries", "packet=pts_time")["packets"]
    return sorted((packet["pts_time"] for packet in packets), key=float)


def _sound(data: bytes) -> bytes:
    """All sound packets, byte for byte."""
    return _ffmpeg("-i", "-", "-map", "0:a", "-c", "copy", "-f", "md5", "-", data=data)


def _varying(ticks: str) -> tuple[str, ...]:
    """Options that give frame N this time, in ticks of 1/90000 s."""
    return ("-vf", f"settb=1/90000,setpts={ticks}", "-fps_mode", "passthrough", "-enc_time_base", "1:90000")


def _clip(container: str, *arguments: object) -> bytes:
    return _ffmpeg(*_VIDEO, *arguments, "-f", container, "-")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Runs a call in this process with stdin and stdout as pipes; gives what came out of the latter."""
    saved = os.dup(0), os.dup(1)

    def call(work: Callable[[], object], data: bytes | None = b"", *, stay_open: bool = False) -> bytes:
        """data: what comes in; with stay_open, the pipe is not closed after it until `work` has ended."""
        (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
        ended, chunks = threading.Event(), []

        def feed() -> None:
            try:
                with open(write_in, "wb", closefd=True) as file:  # noqa: PTH123 (a descriptor)
                    file.write(data or b"")
                    file.flush()
                    if stay_open:
                        ended.wait(60)
            except BrokenPipeError:
                pass

        def collect() -> None:
            while chunk := os.read(read_out, 65536):
                chunks.append(chunk)

        threads = [threading.Thread(target=feed), threading.Thread(target=collect)]
        os.dup2(read_in, 0)
        os.dup2(write_out, 1)
        os.close(read_in)
        os.close(write_out)
        for thread in threads:
            thread.start()
        try:
            work()
        finally:
            ended.set()
            os.dup2(saved[0], 0)
            os.dup2(saved[1], 1)
            for thread in threads:
                thread.join()
            os.close(read_out)
        return b"".join(chunks)

    yield call
    os.dup2(saved[0], 0)
    os.dup2(saved[1], 1)
    os.close(saved[0])
    os.close(saved[1])


@pytest.fixture
def enhance(pipe: Pipe, tiny_model: Path) -> Pipe:
    """Pipes bytes through the network that changes nothing. `notes` gathers what it says."""

    def call(data: bytes, notes: list[str] | None = None, **options: Any) -> bytes:
        def note(line: str) -> None:
            if notes is not None:
                notes.append(line)

        return pipe(lambda: vsr.enhance("-", "-", model=str(tiny_model), note=note, **options), data)

    return call


# -- containers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "options"),
    [
        ("nut", {}),
        ("matroska", {"codec": "ffv1"}),
        ("mpegts", {"codec": "libx264", "encoder_options": {"qp": "0"}}),
    ],
)
def test_frames_times_and_sound_through_a_container(container: str, options: dict[str, Any], enhance: Pipe) -> None:
    source = _ffmpeg(
        *_VIDEO[:4], *_SOUND, *_VIDEO[4:], *_varying("N*N*40+N*3003"),
        "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-f", container, "-",
    )  # fmt: skip
    output = enhance(source, format=container, **options)
    assert len(_frames(source)) == NUM_FRAMES
    assert _frames(output) == _frames(source)
    assert _times(output) == _times(source)
    assert _sound(output) == _sound(source)
    assert _times(output, "a") == _times(source, "a")
    assert container in _probe(output, "-show_format")["format"]["format_name"]


def test_nut_holds_raw_video_by_default_and_files_what_files_hold(enhance: Pipe) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")
    expected = {"nut": "rawvideo", "matroska": "h264", "mpegts": "h264"}
    for container, codec in expected.items():
        output = enhance(source, format=container)
        assert _probe(output, "-show_streams")["streams"][0]["codec_name"] == codec
        assert len(_frames(output)) == NUM_FRAMES


@pytest.mark.parametrize(
    ("pix_fmt", "word"),
    [
        ("yuv420p", "C420jpeg"),
        ("yuv422p", "C422"),
        ("yuv444p", "C444"),
        ("gray", "Cmono"),
        ("yuv420p10le", "C420p10"),
        ("yuv444p12le", "C444p12"),
        ("gray10le", "Cmono10"),
    ],
)
def test_y4m_comes_out_as_it_went_in(pix_fmt: str, word: str, enhance: Pipe) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", pix_fmt, "-strict", "-1", "-vf", "setsar=8/9", "-color_range", "pc")
    output = enhance(source)
    header = output.split(b"\n")[0].decode().split()
    assert header[:5] == ["YUV4MPEG2", "W64", "H48", "F25:1", "Ip"]
    assert {"A8:9", "XCOLORRANGE=FULL"} <= set(header)
    assert output.count(b"FRAME\n") == NUM_FRAMES
    assert output.split(b"\nFRAME\n")[1:] == source.split(b"\nFRAME\n")[1:] or word.startswith("Cmono")
    assert _frames(output, pix_fmt) == _frames(source, pix_fmt)
    assert word in header or word == "C420jpeg"


def test_odd_sizes_in_y4m(enhance: Pipe) -> None:
    source = _ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=33x21:r=30000/1001",
        "-frames:v",
        3,
        "-pix_fmt",
        "yuv420p",
        "-f",
        "yuv4mpegpipe",
        "-",
    )
    output = enhance(source)
    assert output.split(b"\n")[0].split()[:4] == [b"YUV4MPEG2", b"W34", b"H22", b"F30000:1001"]
    assert len(_frames(output)) == 3


def test_from_a_pipe_to_a_file_and_from_a_file_to_a_pipe(
    pipe: Pipe, tiny_model: Path, tmp_path: Path, clean_folder: Callable[..., None]
) -> None:
    source, options = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p"), {"model": str(tiny_model)}
    assert pipe(lambda: vsr.enhance("-", tmp_path / "out.mkv", codec="ffv1", **options), source) == b""
    assert _frames((tmp_path / "out.mkv").read_bytes()) == _frames(source)
    assert _frames(pipe(lambda: vsr.enhance(tmp_path / "out.mkv", "-", **options))) == _frames(source)
    assert pipe(lambda: vsr.enhance("-", tmp_path / "out.y4m", **options), source) == b""
    assert _frames((tmp_path / "out.y4m").read_bytes()) == _frames(source)
    clean_folder("out.mkv", "out.y4m")


def test_raw_video_in(enhance: Pipe) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")
    raw = b"".join(source.split(b"\nFRAME\n")[1:])
    raw = _ffmpeg("-i", "-", "-f", "rawvideo", "-", data=source)
    described = {
        "input_format": "rawvideo",
        "video_size": "64x48",
        "pixel_format": "yuv420p",
        "framerate": Fraction(25),
    }
    assert _frames(enhance(raw, **described)) == _frames(source)
    with pytest.raises(OptionError, match="add `video_size`, `framerate`"):
        enhance(raw, input_format="rawvideo", pixel_format="yuv420p")


def test_pictures_one_after_the_other_in_a_pipe(enhance: Pipe) -> None:
    source = _ffmpeg(*_VIDEO, "-c:v", "png", "-f", "image2pipe", "-")
    output = enhance(source, framerate=Fraction(10), format="nut")
    assert _frames(output, "gbrp") == _frames(source, "gbrp")
    assert _times(output)[:3] == ["0.000000", "0.100000", "0.200000"]


def test_a_picture_on_stdin(pipe: Pipe, tiny_model: Path, tmp_path: Path, clean_folder: Callable[..., None]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    pipe(lambda: vsr.enhance("-", tmp_path / "out.png", model=str(tiny_model)), data)
    assert np.abs(cv2.imread(str(tmp_path / "out.png")).astype(int) - picture).max() <= 1
    with pytest.raises(InputError, match=r"stdin.*no image"):
        pipe(lambda: vsr.enhance("-", tmp_path / "b.png", model=str(tiny_model)), _clip("nut"))
    clean_folder("out.png")


def test_a_part_of_what_comes(enhance: Pipe) -> None:
    source = _clip("mpegts", "-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p")
    output = enhance(source, start_seconds=Fraction(1, 5), duration_seconds=Fraction(3, 25), format="nut")
    assert _frames(output) == _frames(source)[5:8]


# -- what is lost --------------------------------------------------------------------------------------


def test_what_y4m_has_no_place_for_is_named(enhance: Pipe) -> None:
    source = _ffmpeg(
        *_VIDEO[:4], *_SOUND, *_VIDEO[4:], *_varying("N*N*40+N*3600+3600"), "-c:v", "ffv1",
        "-pix_fmt", "yuva420p", "-colorspace", "bt709", "-c:a", "aac", "-f", "matroska", "-",
    )  # fmt: skip
    notes: list[str] = []
    output = enhance(source, notes)
    assert len(_frames(output)) == NUM_FRAMES
    text = "\n".join(notes)
    for words in (
        "audio stream 1 (aac): left out",
        "alpha is left out",
        "colour tags (BT709)",
        "start at 0.",
        "are moved",
    ):
        assert words in text
    with pytest.raises(StrictError, match="audio stream 1"):
        enhance(source, strict=True)
    with pytest.raises(StrictError, match="frames are moved"):
        moved = _ffmpeg(
            "-i",
            "-",
            "-map",
            "0:v",
            "-c:v",
            "ffv1",
            "-pix_fmt",
            "yuv420p",
            "-fps_mode",
            "passthrough",
            "-color_primaries",
            "2",
            "-colorspace",
            "2",
            "-f",
            "matroska",
            "-",
            data=source,
        )
        enhance(moved, strict=True)


def test_nothing_is_said_to_be_lost_where_nothing_is(enhance: Pipe) -> None:
    assert len(enhance(_clip("yuv4mpegpipe", "-pix_fmt", "yuv420p"), strict=True)) > 0
    assert len(enhance(_clip("nut", "-c:v", "rawvideo", "-pix_fmt", "yuv420p"), strict=True, format="nut")) > 0


def test_the_sample_aspect_ratio_is_kept_or_named(enhance: Pipe) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p", "-vf", "setsar=8/9")
    for options, is_kept in (
        ({}, True),
        ({"format": "mpegts"}, True),
        ({"format": "matroska", "codec": "ffv1"}, False),
        ({"format": "nut"}, False),
    ):
        notes: list[str] = []
        stream = _probe(enhance(source, notes, **options), "-show_streams")["streams"][0]
        assert (stream.get("sample_aspect_ratio") == "8:9") == is_kept
        assert any("sample aspect ratio 8/9 is left out" in line for line in notes) != is_kept


# -- what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing came from it"),
        (bytes(range(256)) * 40, "not a media file.*--input-format"),
    ],
)
def test_what_is_no_video(data: bytes, words: str, enhance: Pipe) -> None:
    with pytest.raises(InputError, match=f"stdin: .*{words}"):
        enhance(data)


def test_an_mp4_with_its_index_last(enhance: Pipe, tmp_path: Path) -> None:
    path = tmp_path / "last.mp4"
    _ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240,noise=alls=60:allf=t", "-t", "4", "-crf", "10", *_QUICK, path)
    assert path.stat().st_size > 2**20
    with pytest.raises(InputError, match="faststart"):
        enhance(path.read_bytes())
    _ffmpeg("-i", path, "-c", "copy", "-movflags", "+faststart", tmp_path / "first.mp4")
    assert len(_times(enhance((tmp_path / "first.mp4").read_bytes(), format="nut"))) == 100


def test_a_stream_that_ends_within_a_frame(enhance: Pipe) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")
    notes: list[str] = []
    assert _frames(enhance(source[:-100], notes)) == _frames(source)[:-1]
    assert any("ends in the middle of a frame" in line for line in notes)
    with pytest.raises(StrictError, match="damaged"):
        enhance(source[:-100], strict=True)


def test_a_file_on_stdin_can_be_searched(tiny_model: Path, tmp_path: Path) -> None:
    """As a shell's `<` gives it: an index at the end and a start time cost no reading of what lies before."""
    _ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=320x240,noise=alls=60:allf=t",
        "-t",
        "4",
        "-crf",
        "10",
        *_QUICK,
        tmp_path / "a.mp4",
    )
    saved = os.dup(0)
    try:
        with (tmp_path / "a.mp4").open("rb") as file:
            os.dup2(file.fileno(), 0)
        vsr.enhance("-", tmp_path / "b.mkv", model=str(tiny_model), codec="ffv1", start_seconds=Fraction(3))
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    whole = _ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-f", "nut", "-")
    assert _frames((tmp_path / "b.mkv").read_bytes()) == _frames(whole)[75:]


def test_aac_that_brings_its_headers_along(pipe: Pipe, tiny_model: Path, tmp_path: Path) -> None:
    """MPEG-TS has a header before each packet, which Matroska does not: the check of the file knows them apart."""
    stream = _ffmpeg(*_VIDEO[:4], *_SOUND, *_VIDEO[4:], "-c:v", "ffv1", "-c:a", "aac", "-f", "matroska", "-")
    headed = _ffmpeg("-i", "-", "-c:v", "libx264", "-c:a", "copy", "-f", "mpegts", "-", data=stream)
    source = _ffmpeg("-i", "-", "-c", "copy", "-f", "nut", "-", data=headed)
    pipe(lambda: vsr.enhance("-", tmp_path / "out.mkv", model=str(tiny_model)), source)
    assert _sound((tmp_path / "out.mkv").read_bytes()) == _sound(stream)


def test_a_pipe_becomes_pictures(enhance: Pipe, pipe: Pipe, tiny_model: Path, tmp_path: Path) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")
    pipe(lambda: vsr.enhance("-", tmp_path / "%02d.png", model=str(tiny_model)), source)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n:02d}.png" for n in range(1, NUM_FRAMES + 1)]


def test_sound_that_begins_long_after_the_start_is_named(enhance: Pipe) -> None:
    """FFmpeg looks at the start of a pipe and cannot go back; PyAV passes over what turns up later."""
    silent = _ffmpeg(*_VIDEO[:4], "-t", "8", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "mpegts", "-")
    late = ("-output_ts_offset", "8", "-f", "mpegts", "-")
    loud = _ffmpeg(*_VIDEO[:4], *_SOUND, "-t", "0.4", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", *late)
    notes: list[str] = []
    assert len(_frames(enhance(silent + loud, notes, format="nut"))) == 210
    assert any("1 late stream left out" in line for line in notes)
    with pytest.raises(StrictError):
        enhance(silent + loud, format="nut", strict=True)


def test_what_cannot_go_to_a_pipe(enhance: Pipe, pipe: Pipe, tmp_path: Path) -> None:
    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")
    with pytest.raises(OptionError, match="mp4 cannot go to a pipe"):
        enhance(source, format="mp4")
    with pytest.raises(OptionError, match="writes no such format"):
        enhance(source, format="nonsense")
    with pytest.raises(OptionError, match="y4m holds raw video"):
        enhance(source, codec="libx264")
    with pytest.raises(OptionError, match="resume"):
        enhance(source, resume=True)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(OptionError, match="name a picture"):
        pipe(lambda: vsr.enhance(tmp_path / "a.png", "-"))


def test_terminals_are_refused(tiny_model: Path, tmp_path: Path, pipe: Pipe) -> None:
    controller, terminal = pty.openpty()

    def on_terminal(descriptor: int, source: Path | str, output: Path | str) -> None:
        os.dup2(terminal, descriptor)
        vsr.enhance(source, output, model=str(tiny_model))

    clip = tmp_path / "clip.y4m"
    clip.write_bytes(_clip("yuv4mpegpipe", "-pix_fmt", "yuv420p"))
    try:
        with pytest.raises(InputError, match="stdin is a terminal"):
            pipe(lambda: on_terminal(0, "-", tmp_path / "out.mp4"))
        with pytest.raises(OutputError, match="stdout is a terminal"):
            pipe(lambda: on_terminal(1, clip, "-"))
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_full_disk_behind_stdout(tiny_model: Path, tmp_path: Path, pipe: Pipe) -> None:
    clip = tmp_path / "clip.y4m"
    clip.write_bytes(_clip("yuv4mpegpipe", "-pix_fmt", "yuv420p"))

    def to_full(**options: Any) -> None:
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            os.dup2(full.fileno(), 1)
        vsr.enhance(clip, "-", model=str(tiny_model), **options)

    for options in ({}, {"format": "nut"}):
        with pytest.raises(OutputError, match=f"stdout: .*{os.strerror(errno.ENOSPC)}"):
            pipe(lambda options=options: to_full(**options))


def test_only_video_goes_to_stdout(tiny_model: Path, pipe: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    def chatty(line: str) -> None:
        print("printed")
        os.write(1, b"written")

    source = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")
    output = pipe(lambda: vsr.enhance("-", "-", model=str(tiny_model), note=chatty), source)
    assert _frames(output) == _frames(source)
    assert b"written" not in output
    assert b"printed" not in output
    assert "written" in capfd.readouterr().err


# -- who goes first ------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs a command line in this process; gives its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["vsr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("options", [[], ["--format", "nut"], ["--format", "matroska"]], ids=["y4m", "nut", "mkv"])
def test_a_reader_that_leaves_ends_the_job_quietly(
    options: list[str], tmp_path: Path, tiny_model: Path, command: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.y4m"
    clip.write_bytes(
        _ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240", "-t", "4", "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-")
    )
    saved, (reading, writing) = os.dup(1), os.pipe()
    os.dup2(writing, 1)
    os.close(writing)
    thread = threading.Thread(target=lambda: (os.read(reading, 100), os.close(reading)))
    thread.start()
    try:
        code = (
            command("enhance", clip, "-", "--model", tiny_model, "--quiet", "--preset", "ultrafast", *options)
            if "matroska" in options
            else command("enhance", clip, "-", "--model", tiny_model, "--quiet", *options)
        )
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        thread.join()
    assert code == READER_GONE
    assert capfd.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["clip.y4m"]


def _interrupt_soon(seconds: float) -> threading.Thread:
    def interrupt() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


@pytest.mark.parametrize("num_bytes", [0, 1000, 30_000], ids=["nothing-came", "in-the-header", "in-the-middle"])
def test_ctrl_c_while_stdin_is_silent(
    num_bytes: int, tmp_path: Path, tiny_model: Path, pipe: Pipe, command: Callable[..., int],
    capfd: pytest.CaptureFixture[str], clean_folder: Callable[..., None],
) -> None:  # fmt: skip
    """The pipe stays open, and nothing comes: a job that waits for it must end all the same."""
    codes: list[int] = []
    started = time.monotonic()
    thread = _interrupt_soon(1.5)
    data = _clip("yuv4mpegpipe", "-pix_fmt", "yuv420p")[:num_bytes]
    arguments = ("enhance", "-", tmp_path / "out.mp4", "--model", tiny_model, "--quiet")
    pipe(lambda: codes.append(command(*arguments)), data, stay_open=True)
    thread.join()
    assert codes == [INTERRUPTED]
    assert time.monotonic() - started < PROMPT_SECONDS
    assert capfd.readouterr().err.strip() == "vsr: interrupted"
    clean_folder()


@pytest.mark.parametrize("options", [[], ["--format", "nut"]], ids=["y4m", "nut"])
def test_ctrl_c_while_nobody_reads_stdout(
    options: list[str], tmp_path: Path, tiny_model: Path, command: Callable[..., int]
) -> None:
    clip = tmp_path / "clip.y4m"
    clip.write_bytes(
        _ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240", "-t", "1", "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-")
    )
    saved, (reading, writing) = os.dup(1), os.pipe()
    os.dup2(writing, 1)
    os.close(writing)
    thread = _interrupt_soon(1.5)
    try:
        code = command("enhance", clip, "-", "--model", tiny_model, "--quiet", *options)
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(reading)
        thread.join()
    assert code == INTERRUPTED


def test_ffmpeg_before_and_behind(tmp_path: Path, tiny_model: Path, warm_python: str) -> None:
    """A pipeline of three processes, as a shell makes it."""
    make = ["ffmpeg", "-v", "error", "-nostdin", *map(str, _VIDEO), "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-"]
    enhance = [warm_python, "-m", "vsr.cli", "enhance", "-", "-", "--model", str(tiny_model), "--quiet"]
    encode = ["ffmpeg", "-v", "error", "-y", "-i", "-", "-c:v", "ffv1", str(tmp_path / "out.mkv")]
    first = subprocess.Popen(make, stdout=subprocess.PIPE)
    second = subprocess.Popen(enhance, stdin=first.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    third = subprocess.Popen(encode, stdin=second.stdout)
    for process in (first, second):
        assert process.stdout is not None
        process.stdout.close()
    codes = [process.wait(120) for process in (first, second, third)]
    assert second.stderr is not None and second.stderr.read() == b""
    assert codes == [0, 0, 0]
    assert _frames((tmp_path / "out.mkv").read_bytes()) == _frames(_clip("yuv4mpegpipe", "-pix_fmt", "yuv420p"))
