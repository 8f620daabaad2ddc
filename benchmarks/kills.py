"""Kill a job at random moments and resume it: does it end as an unbroken one does?

    python benchmarks/kills.py [--kills 100] [--seed 0] [--model nano]
    python benchmarks/kills.py --model video-fast --width 96 --out benchmarks/kills-video-fast.json

Upscales the sample with a model, with `--resume`, in a process that gets SIGKILL after a random part of the time that
an unbroken job takes; one to three times, and then it is let run to its end. The output must decode to the same frames
as that of the unbroken job, with the same PTS and the same packets of sound, and nothing else may lie beside it.
`--width` takes the sample twice, at that width: for slow networks, and with frames on both sides of a restart of their
memory.
Segments are cut shorter than they are by default, so that there are many moments to be killed at. The processes are
forked with everything imported, so that kills fall into the job and not into Python's start. Writes kills.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import click
import torch
from machine import describe_run

from vsr.api import enhance
from vsr.jobs import resume
from vsr.jobs.journal import work_folder

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "samples" / "sample.mp4"
FRAMES_PER_SEGMENT = 12
# What "auto" takes is measured: a job that is killed before its first segment begins anew, perhaps on another engine.
ENGINE: dict[str, Any] = {"backend": "pytorch", "precision": "fp32"}


def reduced_twice(target: Path, width: int) -> Path:
    """Write the sample's frames twice, one after the other, at a width; its sound once."""
    with av.open(str(SAMPLE)) as source, av.open(str(target), "w") as container:
        video, sound = source.streams.video[0], source.streams.audio[0]
        stream, copied = container.add_stream("libx264", 30), container.add_stream_from_template(sound)
        stream.width, stream.height, stream.pix_fmt = width, width * video.height // video.width // 2 * 2, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 30)
        frames = [frame.reformat(stream.width, stream.height) for frame in source.decode(video)]
        for number, frame in enumerate([*frames, *frames]):
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, 30), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        source.seek(0)
        for packet in source.demux(sound):
            if packet.size:
                packet.stream = copied
                container.mux(packet)
    return target


def start(source: Path, output: Path, model: str) -> int:
    """Start the job in a process of its own; return its number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        enhance(source, output, model=model, resume=True, preset="veryfast", batch=4, **ENGINE)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def contents(path: Path) -> list[str]:
    """List a line for every decoded frame, with its PTS, and for every packet of sound."""
    lines = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.stream.type == "video":
                for frame in packet.decode():
                    lines.append(f"{frame.pts} {hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()}")
            elif packet.size:
                lines.append(f"sound {packet.pts} {hashlib.sha256(bytes(packet)).hexdigest()}")
    return sorted(lines)


def stage(output: Path) -> str:
    """Tell the progress of a killed job."""
    folder = work_folder(output)
    if not folder.exists():
        return "output in place" if output.exists() else "before its first frame"
    if output.exists():
        return "clearing away"
    if any(path.name.startswith("joined") for path in folder.iterdir()):
        return "joining"
    return f"{sum(path.suffix == '.mkv' and path.name[0] != '.' for path in folder.iterdir())} segments"


def killed_and_finished(
    begin: Callable[[], int], output: Path, longest_seconds: float, num_kills: int, moments: random.Random
) -> list[str]:
    """Kill a job, let it finish, and list its progress at each kill.

    begin: starts the job that makes `output`, and returns the number of its process.
    """
    stages = []
    for _ in range(num_kills):
        if output.exists() and not work_folder(output).exists():
            break
        process = begin()
        time.sleep(moments.uniform(0, longest_seconds))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            stages.append(stage(output))
    if not output.exists() or work_folder(output).exists():
        _, status = os.waitpid(begin(), 0)
        if status:
            raise click.ClickException("the job that was to go on failed")
    return stages


@click.command()
@click.option("--kills", type=click.IntRange(1), default=100)
@click.option("--seed", default=0)
@click.option("--model", default="nano")
@click.option("--width", type=click.IntRange(32), help="Of the frames to upscale; the sample as it is unless given.")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "kills.json")
def main(kills: int, seed: int, model: str, width: int | None, out: Path) -> None:
    torch.set_num_threads(1)
    resume._FEWEST_FRAMES = resume._MOST_FRAMES = FRAMES_PER_SEGMENT  # type: ignore[misc]
    moments, stages, different, num_jobs = random.Random(seed), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = reduced_twice(folder / "small.mp4", width) if width else SAMPLE
        begun = time.monotonic()
        os.waitpid(start(source, folder / "whole.mp4", model), 0)
        seconds = time.monotonic() - begun
        expected = contents(folder / "whole.mp4")
        while stages.total() < kills:
            output = folder / "job" / "out.mp4"
            output.parent.mkdir()
            wanted = min(moments.randint(1, 3), kills - stages.total())
            stages.update(killed_and_finished(partial(start, source, output, model), output, seconds, wanted, moments))
            num_jobs += 1
            found, left = contents(output), [path.name for path in output.parent.iterdir() if path != output]
            if found != expected or left:
                different += 1
                num_lines = len({*found} ^ {*expected}) // 2
                click.echo(f"job {num_jobs}: {num_lines} frames or packets differ; left behind: {left}", err=True)
            shutil.rmtree(output.parent)
            click.echo(f"\r{stages.total()} kills", nl=False, err=True)
    clip = f"{SAMPLE.name} twice, {width} wide" if width else SAMPLE.name
    result = {
        **describe_run(),
        "job": f"{clip}, {model}, {FRAMES_PER_SEGMENT} frames a segment, {seconds:.1f} s unbroken",
        "frames": sum(not line.startswith("sound") for line in expected),
        "kills": stages.total(),
        "jobs": num_jobs,
        "jobs_that_ended_otherwise": different,
        "killed_at": dict(sorted(stages.items())),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    click.echo(json.dumps(result, indent=1))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
