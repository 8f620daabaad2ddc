"""Pictures as a video, and a video as pictures: every one of them, in order, with its bits and its alpha."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

import vsr
from vsr.errors import InputError, OptionError, OutputError, StrictError
from vsr.media.write import image_writer
from vsr.media.write.image_writer import ImageWriter

Enhance = Callable[..., list[str]]

HEIGHT, WIDTH = 10, 14


@pytest.fixture
def enhance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Enhance:
    """Enhances, in the test's folder, with the network that changes nothing; gives the notes."""
    monkeypatch.chdir(tmp_path)

    def call(source: str, output: str, **options: Any) -> list[str]:
        notes: list[str] = []
        vsr.enhance(source, output, model=str(tiny_model), note=notes.append, **options)
        return notes

    return call


def _write(folder: str, name: str, count: int = 5, *, dtype: Any = np.uint8, channels: int = 3) -> list[np.ndarray]:
    """Noise, so that nothing is equal by chance; smooth where a lossy kind is to keep it."""
    Path(folder).mkdir()
    random = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    pictures = [random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for _ in range(count)]
    for number, picture in enumerate(pictures, 1):
        if name.endswith((".jpg", ".webp")):
            picture[:] = cv2.resize(picture[:2, :2], (WIDTH, HEIGHT))
        cv2.imwrite(str(Path(folder) / (name % number)), picture)
    return pictures


def _read(folder: str) -> dict[str, np.ndarray]:
    return {p.name: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted(Path(folder).iterdir())}


