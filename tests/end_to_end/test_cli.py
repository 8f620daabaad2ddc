"""The command line as a person or a script meets it: one clear line for what is wrong, and the exit code of
`vsr.errors`; and every option does what its help says."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command_line import Ended, Run, enhance, is_refused

INPUT, OUTPUT, OPTION, MODEL, STRICT, USAGE = 2, 3, 4, 5, 8, 2


def _subprocess(*arguments: object, python: str = sys.executable) -> Ended:
    """Runs a command line in a process of its own, so that nothing that a library prints is missed."""
    command = [python, "-m", "vsr.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


# -- bad input -----------------------------------------------------------------------------------------


def _bad_inputs(folder: Path) -> dict[str, bytes]:
    """Files that are no video, by name."""
    (folder / "folder.mp4").mkdir()
    return {"text.mp4": b"These are only words.\n" * 40, "empty.mp4": b"", "noise.mkv": bytes(range(256)) * 9}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.mp4", "no such file"),
        ("folder.mp4", "is a folder"),
        ("text.mp4", "not a media file"),
        ("noise.mkv", "not a media file"),
        ("empty.mp4", "empty"),
        ("missing.png", "no such file"),
    ],
)
def test_bad_input(name: str, words: str, tmp_path: Path, run: Run, tiny_model: Path) -> None:
    for file, content in _bad_inputs(tmp_path).items():
        (tmp_path / file).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    output = tmp_path / f"out{'.png' if name.endswith('.png') else '.mp4'}"
    is_refused(run("enhance", tmp_path / name, output, "--model", tiny_model, "--quiet"), INPUT, name, words)
    assert sorted(tmp_path.iterdir()) == before


def test_text_file_named_png(tmp_path: Path, run: Run, clean_folder: Callable[..., None]) -> None:
    (tmp_path / "text.png").write_text("These are only words.\n")
    is_refused(run("enhance", tmp_path / "text.png", tmp_path / "out.png", "--quiet"), INPUT, "text.png")
    clean_folder("text.png")


def _write_tone(path: Path, codec: str, **options: Any) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=48000, layout="mono", **options)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def test_audio_only_input(tmp_path: Path, run: Run, clean_folder: Callable[..., None]) -> None:
    _write_tone(tmp_path / "tone.m4a", "aac")
    ended = run("enhance", tmp_path / "tone.m4a", tmp_path / "out.mp4", "--quiet")
    is_refused(ended, INPUT, "tone.m4a", "no video stream")
    clean_folder("tone.m4a")


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4"])
def test_info_of_bad_input(name: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty.mp4").touch()
    is_refused(run("info", tmp_path / name), INPUT, name)


def test_missing_file_in_a_process_of_its_own(
    tmp_path: Path, warm_python: str, clean_folder: Callable[..., None]
) -> None:
    ended = _subprocess("enhance", tmp_path / "missing.mp4", tmp_path / "out.mp4", python=warm_python)
    is_refused(ended, INPUT, "missing.mp4", "no such file")
    clean_folder()


def test_damaged_file_in_a_process_of_its_own(
    tmp_path: Path, small_clip: Path, warm_python: str, clean_folder: Callable[..., None]
) -> None:
    """Cut before its index: FFmpeg has much to say about it, of which one line must remain."""
    (tmp_path / "cut.mp4").write_bytes(small_clip.read_bytes()[:2000])
    ended = _subprocess("enhance", tmp_path / "cut.mp4", tmp_path / "out.mp4", python=warm_python)
    is_refused(ended, INPUT, "cut.mp4")
    clean_folder("cut.mp4")


# -- bad options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "options", "code", "words"),
    [
        pytest.param("no/such/folder/out.mp4", [], OUTPUT, "folder", id="folder-missing"),
        pytest.param("out.mp3", [], OUTPUT, "does not hold video", id="audio-suffix"),
        pytest.param("out.xyz", [], OUTPUT, ".xyz", id="unknown-suffix"),
        pytest.param("out", [], OUTPUT, "container", id="no-suffix"),
        pytest.param("out.webm", ["-c:v", "libx264"], OUTPUT, "libx264", id="codec-refused-by-container"),
        pytest.param("out.png", [], OPTION, "video", id="video-to-picture"),
        pytest.param("out.mp4", ["--codec", "libnothing"], OPTION, "libnothing", id="unknown-codec"),
        pytest.param("out.mp4", ["--codec", "aac"], OPTION, "aac", id="audio-codec"),
        pytest.param("out.mp4", ["--size", "32x24"], OPTION, "smaller than the input", id="size-smaller"),
        pytest.param("out.mp4", ["--size", "big"], OPTION, "big", id="size-nonsense"),
        pytest.param("out.mp4", ["--size", "129x97"], OPTION, "even", id="size-odd"),
        pytest.param("out.mp4", ["--scale", "0.5"], OPTION, "0.5", id="scale-below-one"),
        pytest.param("out.mp4", ["--scale", "2", "--size", "4k"], OPTION, "exclude", id="scale-and-size"),
        pytest.param("out.mp4", ["--batch", "0"], OPTION, "batch", id="batch-zero"),
        pytest.param("out.mp4", ["--tile", "-1"], OPTION, "tile", id="tile-negative"),
        pytest.param("out.mp4", ["-t", "0"], OPTION, "duration", id="duration-zero"),
        pytest.param("out.mp4", ["--encoder-option", "bogus=1"], OPTION, "bogus", id="encoder-option"),
        pytest.param("out.mp4", ["--pix-fmt", "bogus"], OPTION, "bogus", id="pix-fmt-unknown"),
        pytest.param("out.mp4", ["--pix-fmt", "rgba"], OPTION, "rgba", id="pix-fmt-refused"),
        pytest.param("out.mp4", ["-c:v", "ffv1", "--preset", "fast"], OPTION, "preset", id="no-such-preset"),
        pytest.param("out.mp4", ["--preset", "bogus"], OPTION, "bogus", id="preset-unknown"),
        pytest.param("out.mp4", ["-ss", "60"], INPUT, "small.mp4", id="start-after-the-end"),
    ],
)
def test_bad_option(
    output: str,
    options: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    clean_folder: Callable[..., None],
) -> None:
    ended = run("enhance", small_clip, tmp_path / output, "--model", tiny_model, "--quiet", *options)
    is_refused(ended, code, words)
    clean_folder()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--device", "bogus"], OPTION, "bogus"),
        (["--device", "cuda:99"], OPTION, "cuda:99"),
        (["--model", "nonesuch"], MODEL, "nonesuch"),
        (["--model", "nonesuch.safetensors"], MODEL, "nonesuch.safetensors"),
    ],
)
def test_bad_model_or_device(
    options: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    run: Run,
    small_clip: Path,
    clean_folder: Callable[..., None],
) -> None:
    is_refused(run("enhance", small_clip, tmp_path / "out.mp4", "--quiet", *options), code, words)
    clean_folder()


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04\x95pickle"])
def test_model_file_that_is_none(content: bytes, tmp_path: Path, run: Run, small_clip: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    options = ["--model", tmp_path / "bad.safetensors", "--quiet"]
    ended = run("enhance", small_clip, tmp_path / "out.mp4", *options)
    is_refused(ended, MODEL, "bad.safetensors")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["enhance", "only-input.mp4"], "OUTPUT"),
        (["enhance", "a.mp4", "b.mp4", "--no-such-option"], "--no-such-option"),
        (["enhance", "a.mp4", "b.mp4", "--scale", "much"], "much"),
        (["enhance", "a.mp4", "b.mp4", "--precision", "fp8"], "fp8"),
        (["enhance", "a.mp4", "b.mp4", "-ss", "soon"], "soon"),
        (["enhance", "a.mp4", "b.mp4", "--encoder-option", "bogus"], "bogus"),
        (["nonesuch"], "nonesuch"),
    ],
)
def test_usage_error(arguments: list[str], words: str, run: Run) -> None:
    is_refused(run(*arguments), USAGE, words)


# -- files that are there already ----------------------------------------------------------------------


def test_existing_output_is_kept_without_y(
    tmp_path: Path, run: Run, tiny_model: Path, small_clip: Path, clean_folder: Callable[..., None]
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    ended = run("enhance", small_clip, tmp_path / "out.mp4", "--model", tiny_model, "--quiet")
    is_refused(ended, OUTPUT, "out.mp4", "exists", "-y")
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    clean_folder("out.mp4")


def test_existing_output_is_replaced_with_y(
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
    clean_folder: Callable[..., None],
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"of no worth")
    ended = run("enhance", small_clip, tmp_path / "out.mp4", "--model", tiny_model, "--quiet", "-y")
    assert (ended.code, ended.err) == (0, "")
    assert len(read_back(tmp_path / "out.mp4").times) == 20
    clean_folder("out.mp4")


def test_existing_output_outlives_a_failure_under_y(tmp_path: Path, run: Run, small_clip: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    bad = ["--encoder-option", "bogus=1"]
    is_refused(run("enhance", small_clip, tmp_path / "out.mp4", "-y", "--quiet", *bad), OPTION)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize("spelling", ["clip.mp4", "./clip.mp4", "link.mp4"])
def test_output_that_is_the_input(
    spelling: str,
    tmp_path: Path,
    run: Run,
    small_clip: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(small_clip.read_bytes())
    (tmp_path / "link.mp4").symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    ended = run("enhance", clip, spelling, "--model", tiny_model, "-y", "--quiet")
    is_refused(ended, OUTPUT, "is the input itself")
    assert clip.read_bytes() == small_clip.read_bytes()


def test_output_that_is_a_folder(tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    ended = run("enhance", small_clip, tmp_path / "out.mp4", "--model", tiny_model, "--quiet", "-y")
    is_refused(ended, OUTPUT, "is a folder")


@pytest.mark.parametrize("name", ["-x.mp4", "a:b.mp4", "50%d.mp4", "mit Leerzeichen & ü.mp4"])
def test_names_are_only_names(
    name: str,
    tmp_path: Path,
    run: Run,
    small_clip: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_folder: Callable[..., None],
) -> None:
    (tmp_path / name).write_bytes(small_clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    ended = run("enhance", "--model", tiny_model, "--quiet", "--", name, f"{name}.out.mp4")
    assert (ended.code, ended.err) == (0, "")
    clean_folder(name, f"{name}.out.mp4")


# -- what is said --------------------------------------------------------------------------------------


def test_models_lists_the_shipped_ones(run: Run) -> None:
    ended = run("models")
    assert (ended.code, ended.err) == (0, "")
    line = next(line for line in ended.out.splitlines() if line.startswith("fast "))
    assert "×4" in line
    assert "luma" in line
    assert "Set5 31." in line


def test_info_shows_what_is_in_a_clip(run: Run, small_clip: Path) -> None:
    ended = run("info", small_clip)
    assert (ended.code, ended.err) == (0, "")
    for words in ("h264", "64x48", "yuv420p", "25.000 fps", "20 frames", "SMPTE170M", "untagged"):
        assert words in ended.out
    assert "audio, aac" in ended.out


def test_info_of_a_picture(tmp_path: Path, run: Run) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((3, 5, 4), np.uint16))
    assert "5x3, 4 channels, uint16" in run("info", tmp_path / "a.png").out


def test_doctor_names_what_there_is(run: Run) -> None:
    ended = run("doctor")
    assert (ended.code, ended.err) == (0, "")
    for words in ("torch", "PyAV", "FFmpeg", "libx264", "auto for video at ×4", "auto for a picture at ×4"):
        assert words in ended.out


def test_version_and_help_in_a_process_of_its_own() -> None:
    ended = _subprocess("--version")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("vsr 0.")


def test_quiet_success_says_nothing_in_a_process_of_its_own(
    tmp_path: Path, small_clip: Path, tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    """x265 writes to stderr by itself unless it is told not to."""
    options = ["--quiet", "--model", tiny_model, "-c:v", "libx265", "--preset", "ultrafast"]
    ended = _subprocess("enhance", small_clip, tmp_path / "out.mp4", *options)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    clean_folder("out.mp4")


@pytest.mark.parametrize("codec", ["libx264", "hevc", "libvpx-vp9", "libsvtav1", "ffv1"])
def test_encoder_is_quiet(codec: str, tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    options = ["--model", tiny_model, "--codec", codec, "-t", "0.12", "--quiet"]
    ended = run("enhance", small_clip, tmp_path / "out.mkv", *options)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_notes_and_summary(tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path) -> None:
    ended = run("enhance", small_clip, tmp_path / "out.mp4", "--model", tiny_model)
    assert (ended.code, ended.out) == (0, "")
    assert any("no colour tags" in line and "SMPTE170M" in line for line in ended.lines)
    for words in ("out.mp4", "20 frames", "64x48", "decode", "network", "encode", "tiny", "PyTorch"):
        assert words in ended.lines[-1]


def test_json_progress(tmp_path: Path, run: Run, small_clip: Path, tiny_model: Path) -> None:
    ended = run("enhance", small_clip, tmp_path / "out.mp4", "--model", tiny_model, "--progress", "json")
    assert (ended.code, ended.out) == (0, "")
    events = [json.loads(line) for line in ended.lines]
    assert {"note", "progress"} <= {event["event"] for event in events[:-1]}
    progress = next(event for event in events if event["event"] == "progress")
    assert 0 < progress["frames"] <= progress["frames_expected"] == 20
    done = events[-1]
    assert done["event"] == "done"
    assert (done["frames"], done["width"], done["height"]) == (20, 64, 48)
    assert done["output"] == str(tmp_path / "out.mp4")
    assert set(done["stage_seconds"]) == {"decode", "network", "encode"}


# -- pictures ------------------------------------------------------------------------------------------


def _photo(height: int, width: int, channels: int, dtype: Any) -> np.ndarray:
    """Smooth colours, different in every corner and channel."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [x / width, y / height, (x + y) / (width + height), 0.25 + 0.5 * x / width][:channels]
    return np.round(np.stack(planes, -1) * np.iinfo(dtype).max).astype(dtype)


