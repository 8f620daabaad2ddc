"""The object that is a job: written as JSON, read back, run, cancelled."""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

from vsr.backends.select import Place
from vsr.errors import InputError, JobCancelledError, OptionError, OutputError, StrictError
from vsr.events import Note, NoteCode, Progress
from vsr.jobs import model_cache, open_job, resume
from vsr.jobs.job import Job
from vsr.jobs.options import JobOptions
from vsr.jobs.run import enhance_file, make_job, run_job
from vsr.jobs.segmented_sink import FinishedSegment
from vsr.media.endpoints import Images, Pipe
from vsr.models import checkpoints, weights
from vsr.pipeline.loading import upscaler_of_net

LOSSLESS = {"crf": 0, "preset": "ultrafast"}


@pytest.fixture
def clip(tmp_path: Path, make_clip: Callable[..., Path], Track: Any) -> Path:
    """With sound, chapters, tags and uneven times."""
    pts = (0, 2, 3, 4, 7, 8, 9, 10)
    chapters = [(0, 200, "one"), (200, 400, "two")]
    return make_clip(
        tmp_path / "in.mkv",
        pts=pts,
        audio=[Track(metadata={"language": "deu"})],
        chapters=chapters,
        metadata={"t": "x"},
    )


@pytest.fixture
def options(tiny_model: Path) -> JobOptions:
    return JobOptions.of(model=str(tiny_model), batch=2, **LOSSLESS)


def _same(one: Any, other: Any) -> bool:
    """Whether two files read back alike; the first frame is an object of PyAV, which compares by identity."""
    return bool(replace(one, first=None) == replace(other, first=None))


def _images(folder: Path) -> Path:
    folder.mkdir()
    for number in range(1, 4):
        cv2.imwrite(str(folder / f"{number:03}.png"), np.full((48, 64, 3), 40 * number, np.uint8))
    return folder


