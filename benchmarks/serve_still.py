"""Time one image of 500×500 pixels through a service, from the request to the PNG of its answer.

    python benchmarks/serve_still.py [--model edsr] [--rounds 3]

Starts `vsr serve` with the model on OpenVINO. The first image has a line of its own: it is checked against fp32 too.
Takes Set14's barbara from VSR_DATA. Writes benchmarks/serve_still.json. Exit code 1 where the median exceeds the 15
seconds that were promised.
"""

from __future__ import annotations

import json
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import httpx
from machine import describe_run
from serve import HERE, PNG, service

from vsr.media.images import encode_image, read_image
from vsr.quality.data_folder import data_folder

PROMISED_SECONDS = 15.0
SIDE = 500  # pixels


@click.command()
@click.option("--model", default="edsr", show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(model: str, rounds: int) -> None:
    """Time one image through a service."""
    image = read_image(data_folder() / "test" / "Set14" / "Set14_002.webp")[:SIDE, :SIDE]
    data = encode_image(image, PNG)
    with service(model) as running:
        first, *seconds = (_timed(running.url, data) for _ in range(1 + rounds))
        memory = running.peak_memory_mib()
    report = describe_run() | {
        "model": model,
        "load_average": os.getloadavg()[0],
        "first_seconds": round(first, 2),
        "seconds": [round(each, 2) for each in seconds],
        "median_seconds": round(statistics.median(seconds), 2),
        "peak_memory_mib": memory,
    }
    (HERE / "serve_still.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    if statistics.median(seconds) > PROMISED_SECONDS:
        raise SystemExit(1)


def _timed(url: str, data: bytes) -> float:
    began = time.perf_counter()
    answer = httpx.post(f"{url}/model/predict", files={"image": ("x.png", data, "image/png")}, timeout=600)
    answer.raise_for_status()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
