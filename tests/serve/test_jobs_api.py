"""Video jobs over HTTP: sent, followed, watched, downloaded by ranges; and all that is refused."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

pytest.importorskip("fastapi")

from videos import Gate, frames_of, sound_of, write_video
from waiting import until

from vsr.serve.settings import Limits

pytestmark = pytest.mark.usefixtures("short_segments")
OPTIONS = {"model": "nano", "batch": 2, "preset": "ultrafast"}


def _send(client: Any, video: Path, **fields: Any) -> dict[str, Any]:
    """Send a video as a form, which must be taken."""
    data = {"options": json.dumps(OPTIONS)} | fields
    with video.open("rb") as file:
        answer = client.post("/v1/jobs", files={"video": (video.name, file)}, data=data)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return dict(answer.json())


def _events(client: Any, job_id: str, **headers: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Follow a job to its end; return number, kind and data of its events."""
    found = []
    answer = client.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        found.append((int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])))
    return found


def _wait(client: Any, job_id: str, state: str) -> dict[str, Any]:
    _events(client, job_id)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == state, job
    return dict(job)


def test_from_a_form_to_the_result(client: Any, video: Path, enhanced: Callable[..., Path], tmp_path: Path) -> None:
    job = _send(client, video)
    assert (job["name"], job["source"]["width"], job["options"]["model"]) == ("a film.mp4", 32, "nano")
    events = _events(client, job["id"])
    assert [data["state"] for _, kind, data in events if kind == "state"][-1] == "done"
    assert {"code": "model", "text": "model nano (as asked)"} in [data for _, kind, data in events if kind == "note"]
    job = client.get(f"/v1/jobs/{job['id']}").json()
    assert (job["frames"], job["frames_expected"], job["state"], job["error"]) == (20, 20, "done", None)
    assert job["result"]["width"] == 128
    answer = client.get(job["result"]["url"])
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''a%20film.mp4"
    assert hashlib.sha256(answer.content).hexdigest() == job["result"]["sha256"]
    (tmp_path / "out.mp4").write_bytes(answer.content)
    assert frames_of(tmp_path / "out.mp4") == frames_of(enhanced(video, OPTIONS))
    assert [each["id"] for each in client.get("/v1/jobs").json()] == [job["id"]]
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert not list((tmp_path / "state" / "jobs").iterdir())
    assert not list((tmp_path / "state" / "incoming").iterdir())


def test_events_go_on_after_the_last_one_that_is_known(client: Any, video: Path) -> None:
    job_id = _send(client, video, preview_seconds="0.2")["id"]
    numbers = [number for number, _, _ in _events(client, job_id) if number]
    assert numbers == sorted(set(numbers))
    again = _events(client, job_id, **{"Last-Event-ID": str(numbers[1])})
    assert [number for number, _, _ in again if number] == numbers[2:]