def test_a_job_of_a_video_comes_back_from_json_as_it_was(clip: Path, tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(
        clip,
        tmp_path / "out.mp4",
        JobOptions.of(
            model=str(tiny_model),
            start_seconds=Fraction(1, 3),
            maps=("0:v", "0:a"),
            encoder_options={"tune": "film"},
            report=tmp_path / "r.json",
            size="128x96",
        ),
    )
    again = Job.from_json(job.to_json())
    assert again == job
    assert again.to_json() == job.to_json()
    assert pickle.loads(pickle.dumps(job)) == job
    assert job != replace(job, batch=job.batch + 1)
    assert [note.code for note in again.plan.notes] == [note.code for note in job.plan.notes]  # type: ignore[union-attr]


def test_jobs_of_images_come_back_from_json(tmp_path: Path, options: JobOptions, tiny_model: Path) -> None:
    folder = _images(tmp_path / "in")
    plain = JobOptions.of(model=str(tiny_model))
    for source, output in (
        (folder, tmp_path / "out"),
        (folder / "%03d.png", tmp_path / "out%d.png"),
        (folder / "00*.png", tmp_path / "out.mkv"),
        (folder / "001.png", tmp_path / "out.png"),
    ):
        job = make_job(source, output, plain)
        assert Job.from_json(job.to_json()) == job
    assert isinstance(make_job(folder, tmp_path / "out", plain).target, Images)


def test_a_job_that_was_read_back_makes_the_same_file(
    clip: Path, tmp_path: Path, options: JobOptions, read_back: Callable[..., Any]
) -> None:
    at_once = enhance_file(clip, tmp_path / "at_once.mkv", options)
    text = make_job(clip, tmp_path / "later.mkv", options).to_json()
    later = run_job(Job.from_json(text))
    assert later.num_frames == at_once.num_frames == 8
    assert _same(read_back(tmp_path / "later.mkv"), read_back(tmp_path / "at_once.mkv"))


def _on_two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(torch.device("cpu"), "pytorch", others=(torch.device("cpu"),))
    monkeypatch.setattr(open_job, "choose_place", lambda *asked, takes_several: place)


def test_two_devices_make_the_file_of_one(
    clip: Path, tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    enhance_file(clip, tmp_path / "one.mkv", options)
    _on_two_cpus(monkeypatch)
    job = make_job(clip, tmp_path / "two.mkv", options)
    assert job.model.others == ("cpu",) and Job.from_json(job.to_json()) == job
    run_job(job, note=notes.append)
    assert _packets(tmp_path / "two.mkv") == _packets(tmp_path / "one.mkv")
    assert "batches go in turn to cpu, cpu" in notes


def test_decoder_and_network_of_a_video_are_opened_on_the_networks_own_stream(
    clip: Path, tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[str] = []

    @contextmanager
    def own_stream(device: torch.device) -> Iterator[None]:
        inside.append(str(device))
        yield
        inside.append("left")

    monkeypatch.setattr(open_job, "own_stream", own_stream)
    opened, loaded = open_job.open_source, upscaler_of_net
    for name, real in (("open_source", opened), ("upscaler_of_net", loaded)):
        module = open_job if name == "open_source" else model_cache
        monkeypatch.setattr(module, name, lambda *a, real=real, **b: (inside.append(real.__name__), real(*a, **b))[1])
    run_job(make_job(clip, tmp_path / "out.mkv", options))
    assert inside == ["cpu", "open_source", "upscaler_of_net", "left"] * 2


def test_two_devices_are_refused_for_a_network_with_a_state(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_two_cpus(monkeypatch)
    options = JobOptions.of(model="video-fast", device="cuda:0,cuda:1")
    with pytest.raises(OptionError, match=r"`device=cuda:0,cuda:1`: video-fast .* `workers=2` without `device`"):
        make_job(clip, tmp_path / "two.mkv", options)


def _packets(path: Path) -> list[tuple[int, int | None, bytes]]:
    with av.open(str(path)) as file:
        return [(packet.stream.index, packet.pts, bytes(packet)) for packet in file.demux() if packet.size]


def test_segments_are_told_as_they_are_finished(
    clip: Path, tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of an earlier run first, which a cancelled one has left."""
    monkeypatch.setattr("vsr.jobs.resume._FEWEST_FRAMES", 2)
    monkeypatch.setattr("vsr.jobs.resume._MOST_FRAMES", 2)
    options = replace(options, policy=replace(options.policy, resume=True), model=replace(options.model, batch=2))
    job = make_job(clip, tmp_path / "out.mkv", options)
    found: list[FinishedSegment] = []

    def stop_at_second(finished: FinishedSegment) -> None:
        found.append(finished)
        if finished.number == 1:
            job.cancel()

    with pytest.raises(JobCancelledError):
        run_job(job, on_segment=stop_at_second)
    num_before = len(found)
    assert [each.number for each in found] == list(range(num_before))
    again: list[FinishedSegment] = []
    run_job(Job.from_json(job.to_json()), on_segment=again.append)
    assert [each.number for each in again] == [0, 1, 2, 3]
    assert again[:num_before] == found
    pts = [pts * each.time_base for each in again for pts in sorted(each.segment.pts)]
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [round(float(time), 3) for time in pts] == [frame.time for frame in container.decode(video=0)]


def test_an_image_job_that_was_read_back_makes_the_same_image(tmp_path: Path, tiny_model: Path) -> None:
    source = _images(tmp_path / "in") / "002.png"
    job = make_job(source, tmp_path / "out.png", JobOptions.of(model=str(tiny_model), size="128x96"))
    report = run_job(Job.from_json(job.to_json()))
    assert (report.width, report.height) == (128, 96)
    assert cv2.imread(str(tmp_path / "out.png")).shape == (96, 128, 3)


def test_making_a_job_writes_nothing_and_refuses_what_the_run_would(
    clip: Path, tmp_path: Path, tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    make_job(clip, tmp_path / "out.mp4", JobOptions.of(model=str(tiny_model)))
    clean_folder("in.mkv")
    with pytest.raises(StrictError, match=r"chapters.*\(`strict=True`\)"):
        make_job(clip, tmp_path / "out.y4m", JobOptions.of(model=str(tiny_model), strict=True))
    with pytest.raises(OutputError, match="is the input itself"):
        make_job(clip, clip, JobOptions.of(model=str(tiny_model)))


def test_an_output_that_came_after_the_job_was_made_is_kept(clip: Path, tmp_path: Path, options: JobOptions) -> None:
    job = make_job(clip, tmp_path / "out.mkv", options)
    (tmp_path / "out.mkv").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        run_job(job)
    assert (tmp_path / "out.mkv").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(vsr_job=0), "format 0, and this vsr reads 1"),
        (lambda values: values.pop("vsr_job"), "not a job"),
        (lambda values: values.update(more=1), "not a job"),
        (lambda values: values["plan"].update(container=5), "not a job"),
        (lambda values: values["model"].pop("title"), "not a job"),
        (lambda values: values["input"].update(deinterlace="maybe"), "not a job"),
        (lambda values: values["plan"]["settings"].update(pixel_format="yuv999"), "not a job"),
    ],
)
def test_json_that_is_no_job_is_refused(
    change: Callable[[Any], object], words: str, clip: Path, tmp_path: Path, options: JobOptions
) -> None:
    values = json.loads(make_job(clip, tmp_path / "out.mkv", options).to_json())
    change(values)
    with pytest.raises(InputError, match=words):
        Job.from_json(json.dumps(values))
    with pytest.raises(InputError, match="not a job"):
        Job.from_json("[]")


def test_notes_of_a_job_have_codes(clip: Path, tmp_path: Path, tiny_model: Path) -> None:
    notes: list[str] = []
    make_job(clip, tmp_path / "out.y4m", JobOptions.of(model=str(tiny_model), maps=("0:v",)), note=notes.append)
    codes = {note.code for note in notes if isinstance(note, Note)}
    assert len(notes) == len([note for note in notes if isinstance(note, Note)])
    assert codes >= {NoteCode.MODEL, NoteCode.STREAM, NoteCode.OMISSION}


# -- decided once --------------------------------------------------------------------------------------


def test_a_resumed_job_decides_everything_once(
    clip: Path, tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, int] = {}

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return function(*arguments, **keywords)

        monkeypatch.setattr(module, name, call)

    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 2)
    monkeypatch.setattr(resume, "_MOST_FRAMES", 2)
    lasting = replace(options, policy=replace(options.policy, resume=True))
    job = make_job(clip, tmp_path / "out.mkv", lasting)
    with pytest.raises(JobCancelledError):
        run_job(job, on_progress=lambda progress: job.cancel() if progress.num_frames >= 6 else None)
    for name in ("plan_video", "check_output", "choose_place", "parse_source", "parse_target"):
        counted(open_job, name)
    report = enhance_file(clip, tmp_path / "out.mkv", lasting)
    assert report.num_frames == 8
    assert counts == dict.fromkeys(("plan_video", "check_output", "choose_place", "parse_source", "parse_target"), 1)


def test_a_foreign_checkpoint_is_read_once(
    clip: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[Path] = []
    read = checkpoints.import_checkpoint
    monkeypatch.setattr(weights, "import_checkpoint", lambda path, *more: paths.append(path) or read(path, *more))
    foreign = tmp_path / "foreign.pth"
    foreign.write_bytes(b"no checkpoint")
    with pytest.raises(Exception, match="foreign"):
        enhance_file(clip, tmp_path / "out.mkv", JobOptions.of(model=str(foreign)))
    assert paths == [foreign]


# -- cancelling ----------------------------------------------------------------------------------------


def _cancelled(job: Job, after: int) -> None:
    """Run a job and cancel it, from another thread, when so many frames are done."""
    reached, cancelled = threading.Event(), threading.Event()

    def cancel() -> None:
        reached.wait()
        job.cancel()
        cancelled.set()

    def on_progress(progress: Progress) -> None:
        if progress.num_frames >= after:
            reached.set()
            cancelled.wait()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(JobCancelledError, match="cancelled"):
            run_job(job, on_progress=on_progress)
    finally:
        reached.set()
        thread.join()


def test_cancelling_removes_the_partial_file(
    clip: Path, tmp_path: Path, options: JobOptions, clean_folder: Callable[..., None]
) -> None:
    _cancelled(make_job(clip, tmp_path / "out.mkv", options), after=4)
    clean_folder("in.mkv")


def test_cancelling_keeps_finished_segments(
    clip: Path, tmp_path: Path, options: JobOptions, read_back: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "_FEWEST_FRAMES", 2)
    monkeypatch.setattr(resume, "_MOST_FRAMES", 2)
    enhance_file(clip, tmp_path / "whole.mkv", options)
    lasting = replace(options, policy=replace(options.policy, resume=True))
    job = make_job(clip, tmp_path / "out.mkv", lasting)
    _cancelled(job, after=6)
    report = run_job(Job.from_json(job.to_json()))
    assert 0 < report.num_frames_before < report.num_frames == 8
    assert _same(read_back(tmp_path / "out.mkv"), read_back(tmp_path / "whole.mkv"))


def test_a_job_that_was_cancelled_before_it_runs_does_not_run(
    clip: Path, tmp_path: Path, options: JobOptions, tiny_model: Path, clean_folder: Callable[..., None]
) -> None:
    job = make_job(clip, tmp_path / "out.mkv", options)
    job.cancel()
    with pytest.raises(JobCancelledError):
        run_job(job)
    image = make_job(_images(tmp_path / "in") / "001.png", tmp_path / "o.png", JobOptions.of(model=str(tiny_model)))
    image.cancel()
    with pytest.raises(JobCancelledError):
        run_job(image)
    assert not (tmp_path / "out.mkv").exists() and not (tmp_path / "o.png").exists()


def test_cancelling_ends_a_job_that_waits_for_a_pipe(
    clip: Path, tmp_path: Path, options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program before it writes the first half of a file and then nothing more."""
    data = clip.read_bytes()
    job = replace(make_job(clip, tmp_path / "out.mkv", options), source=Pipe())
    incoming, outgoing = os.pipe()
    before = os.dup(0)
    os.dup2(incoming, 0)
    try:
        os.write(outgoing, data[: min(len(data) // 2, 60000)])
        timer = threading.Timer(1.0, job.cancel)
        timer.start()
        begun = time.monotonic()
        with pytest.raises(JobCancelledError):
            run_job(job)
        assert time.monotonic() - begun < 60
        timer.join()
    finally:
        os.dup2(before, 0)
        for descriptor in (before, incoming, outgoing):
            os.close(descriptor)
    assert not list(tmp_path.glob("*out*"))


def test_options_are_sorted_by_name_and_a_wrong_name_is_a_type_error() -> None:
    options = JobOptions.of(crf=16, model="fast", start_seconds=Fraction(1), strict=True)
    assert (options.encoding.crf, options.model.model) == (16, "fast")
    assert (options.input.start_seconds, options.policy.strict) == (Fraction(1), True)
    with pytest.raises(TypeError, match="'clf'"):
        JobOptions.of(clf=16)
    with pytest.raises(OptionError, match=r"^`scale=40`: must lie between 1 and 16") as error:
        JobOptions.of(scale=40)
    assert error.value.option == "scale"
