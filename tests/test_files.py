from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vsr.errors import OutputError
from vsr.files import (
    claim,
    naming_output,
    partial_file,
    partial_folder,
    partial_path,
    remove_left,
    target_of_partial,
    write_file,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.b.engine.json", "noend", ".hidden", "with.part.mkv"])
def test_partial_names_differ_and_lead_back_to_their_target(name: str) -> None:
    target = Path("folder", name)
    partials = [partial_path(target) for _ in range(3)]
    assert len({*partials, target}) == 4
    assert {target_of_partial(partial) for partial in partials} == {target}
    assert all(partial.suffix == target.suffix or not target.suffix for partial in partials)


@pytest.mark.parametrize("name", ["a.mp4", ".a.part.mp4", "a.12-0123abcd.part.mp4", ".a.12.part.mp4"])
def test_other_names_are_those_of_no_partial_file(name: str) -> None:
    assert target_of_partial(Path(name)) is None


def test_two_processes_with_one_id_do_not_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as in two containers
    assert partial_path(Path("a.mp4")) != partial_path(Path("a.mp4"))


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, sync: bool) -> None:
    target = tmp_path / "a.txt"
    write_file(target, b"old", sync=sync)
    with partial_file(target, sync=sync) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and names_in(tmp_path) == ["a.txt"]


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    write_file(tmp_path / "a.txt", "×4\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\x974\n"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)), partial_file(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old" and names_in(tmp_path) == ["a.txt"]


def fill(folder: Path, text: str) -> None:
    with partial_folder(folder) as partial:
        (partial / "a.txt").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    (tmp_path / "out" / "b.txt").touch()
    fill(tmp_path / "out", "new")
    assert names_in(tmp_path) == ["out"] and names_in(tmp_path / "out") == ["a.txt"]
    assert (tmp_path / "out" / "a.txt").read_text() == "new"


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "out", "old")
    with pytest.raises(OSError, match="No space"), partial_folder(tmp_path / "out") as partial:
        (partial / "a.txt").write_text("half")
        raise OSError(28, "No space left on device")
    assert names_in(tmp_path) == ["out"] and (tmp_path / "out" / "a.txt").read_text() == "old"


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "out", "old")
    replace: Callable[[Path, Path], Path] = Path.replace

    def refuse_the_new(self: Path, target: Path) -> Path:
        if (self / "a.txt").read_text() == "new":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_the_new)
    with pytest.raises(OSError, match="Input/output"):
        fill(tmp_path / "out", "new")
    assert names_in(tmp_path) == ["out"] and (tmp_path / "out" / "a.txt").read_text() == "old"


def test_an_error_names_the_output(tmp_path: Path) -> None:
    target = tmp_path / "none" / "a.txt"
    with (
        pytest.raises(OutputError, match=r"a\.txt: writing failed \(No such file or directory\)"),
        naming_output(target),
    ):
        write_file(target, b"data")


def test_what_killed_processes_left_of_a_target_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    left, folder, other = partial_path(target), partial_path(target), partial_path(tmp_path / "another.mp4")
    target.write_bytes(b"whole")
    left.write_bytes(b"half")
    other.write_bytes(b"half")
    folder.mkdir()
    (folder / "1.png").write_bytes(b"half")
    assert sorted(remove_left(target)) == sorted([left.name, folder.name])
    assert {path.name for path in tmp_path.iterdir()} == {target.name, other.name}


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open, and needs no lock")
def test_what_is_being_written_is_not_taken_for_left(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    partial, folder = partial_path(target), partial_path(target)
    folder.mkdir()
    releases = [claim(partial), claim(folder)]
    assert remove_left(target) == []
    with partial_file(target) as written:
        written.write_bytes(b"half")
        assert remove_left(target) == []
    assert target.read_bytes() == b"half"
    for release in releases:
        release()
    assert sorted(remove_left(target)) == sorted([partial.name, folder.name])
