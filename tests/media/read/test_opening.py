"""What an input's name stands for: which pictures, in which order; and what is said where they are not all there."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from vsr.errors import InputError, OptionError
from vsr.media.image_sequence import Images, find_images_of, is_image
from vsr.media.read.opening import InputFormat
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes pictures into the folder in which the test runs; each is as bright as its place in the list."""
    monkeypatch.chdir(tmp_path)

    def call(*names: str) -> None:
        for value, name in enumerate(names):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(name, np.full((8, 8), 10 * value, np.uint8))

    return call


def _names(images: Images | None) -> list[str]:
    assert images is not None
    return [file.name for file in images.files]


def _brightness(path: str, **options: Fraction) -> list[int]:
    """Of every frame that the reader gives."""
    with VideoReader(Path(path), InputOptions(**options)) as reader:  # type: ignore[arg-type]
        chunks = [chunk.batch for chunk in reader.chunks(4) if chunk.batch is not None]
        return [int(value) for batch in chunks for value in batch.planes[0][:, 0, 0, 0]]


def test_numbers_count_from_where_they_start(write: Write) -> None:
    write("f/a0007.png", "f/a0008.png", "f/a0009.png", "f/b0001.png", "f/a10.png")
    assert _names(find_images_of(Path("f/a%04d.png"))) == ["a0007.png", "a0008.png", "a0009.png"]
    assert _brightness("f/a%04d.png") == [0, 10, 20]


def test_numbers_without_leading_zeros_are_in_their_order(write: Write) -> None:
    write("x9.png", "x10.png", "x11.png")
    assert _brightness("x%d.png") == [0, 10, 20]


def test_the_first_missing_picture_is_named(write: Write) -> None:
    write("a01.png", "a02.png", "a04.png", "a07.png")
    with pytest.raises(InputError, match=r"a03\.png is missing.*'a\*\.png'"):
        find_images_of(Path("a%02d.png"))
    assert _brightness("a*.png") == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere/%d.png", "folder nowhere does not exist"),
        ("b%03d.png", r"such as b001\.png"),
        ("%d%d.png", "one %d is for the number"),
        ("*.gif", "no file has such a name"),
        ("*.txt", r"notes\.txt is no picture"),
        ("empty", "is a folder without pictures"),
        ("mixed", r"several kinds: .*a1\.jpg.*a2\.png"),
    ],
)
def test_what_is_no_sequence(name: str, words: str, write: Write) -> None:
    write("a1.png", "mixed/a1.jpg", "mixed/a2.png")
    Path("notes.txt").touch()
    Path("empty").mkdir()
    with pytest.raises(InputError, match=words):
        find_images_of(Path(name))


def test_a_folder_and_a_glob_are_sorted_by_their_names_bytes(write: Write) -> None:
    write("f/B.png", "f/a10.png", "f/a9.png", "f/z.PNG", "f/.hidden.png", "f/ä.png")
    expected = ["B.png", "a10.png", "a9.png", "z.PNG", "ä.png"]
    assert _names(find_images_of(Path("f"))) == expected
    assert _brightness("f") == [0, 10, 20, 30, 50]
    assert _brightness("f/a*.png") == [10, 20]


@pytest.mark.parametrize(
    "names", [["a.JPG", "b.jpg", "c.jpeg", "d.JPEG"], ["a.tif", "b.TIFF", "c.tiff"], ["a.PNG", "b.png", "c.Png"]]
)
def test_one_kind_of_picture_by_several_suffixes(names: list[str], write: Write) -> None:
    write(*(f"f/{name}" for name in names))
    assert _brightness("f") == [10 * number for number in range(len(names))]


@pytest.mark.parametrize("folder", ["{a,b}", "[1]", "a\\b", "-x", "p:q", "100%", "a b"])
def test_folders_of_odd_names(folder: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(f"{folder}/1.png", f"{folder}/2.png")
    assert _brightness(folder) == [0, 10]
    monkeypatch.chdir(folder)
    assert _brightness("*.png") == [0, 10]
    assert _brightness("%d.png") == [0, 10]


def test_names_that_look_like_patterns_are_files_where_they_exist(write: Write) -> None:
    write("a[1].png", "%d.png")
    assert find_images_of(Path("a[1].png")) is None
    assert find_images_of(Path("%d.png")) is None
    assert is_image(Path("%d.png"))
    assert not is_image(Path("f%d.png"))


def test_frame_rate_and_part_of_a_sequence(write: Write) -> None:
    write(*(f"{number:02d}.png" for number in range(1, 9)))
    with VideoReader(Path("%02d.png"), InputOptions(framerate=Fraction(24000, 1001))) as reader:
        assert reader.info.average_rate == Fraction(24000, 1001)
        assert reader.info.time_base == Fraction(1001, 24000)
    part = {"start_seconds": Fraction(2, 25), "duration_seconds": Fraction(3, 25)}
    assert _brightness("%02d.png", **part) == [20, 30, 40]


def test_pictures_that_change_are_noted(write: Write) -> None:
    write("1.png", "3.png")
    cv2.imwrite("2.png", np.full((16, 16, 3), 77, np.uint8))
    notes: list[str] = []
    with VideoReader(Path("%d.png"), warn=notes.append) as reader:
        batches = [chunk.batch for chunk in reader.chunks(3)]
    assert batches[0] is not None and batches[0].planes[0].shape == (3, 1, 8, 8)
    assert any("changes size to 16x16" in line for line in notes)
    assert any("the pixel format changes to rgb24" in line for line in notes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "rawvideo", "video_size": "4x4"}, "add `pixel_format`, `framerate`"),
        ({"name": "rawvideo", "video_size": "4", "pixel_format": "gray", "framerate": Fraction(1)}, "WIDTHxHEIGHT"),
        ({"video_size": "4x4"}, "`video_size`: of raw video only"),
        ({"name": "nonsense"}, "reads no such format"),
        ({"framerate": Fraction(0)}, "greater than zero"),
    ],
)
def test_what_is_said_of_an_input_must_fit(values: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        InputFormat(**values)  # type: ignore[arg-type]
