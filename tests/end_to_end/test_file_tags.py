"""Tags that containers keep in places of their own, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

import vsr
from vsr.errors import StrictError

DataFile = Callable[[str], Path]
APPLE = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone 15",
    "com.apple.quicktime.creationdate": "2024-05-01T12:00:00+0200",
    "com.apple.quicktime.location.ISO6709": "+52.5+013.4/",
}


@pytest.fixture
def tags_of_output(tiny_model: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Upscales a file, and gives the tags of the output."""

    def call(source: Path, name: str, **options: Any) -> dict[str, str]:
        model = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu"}
        vsr.enhance(source, tmp_path / name, **model, **options)
        with av.open(str(tmp_path / name)) as container:
            return dict(container.metadata)

    return call


@pytest.mark.parametrize("name", ["out.mov", "out.mp4"])
def test_tags_of_phones_are_kept(name: str, data_file: DataFile, tags_of_output: Callable[..., dict[str, str]]) -> None:
    assert tags_of_output(data_file("faults/iphone.mov"), name, strict=True).items() >= APPLE.items()


def test_free_tags_of_a_file_are_kept_and_those_of_its_video_named(
    data_file: DataFile, tags_of_output: Callable[..., dict[str, str]]
) -> None:
    source = data_file("faults/tags.mkv")
    notes: list[str] = []
    tags = tags_of_output(source, "out.mp4", note=lambda note: notes.append(str(note)))
    assert tags.items() >= {"MY_KEY": "v", "IMDB": "tt123"}.items()
    assert "video stream 0: metadata (CUSTOM) is left out: mp4 has no place for it" in notes
    with pytest.raises(StrictError, match="CUSTOM"):
        tags_of_output(source, "strict.mp4", strict=True)


def test_subtitles_that_nobody_decodes_are_copied(
    data_file: DataFile, tags_of_output: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    source = data_file("faults/ttml.mp4")
    tags_of_output(source, "out.mp4", strict=True)
    texts = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            packets = [p for p in container.demux() if p.stream.type == "subtitle" and p.size]
            texts.append([(bytes(p), p.pts * p.time_base, p.duration * p.time_base) for p in packets])
    assert texts[0] == texts[1] != []
    assert vsr.verify(source, tmp_path / "out.mp4", ignore=["size"]).is_same
    tags_of_output(source, "none.mp4", maps=["0:v", "0:a"])
    assert "subtitle stream 2 (ttml, und) is missing" in [
        difference.text for difference in vsr.verify(source, tmp_path / "none.mp4").differences
    ]
    tags_of_output(source, "part.mp4", start_seconds=0.5)  # where the document has ended
    assert vsr.verify(source, tmp_path / "part.mp4", start_seconds=0.5).is_same


def test_the_stereo_layout_that_matroska_keeps_is_not_said_to_be_lost(
    data_file: DataFile, tags_of_output: Callable[..., dict[str, str]]
) -> None:
    assert tags_of_output(data_file("faults/tags.mkv"), "out.mkv", strict=True)["IMDB"] == "tt123"


def test_tags_without_a_place_are_named(data_file: DataFile, tags_of_output: Callable[..., dict[str, str]]) -> None:
    with pytest.raises(StrictError, match=r"metadata \(com.apple.*is left out: avi has no place for it"):
        tags_of_output(data_file("faults/iphone.mov"), "out.avi", strict=True)


@pytest.mark.parametrize("name", ["out.avi", "out.mkv", "out.mp4"])
def test_tags_that_are_not_utf_8_are_read_as_their_programs_wrote_them(
    name: str, data_file: DataFile, tags_of_output: Callable[..., dict[str, str]]
) -> None:
    tags = {key.lower(): value for key, value in tags_of_output(data_file("faults/latin.avi"), name).items()}
    assert (tags["title"], tags["artist"]) == ("café", "ÀÁÂ")
