"""Kill a service again and again while it is at a video job: does the job end as an unbroken one does?

    python benchmarks/serve_kills.py [--kills 10] [--seed 0]

Starts `vsr serve`, sends it a video, and sends the service SIGKILL once the job has a random number of frames; then
starts it anew, until it was killed so often, and lets it end. The result must have the frames, times and
sound of the unbroken job, and nothing else may lie beside it. An upload that the first kill breaks off must go on where
it was. Segments are cut shorter than they are by default, so that there are many moments to be killed at. Writes
serve_kills.json; exit code 1 where something differs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import av
import click
import httpx
import numpy as np
import uvicorn  # noqa: F401 (the service's own imports, which each of its processes then has)
from machine import describe_run

import vsr.cli
import vsr.serve.app
import vsr.serve.page.mount
from vsr.jobs import resume

HERE = Path(__file__).parent
OPTIONS = {"model": "nano", "batch": 2, "preset": "ultrafast"}
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
FRAMES_PER_SEGMENT = 16


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs, in a process that is forked with everything imported."""

    process: int
    url: str

    @classmethod
    def start(cls, state: Path) -> Service:
        """Start `vsr serve` on a state folder, and wait until it answers."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        process = os.fork()
        if process == 0:
            _serve(state, port)
        url = f"http://127.0.0.1:{port}"
        while os.waitpid(process, os.WNOHANG) == (0, 0):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{url}/health/live")
                return cls(process, url)
            time.sleep(0.05)
        raise SystemExit(f"the service has ended: {(state.parent / 'log').read_text()}")

    def kill(self) -> None:
        """End it with no time to clear up."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    def job(self, job_id: str) -> dict[str, Any]:
        """Ask for a job."""
        return dict(httpx.get(f"{self.url}/v1/jobs/{job_id}", timeout=60).json())

    def send(self, video: Path) -> str:
        """Send a video; return the job's id."""
        with video.open("rb") as file:
            data = {"options": json.dumps(OPTIONS)}
            return str(httpx.post(f"{self.url}/v1/jobs", files={"video": file}, data=data, timeout=60).json()["id"])

    def wait(self, job_id: str, num_frames: int) -> dict[str, Any]:
        """Wait until a job has so many frames, or is over; return it."""
        while True:
            job = self.job(job_id)
            if job["frames"] >= num_frames or job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)


def _serve(state: Path, port: int) -> NoReturn:
    """Be the service."""
    log = os.open(state.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    resume._FEWEST_FRAMES = resume._MOST_FRAMES = FRAMES_PER_SEGMENT
    words = ["vsr", "serve", "--port", str(port), "--state", str(state), "--model", "nano"]
    sys.argv = [*words, "--device", "cpu", "--backend", "pytorch", "--threads", "1"]
    try:
        vsr.cli.main()
    finally:
        os._exit(1)


def write_video(path: Path) -> Path:
    """Write 400 frames of a pattern that moves, and a tone."""
    width, height, count = 64, 48, 400
    noise = np.random.default_rng(0).integers(0, 255, (height, width + count, 3), np.uint8)
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=48000)
        video.width, video.height, video.pix_fmt, sound.layout = width, height, "yuv420p", "mono"
        for number in range(count * 48000 // 25 // 1024):
            times = np.arange(number * 1024, (number + 1) * 1024, dtype=np.float32)[None] / 48000
            tone = av.AudioFrame.from_ndarray(np.sin(times * 2764) / 4, format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48000, number * 1024
            out.mux(sound.encode(tone))
        for number in range(count):
            pixels = np.ascontiguousarray(noise[:, number : number + width])
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in (sound, video):
            out.mux(stream.encode())
    return path


def content_of(path: Path) -> str:
    """Return a checksum of a file's frames, their times, and its packets of sound."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(f"{frame.pts} {frame.time_base}".encode() + frame.to_ndarray().tobytes())
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            digest.update(f"{packet.pts}".encode() + bytes(packet))
    return digest.hexdigest()


def run(state: Path, video: Path, kills: list[int]) -> dict[str, Any]:
    """Run a job that is killed once it has so many frames, for each number; return how it ended."""
    service, at_work = Service.start(state), 0
    job_id = service.send(video)
    upload = httpx.post(f"{service.url}/v1/uploads", headers=TUS | {"Upload-Length": "10"}, content=b"0123").headers
    for num_frames in kills:
        job = service.wait(job_id, num_frames)
        at_work += job["state"] == "running"
        service.kill()
        service = Service.start(state)
    job = service.wait(job_id, 10**9)
    result = state.parent / f"{state.name}.mp4"
    result.write_bytes(httpx.get(service.url + job["result"]["url"], timeout=60).content)
    offset = httpx.head(service.url + upload["Location"], headers=TUS).headers["Upload-Offset"]
    service.kill()
    left = sorted(path.name for path in (state / "jobs" / job_id).iterdir())
    return {"kills_at_work": at_work, "state": job["state"], "frames": job["frames"], "upload_offset": offset,
            "files": left, "content": content_of(result)}  # fmt: skip


@click.command()
@click.option("--kills", "count", default=10, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(count: int, seed: int) -> None:
    """Kill a service, and write serve_kills.json."""
    with tempfile.TemporaryDirectory(prefix="vsr-kills-") as folder:
        video = write_video(Path(folder, "in.mp4"))
        unbroken = run(Path(folder, "unbroken"), video, [])
        chance = random.Random(seed)
        kills = sorted(chance.randrange(unbroken["frames"]) for _ in range(count))
        broken = run(Path(folder, "broken"), video, kills)
    same = all(broken[name] == unbroken[name] for name in ("state", "frames", "upload_offset", "files", "content"))
    result = {**describe_run(), "is_same": same, "kills_at_frames": kills, "unbroken": unbroken, "broken": broken}
    (HERE / "serve_kills.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps({name: result[name] for name in ("is_same", "unbroken", "broken")}, indent=1))
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
