"""Outputs that are not files of their own: pipes, links, names that are taken meanwhile."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vsr
from vsr.errors import OutputError
from vsr.files import is_stream, partial_path
from vsr.media.images import write_image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither named pipes in folders nor plain links")
Enhance = Callable[..., Any]


@pytest.fixture
def enhance(tiny_model: Path, small_clip: Path) -> Enhance:
    def call(target: Path, source: Path = small_clip, **options: Any) -> Any:
        model = {"model": str(tiny_model), "backend": "pytorch", "device": "cpu"}
        return vsr.enhance(source, target, **model, **options)

    return call


def test_a_named_pipe_is_written_to_and_read_and_stays(
    enhance: Enhance, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    pipe, arrived = tmp_path / "pipe.mkv", tmp_path / "arrived.mkv"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: arrived.write_bytes(pipe.read_bytes()), daemon=True)
    reader.start()
    enhance(pipe, overwrite=True)
    reader.join(30)
    assert len(read_back(arrived).times) == 20
    writer = threading.Thread(target=lambda: pipe.write_bytes(arrived.read_bytes()), daemon=True)
    writer.start()
    enhance(tmp_path / "again.mkv", pipe)
    writer.join(30)
    assert len(read_back(tmp_path / "again.mkv").times) == 20
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_another_job_writes_to_is_refused(enhance: Enhance, tmp_path: Path) -> None:
    pipe, arrived = tmp_path / "pipe.mkv", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: arrived.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with pipe.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as a job does
        with pytest.raises(OutputError, match=r"pipe\.mkv: another process of vsr writes to this pipe"):
            enhance(pipe, overwrite=True)
        other.write(b"of the other")
    reader.join(30)
    assert arrived == [b"of the other"]


def test_a_start_in_a_pipe_is_found_by_decoding(
    enhance: Enhance, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    pipe, source = tmp_path / "pipe.mkv", tmp_path / "source.mkv"
    enhance(source)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()), daemon=True)
    writer.start()
    enhance(tmp_path / "part.mkv", pipe, start_seconds=0.4)
    writer.join(30)
    assert len(read_back(tmp_path / "part.mkv").times) == 10


def test_devices_are_written_to_as_pipes_are() -> None:
    assert is_stream(Path(os.devnull))


def test_a_link_is_followed(enhance: Enhance, tmp_path: Path, clean_folder: Callable[..., None]) -> None:
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "out.mkv", tmp_path / "disk" / "real.mkv"
    link.symlink_to(file)
    enhance(link)  # leads to nothing yet
    assert link.is_symlink() and file.stat().st_size > 1000
    with pytest.raises(OutputError, match=r"real\.mkv: exists already"):
        enhance(link)
    file.write_bytes(b"older")
    enhance(link, overwrite=True)
    assert link.is_symlink() and file.stat().st_size > 1000
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real.mkv"]
    clean_folder("disk", "out.mkv")


@pytest.mark.parametrize(("name", "has_links"), [("out.mkv", True), ("out.mkv", False), ("out.y4m", True)])
def test_a_name_that_is_taken_meanwhile_is_kept(
    name: str,
    has_links: bool,
    enhance: Enhance,
    tmp_path: Path,
    clean_folder: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_link)
    target = tmp_path / name
    with pytest.raises(OutputError, match="has appeared meanwhile, and is kept"):
        enhance(target, on_progress=lambda _: target.write_bytes(b"another's"))
    assert target.read_bytes() == b"another's"
    clean_folder(name)


def test_an_image_whose_name_is_taken_meanwhile_is_kept(tmp_path: Path, clean_folder: Callable[..., None]) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"another's")
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        write_image(target, np.zeros((4, 4, 3), np.uint8), overwrite=False)
    assert target.read_bytes() == b"another's"
    clean_folder("out.png")


def test_what_a_killed_run_left_is_removed_and_named(
    enhance: Enhance, tmp_path: Path, clean_folder: Callable[..., None]
) -> None:
    left, pictures = partial_path(tmp_path / "out.mkv"), partial_path(tmp_path / "frames" / "images")
    left.write_bytes(b"half")
    pictures.mkdir(parents=True)
    notes: list[str] = []
    enhance(tmp_path / "out.mkv", note=notes.append)
    enhance(tmp_path / "frames" / "%03d.png", note=notes.append)
    for partial in (left, pictures):
        assert [line for line in notes if line.startswith(f"{partial.name} was left by a run that was killed")]
        assert not partial.exists()
    clean_folder("out.mkv", "frames")


def test_two_jobs_on_one_output_leave_each_other_alone(enhance: Enhance, tmp_path: Path) -> None:
    """The second begins and ends while the first is at work: its partial file is no leftover."""
    reports: list[Any] = []

    def second(progress: Any) -> None:
        if not reports:
            reports.append(enhance(tmp_path / "out.mkv", overwrite=True))

    enhance(tmp_path / "out.mkv", overwrite=True, on_progress=second)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
