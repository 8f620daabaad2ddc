"""Compare the peak memory of a long job with that of a short one: it must not grow with the length of the video.

    python benchmarks/memory.py [--short 300] [--long 3000] [--rounds 3] [--model auto] [--backend openvino]

Makes two clips of the same image size from the sample, runs `vsr enhance` on them in turn, and compares
the peak resident memory of the processes, as the operating system counts it. Goal: within 5 %. Without a backend, a
machine's first long job measures all of them, and its peak is theirs together.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import click
from machine import describe_run

HERE = Path(__file__).parent
WIDTH, HEIGHT = 160, 90


def make_clip(path: Path, num_frames: int) -> None:
    """Make a clip of the sample's frames, reduced and repeated, with a stereo track."""
    with av.open(str(HERE.parent / "samples" / "sample.mp4")) as source:
        frames = [f.reformat(WIDTH, HEIGHT, "yuv420p") for f in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = target.add_stream("aac", rate=48000)
        sound = av.AudioFrame("fltp", "stereo", 1600)  # one thirtieth of a second
        sound.sample_rate = 48000
        for plane in sound.planes:
            plane.update(bytes(plane.buffer_size))
        for index in range(num_frames):
            frame = frames[index % len(frames)]
            frame.pts, frame.time_base, frame.pict_type = index, 1 / stream.codec_context.framerate, 0
            target.mux(stream.encode(frame))
            sound.pts = index * 1600
            target.mux(audio.encode(sound))
        target.mux(stream.encode(None))
        target.mux(audio.encode(None))


def peak_mib(clip: Path, output: Path, model: str, backend: str) -> float:
    """Measure the peak resident memory in MiB of a process that enhances the clip."""
    command = [sys.executable, "-m", "vsr.cli", "enhance", str(clip), str(output), "-y", "--quiet", "--model", model]
    process = subprocess.Popen([*command, "--backend", backend, "--preset", "ultrafast"])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException(f"vsr enhance failed on {clip.name}")
    return usage.ru_maxrss / 1024


@click.command()
@click.option("--short", "short_frames", default=300)
@click.option("--long", "long_frames", default=3000)
@click.option("--rounds", default=3)
@click.option("--model", default="auto")
@click.option("--backend", default="auto")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "memory.json")
def main(short_frames: int, long_frames: int, rounds: int, model: str, backend: str, out: Path) -> None:
    peaks: dict[int, list[float]] = {short_frames: [], long_frames: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for num_frames in peaks:
            make_clip(folder / f"{num_frames}.mp4", num_frames)
        for _ in range(rounds):
            for num_frames, values in peaks.items():
                values.append(peak_mib(folder / f"{num_frames}.mp4", folder / "out.mp4", model, backend))
    short, long = (statistics.median(values) for values in peaks.values())
    result = {
        **describe_run(),
        "clip": f"{WIDTH}x{HEIGHT}, model {model} (x4), backend {backend}",
        "rounds": rounds,
        "peak_mib": {str(frames): [round(v, 1) for v in values] for frames, values in peaks.items()},
        "ratio_of_medians": round(long / short, 4),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
