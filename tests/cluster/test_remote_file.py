"""Videos of another machine: what is decoded is the same, and no more bytes come than are read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from cluster_clips import write_noise

from vsr.cluster import remote_file
from vsr.cluster.ray_worker import FilesOfDriver, RayWorker
from vsr.cluster.remote_file import ArrivingFile, Wanted
from vsr.errors import InputError
from vsr.media.endpoints import File, RemoteFile
from vsr.media.read.reader import VideoReader

NUM_BYTES = 10 * 1000
BLOCK = 100


class Sender:
    """Answers questions for a file, each at once, as another thread would."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._data = path.read_bytes()
        self.wanted: list[Wanted] = []
        self.file = ArrivingFile(path.name, len(self._data), folder / "parts", self._answer)

    def _answer(self, wanted: Wanted) -> None:
        self.wanted.append(wanted)
        data = self._data[wanted.offset :][: wanted.num_bytes]
        threading.Thread(target=self.file.put, args=(wanted.offset, data)).start()

    @property
    def num_bytes(self) -> int:
        return sum(each.num_bytes for each in self.wanted)


@pytest.fixture
def sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(remote_file, "PIECE_BYTES", 8 * BLOCK)
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(number * 7 % 251 for number in range(NUM_BYTES - 30)))
    return Sender(path, tmp_path)


def test_pieces_grow_while_a_file_is_read_in_order_and_come_once(sender: Sender, tmp_path: Path) -> None:
    data = (tmp_path / "data.bin").read_bytes()
    with sender.file.opened() as file:
        file.seek(-50, 2)
        assert file.read() == data[-50:]
        file.seek(4020)
        assert file.read(10) == data[4020:4030]
        file.seek(0)
        assert file.read() == data
        assert file.read() == b""
        with pytest.raises(OSError, match="before the beginning"):
            file.seek(-1)
    sizes = [each.num_bytes // BLOCK for each in sender.wanted]
    assert sizes[:6] == [0, 1, 1, 2, 4, 8], "the last block is short"
    assert max(sizes) == 8
    assert sender.num_bytes == len(data), "no block came twice"


def test_a_file_that_cannot_be_sent_is_an_error_for_who_waits(tmp_path: Path) -> None:
    file = ArrivingFile("in.mp4", 2**20, tmp_path / "parts", lambda wanted: file.refuse("is gone"))
    with pytest.raises(InputError, match=r"far/in\.mp4: .*is gone"):
        VideoReader(RemoteFile(Path("far/in.mp4"), opened=file.opened))


def _frames(reader: VideoReader, num_batches: int) -> list[Any]:
    chunks = (chunk for chunk in reader.chunks(2) if chunk.batch is not None)
    batches = [chunk.batch for chunk, _ in zip(chunks, range(num_batches), strict=False) if chunk.batch is not None]
    return [(batch.pts, [plane.tolist() for plane in batch.planes]) for batch in batches]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "mpg"])
def test_a_part_is_decoded_as_from_the_whole_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a search of the middle, and from the beginning where a format is not searched."""
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 2**12)
    monkeypatch.setattr(remote_file, "PIECE_BYTES", 2**14)
    path = write_noise(tmp_path / f"in.{suffix}", 60)
    sender = Sender(path, tmp_path)
    found = []
    for source in (File(path), RemoteFile(Path("far"), opened=sender.file.opened)):
        with VideoReader(source) as reader:
            position = reader.skip_to(round(2 / reader.info.time_base), search=True)
            found.append((position, reader.info, _frames(reader, 3)))
    assert found[0] == found[1]
    assert found[0][0] is not None
    if suffix in ("mp4", "mkv"):  # which have an index
        assert sender.num_bytes < path.stat().st_size * 0.8, "the parts before and after are not read"


def test_a_worker_keeps_the_pieces_of_the_last_sources_alone() -> None:
    """Else a folder of many videos would fill its disk."""
    worker = RayWorker()
    try:
        first = worker._source(Path("0.mkv"), FilesOfDriver("0.mkv", 100, None))
        for number in (1, 2, 3, 0, 4, 5):
            worker._source(Path(f"{number}.mkv"), FilesOfDriver(f"{number}.mkv", 100, None))
        assert [file.name for file in worker._arriving.values()] == ["3.mkv", "0.mkv", "4.mkv", "5.mkv"]
        assert len(list(worker._folder.iterdir())) == 4
        worker.put_piece("1.mkv", 0, b"late")
        worker.put_piece("0.mkv", 0, bytes(range(100)))
        assert isinstance(first, RemoteFile)
        with first.opened() as file:
            assert file.read() == bytes(range(100)), "it was used again, and so kept"
    finally:
        worker.leave()
