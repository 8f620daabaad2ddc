"""Video jobs in this process: from a file to its result, stopped and gone on with, and nothing left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from videos import Gate, frames_of
from waiting import PATIENCE_SECONDS

from vsr.errors import OptionError, OutputError, VsrError
from vsr.serve.errors import RefusedError
from vsr.serve.job_run import JobRun
from vsr.serve.job_service import JobService
from vsr.serve.job_store import EventKind, JobState
from vsr.serve.settings import Limits, Settings
from vsr.serve.turns import DeviceTurns

OPTIONS = {"model": "nano", "batch": 2, "preset": "ultrafast"}

Make = Callable[..., JobService]


pytestmark = pytest.mark.usefixtures("short_segments")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make services on one state folder, closed after the test."""
    with ExitStack() as stack:

        def make(**settings: Any) -> JobService:
            given = {"state": tmp_path / "state", "device": "cpu", "backend": "pytorch"} | settings
            return stack.enter_context(JobService(Settings(**given), DeviceTurns()))

        yield make


@pytest.fixture
def expected(video: Path, enhanced: Callable[..., Path]) -> list[tuple[float, str]]:
    """The frames of the same job on the command line's way."""
    return frames_of(enhanced(video, OPTIONS))


def _wait_for(service: JobService, job_id: str, state: JobState) -> None:
    for _ in service.events(job_id):
        if service.get(job_id).state is state:
            return
    assert service.get(job_id).state is state, service.get(job_id)


def _wait_for_segment(service: JobService, job_id: str) -> None:
    assert any(event.kind is EventKind.SEGMENT for event in service.events(job_id))


def test_a_job_gives_what_enhance_gives(make: Make, video: Path, expected: list[tuple[float, str]]) -> None:
    service = make()
    job_id = service.submit(video, OPTIONS)
    kinds = [event.kind for event in service.events(job_id)]
    assert set(kinds) == {EventKind.STATE, EventKind.NOTE, EventKind.SEGMENT, EventKind.PROGRESS}
    record = service.get(job_id)
    assert (record.state, record.num_frames, record.name) == (JobState.DONE, 20, "a film.mp4")
    assert frames_of(service.result(job_id)) == expected
    assert [len(segment.pts) for segment in service.segments(job_id)] == [8, 8, 4]
    assert service.notes(job_id)[0].data["code"] == "model"


def test_a_preview_is_of_a_part(make: Make, video: Path) -> None:
    service = make()
    job_id = service.submit(video, OPTIONS, preview_seconds=0.2)
    _wait_for(service, job_id, JobState.DONE)
    assert len(frames_of(service.result(job_id))) == 5


def test_paused_after_a_segment_and_gone_on_with(
    make: Make, video: Path, expected: list[tuple[float, str]], gate: Gate
) -> None:
    service, gate.num_frames = make(), 4
    job_id = service.submit(video, OPTIONS)
    gate.wait()
    assert service.pause(job_id).state is JobState.PAUSING
    gate.open()
    _wait_for(service, job_id, JobState.PAUSED)
    assert [segment.number for segment in service.segments(job_id)] == [0]
    service.resume(job_id)
    _wait_for(service, job_id, JobState.DONE)
    assert frames_of(service.result(job_id)) == expected


def test_a_job_that_waits_is_paused_at_once(make: Make, video: Path, gate: Gate) -> None:
    service, gate.num_frames = make(), 4
    first, second = service.submit(video, OPTIONS), service.submit(video, OPTIONS)
    gate.wait()
    assert service.pause(second).state is JobState.PAUSED
    gate.open()
    _wait_for(service, first, JobState.DONE)
    assert service.get(second).state is JobState.PAUSED
    service.resume(second)
    _wait_for(service, second, JobState.DONE)


def test_previews_go_before_whole_videos(make: Make, video: Path, gate: Gate) -> None:
    service, gate.num_frames = make(), 4
    first, whole = service.submit(video, OPTIONS), service.submit(video, OPTIONS)
    preview = service.submit(video, OPTIONS, preview_seconds=0.1)
    gate.wait()
    gate.open()
    for job_id in (first, whole, preview):
        _wait_for(service, job_id, JobState.DONE)
    assert service.get(preview).changed < service.get(whole).changed


def test_cancelled_leaves_the_source_alone(make: Make, video: Path, tmp_path: Path, gate: Gate) -> None:
    service, gate.num_frames = make(), 18
    job_id = service.submit(video, OPTIONS)
    gate.wait()
    _wait_for_segment(service, job_id)
    assert service.cancel(job_id).state is JobState.CANCELLING
    gate.open()
    _wait_for(service, job_id, JobState.CANCELLED)
    assert [path.name for path in (tmp_path / "state" / "jobs" / job_id).iterdir()] == ["source"]
    for call in (service.resume, service.pause):
        with pytest.raises(RefusedError, match="cancelled"):
            call(job_id)