def test_ranges_of_the_result(client: Any, video: Path) -> None:
    job_id = _send(client, video, preview_seconds="0.2")["id"]
    _wait(client, job_id, "done")
    url = f"/v1/jobs/{job_id}/result"
    whole = client.get(url)
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    rest = client.get(url, headers={"Range": "bytes=500-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[500:])
    other = client.get(url, headers={"Range": "bytes=500-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert client.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert client.head(url).status_code in (200, 405)


def _watch(client: Any, job_id: str, folder: Path) -> str:
    """Save an HLS stream to a folder; return its playlist."""
    text = str(client.get(f"/v1/jobs/{job_id}/stream.m3u8").text)
    (folder / "segments").mkdir(parents=True)
    (folder / "stream.m3u8").write_text(text)
    names = [line for line in text.splitlines() if line.startswith("segments/")] + ["segments/init.mp4"]
    for name in names:
        answer = client.get(f"/v1/jobs/{job_id}/{name}")
        assert answer.status_code == 200, answer.text
        (folder / name).write_bytes(answer.content)
    return text


def test_finished_segments_can_be_watched(client: Any, video: Path, tmp_path: Path, gate: Gate) -> None:
    gate.num_frames = 18
    job_id = _send(client, video, options=json.dumps(OPTIONS | {"preset": "veryfast"}))["id"]  # with B-frames
    gate.wait()
    until(lambda: client.get(f"/v1/jobs/{job_id}/stream.m3u8").text.count("#EXTINF") == 2)
    text = _watch(client, job_id, tmp_path / "meanwhile")
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in text and "#EXT-X-ENDLIST" not in text
    gate.open()
    _wait(client, job_id, "done")
    later = _watch(client, job_id, tmp_path / "later")
    assert later.count("#EXTINF") == 3 and "#EXT-X-ENDLIST" in later
    (tmp_path / "out.mp4").write_bytes(client.get(f"/v1/jobs/{job_id}/result").content)
    expected = frames_of(tmp_path / "out.mp4")
    for folder, num_frames in (("meanwhile", 16), ("later", 20)):
        with (tmp_path / folder / "stream.m3u8").open("a") as file:
            file.write("#EXT-X-ENDLIST\n")  # or FFmpeg would wait for more
        found = frames_of(tmp_path / folder / "stream.m3u8")
        assert found == expected[:num_frames]  # from time zero on
    assert client.get(f"/v1/jobs/{job_id}/segments/000003.m4s").status_code == 404


@pytest.mark.parametrize(
    ("name", "encoder", "has_sound"),
    [
        ("in.mp4", "aac", True),
        ("in.mkv", "libopus", True),
        ("in.ts", "aac", False),  # has the header of its sound in the packets
        ("in.mkv", "pcm_s16le", False),
    ],
)
def test_sound_is_heard_while_the_job_is_computed(
    client: Any, tmp_path: Path, name: str, encoder: str, has_sound: bool
) -> None:
    video = write_video(tmp_path / name, 20, sound=encoder)
    options = {"preset": "veryfast", "container": "mkv", "start_seconds": 0.2}
    job_id = _send(client, video, options=json.dumps(OPTIONS | options))["id"]
    _wait(client, job_id, "done")
    assert _watch(client, job_id, tmp_path / "stream").count("#EXTINF") == 2
    (tmp_path / "out.mkv").write_bytes(client.get(f"/v1/jobs/{job_id}/result").content)
    frames, expected = frames_of(tmp_path / "stream" / "stream.m3u8"), frames_of(tmp_path / "out.mkv")
    assert [digest for _, digest in frames] == [digest for _, digest in expected]
    assert frames[0][0] == 0
    sound = sound_of(tmp_path / "stream" / "stream.m3u8")
    assert bool(sound) is has_sound
    end = len(frames) / 25
    if has_sound:
        first = expected[0][0]
        wanted = [(time - first, data) for time, data in sound_of(tmp_path / "out.mkv") if first <= time < first + end]
        assert [data for _, data in sound] == [data for _, data in wanted]
        assert [time for time, _ in sound] == pytest.approx([time for time, _ in wanted], abs=0.002)


def test_nothing_to_watch_yet(client: Any, video: Path, gate: Gate) -> None:
    gate.num_frames = 2
    job = _send(client, video)
    gate.wait()
    answer = client.get(f"/v1/jobs/{job['id']}/stream.m3u8")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "2")
    assert client.get(f"/v1/jobs/{job['id']}/result").status_code == 409
    gate.open()


def test_paused_resumed_and_cancelled(client: Any, video: Path, gate: Gate) -> None:
    gate.num_frames = 2
    first, second = _send(client, video)["id"], _send(client, video)["id"]
    gate.wait()
    assert client.post(f"/v1/jobs/{first}/pause").json()["state"] == "pausing"
    assert client.post(f"/v1/jobs/{first}/resume").json()["state"] == "running"
    assert client.post(f"/v1/jobs/{second}/pause").json()["state"] == "paused"
    assert client.post(f"/v1/jobs/{second}/resume").json()["state"] == "queued"
    assert client.post(f"/v1/jobs/{second}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{second}/resume").status_code == 409
    gate.open()
    _wait(client, first, "done")
    refused = client.post(f"/v1/jobs/{first}/cancel").json()
    assert refused == {"code": "state", "message": "a job that is done cannot be cancelled"}
    assert client.post("/v1/jobs/unknown/cancel").status_code == 404


def test_jobs_are_counted(client: Any, video: Path, gate: Gate) -> None:
    gate.num_frames = 2
    _send(client, video)
    gate.wait()
    _send(client, video)
    text = client.get("/metrics").text
    assert 'vsr_jobs{state="running"} 1.0' in text and 'vsr_jobs{state="queued"} 1.0' in text
    assert "vsr_stored_bytes" in text and "vsr_job_frames_per_second" in text
    gate.open()


def test_a_disk_that_fills_up(client: Any, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*values: Any, **names: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.link", full)  # which has a copy made
    monkeypatch.setattr("shutil.copyfileobj", full)
    with video.open("rb") as file:
        answer = client.post("/v1/jobs", files={"video": file})
    assert (answer.status_code, answer.json()["code"]) == (413, "no_room"), answer.text
    assert answer.headers["retry-after"] == "600"
    assert not list((tmp_path / "state" / "jobs").iterdir())


# -- where a video comes from --------------------------------------------------------------------------


def test_a_path_under_a_root(make_client: Callable[..., Any], tmp_path: Path) -> None:
    root = tmp_path / "videos"
    (root / "holiday").mkdir(parents=True)
    path = write_video(root / "holiday" / "beach.mp4", 6)
    client = make_client(roots=(root,))
    for name in ("holiday/beach.mp4", str(path)):
        job = client.post("/v1/jobs", json={"path": name, "options": OPTIONS, "preview_seconds": 0.1})
        assert (job.status_code, job.json()["name"]) == (201, "beach.mp4"), job.text
        assert str(tmp_path) not in job.text
        assert _wait(client, job.json()["id"], "done")["frames"] > 0
        again = client.post("/v1/jobs", json={"job": job.json()["id"], "options": OPTIONS})
        assert again.json()["name"] == "beach.mp4"
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../secret.mp4", 403),
        ("holiday/../../secret.mp4", 403),
        ("SECRET", 403),
        ("/etc/passwd", 403),
        ("link.mp4", 404),
        ("linked/secret.mp4", 404),
        ("pipe.mp4", 404),
        ("holiday", 404),
        ("missing.mp4", 404),
        ("", 403),
        ("a\0b", 403),
    ],
)
def test_a_path_out_of_the_root(make_client: Callable[..., Any], tmp_path: Path, name: str, status: int) -> None:
    root = tmp_path / "videos"
    (root / "holiday").mkdir(parents=True)
    secret = write_video(tmp_path / "secret.mp4", 6)
    (root / "link.mp4").symlink_to(secret)
    (root / "linked").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(root / "pipe.mp4")
    client = make_client(roots=(root,))
    answer = client.post("/v1/jobs", json={"path": str(secret) if name == "SECRET" else name})
    assert answer.status_code == status, answer.text
    assert str(tmp_path) not in answer.text
    assert not list((tmp_path / "state").glob("jobs/*"))


def test_no_paths_without_roots(client: Any, video: Path) -> None:
    assert client.post("/v1/jobs", json={"path": str(video)}).status_code == 403


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "one of upload, path and job"),
        ({"upload": "a", "path": "b"}, "one of upload, path and job"),
        ({"upload": "a", "other": 1}, "other"),
        ({"upload": "a", "options": {"report": "/tmp/x"}}, "options.report"),
        ({"upload": "a", "options": {"scale": 99}}, "options.scale"),
        ({"upload": "a", "preview_seconds": 0}, "preview_seconds"),
        ([], "valid"),
    ],
)
def test_requests_that_do_not_fit(client: Any, body: Any, word: str) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 400
    assert word in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"", "multipart/form-data"),
        (b"nothing", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="video"\r\n\r\nabc', "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n', "multipart/form-data; boundary=x"),
    ],
)
def test_bodies_that_are_broken(client: Any, content: bytes, kind: str, tmp_path: Path) -> None:
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text
    assert not list((tmp_path / "state").glob("jobs/*")) + list((tmp_path / "state" / "incoming").iterdir())