def _is_close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Within what going through luma and chroma and back costs: one step of 8 bit."""
    tolerance = 1 if expected.dtype == np.uint8 else 64
    same_kind = found.shape == expected.shape and found.dtype == expected.dtype
    return same_kind and int(np.abs(found.astype(int) - expected.astype(int)).max()) <= tolerance


# -- pictures to pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4], ids=["gray", "rgb", "rgba"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_keep_their_bits_and_their_alpha(suffix: str, channels: int, dtype: Any, enhance: Enhance) -> None:
    pictures = _write("in", "a%02d" + suffix, dtype=dtype, channels=channels)
    enhance("in", "out", strict=True)
    found = _read("out")
    assert list(found) == [f"a{number:02d}{suffix}" for number in range(1, 6)]
    assert all(_is_close(f, p) for f, p in zip(found.values(), pictures, strict=True))
    if channels == 4:
        assert all(np.array_equal(f[..., 3], p[..., 3]) for f, p in zip(found.values(), pictures, strict=True))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_other_kinds_of_pictures(suffix: str, enhance: Enhance) -> None:
    _write("in", "%d" + suffix)
    enhance("in/%d" + suffix, "out/%03d" + suffix)
    before, after = _read("in"), _read("out")
    assert list(after) == [f"{number:03d}{suffix}" for number in range(1, 6)]
    for old, new in zip(before.values(), after.values(), strict=True):
        assert new.shape == old.shape
        assert np.abs(new.astype(int) - old.astype(int)).mean() < 4  # coded lossily twice


def test_a_network_that_enlarges(enhance: Enhance) -> None:
    _write("in", "%d.png", 3)
    vsr.enhance("in", "out", model="nano")
    assert [picture.shape for picture in _read("out").values()] == [(4 * HEIGHT, 4 * WIDTH, 3)] * 3


def test_numbers_start_at_one_and_names_are_kept_in_a_folder(enhance: Enhance) -> None:
    pictures = _write("in", "x%02d.png", 9)
    for number in (1, 2, 3):
        (Path("in") / f"x{number:02d}.png").unlink()
    enhance("in/x%02d.png", "numbered/y%04d.png")
    assert list(_read("numbered")) == [f"y{number:04d}.png" for number in range(1, 7)]
    enhance("in/x%02d.png", "named")
    assert list(_read("named")) == [f"x{number:02d}.png" for number in range(4, 10)]
    enhance("in", "part", start_seconds=Fraction(2, 25), duration_seconds=Fraction(2, 25))
    assert list(_read("part")) == ["x06.png", "x07.png"]
    assert _is_close(_read("part")["x06.png"], pictures[5])


# -- between video and pictures ------------------------------------------------------------------------


def test_pictures_to_a_video(enhance: Enhance, read_back: Callable[..., Any]) -> None:
    pictures = _write("in", "%02d.png", 7)
    notes = enhance("in/%02d.png", "out.mov", codec="png", pix_fmt="rgb24", framerate=Fraction(24000, 1001))
    assert not any("a second" in line for line in notes)
    reading = read_back(Path("out.mov"), keep_frames=True)
    assert [round(time * 24000 / 1001) for time in reading.times] == list(range(7))
    for frame, picture in zip(reading.frames, pictures, strict=True):
        assert _is_close(frame.to_ndarray(format="bgr24"), picture)
    assert any("read as 25 a second" in line for line in enhance("in/*.png", "glob.mkv"))
    assert read_back(Path("glob.mkv")).times == [Fraction(round(n * 40), 1000) for n in range(7)]


def test_a_video_to_pictures(
    tmp_path: Path, enhance: Enhance, make_clip: Callable[..., Path], brightness: Callable[[int], int], Track: Any
) -> None:
    make_clip(tmp_path / "clip.mkv", pts=tuple(range(30)), audio=[Track()], chapters=[(0, 500, "One")])
    notes = enhance("clip.mkv", "out/%03d.png")
    found = _read("out")
    assert list(found) == [f"{number:03d}.png" for number in range(1, 31)]
    for index, picture in enumerate(found.values()):
        gray = (brightness(index) - 16) / 219 * 255
        assert abs(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[0, 63] - gray) < 4
    text = "\n".join(notes)
    assert "audio stream 1 (aac): left out: pictures hold none" in text
    assert "1 chapter: pictures hold none" in text
    assert "pictures hold no times" in text
    with pytest.raises(StrictError, match="audio stream 1"):
        enhance("clip.mkv", "strict/%03d.png", strict=True)
    assert not Path("strict").exists()


def test_ten_bit_video_to_16_bit_pictures(tmp_path: Path, enhance: Enhance, make_clip: Callable[..., Path]) -> None:
    make_clip(tmp_path / "deep.mkv", codec="ffv1", pix_fmt="yuv420p10le", options={})
    enhance("deep.mkv", "png/%d.png")
    assert {picture.dtype.name for picture in _read("png").values()} == {"uint16"}
    notes = enhance("deep.mkv", "jpg/%d.jpg")
    assert {picture.dtype.name for picture in _read("jpg").values()} == {"uint8"}
    assert any("10 bit samples become 8 bit" in line for line in notes)


@pytest.mark.parametrize(("degrees", "hflip"), [(90, False), (180, False), (270, False), (0, True), (90, True)])
def test_display_rotation_is_applied(
    degrees: int, hflip: bool, tmp_path: Path, enhance: Enhance, make_clip: Callable[..., Path]
) -> None:
    """The corners of the picture lie where OpenCV's own turning puts them."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8], stored[:8, 24:], stored[8:, :8] = (0, 0, 255), (0, 255, 0), (255, 0, 0)

    def picture(index: int) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(stored, format="bgr24").reformat(format="yuv444p")

    def rotate(stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=hflip)

    make_clip(
        tmp_path / "turned.mp4", pix_fmt="yuv444p", size=(32, 16), picture=picture, prepare=rotate, pts=(0, 1),
        options={"qp": "0"},
    )  # fmt: skip
    enhance("turned.mp4", "out/%d.png")
    turns = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
    expected = cv2.rotate(stored, turns[degrees]) if degrees else stored
    expected = cv2.flip(expected, 1) if hflip else expected
    found = _read("out")["1.png"]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() < 12


# -- what is refused -----------------------------------------------------------------------------------


def test_existing_pictures_are_not_replaced_unasked(enhance: Enhance) -> None:
    _write("in", "%d.png", 3)
    Path("out").mkdir()
    (Path("out") / "2.png").write_bytes(b"mine")
    for output in ("out", "out/%d.png"):
        with pytest.raises(OutputError, match=r"2\.png: exists already"):
            enhance("in", output)
    assert [path.name for path in Path("out").iterdir()] == ["2.png"]
    (Path("out") / "other.txt").touch()
    enhance("in", "out", overwrite=True)
    assert sorted(path.name for path in Path("out").iterdir()) == ["1.png", "2.png", "3.png", "other.txt"]


def test_pictures_that_a_longer_run_left_are_named(enhance: Enhance) -> None:
    _write("in", "%d.png", 3)
    _write("out", "%d.png", 5)
    notes = enhance("in", "out/%d.png", overwrite=True)
    assert any("4.png" in line and "2 older pictures" in line for line in notes)