def test_deleted_leaves_nothing(make: Make, video: Path, tmp_path: Path, gate: Gate) -> None:
    gate.num_frames = 4
    with make() as service:
        running, waiting = service.submit(video, OPTIONS), service.submit(video, OPTIONS)
        gate.wait()
        service.delete(waiting)
        service.delete(running)
        assert service.jobs() == []
        with pytest.raises(RefusedError, match="no such job"):
            service.get(running)
        gate.open()
    assert list((tmp_path / "state" / "jobs").iterdir()) == []
    assert video.exists()


def test_a_service_that_is_closed_goes_on_when_started_again(
    make: Make, video: Path, expected: list[tuple[float, str]], gate: Gate
) -> None:
    gate.num_frames = 18
    with make() as service:
        job_id = service.submit(video, OPTIONS)
        _wait_for_segment(service, job_id)
        gate.open()
    again = make()
    _wait_for(again, job_id, JobState.DONE)
    assert frames_of(again.result(job_id)) == expected


def test_one_service_for_a_folder(make: Make) -> None:
    make()
    with pytest.raises(OutputError, match="another service"):
        make()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": "../../etc/passwd"}, "model"),
        ({"model": "/etc/passwd"}, "model"),
        ({"encoder_options": {"stats": "/tmp/x"}}, "encoder_options"),
        ({"encoder_options": {"tune": "film:stats=/tmp/x"}}, "encoder_options"),
        ({"input_format": "concat"}, "input_format"),
        ({"report": "/tmp/x"}, "report"),
        ({"device": "cuda"}, "device"),
        ({"scale": 2, "size": "4k"}, "scale"),
        ({"scale": float("nan")}, "scale"),
    ],
)
def test_options_that_no_client_may_give(
    make: Make, video: Path, tmp_path: Path, options: dict[str, Any], word: str
) -> None:
    service = make()
    with pytest.raises(OptionError, match=word):
        service.submit(video, options)
    assert service.jobs() == []
    assert not list((tmp_path / "state").glob("jobs/*"))


def test_a_full_queue_is_busy(make: Make, video: Path, gate: Gate) -> None:
    service, gate.num_frames = make(limits=Limits(jobs=1)), 2
    service.submit(video, OPTIONS)
    with pytest.raises(RefusedError, match="as many jobs") as refused:
        service.submit(video, OPTIONS)
    gate.open()
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "60")


def test_no_room_on_the_disk(make: Make, video: Path) -> None:
    service = make(limits=Limits(stored_bytes=1000))
    with pytest.raises(RefusedError, match="no room") as refused:
        service.submit(video, OPTIONS)
    assert refused.value.status == 413


def test_a_job_that_fails_says_why_without_paths(make: Make, video: Path) -> None:
    service = make()
    job_id = service.submit(video, OPTIONS | {"start_seconds": 100})
    _wait_for(service, job_id, JobState.FAILED)
    record = service.get(job_id)
    assert record.error_code == "input"
    assert record.error is not None and record.error.startswith("a film.mp4: ")
    assert os.sep not in record.error


def test_a_job_has_so_much_time(make: Make, video: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, give_up = threading.Event(), JobRun._give_up

    def noticed(run: JobRun, error: VsrError) -> None:
        give_up(run, error)
        given_up.set()

    monkeypatch.setattr(JobRun, "_give_up", noticed)
    gate.num_frames, service = 4, make(limits=Limits(job_seconds=1))
    job_id = service.submit(video, OPTIONS)
    assert given_up.wait(PATIENCE_SECONDS)  # at the gate, or before it on a slow machine
    gate.open()
    _wait_for(service, job_id, JobState.FAILED)
    assert service.get(job_id).error_code == "too_slow"
    given_up.clear()
    service.resume(job_id)  # earlier runs count
    _wait_for(service, job_id, JobState.FAILED)
    assert given_up.is_set()
    assert service.get(job_id).num_frames < 20


def test_what_is_over_is_removed(make: Make, video: Path, tmp_path: Path) -> None:
    service = make(retention_seconds=3600)
    job_id = service.submit(video, OPTIONS, preview_seconds=0.1)
    _wait_for(service, job_id, JobState.DONE)
    upload = service.uploads.create(10)
    changed = service.get(job_id).changed
    service._sweeper.sweep(changed + 3599)
    assert service.jobs() and service.uploads.find(upload.id)
    service._sweeper.sweep(changed + 7200)
    assert service.jobs() == []
    assert not list((tmp_path / "state" / "jobs").iterdir())
    assert not list((tmp_path / "state" / "uploads").iterdir())
