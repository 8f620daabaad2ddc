"""The journal of a long job takes segments in any order, and gives them back in that of time."""

from __future__ import annotations

from pathlib import Path

from vsr.jobs.journal import Done, Journal, kept_batch
from vsr.media.endpoints import File, Pipe
from vsr.media.read.reader import FramePosition
from vsr.media.write.segments import Segment

JOB = {"input": ["a film"]}


def test_the_batch_of_an_unfinished_job_is_known_before_it_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert kept_batch(File(output)) is None
    with Journal(output, {**JOB, "batch": [3, None]}, 6) as journal:
        journal.add_out_of_order(0, _done(journal, 0))
    assert kept_batch(File(output)) == 3
    assert kept_batch(Pipe(Path("-"))) is None
    (journal.folder / "journal.jsonl").write_text("{damaged", "utf-8")
    assert kept_batch(File(output)) is None, "whoever opens the journal says so"


def _done(journal: Journal, number: int, *, before: str | None = None, num_damaged: int = 0) -> Done:
    """A segment of four frames, which is said to follow on a last frame of the checksum `before`."""
    path = journal.folder / f"{number:06}-once.mkv"
    path.write_bytes(bytes([number]))
    pts = tuple(range(4 * number, 4 * number + 4))
    position = None if before is None else FramePosition(pts[0] - 1, before)
    return Done(
        Segment(path, str(number), pts, (1,) * 4),
        FramePosition(pts[-1], f"end {number}"),
        num_damaged,
        "fp32",
        position,
    )


def _again(output: Path) -> Journal:
    return Journal(output, JOB, 4)


def test_segments_finish_in_any_order_and_are_kept(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with _again(output) as journal:
        assert journal.add_out_of_order(2, _done(journal, 2, before="end 1")) == []
        assert (journal.done, list(journal.ahead)) == ([], [2])
    with _again(output) as journal:  # stopped: the second is kept, though the first is missing
        assert list(journal.ahead) == [2]
        journal.add_out_of_order(0, _done(journal, 0, num_damaged=3))
        assert [done.segment.sha256 for done in journal.done] == ["0"]
        journal.add_out_of_order(1, _done(journal, 1, before="end 0"))
    with _again(output) as journal:
        assert [done.segment.sha256 for done in journal.done] == ["0", "1", "2"]
        assert [done.num_damaged for done in journal.done] == [3, 3, 3], "damage counts from the first segment on"


def test_a_segment_that_does_not_follow_on_the_one_before_is_taken_back(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with _again(output) as journal:
        journal.add_out_of_order(1, _done(journal, 1, before="another frame"))
        assert journal.add_out_of_order(0, _done(journal, 0)) == [1]
        assert [done.segment.sha256 for done in journal.done] == ["0"]
    with _again(output) as journal:  # nor does it come back from the disk
        assert len(journal.done) == 1
        assert not journal.ahead
        assert not (journal.folder / "000001-once.mkv").exists()


def test_a_job_in_one_process_goes_on_before_segments_that_are_ahead(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with _again(output) as journal:
        journal.add_out_of_order(0, _done(journal, 0))
        journal.add_out_of_order(2, _done(journal, 2, before="end 1"))
    with _again(output) as journal:
        journal.add(_done(journal, 1))
        assert journal.next_path.name == "000002.mkv"
    with _again(output) as journal:
        assert [done.segment.sha256 for done in journal.done] == ["0", "1", "2"]