def _enhance_picture(run: Run, source: Path, output: Path, *options: object) -> np.ndarray:
    ended = run("enhance", source, output, "--quiet", *options)
    assert ended.code == 0, ended.err
    return cv2.imread(str(output), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("channels", "dtype", "tolerance"),
    [(3, np.uint8, 1), (4, np.uint8, 1), (3, np.uint16, 32), (4, np.uint16, 32)],
)
def test_png_keeps_samples_and_alpha(
    channels: int, dtype: Any, tolerance: int, tmp_path: Path, run: Run, tiny_model: Path
) -> None:
    picture = _photo(21, 33, channels, dtype)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    out = _enhance_picture(run, tmp_path / "in.png", tmp_path / "out.png", "--model", tiny_model)
    assert (out.shape, out.dtype) == (picture.shape, picture.dtype)
    assert np.abs(out.astype(int) - picture.astype(int)).max() <= tolerance


def test_gray_png_stays_gray(tmp_path: Path, run: Run, tiny_model: Path) -> None:
    picture = _photo(21, 33, 1, np.uint8)[..., 0]
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    out = _enhance_picture(run, tmp_path / "in.png", tmp_path / "out.png", "--model", tiny_model)
    assert out.shape == picture.shape
    assert np.abs(out.astype(int) - picture.astype(int)).max() <= 1