# -- limits --------------------------------------------------------------------------------------------


def test_frames_that_are_too_large(make_client: Callable[..., Any], video: Path) -> None:
    client = make_client(limits=Limits(video_pixels=32 * 24 - 1))
    with video.open("rb") as file:
        answer = client.post("/v1/jobs", files={"video": file})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_options_that_cannot_be_read_or_ask_for_too_much(client: Any, video: Path) -> None:
    with video.open("rb") as file:
        answer = client.post("/v1/jobs", files={"video": file}, data={"options": '{"size": "99999x99999"}'})
    assert (answer.status_code, answer.json()["code"]) == (400, "option")
    with video.open("rb") as file:
        answer = client.post("/v1/jobs", files={"video": file}, data={"options": "{"})
    assert (answer.status_code, answer.json()["message"]) == (400, "the field 'options' is not JSON")


def test_a_video_that_goes_on_beyond_its_header(make_client: Callable[..., Any], tmp_path: Path) -> None:
    """A stream without a length in its header is stopped at the limit."""
    source = write_video(tmp_path / "in.mkv", 30)
    path = tmp_path / "live.mkv"
    with av.open(str(source)) as inp, av.open(str(path), "w", format="matroska", options={"live": "1"}) as out:
        stream = out.add_stream_from_template(inp.streams.video[0])
        for packet in inp.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    client = make_client(limits=Limits(video_frames=12))
    job = _wait(client, _send(client, path)["id"], "failed")
    assert job["error"]["code"] == "too_large"
    assert job["frames"] < 30


# -- resumable uploads ---------------------------------------------------------------------------------

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = TUS | {"Content-Type": "application/offset+octet-stream"}


