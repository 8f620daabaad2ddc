"""Send many small frames through `ffmpeg | vsr | ffmpeg`: all must arrive, in order, in memory that does not grow.

    python benchmarks/pipe.py [--short 1000] [--long 10000]

ffmpeg's testsrc2 in y4m goes through `vsr enhance - -` with the `nano` model to a second ffmpeg, which writes the
checksum of every frame. They are compared with those of the same frames through a y4m file, and the peak resident
memory of vsr's process, as the operating system counts it, with that of a shorter run. Goal: within 5 %.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from machine import describe_run

HERE = Path(__file__).parent
SIZE = 32
VSR = [sys.executable, "-m", "vsr.cli", "enhance"]
OPTIONS = ["--model", "nano", "--backend", "pytorch", "--quiet"]  # of itself it takes the length into account


def make_frames(num_frames: int, output: str) -> list[str]:
    """Build the command that writes y4m, of frames that all differ, to a file or to stdout."""
    source = f"testsrc2=s={SIZE}x{SIZE}:r=25"
    numbered = "noise=alls=20:allf=t:all_seed=1"  # so that no two frames are alike
    end = ["-frames:v", str(num_frames), "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", output]
    return ["ffmpeg", "-v", "error", "-y", "-nostdin", "-f", "lavfi", "-i", source, "-vf", numbered, *end]


def checksums(source: str) -> list[str]:
    """Build the command that writes a checksum of every frame of a y4m to stdout."""
    return ["ffmpeg", "-v", "error", "-i", source, "-f", "framemd5", "-"]


def through_pipes(num_frames: int) -> tuple[list[str], float, float]:
    """Return the checksums of the frames that arrive, vsr's peak memory in MiB, and the wall seconds."""
    started = time.perf_counter()
    first = subprocess.Popen(make_frames(num_frames, "-"), stdout=subprocess.PIPE)
    vsr = subprocess.Popen([*VSR, "-", "-", *OPTIONS], stdin=first.stdout, stdout=subprocess.PIPE)
    last = subprocess.Popen(checksums("-"), stdin=vsr.stdout, stdout=subprocess.PIPE, text=True)
    for process in (first, vsr):
        assert process.stdout is not None
        process.stdout.close()  # theirs alone, so that each sees when its reader goes
    text, _ = last.communicate()
    _, status, usage = os.wait4(vsr.pid, 0)
    if status or first.wait() or last.returncode:
        raise click.ClickException(f"a process failed: ffmpeg {first.returncode}, vsr {status}, {last.returncode}")
    return _sums(text), usage.ru_maxrss / 1024, time.perf_counter() - started


def through_files(num_frames: int) -> list[str]:
    """Return the checksums of the frames that vsr writes to a file, reading from a file."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = f"{folder}/in.y4m", f"{folder}/out.y4m"
        subprocess.run(make_frames(num_frames, source), check=True)
        subprocess.run([*VSR, source, output, *OPTIONS], check=True)
        return _sums(subprocess.run(checksums(output), check=True, capture_output=True, text=True).stdout)


def _sums(text: str) -> list[str]:
    return [line.split(",")[-1].strip() for line in text.splitlines() if not line.startswith("#")]


@click.command()
@click.option("--short", "short_frames", default=1000)
@click.option("--long", "long_frames", default=10_000)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "pipe.json")
def main(short_frames: int, long_frames: int, out: Path) -> None:
    _, short_mib, _ = through_pipes(short_frames)
    sums, long_mib, seconds = through_pipes(long_frames)
    expected = through_files(long_frames)
    result = {
        **describe_run(),
        "frames_sent": f"{long_frames} of {SIZE}x{SIZE}, y4m, all different",
        "model": "nano (x4) on PyTorch",
        "frames_arrived": len(sums),
        "different_frames": len(set(sums)),
        "same_frames_in_the_same_order_as_through_files": sums == expected,
        "sha256_of_their_checksums": hashlib.sha256("\n".join(sums).encode()).hexdigest(),
        "frames_per_second": round(long_frames / seconds, 1),
        "peak_mib": {str(short_frames): round(short_mib, 1), str(long_frames): round(long_mib, 1)},
        "ratio_of_peaks": round(long_mib / short_mib, 4),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(json.dumps(result, indent=2))
    if sums != expected or len(sums) != long_frames:
        raise click.ClickException("frames are missing, or in another order")


if __name__ == "__main__":
    main()