def test_picture_is_enlarged(tmp_path: Path, run: Run) -> None:
    picture = _photo(20, 32, 3, np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    out = _enhance_picture(run, tmp_path / "in.png", tmp_path / "out.webp", "--model", "fast")
    assert out.shape == (80, 128, 3)
    reduced = cv2.resize(out, (32, 20), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - picture.astype(int)).mean() < 4
    size = ["--size", "96x61"]
    out = _enhance_picture(run, tmp_path / "in.png", tmp_path / "out.bmp", "--model", "fast", *size)
    assert out.shape == (61, 96, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_quiet_picture_says_nothing(suffix: str, tmp_path: Path, run: Run, tiny_model: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), _photo(20, 32, 3, np.uint8))
    options = ["--model", tiny_model, "--quiet"]
    ended = run("enhance", tmp_path / "in.png", tmp_path / f"out{suffix}", *options)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def _with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """An Exif APP1 segment of one tag, 0x0112, after the start of image."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def test_jpeg_is_turned_upright(tmp_path: Path, run: Run, tiny_model: Path) -> None:
    picture = _photo(32, 48, 3, np.uint8)
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    (tmp_path / "in.jpg").write_bytes(_with_exif_orientation(jpeg, 6))
    out = _enhance_picture(run, tmp_path / "in.jpg", tmp_path / "out.jpg", "--model", tiny_model)
    upright = cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE)
    assert out.shape == upright.shape
    assert np.abs(out.astype(int) - upright.astype(int)).mean() < 4


@pytest.mark.parametrize(("channels", "dtype", "words"), [(4, np.uint8, "alpha"), (3, np.uint16, "16 bit")])
def test_what_a_jpeg_cannot_hold_is_named(
    channels: int,
    dtype: Any,
    words: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    clean_folder: Callable[..., None],
) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), _photo(21, 33, channels, dtype))
    arguments = ["enhance", tmp_path / "in.png", tmp_path / "out.jpg", "--model", tiny_model]
    is_refused(run(*arguments, "--strict", "--quiet"), STRICT, words)
    clean_folder("in.png")
    ended = run(*arguments)
    assert ended.code == 0
    assert any(words in line for line in ended.lines)


def test_picture_to_videois_refused(tmp_path: Path, run: Run, clean_folder: Callable[..., None]) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), _photo(21, 33, 3, np.uint8))
    is_refused(run("enhance", tmp_path / "in.png", tmp_path / "out.mp4", "--quiet"), OPTION, "picture")
    clean_folder("in.png")


# -- parts of a video ----------------------------------------------------------------------------------


def _frame_numbers(reading: Any, brightness: Callable[[int], int]) -> list[int]:
    """Which frames of a made clip these are, by their brightness."""
    table = {index: brightness(index) * 63 / 64 + 16 / 64 for index in range(60)}
    return [min(table, key=lambda index: abs(table[index] - value)) for value in reading.brightness]


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        (["-ss", "0.2", "-t", "0.2"], 5, 9),
        (["--start", "0:00:00.4"], 10, 19),
        (["-ss", "0.21", "--duration", "0.08"], 6, 7),
        (["-t", "0.12"], 0, 2),
        (["-ss", "0"], 0, 19),
    ],
)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_part_has_the_right_frames_and_sound(
    options: list[str],
    first: int,
    last: int,
    suffix: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    target = tmp_path / f"out{suffix}"
    enhance(run, small_clip, target, "--model", tiny_model, "--quiet", *options)
    output = read_back(target)
    assert _frame_numbers(output, brightness) == list(range(first, last + 1))
    start = Fraction(options[1].rpartition(":")[2]) if options[0] in ("-ss", "--start") else Fraction(0)
    expected = [Fraction(number, 25) - start for number in range(first, last + 1)]
    assert all(abs(a - b) <= output.tick / 2 for a, b in zip(output.times, expected, strict=True))
    (sound,) = output.others
    packet, end = Fraction(1024, 48000), Fraction(last + 1, 25) - start
    assert -packet <= sound.times[0] <= packet
    assert end - 2 * packet <= sound.times[-1] + packet <= end + 2 * packet


def test_a_part_takes_its_chapters_along(
    tmp_path: Path, run: Run, tiny_model: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    chapters = [(0, 200, "One"), (200, 400, "Two"), (400, 800, "Three")]
    source = make_clip(tmp_path / "in.mkv", pts=tuple(range(20)), chapters=chapters)
    enhance(run, source, tmp_path / "out.mkv", "--model", tiny_model, "-ss", "0.28", "-t", "0.4")
    expected = [(0, Fraction(12, 100), "Two"), (Fraction(12, 100), Fraction(40, 100), "Three")]
    assert read_back(tmp_path / "out.mkv").chapters == expected


def _with_late_sound(source: Path, path: Path) -> Path:
    """The same clip with all of its sound after all of its pictures in the file."""
    options = {"max_interleave_delta": "1"}  # microseconds; FFmpeg then writes packets as they come
    with av.open(str(source)) as before, av.open(str(path), "w", options=options) as after:
        streams = {s.index: after.add_stream_from_template(s) for s in before.streams}
        packets = [packet for packet in before.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.stream.index):
            packet.stream = streams[packet.stream.index]
            after.mux_one(packet)
    return path


def test_a_part_of_a_badly_interleaved_file_keeps_its_sound(
    tmp_path: Path, run: Run, tiny_model: Path, small_clip: Path, read_back: Callable[..., Any]
) -> None:
    source = _with_late_sound(small_clip, tmp_path / "in.mkv")
    enhance(run, source, tmp_path / "out.mkv", "--model", tiny_model, "-t", "0.4")
    output = read_back(tmp_path / "out.mkv")
    assert len(output.times) == 10
    (sound,) = output.others
    assert sound.times
    assert sound.times[-1] > Fraction(36, 100)


# -- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (["--size", "100x80"], (100, 80)),
        (["--size", "720p"], (960, 720)),
        (["--scale", "1.5"], (96, 72)),
        (["--size", "65x49", "--pix-fmt", "yuv444p"], (65, 49)),
    ],
)
def test_size(
    options: list[str],
    size: tuple[int, int],
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
) -> None:
    preset = ["--preset", "ultrafast", "-t", "0.12"]
    enhance(run, small_clip, tmp_path / "out.mkv", "--model", tiny_model, *preset, *options)
    output = read_back(tmp_path / "out.mkv")
    assert (output.first.width, output.first.height) == size
    shape = Fraction(size[0], size[1]) * output.aspect  # the picture keeps its shape, whatever its pixels
    assert abs(shape / Fraction(4, 3) - 1) < Fraction(2, 100)


def test_size_of_a_portrait_video_goes_by_its_shorter_side(
    tmp_path: Path, run: Run, tiny_model: Path, make_clip: Callable[..., Path], read_back: Callable[..., Any]
) -> None:
    source = make_clip(tmp_path / "in.mkv", size=(36, 64), pts=(0, 1))
    options = ["--model", tiny_model, "--size", "1080p", "--preset", "ultrafast"]
    enhance(run, source, tmp_path / "out.mkv", *options)
    first = read_back(tmp_path / "out.mkv").first
    assert (first.width, first.height) == (1080, 1920)


def test_scale_3_with_a_x4_network(
    tmp_path: Path,
    run: Run,
    small_clip: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    options = ["--model", "fast", "--scale", "3", "--preset", "ultrafast"]
    lines = enhance(run, small_clip, tmp_path / "out.mp4", *options)
    output = read_back(tmp_path / "out.mp4")
    assert (output.first.width, output.first.height) == (192, 144)
    assert "192x144" in lines[-1]
    assert _frame_numbers(output, brightness) == list(range(20))


# -- encoders, samples and sound -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "options", "codec", "pix_fmt"),
    [
        ("out.mp4", [], "h264", "yuv420p"),
        ("out.mp4", ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "30"], "hevc", "yuv420p"),
        ("out.mkv", ["--codec", "ffv1"], "ffv1", "yuv420p"),
        ("out.mkv", ["--pix-fmt", "yuv444p"], "h264", "yuv444p"),
        ("out.mp4", ["-pix_fmt", "yuv420p10le", "--codec", "libx264"], "h264", "yuv420p10le"),
        ("out.webm", ["--encoder-option", "deadline=realtime"], "vp9", "yuv420p"),
        ("out.mov", ["-c:v", "prores_ks"], "prores", "yuv422p10le"),
    ],
)
def test_encoder_and_samples(
    output: str,
    options: list[str],
    codec: str,
    pix_fmt: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    enhance(run, small_clip, tmp_path / output, "--model", tiny_model, *options)
    reading = read_back(tmp_path / output)
    assert (reading.video.codec, reading.first.format.name) == (codec, pix_fmt)
    assert _frame_numbers(reading, brightness) == list(range(20))
    assert len(reading.others) == 1
    assert 2 not in reading.tags[:3]


@pytest.mark.parametrize("suffix", [".ts", ".m2ts", ".avi", ".3gp", ".m4v"])
def test_other_containers(
    suffix: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    enhance(run, small_clip, tmp_path / f"out{suffix}", "--model", tiny_model)
    output = read_back(tmp_path / f"out{suffix}")
    assert _frame_numbers(output, brightness) == list(range(20))
    (sound,) = output.others
    assert sound.codec == "aac"
    assert len(sound.packets) == len(read_back(small_clip).others[0].packets)


@pytest.mark.parametrize("options", [[], ["--audio", "opus"], ["-c:v", "ffv1"]])
def test_nut_has_no_times_before_zero(
    options: list[str],
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
    brightness: Callable[[int], int],
) -> None:
    """AAC begins with a packet that only prepares the decoder, and B-frames are decoded before time zero."""
    lines = enhance(run, small_clip, tmp_path / "out.nut", "--model", tiny_model, *options)
    source, output = read_back(small_clip), read_back(tmp_path / "out.nut")
    assert _frame_numbers(output, brightness) == list(range(20))
    assert output.times == source.times
    (before,), (after,) = source.others, output.others
    assert after.times[0] >= 0
    if not options or "ffv1" in options:
        assert before.times[0] < 0
        assert after.packets == before.packets[1:]
        assert any("before time zero" in line for line in lines)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".avi", ".mkv"])
def test_pcm_goes_where_it_can_be_held(
    suffix: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    read_back: Callable[..., Any],
    Track: Any,
) -> None:
    """Matroska has no names for the channels of PCM, without which MP4 holds none; and packets of any length."""
    source = make_clip(tmp_path / "in.mkv", pts=range(20), audio=[Track(codec="pcm_s16le")])
    enhance(run, source, tmp_path / f"out{suffix}", "--model", tiny_model)
    (before,), (after,) = read_back(source).others, read_back(tmp_path / f"out{suffix}").others
    if after.codec == before.codec:
        assert b"".join(after.packets) == b"".join(before.packets)
    else:
        assert (suffix, after.codec) == (".m4v", "aac")


def test_encoder_option_reaches_the_encoder(
    tmp_path: Path, run: Run, tiny_model: Path, small_clip: Path, read_back: Callable[..., Any]
) -> None:
    source = read_back(small_clip, keep_frames=True)
    options = ["--model", tiny_model, "--encoder-option", "qp=0", "--encoder-option", "g=1"]
    enhance(run, small_clip, tmp_path / "out.mkv", *options)
    output = read_back(tmp_path / "out.mkv", keep_frames=True)
    assert all(frame.key_frame for frame in output.frames)
    for before, after in zip(source.frames, output.frames, strict=True):
        assert bytes(after.planes[0]) == bytes(before.planes[0])


def test_lower_crf_gives_a_larger_file(tmp_path: Path, run: Run, tiny_model: Path, small_clip: Path) -> None:
    options = ["--model", tiny_model, "--audio", "none"]
    for crf in ("5", "45"):
        enhance(run, small_clip, tmp_path / f"{crf}.mkv", "--crf", crf, *options)
    assert (tmp_path / "5.mkv").stat().st_size > 1.2 * (tmp_path / "45.mkv").stat().st_size


@pytest.mark.parametrize(
    ("output", "audio", "codecs"),
    [
        ("out.mp4", "copy", ["aac"]),
        ("out.mp4", "aac", ["aac"]),
        ("out.mkv", "opus", ["opus"]),
        ("out.webm", "copy", ["opus"]),
        ("out.mp4", "none", []),
    ],
)
def test_audio(
    output: str,
    audio: str,
    codecs: list[str],
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    small_clip: Path,
    read_back: Callable[..., Any],
) -> None:
    lines = enhance(run, small_clip, tmp_path / output, "--model", tiny_model, "--audio", audio)
    before, reading = read_back(small_clip).others[0], read_back(tmp_path / output)
    assert [stream.codec for stream in reading.others] == codecs
    for stream in reading.others:
        assert abs(len(stream.packets) * (960 if stream.codec == "opus" else 1024) / 48000 - 0.8) < 0.07
        assert (stream.packets == before.packets) == (audio == "copy" and stream.codec == "aac")
    changed = [line for line in lines if "audio stream 1" in line]
    assert len(changed) == (0 if codecs == ["aac"] and audio == "copy" else 1)


def test_transcoded_sound_is_the_same(tmp_path: Path, run: Run, tiny_model: Path, small_clip: Path) -> None:
    enhance(run, small_clip, tmp_path / "out.mkv", "--model", tiny_model, "--audio", "opus")
    levels = []
    for path in (small_clip, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            resampler = av.AudioResampler("flt", "mono", 48000)
            parts = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
            wave = np.concatenate(parts)[9600:28800]
        spectrum = np.abs(np.fft.rfft(wave))
        levels.append((float(np.sqrt(np.mean(wave**2))), int(spectrum.argmax())))
    assert levels[1][0] == pytest.approx(levels[0][0], rel=0.1)
    assert abs(levels[1][1] - levels[0][1]) <= 1


# -- strict --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["attachment", "audio"])
def test_strict_refuses_what_otherwise_is_named(
    what: str,
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    Track: Any,
    clean_folder: Callable[..., None],
) -> None:
    extra: dict[str, Any] = {"attachment": b"note"} if what == "attachment" else {"audio": [Track("wavpack")]}
    source = make_clip(tmp_path / "in.mkv", **extra)
    ended = run("enhance", source, tmp_path / "out.mp4", "--model", tiny_model, "--strict", "--quiet")
    is_refused(ended, STRICT, f"{what} stream", "--strict")
    clean_folder("in.mkv")
    lines = enhance(run, source, tmp_path / "out.mp4", "--model", tiny_model)
    assert any(f"{what} stream" in line for line in lines)
    enhance(run, source, tmp_path / "out.mkv", "--model", tiny_model, "--strict")


def test_interlaced_video_is_deinterlaced_and_said_so(
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    options = {"x264-params": "tff=1", "flags": "+ildct+ilme"}
    source = make_clip(tmp_path / "in.mkv", size=(64, 64), options=options)
    lines = enhance(run, source, tmp_path / "out.mkv", "--model", tiny_model, "--strict")
    assert len([line for line in lines if "deinterlaced by bwdif" in line]) == 1
    lines = enhance(run, source, tmp_path / "raw.mkv", "--model", tiny_model, "--deinterlace", "off")
    assert len([line for line in lines if "is interlaced" in line]) == 1
    clean_folder("in.mkv", "out.mkv", "raw.mkv")


def test_strict_refuses_lost_chapters(
    tmp_path: Path,
    run: Run,
    tiny_model: Path,
    make_clip: Callable[..., Path],
    clean_folder: Callable[..., None],
) -> None:
    source = make_clip(tmp_path / "in.mkv", chapters=[(0, 320, "One")])
    ended = run("enhance", source, tmp_path / "out.ts", "--model", tiny_model, "--strict", "--quiet")
    is_refused(ended, STRICT, "chapter")
    clean_folder("in.mkv")
