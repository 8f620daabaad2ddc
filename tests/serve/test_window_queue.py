"""The window's queue: files by path, results beside them, gone on with after a restart; and the watched folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

from videos import frames_of, write_video
from waiting import until

from vsr.errors import InputError, OutputError
from vsr.media.images import read_image, write_image
from vsr.serve.app import make_app
from vsr.serve.page.mount import page_parts
from vsr.serve.settings import Settings
from vsr.serve.window.queue import Entry, EntryState, FileQueue, QueueOptions
from vsr.serve.window.watch import FolderWatch

OPTIONS = QueueOptions("nano", 2)
Open = Callable[[], FileQueue]


@pytest.fixture
def ended() -> list[str]:
    """Return the texts of the notices at the end of a queue."""
    return []


@pytest.fixture
def open_queue(tmp_path: Path, ended: list[str]) -> Iterator[Open]:
    """Open queues on one state folder, closed after the test."""
    settings = Settings(state=tmp_path / "state", device="cpu", backend="pytorch", model="nano")
    with ExitStack() as stack:
        services = make_app(settings).state.services
        services.images.start()
        stack.callback(services.images.close)
        stack.enter_context(services.jobs)
        parts = page_parts(services)

        def open_queue() -> FileQueue:
            queue = FileQueue(parts, tmp_path / "queue.json", lambda title, text: ended.append(text))
            return stack.enter_context(queue)

        yield open_queue


def _image(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_image(path, np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    return path


def _until_done(queue: FileQueue) -> list[Entry]:
    unfinished = (EntryState.WAITING, EntryState.RUNNING)
    until(lambda: all(entry.state not in unfinished for entry in queue.entries()), "the queue does not end")
    return queue.entries()


def test_images_and_videos_of_a_folder_get_results_beside_them(
    tmp_path: Path, open_queue: Open, ended: list[str]
) -> None:
    folder = tmp_path / "mine"
    _image(folder / "a.png")
    write_video(folder / "b.mp4", 6)
    (folder / "notes.txt").write_text("no image")
    queue = open_queue()
    assert queue.add([folder], OPTIONS) == 2
    assert [entry.state for entry in _until_done(queue)] == [EntryState.DONE, EntryState.DONE]
    assert read_image(folder / "a_x2.png").shape == (40, 60, 3)
    assert len(frames_of(folder / "b_x2.mp4")) == 6
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a_x2.png", "b.mp4", "b_x2.mp4", "notes.txt"]
    until(lambda: ended)
    assert ended == ["2 files finished"]


def test_nothing_is_replaced_and_results_may_go_to_a_folder(tmp_path: Path, open_queue: Open) -> None:
    source, folder = _image(tmp_path / "a.png"), tmp_path / "results"
    folder.mkdir()
    (folder / "a_x2.png").write_bytes(b"older")
    queue = open_queue()
    queue.add([source], QueueOptions("nano", 2, str(folder)))
    _until_done(queue)
    assert (folder / "a_x2.png").read_bytes() == b"older"
    assert read_image(folder / "a_x2_2.png").shape == (40, 60, 3)


def test_a_broken_file_is_named_and_the_next_one_done(tmp_path: Path, open_queue: Open) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    queue = open_queue()
    queue.add([broken, _image(tmp_path / "a.png")], OPTIONS)
    first, second = _until_done(queue)
    assert first.state is EntryState.FAILED and "valid image" in first.text
    assert second.state is EntryState.DONE
    queue.clear()
    assert queue.entries() == []


def test_what_cannot_be_added_is_refused(tmp_path: Path, open_queue: Open) -> None:
    queue = open_queue()
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("text")
    for name, words in (("gone.png", "no such file"), ("empty", "no image or video"), ("x.txt", "no image or video")):
        with pytest.raises(InputError, match=words):
            queue.add([tmp_path / name], OPTIONS)
    with pytest.raises(OutputError, match="no such folder"):
        queue.add([_image(tmp_path / "a.png")], QueueOptions("nano", 2, str(tmp_path / "nowhere")))
    assert queue.entries() == []


def test_a_queue_goes_on_after_a_restart(tmp_path: Path, open_queue: Open) -> None:
    source = write_video(tmp_path / "b.mp4", 6)
    stopped = open_queue()
    stopped.__exit__()  # the thread has ended: what is added stays in the file
    stopped.add([source], OPTIONS)
    assert not (tmp_path / "b_x2.mp4").exists()
    assert [entry.state for entry in _until_done(open_queue())] == [EntryState.DONE]
    assert len(frames_of(tmp_path / "b_x2.mp4")) == 6


def test_a_damaged_store_is_an_empty_queue(tmp_path: Path, open_queue: Open) -> None:
    (tmp_path / "queue.json").write_text('[{"path": 1}]')
    assert open_queue().entries() == []


# -- watched folder ------------------------------------------------------------------------------------


def test_a_new_file_is_handed_over_once_when_it_does_not_grow_any_more(tmp_path: Path) -> None:
    _image(tmp_path / "old.png")
    found: list[str] = []
    watch = FolderWatch(tmp_path, lambda path: found.append(path.name), every_seconds=1000)
    growing = tmp_path / "new.mp4"
    with growing.open("wb") as file:
        for _ in range(3):
            file.write(b"more")
            file.flush()
            watch.look()
            assert found == []
    watch.look()
    watch.look()
    assert found == ["new.mp4"]
    watch.close()


def test_results_in_the_watched_folder_are_not_taken_for_new_files(tmp_path: Path) -> None:
    found: list[Path] = []
    watch = FolderWatch(tmp_path, found.append, every_seconds=1000)
    for name in ("a_x4.png", "a_x2_2.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    for _ in range(3):
        watch.look()
    assert found == []
    watch.close()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        FolderWatch(tmp_path / "gone", lambda path: None)
