"""Load a service with everything at once for some minutes: does its memory grow, or anything else that it holds?

    python benchmarks/soak.py [--minutes 10] [--seed 0]

Starts `vsr serve` with `nano` and keeps three clients busy: images of some sizes; videos that are uploaded in parts,
followed, watched as HLS, paused, resumed, cancelled, downloaded and deleted; and misuse: uploads that break off, files
that are no videos, watchers that go away. Results are kept for a minute, so that old ones are removed all the time.
Every two seconds the service's resident memory, threads, open files and bytes on the disk are read. A service at rest
between two loads must hold what it held after the first minute, within the noise of an allocator. Writes soak.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import click
import cv2
import httpx
import numpy as np
from machine import describe_run

HERE = Path(__file__).parent
TUS = {"Tus-Resumable": "1.0.0"}
KEEP_SECONDS = 60
WARM_UP = 0.25  # share of the time after which nothing may grow


@dataclass(frozen=True)
class Sample:
    """What the service holds. seconds: since the start; memory_mb: resident; disk_kb: of its state."""

    seconds: float
    memory_mb: float
    threads: int
    files: int
    disk_kb: float


class Load:
    """Clients of a service, each in a thread, until they are told to end."""

    def __init__(self, url: str, seed: int) -> None:
        self.url, self.seed, self.is_over = url, seed, threading.Event()
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.videos = [make_video(frames, size) for frames, size in ((12, (48, 32)), (50, (64, 48)), (120, (32, 32)))]

    def run(self, name: str) -> None:
        """Do one kind of work again and again."""
        chance = random.Random(f"{self.seed} {name}")
        work = {"image": self.image, "video": self.video, "misuse": self.misuse}[name]
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while not self.is_over.is_set():
                try:
                    work(client, chance)
                except (httpx.HTTPError, AssertionError) as error:
                    self.errors[f"{name}: {type(error).__name__} {error}"[:120]] += 1
                time.sleep(chance.uniform(0, 0.2))

    def image(self, client: httpx.Client, chance: random.Random) -> None:
        side = chance.choice((24, 32, 48, 64))
        pixels = np.random.default_rng(side).integers(0, 255, (side, side, 3), np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        answer = client.post("/model/predict", files={"image": ("x.png", data)})
        assert answer.status_code in (200, 503), answer.text
        self.done[f"image {answer.status_code}"] += 1

    def video(self, client: httpx.Client, chance: random.Random) -> None:
        data = chance.choice(self.videos)
        upload = client.post("/v1/uploads", headers=TUS | {"Upload-Length": str(len(data))}).headers["Location"]
        for start in range(0, len(data), 4096):
            self.send(client, upload, data[start : start + 4096], start)
        given = {"upload": upload.rsplit("/", 1)[1], "options": {"model": "nano", "preset": "ultrafast"}}
        if chance.random() < 0.3:
            given["preview_seconds"] = 0.2
        job = client.post("/v1/jobs", json=given).json()["id"]
        fate = chance.choice(("done", "done", "paused", "cancelled", "deleted", "left"))
        if fate == "cancelled":
            client.post(f"/v1/jobs/{job}/cancel")
        elif fate == "deleted":
            client.delete(f"/v1/jobs/{job}")
        elif fate == "paused":
            client.post(f"/v1/jobs/{job}/pause")
            client.post(f"/v1/jobs/{job}/resume")
        if fate in ("done", "paused"):
            self.follow(client, job)
            assert len(client.get(f"/v1/jobs/{job}/result").content) > 0
            assert client.get(f"/v1/jobs/{job}/stream.m3u8").status_code == 200
            assert client.get(f"/v1/jobs/{job}/segments/000000.m4s").status_code == 200
            client.delete(f"/v1/jobs/{job}")
        if chance.random() < 0.5:
            client.delete(upload, headers=TUS)
        self.done[f"video {fate}"] += 1

    def send(self, client: httpx.Client, upload: str, data: bytes, offset: int) -> None:
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        assert client.patch(upload, content=data, headers=TUS | headers).status_code == 204

    def follow(self, client: httpx.Client, job: str) -> None:
        with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
            for _ in answer.iter_lines():
                pass
        state = client.get(f"/v1/jobs/{job}").json()["state"]
        assert state == "done", state

    def misuse(self, client: httpx.Client, chance: random.Random) -> None:
        kind = chance.choice(("broken", "no video", "watcher", "no image", "no job"))
        if kind == "broken":
            upload = client.post("/v1/uploads", headers=TUS | {"Upload-Length": "1000"}).headers["Location"]
            host, port = self.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as connection:
                head = f"PATCH {upload} HTTP/1.1\r\nHost: {host}:{port}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                head += "Content-Type: application/offset+octet-stream\r\nContent-Length: 1000\r\n\r\n"
                connection.sendall(head.encode() + b"x" * 100)
        elif kind == "no video":
            assert client.post("/v1/jobs", files={"video": ("a.mp4", b"#EXTM3U\n" * 99)}).status_code == 415
        elif kind == "watcher":
            for job in client.get("/v1/jobs").json()[:3]:
                with client.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
                    next(answer.iter_lines(), None)
        elif kind == "no image":
            assert client.post("/model/predict", files={"image": ("a.png", b"PK" * 99)}).status_code == 400
        else:
            assert client.get("/v1/jobs/none").status_code == 404
        self.done[f"misuse {kind}"] += 1


def make_video(num_frames: int, size: tuple[int, int]) -> bytes:
    """Encode noise that moves."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width + num_frames, 3), np.uint8)
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for start in range(num_frames):
            pixels = np.ascontiguousarray(noise[:, start : start + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return data.getvalue()


def start_service(state: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the service and wait until it answers; return its process and address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "vsr.cli", "serve", "--port", str(port), "--state", str(state), "--model", "nano"]
    command += ["--device", "cpu", "--backend", "pytorch", "--threads", "1", "--keep-hours", str(KEEP_SECONDS / 3600)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    while True:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/health/live")
            return process, url
        if process.poll() is not None:
            raise SystemExit("the service has ended")
        time.sleep(0.1)


def read_sample(number: int, state: Path, began: float) -> Sample:
    """Read what a process holds."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines() if ":" in line)
    sizes = 0
    for folder, _, names in os.walk(state):  # which files leave meanwhile
        for name in names:
            with contextlib.suppress(OSError):
                sizes += Path(folder, name).stat().st_size
    return Sample(
        round(time.monotonic() - began, 1),
        round(int(status["VmRSS"].split()[0]) / 1024, 1),
        int(status["Threads"]),
        len(list(Path(f"/proc/{number}/fd").iterdir())),
        round(sizes / 1024, 1),
    )


def growth(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Compare the medians of the first and the last third of what came after the warm-up."""
    late = samples[round(len(samples) * WARM_UP) :]
    third = max(1, len(late) // 3)
    found = {}
    for name in ("memory_mb", "threads", "files", "disk_kb"):
        first, last = (float(np.median([getattr(s, name) for s in part])) for part in (late[:third], late[-third:]))
        found[name] = {"first_third": first, "last_third": last, "most": max(getattr(s, name) for s in late)}
    return found


@click.command()
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(minutes: float, seed: int) -> None:
    """Load a service, and write soak.json."""
    with tempfile.TemporaryDirectory(prefix="vsr-soak-") as folder:
        state = Path(folder, "state")
        process, url = start_service(state)
        load, samples, began = Load(url, seed), list[Sample](), time.monotonic()
        clients = [threading.Thread(target=load.run, args=(name,)) for name in ("image", "video", "misuse")]
        for client in clients:
            client.start()
        try:
            while time.monotonic() - began < 60 * minutes and process.poll() is None:
                samples.append(read_sample(process.pid, state, began))
                time.sleep(2)
        finally:
            load.is_over.set()
            for client in clients:
                client.join()
            has_lived = process.poll() is None
            process.send_signal(signal.SIGTERM)
            process.wait()
        jobs_left = [path.name for path in (state / "jobs").iterdir()] if (state / "jobs").is_dir() else []
    result = {
        **describe_run(),
        "minutes": minutes,
        "lived": has_lived,
        "jobs_left": len(jobs_left),
        "done": dict(sorted(load.done.items())),
        "errors": dict(load.errors),
        "growth": growth(samples),
        "samples": [asdict(sample) for sample in samples[:: max(1, len(samples) // 60)]],
    }
    (HERE / "soak.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps({name: value for name, value in result.items() if name != "samples"}, indent=1))


if __name__ == "__main__":
    main()
