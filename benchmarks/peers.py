"""Compare `vsr enhance` with other tools: ffmpeg's Lanczos, a plain PyTorch script, FSRCNN by OpenCV.

    python benchmarks/peers.py [--loops 4] [--rounds 5] [--cores N] [--fsrcnn FSRCNN_x4.pb]

Upscales the sample, played over and over, from 320x180 to 1280x720, from file to file. Every contender is a process
of its own, on the same cores, with the same number of threads and the same settings of x264; they take turns, round
after round. Counted are wall seconds from start to end, loading and all; user and system seconds of the contender and
its children; and the sum of the peak resident memory of each of its processes. Every output is decoded: it must have
all frames, in full size, and the luma of every tenth frame of the sample is measured against the 1280x720 truth that
scripts/make_sample.py draws. Medians of the rounds. Writes peers.json, peers.md and peers.png.

All contenders run with OMP_WAIT_POLICY=PASSIVE, which `vsr` sets by itself and scripts do not: it spares them OpenMP
threads that take the cores from the encoder while they wait. Needs ffmpeg's command line, Linux and the extras `bench`
and `cpu`; a first run of everything on the clip, not counted, makes what `vsr` keeps between runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import av
import click
import numpy as np
import torch
from machine import describe_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vsr.bench.opencv_peer import with_block_sizes
from vsr.models.cards import shipped_cards
from vsr.quality.data_folder import data_folder
from vsr.quality.metrics import psnr_db

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "samples" / "sample.mp4"
FAST_WEIGHTS = HERE.parent / "vsr" / "models" / "shipped" / shipped_cards()["fast"].weights
WIDTH, HEIGHT = 1280, 720  # of the output
CRF, PRESET = 18, "medium"
TRUTH_STEP = 10  # frames of the sample from one that is measured to the next
SAMPLING_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Job:
    """Hold the conditions that are the same for all contenders.

    Args:
        graph: FSRCNN for cv2.dnn.

    x264's threads are as many as `vsr` takes.
    """

    clip: Path
    output: Path
    graph: Path
    num_cores: int

    def contenders(self) -> dict[str, list[str]]:
        """Return the command lines by name; each writes the output."""
        return {
            "ffmpeg, Lanczos": self._ffmpeg(),
            "vsr, nano": self._vsr("--model", "nano"),
            "vsr, fast int8": self._vsr("--model", "fast", "--backend", "openvino", "--precision", "int8"),
            "vsr, fast": self._vsr("--model", "fast"),
            "PyTorch script, fast": self._script("peers_pytorch_script.py", FAST_WEIGHTS),
            "OpenCV, FSRCNN": self._script("peers_opencv_script.py", self.graph),
        }

    def _ffmpeg(self) -> list[str]:
        threads = str(self.num_cores)
        scaling = ["-filter_threads", threads, "-vf", f"scale={WIDTH}:{HEIGHT}:flags=lanczos"]
        read = ["ffmpeg", "-v", "error", "-y", "-threads", threads, "-i", str(self.clip)]
        return [*read, *scaling, *self._x264(), str(self.output)]

    def _vsr(self, *options: str) -> list[str]:
        encoder = ["--codec", "libx264", "--crf", str(CRF), "--preset", PRESET]
        encoder += ["--encoder-option", f"threads={2 * self.num_cores}"]
        command = [sys.executable, "-m", "vsr.cli", "enhance", str(self.clip), str(self.output)]
        return [*command, "-y", "--progress", "none", *options, *encoder]

    def _script(self, name: str, network: Path) -> list[str]:
        paths = [HERE / name, self.clip, self.output, network]
        return [sys.executable, *map(str, paths), str(self.num_cores), *self._x264()]

    def _x264(self) -> list[str]:
        return ["-c:v", "libx264", "-crf", str(CRF), "-preset", PRESET, "-threads", str(2 * self.num_cores)]


def make_clip(path: Path, loops: int) -> int:
    """Repeat the sample's video, packet for packet; return the number of frames."""
    source = ["-stream_loop", str(loops - 1), "-i", str(SAMPLE), "-map", "0:v", "-c", "copy"]
    subprocess.run(["ffmpeg", "-v", "error", *source, str(path)], check=True)
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


# -- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Hold the measures of one run of a contender.

    Args:
        said: the end of its output on stderr.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    said: str
    psnr_db: float = 0.0
    size_kib: float = 0.0