@pytest.mark.parametrize("output", ["in", "in/%d.png"])
def test_the_input_is_never_replaced(output: str, enhance: Enhance) -> None:
    before = _write("in", "%d.png", 3)
    with pytest.raises(OutputError, match="input itself"):
        enhance("in", output, overwrite=True)
    assert all(np.array_equal(a, b) for a, b in zip(_read("in").values(), before, strict=True))


@pytest.mark.parametrize(
    ("output", "options", "error", "words"),
    [
        ("out.png", {}, OptionError, "several pictures go in"),
        ("a/b/%d.png", {}, OutputError, "does not exist; make it first"),
        ("out/%d%d.png", {}, OutputError, "one %d"),
        ("out/%d.png", {"crf": 20}, OptionError, "`crf`"),
        ("out/%d.png", {"resume": True}, OptionError, "`resume`"),
    ],
)
def test_outputs_that_cannot_be(
    output: str, options: dict[str, Any], error: type[Exception], words: str, enhance: Enhance
) -> None:
    _write("in", "%d.png", 2)
    with pytest.raises(error, match=words):
        enhance("in", output, **options)
    assert [path.name for path in Path().iterdir()] == ["in"]


def test_a_gap_is_an_error_before_any_work(enhance: Enhance) -> None:
    _write("in", "%d.png", 5)
    Path("in/3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png is missing"):
        enhance("in/%d.png", "out")
    assert [path.name for path in Path().iterdir()] == ["in"]


def test_a_damaged_picture(enhance: Enhance) -> None:
    pictures = _write("in", "%d.png", 4)
    Path("in/3.png").write_bytes(Path("in/3.png").read_bytes()[:20] + bytes(400))
    notes = enhance("in", "out")
    found = _read("out")
    assert list(found) == ["1.png", "2.png", "3.png", "4.png"]
    assert _is_close(found["3.png"], pictures[1])
    assert _is_close(found["4.png"], pictures[3])
    assert any("1 damaged" in line for line in notes)
    with pytest.raises(StrictError, match="damaged"):
        enhance("in", "strict", strict=True)
    assert not Path("strict").exists()


def test_a_disk_that_fills_up_leaves_nothing(enhance: Enhance, monkeypatch: pytest.MonkeyPatch) -> None:
    _write("in", "%d.png", 8)
    encode, count = image_writer.encode_image, []

    def failing(image: np.ndarray, path: Path) -> bytes:
        count.append(path)
        if len(count) == 5:
            raise OutputError(f"{path}: the disk is full")
        return encode(image, path)

    monkeypatch.setattr(image_writer, "encode_image", failing)
    with pytest.raises(OutputError, match="the disk is full"):
        enhance("in", "out")
    assert [path.name for path in Path().iterdir()] == ["in"]
    Path("kept").mkdir()
    count.clear()
    with pytest.raises(OutputError, match="the disk is full"):
        enhance("in", "kept")
    assert list(Path("kept").iterdir()) == []


@pytest.mark.parametrize("target", ["out_%02d.png", "folder"])
def test_images_that_appear_during_the_job_are_kept(
    target: str, enhance: Enhance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write("in", "%d.png", 4)
    name, finish = {"out_%02d.png": "out_03.png", "folder": "folder/3.png"}[target], ImageWriter.finish

    def finish_late(writer: ImageWriter) -> None:
        finish(writer)
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("of another job")

    monkeypatch.setattr(ImageWriter, "finish", finish_late)
    with pytest.raises(OutputError, match=rf"{name}: has appeared meanwhile, and is kept"):
        enhance("in", target)
    assert Path(name).read_text() == "of another job"
    assert [p.name for p in Path(name).parent.iterdir() if p.name != "in"] == [Path(name).name]  # none, rather than two
    enhance("in", target, overwrite=True)
    assert len(list(Path(name).parent.glob("out_*.png" if "%" in target else "*.png"))) == 4


def test_info_of_a_sequence(enhance: Enhance, capsys: pytest.CaptureFixture[str]) -> None:
    from vsr.cli.info import describe_file

    _write("in", "%02d.png", 3)
    for name in ("in/%02d.png", "in/*.png", "in"):
        text = describe_file(Path(name))
        assert f"{WIDTH}x{HEIGHT}" in text
        assert "3 pictures" in text
