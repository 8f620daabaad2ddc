"""Load a service on this machine with images, and compare every answer with `vsr.upscale_image`.

    python benchmarks/serve.py [--model fast] [--requests 200]

Starts `vsr serve` three times: as it is, with batches of one image, and with room for 20 images alone. Sends 200
requests at a time, of nine sizes; one of these is computed in tiles. Writes benchmarks/serve.json and prints a table.
Exit code 1 where an answer is lost or wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import httpx
import numpy as np
from machine import describe_run

import vsr
from vsr.media.images import decode_image, encode_image
from vsr.pipeline.loading import load_model
from vsr.serve.image_queue import TILE

HERE = Path(__file__).parent
SIZES = ((32, 24), (40, 40), (64, 48), (64, 48), (64, 48), (96, 64), (120, 90), (160, 120), (700, 440))  # width, height
SMALL = ((64, 48),)
PNG = Path("x.png")


@dataclass(frozen=True, slots=True)
class Case:
    """An image to send, and the pixels that must come back."""

    data: bytes
    expected: np.ndarray


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs: its address, its process, and the folder of its state."""

    url: str
    pid: int
    state: Path

    def peak_memory_mib(self) -> int:
        """Read the most memory that the process has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024


@contextmanager
def service(model: str, *limits: str, root: Path | None = None) -> Iterator[Service]:
    """Run `vsr serve` for the length of a block, from when it is ready. root: folder whose files jobs may name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "vsr.cli", "serve", "--port", str(port), "--state", state, "--model", model]
        command += ["--backend", "openvino", *(word for limit in limits for word in ("--limit", limit))]
        command += [] if root is None else ["--root", str(root)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                _wait_until_ready(url, process)
                yield Service(url, process.pid, Path(state))
            finally:
                process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service ended before it was ready")


def make_cases(model: str, sizes: tuple[tuple[int, int], ...], count: int) -> list[Case]:
    """Make images of noise over gradients, and upscale them by `vsr.upscale_image`."""
    whole, tiled = (load_model(model, backend="openvino", tile=tile) for tile in (None, TILE))
    cases = []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        image = np.random.default_rng(number).integers(0, 80, (height, width, 3)).astype(np.uint8)
        image += np.linspace(0, 160, width, dtype=np.uint8)[None, :, None]
        upscaler = tiled if width * height > 300_000 else whole
        cases.append(Case(encode_image(image, PNG), vsr.upscale_image(image, upscaler)))
    return cases


async def send(url: str, cases: list[Case], at_once: int) -> tuple[Counter[str], float]:
    """Send all images, so many at a time; count the answers by kind, and measure the seconds of it all."""
    gate, found = asyncio.Semaphore(at_once), Counter[str]()
    limits = httpx.Limits(max_connections=at_once)

    async def one(client: httpx.AsyncClient, case: Case) -> None:
        async with gate:
            answer = await client.post(f"{url}/model/predict", files={"image": ("x.png", case.data, "image/png")})
        found[_kind(answer, case)] += 1

    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        began = time.perf_counter()
        await asyncio.gather(*(one(client, case) for case in cases))
        return found, time.perf_counter() - began


def _kind(answer: httpx.Response, case: Case) -> str:
    if answer.status_code == 503:
        return "busy" if int(answer.headers.get("Retry-After", 0)) >= 1 else "busy without Retry-After"
    if answer.status_code != 200:
        return f"status {answer.status_code}"
    pixels = decode_image(np.frombuffer(answer.content, np.uint8), PNG)
    return "right" if np.array_equal(pixels, case.expected) else "wrong"


def measure(model: str, count: int) -> dict[str, Any]:
    """Run all loads."""
    mixed, small = make_cases(model, SIZES, count), make_cases(model, SMALL, count)
    rows: dict[str, Any] = {}
    with service(model) as batched, service(model, "batch_images=1") as single:
        for each in (batched, single):
            asyncio.run(send(each.url, small[:8], 1))  # the first takes longer
        found, seconds = asyncio.run(send(batched.url, mixed, count))
        rows["mixed sizes, all at once"] = _row(found, count / seconds, batched)
        loads = (("batches", batched, count), ("no batches", single, count), ("one at a time", batched, 1))
        rates: dict[str, list[float]] = {name: [] for name, _, _ in loads}
        for _ in range(3):  # in turns, as the machine may be busy otherwise
            for name, each, at_once in loads:
                found, seconds = asyncio.run(send(each.url, small, at_once))
                rates[name].append(count / seconds)
                rows[f"64×48, {name}"] = _row(found, max(rates[name]), each)
        sizes = httpx.get(f"{batched.url}/metrics").text
    with service(model, "queued_images=20") as bounded:
        found, seconds = asyncio.run(send(bounded.url, mixed, count))
        rows["mixed sizes, room for 20"] = _row(found, found["right"] / seconds, bounded)
    sums = {line.split()[0]: float(line.split()[1]) for line in sizes.splitlines() if line.startswith("vsr_batch")}
    mean = sums["vsr_batch_images_sum"] / sums["vsr_batch_images_count"]
    return {"rows": rows, "images_per_batch": round(mean, 2)}


def _row(found: Counter[str], rate: float, each: Service) -> dict[str, Any]:
    return {"answers": dict(found), "images_per_second": round(rate, 1), "peak_memory_mib": each.peak_memory_mib()}


def table(rows: dict[str, Any]) -> str:
    """Write the rows as a table in Markdown."""
    lines = ["| load | right | 503 | wrong or lost | images a second | peak memory |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        answers = row["answers"]
        right, busy = answers.get("right", 0), answers.get("busy", 0)
        rest = sum(answers.values()) - right - busy
        cells = (name, right, busy, rest, f"{row['images_per_second']:.1f}", f"{row['peak_memory_mib']} MiB")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


@click.command()
@click.option("--model", default="fast", show_default=True)
@click.option("--requests", "count", default=200, show_default=True, type=click.IntRange(9))
def main(model: str, count: int) -> None:
    """Load a service, and write benchmarks/serve.json."""
    results = {**describe_run(), "model": model, "requests": count, **measure(model, count)}
    (HERE / "serve.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
    click.echo(table(results["rows"]))
    rows = results["rows"]
    is_right = all(set(row["answers"]) <= {"right", "busy"} for row in rows.values())
    if not is_right or any("busy" in row["answers"] for name, row in rows.items() if "room" not in name):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