def run(name: str, command: list[str], num_cores: int) -> Run:
    """Run a contender and measure it. Raises ClickException where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(num_cores), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryFile() as log:
        begun = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stderr=log, start_new_session=True)
        try:
            with PeakMemory(process.pid) as memory:
                _, status, usage = os.wait4(process.pid, 0)
                wall_seconds = time.perf_counter() - begun
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # Ctrl-C does not reach another session
            raise
        process.returncode = os.waitstatus_to_exitcode(status)  # as Popen did not wait itself
        log.seek(0)
        said = log.read().decode(errors="replace").strip()[-2000:]
    if status:
        raise click.ClickException(f"{name} failed: {said}")
    return Run(wall_seconds, usage.ru_utime + usage.ru_stime, memory.total_mib, said)


class PeakMemory:
    """Watch the peak resident memory of each process of a session, as long as the block lasts.

    wait4 would give the largest process alone, and count the memory that the parent held when it forked.
    """

    def __init__(self, session: int) -> None:
        self._session, self._peaks_kib = session, dict[int, int]()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def total_mib(self) -> float:
        return sum(self._peaks_kib.values()) / 1024

    def _sample(self) -> None:
        while not self._is_over.wait(SAMPLING_SECONDS):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if os.getsid(int(folder.name)) == self._session:
                        status = (folder / "status").read_text()
                    else:
                        continue
                except OSError:  # it has ended
                    continue
                # The latest counts: the kernel keeps the peak, and starts anew when a child becomes another program.
                if found := re.search(r"VmHWM:\s*(\d+) kB", status):
                    self._peaks_kib[int(folder.name)] = int(found[1])


def draw_truths(num_frames: int) -> dict[int, np.ndarray]:
    """Draw the luma (720, 1280) uint8 of the frames that are measured, by index."""
    sys.path.append(str(HERE.parent / "scripts"))
    from make_sample import NUM_FRAMES, render, to_yuv420

    return {index: to_yuv420(render(index))[0] for index in range(0, min(num_frames, NUM_FRAMES), TRUTH_STEP)}


def checked_psnr_db(name: str, output: Path, num_frames: int, truths: Mapping[int, np.ndarray]) -> float:
    """Compute the mean luma PSNR of the measured frames. Raises ClickException for a missing or unfit frame."""
    psnrs_db, count = [], 0
    with av.open(str(output)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            form = (frame.format.name, frame.width, frame.height)
            if form != ("yuv420p", WIDTH, HEIGHT):
                raise click.ClickException(f"{name}: frame {index} is {form}")
            if index in truths:
                luma = frame.to_ndarray()[:HEIGHT]
                psnrs_db.append(psnr_db(torch.from_numpy(luma), torch.from_numpy(truths[index])))
            count += 1
    if count != num_frames:
        raise click.ClickException(f"{name}: {count} frames instead of {num_frames}")
    return fmean(psnrs_db)


def measure(job: Job, num_frames: int, rounds: int) -> dict[str, list[Run]]:
    """Run every contender in turn; the runs of the first round are not kept."""
    truths = draw_truths(num_frames)
    runs: dict[str, list[Run]] = {name: [] for name in job.contenders()}
    for turn in range(rounds + 1):
        for name, command in job.contenders().items():
            job.output.unlink(missing_ok=True)
            result = run(name, command, job.num_cores)
            psnr = checked_psnr_db(name, job.output, num_frames, truths)
            result = replace(result, psnr_db=psnr, size_kib=job.output.stat().st_size / 1024)
            click.echo(f"round {turn}: {name}: {num_frames / result.wall_seconds:.1f} fps, {psnr:.2f} dB", err=True)
            if turn:
                runs[name].append(result)
    return runs


# -- the result ------------------------------------------------------------------------------------------------------


def summary(runs: list[Run], num_frames: int) -> dict[str, Any]:
    """Compute medians, and the wall seconds of each round. engine: as `vsr` names it."""
    engine = re.search(r"; \S+ on (.*)$", runs[-1].said)
    return {
        "fps": round(num_frames / median(run.wall_seconds for run in runs), 2),
        "cpu_seconds": round(median(run.cpu_seconds for run in runs), 2),
        "peak_mib": round(median(run.peak_mib for run in runs), 1),
        "luma_psnr_db": round(median(run.psnr_db for run in runs), 2),
        "size_kib": round(median(run.size_kib for run in runs)),
        **({"engine": engine[1]} if engine else {}),
        "rounds": [{k: round(v, 3) for k, v in asdict(run).items() if k != "said"} for run in runs],
    }


def described(num_cores: int, num_frames: int, rounds: int) -> dict[str, Any]:
    """Describe the conditions, for the head of the result."""
    version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.split()[2]
    head: dict[str, Any] = describe_run()
    return {
        **head,
        "versions": head["versions"] | {"ffmpeg command line": version},
        "cores": num_cores,
        "clip": f"{SAMPLE.name}, {num_frames} frames of {WIDTH // 4}x{HEIGHT // 4} to {WIDTH}x{HEIGHT}",
        "encoder": f"libx264, CRF {CRF}, preset {PRESET}, {2 * num_cores} threads",
        "rounds": rounds,
    }


def table(values: Mapping[str, Any]) -> str:
    """Format the results and their conditions as Markdown."""
    lines = [
        "| | fps | CPU seconds | peak memory (MiB) | luma PSNR (dB) | output (KiB) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in values["contenders"].items():
        cells = [f"{row['fps']:.2f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_mib']:.0f}"]
        cells += [f"{row['luma_psnr_db']:.2f}", f"{row['size_kib']}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    engines = [f"{name}: {row['engine']}" for name, row in values["contenders"].items() if "engine" in row]
    return "\n".join(
        [
            f"{values['clip']}; {values['encoder']}. From file to file, start of the process included. "
            f"{values['cpu']}, cores: {values['cores']}; medians, rounds: {values['rounds']}; {values['date']}.",
            "",
            *lines,
            "",
            f"Engines: {'; '.join(engines)}. The script: `fast` in fp32, frame by frame, between two pipes.",
            "Peak memory is the sum over a contender's processes; PSNR is that of the encoded output.",
            "",
            f"    {values['command']}",
            "",
        ]
    )


def plot(values: Mapping[str, Any], path: Path) -> None:
    """Plot three panels of bars, a bar per contender, as PNG."""
    contenders = values["contenders"]
    panels = {
        "fps": "frames per second\nhigher is better",
        "cpu_seconds": "CPU seconds\nlower is better",
        "peak_mib": "peak memory (MiB)\nlower is better",
    }
    ink = "#333333"
    figure = Figure(figsize=(10, 3.2), dpi=150, facecolor="#ffffff", layout="constrained")
    FigureCanvasAgg(figure)
    colors = ["#2f7de1" if name.startswith("vsr") else "#8a8f99" for name in contenders]
    for axes, (key, title) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        amounts = [row[key] for row in contenders.values()]
        bars = axes.barh(list(contenders), amounts, color=colors, height=0.65)
        axes.bar_label(
            bars, [f"{x:.0f}" if x >= 100 else f"{x:.1f}" for x in amounts], padding=3, color=ink, fontsize=9
        )
        axes.set_title(title, color=ink, fontsize=10, loc="left")
        axes.set_xlim(0, 1.18 * max(amounts))  # room for the labels
        axes.tick_params(colors=ink, left=False)
        axes.grid(axis="x", alpha=0.25, color=ink, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.spines["left"].set_color(ink)
    axes.invert_yaxis()  # shared: the first contender on top
    figure.supxlabel(f"{values['clip']}; cores: {values['cores']}; {values['encoder']}", color=ink, fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})


@click.command()
@click.option("--loops", type=click.IntRange(1), default=4, show_default=True, help="Times the sample is played.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--cores", "num_cores", type=click.IntRange(1), help="To run on; default: all there are.")
@click.option("--fsrcnn", type=click.Path(path_type=Path), help="[default: $VSR_DATA/peers/FSRCNN_x4.pb]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False, exists=True), default=HERE, help="Folder.")
def main(loops: int, rounds: int, num_cores: int | None, fsrcnn: Path | None, out: Path) -> None:
    if shutil.which("ffmpeg") is None:
        raise click.ClickException("this needs ffmpeg's command line")
    fsrcnn = fsrcnn or data_folder() / "peers" / "FSRCNN_x4.pb"
    if not fsrcnn.is_file():
        raise click.ClickException(f"{fsrcnn}: no such file; FSRCNN_x4.pb is of github.com/Saafke/FSRCNN_Tensorflow")
    cores = sorted(os.sched_getaffinity(0))[:num_cores]
    os.sched_setaffinity(0, cores)  # of the contenders, which inherit it
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name) / "clip.mp4", Path(name) / "output.mp4", Path(name) / "fsrcnn.pb", len(cores))
        job.graph.write_bytes(with_block_sizes(fsrcnn.read_bytes()))
        num_frames = make_clip(job.clip, loops)
        runs = measure(job, num_frames, rounds)
    values = described(len(cores), num_frames, rounds)
    values["contenders"] = {name: summary(results, num_frames) for name, results in runs.items()}
    (out / "peers.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    (out / "peers.md").write_text(table(values), "utf-8")
    plot(values, out / "peers.png")
    click.echo(table(values))


if __name__ == "__main__":
    main()