def _begin(client: Any, length: int, **headers: str) -> str:
    answer = client.post("/v1/uploads", headers=TUS | {"Upload-Length": str(length)} | headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["upload-expires"].endswith("GMT")
    return str(answer.headers["location"])


def test_an_upload_in_parts_becomes_a_job(client: Any, video: Path) -> None:
    data = video.read_bytes()
    name = base64.b64encode("große Fahrt.mp4".encode()).decode()
    url = _begin(client, len(data), **{"Upload-Metadata": f"filename {name}"})
    upload_id = url.rsplit("/", 1)[1]
    half = len(data) // 2
    answer = client.patch(url, content=data[:half], headers=CHUNK | {"Upload-Offset": "0"})
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(half))
    early = client.post("/v1/jobs", json={"upload": upload_id})
    assert (early.status_code, early.json()["code"]) == (409, "incomplete")
    head = client.head(url, headers=TUS)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == (str(half), str(len(data)))
    assert head.headers["cache-control"] == "no-store"
    wrong = client.patch(url, content=data, headers=CHUNK | {"Upload-Offset": "0"})
    assert wrong.status_code == 409
    assert client.patch(url, content=data[half:], headers=CHUNK | {"Upload-Offset": str(half)}).status_code == 204
    for seconds in (0.1, 0.2):  # an upload may become several jobs
        given = {"upload": upload_id, "options": OPTIONS, "preview_seconds": seconds}
        job = client.post("/v1/jobs", json=given)
        assert (job.status_code, job.json()["name"]) == (201, "große Fahrt.mp4")
        _wait(client, job.json()["id"], "done")
    assert client.delete(url, headers=TUS).status_code == 204
    assert client.head(url, headers=TUS).status_code == 404


def test_an_upload_begins_with_its_first_bytes(client: Any, tmp_path: Path) -> None:
    digest = base64.b64encode(hashlib.sha256(b"01234").digest()).decode()
    headers = CHUNK | {"Upload-Length": "10", "Upload-Checksum": f"sha256 {digest}"}
    answer = client.post("/v1/uploads", content=b"01234", headers=headers)
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "5")
    url = answer.headers["location"]
    answer = client.patch(url, content=b"56789", headers=CHUNK | {"Upload-Offset": "5"})
    assert answer.headers["upload-offset"] == "10"
    assert client.delete(url, headers=TUS).status_code == 204
    for content, status in ((b"0", 460), (b"x" * 11, 413)):
        assert client.post("/v1/uploads", content=content, headers=headers).status_code == status
    assert not list((tmp_path / "state" / "uploads").iterdir())


def test_a_checksum_that_is_wrong_takes_nothing(client: Any) -> None:
    url, data = _begin(client, 10), b"0123456789"
    digest = base64.b64encode(hashlib.sha1(data).digest()).decode()
    headers = CHUNK | {"Upload-Offset": "0", "Upload-Checksum": f"sha1 {digest}"}
    assert client.patch(url, content=b"0123456780", headers=headers).status_code == 460
    assert client.head(url, headers=TUS).headers["upload-offset"] == "0"
    assert client.patch(url, content=data, headers=headers).status_code == 204
    assert client.head(url, headers=TUS).headers["upload-offset"] == "10"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "10"}, 412),
        (TUS, 400),
        (TUS | {"Upload-Length": "-1"}, 400),
        (TUS | {"Upload-Length": "x"}, 400),
        (TUS | {"Upload-Length": str(2**50)}, 413),
        (TUS | {"Upload-Length": "10", "Upload-Metadata": "filename !!!"}, 400),
    ],
)
def test_uploads_that_are_refused(client: Any, headers: dict[str, str], status: int, tmp_path: Path) -> None:
    assert client.post("/v1/uploads", headers=headers).status_code == status
    assert not list((tmp_path / "state" / "uploads").iterdir())


def test_more_bytes_than_promised(client: Any) -> None:
    url = _begin(client, 10)
    answer = client.patch(url, content=b"x" * 11, headers=CHUNK | {"Upload-Offset": "0"})
    assert answer.status_code == 413
    assert client.head(url, headers=TUS).headers["upload-offset"] == "0"
    text = client.patch(url, content=b"x", headers=TUS | {"Upload-Offset": "0", "Content-Type": "text/plain"})
    assert text.status_code == 415


def test_what_the_service_does_of_tus(client: Any) -> None:
    headers = client.options("/v1/uploads").headers
    assert headers["tus-version"] == "1.0.0"
    extensions = {"creation", "creation-with-upload", "termination", "checksum", "expiration"}
    assert set(headers["tus-extension"].split(",")) == extensions
    assert int(headers["tus-max-size"]) == Limits().upload_bytes


def test_too_many_uploads(make_client: Callable[..., Any]) -> None:
    client = make_client(limits=Limits(jobs=1))
    for _ in range(4):
        _begin(client, 1)
    answer = client.post("/v1/uploads", headers=TUS | {"Upload-Length": "1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "600")
