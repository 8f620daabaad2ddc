"""Which images are measured on, and what is said where they are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vsr.bench.datasets import find_dataset
from vsr.errors import InputError, OptionError


def test_a_folder_of_folders_is_clips(clips: Path) -> None:
    dataset = find_dataset(str(clips), Path("nowhere"))
    assert [(clip.name, len(clip.paths)) for clip in dataset.clips] == [("harbour", 4), ("market", 3)]
    assert dataset.is_moving and not dataset.is_known and dataset.name == "clips"


def test_a_folder_of_images_is_stills(stills: Path) -> None:
    dataset = find_dataset(str(stills), Path("nowhere"))
    assert [path.name for path in dataset.clips[0].paths] == ["a.png", "b.png"]
    assert len(dataset.clips) == 1 and not dataset.is_moving


def test_videos_are_clips(tmp_path: Path) -> None:
    (tmp_path / "b.mkv").touch()
    (tmp_path / "notes.txt").touch()
    dataset = find_dataset(str(tmp_path), Path("nowhere"))
    assert [clip.name for clip in dataset.clips] == ["b.mkv"] and dataset.clips[0].is_video and dataset.is_moving


def test_an_unknown_set_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="urban100: no such set or folder; there are vid4, set5, set14, bsd100"):
        find_dataset("urban100", tmp_path)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(OptionError, match="is a file; 'vsr benchmark video' compares two"):
        find_dataset(str(tmp_path / "a.mp4"), tmp_path)


@pytest.mark.parametrize("name", ["vid4", "set5", "set14", "bsd100"])
def test_a_missing_set_is_told_where_to_get(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value) and "`data`" in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_with_an_image_missing_is_refused(tmp_path: Path, write_clip: Callable[..., Path]) -> None:
    for clip, count in (("calendar", 41), ("city", 34), ("foliage", 48), ("walk", 47)):
        write_clip(tmp_path / "Vid4" / clip, count, (4, 4))
    with pytest.raises(InputError, match="foliage: has 48 images where Vid4 has 49"):
        find_dataset("vid4", tmp_path)


@pytest.mark.parametrize("place", ["Set5", "Set5/HR", "Set5/GT"])
def test_sets_are_found_as_they_are_handed_out(place: str, tmp_path: Path, write_clip: Callable[..., Path]) -> None:
    write_clip(tmp_path / place, 5, (4, 4))
    if place != "Set5":
        write_clip(tmp_path / "Set5" / "LR_bicubic", 5, (1, 1))
    (clip,) = find_dataset("Set5", tmp_path).clips
    assert [path.parent for path in clip.paths] == [tmp_path / place] * 5 and clip.name == "Set5"


def test_images_beside_clips_are_refused(clips: Path) -> None:
    (clips / "harbour" / "000.png").rename(clips / "poster.png")
    with pytest.raises(InputError, match="images as well as clips"):
        find_dataset(str(clips), clips)


def test_a_folder_with_nothing_to_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images, no folders of images and no videos"):
        find_dataset(str(tmp_path), tmp_path)
