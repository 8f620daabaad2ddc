"""Run vsr on damaged files: each must give a video, or end with one line that says what is wrong.

    python benchmarks/fuzz.py [--count 2000] [--seed 0] [--only NUMBER]... [--keep FOLDER] [--out FILE]

Every file follows from the seed and its number: a sound file of some container and codec, damaged by one to three
mutations, is given to `vsr.enhance` (or, one in ten, to the code of `vsr info`) with random options. A child process
does that for one file after another, watched by its parent. A finding, which makes the exit code 1, is: a process that
dies or takes longer than --seconds; more memory than --mebibytes; an exception that is none of vsr's; a message of
several lines; any other output on stderr, except by libpng and libjpeg, which cannot be kept from it; a file, a thread
or a file handle left behind.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SVT_LOG", "0")

import click
import torch
from fuzz_inputs import DamagedFile, Source, damage, make_sources
from machine import describe_run

import vsr
from vsr.cli.info import describe_file
from vsr.errors import StrictError, VsrError
from vsr.media.image_sequence import is_image
from vsr.models.cards import ModelCard
from vsr.models.weights import build_net, save_model_file

HERE = Path(__file__).parent
POLL_SECONDS = 0.05
OF_LIBRARIES = ("libpng ", "Corrupt JPEG data", "Premature end of JPEG", "Invalid ", "Unsupported ")


@dataclass(frozen=True)
class Case:
    """Describe a trial: a damaged file and the options for it; None for `vsr info`."""

    number: int
    damaged: DamagedFile
    target: str
    options: dict[str, Any] | None


@dataclass(frozen=True)
class Outcome:
    """Describe the end of a trial and vsr's last line.

    Args:
        findings: things that must not happen, a line each.
    """

    number: int
    source: str
    mutations: tuple[str, ...]
    end: str
    said: str = ""
    findings: tuple[str, ...] = ()
    seconds: float = 0.0


def make_case(seed: int, number: int, sources: list[Source]) -> Case:
    rng = random.Random(f"{seed}/{number}")
    damaged = damage(rng, sources)
    if is_image(Path(f"in{damaged.source.suffix}")):
        target, options = rng.choice((".png", ".jpg")), {}
    else:
        target = rng.choice((".mkv", ".mkv", ".mp4", ".ts", ".avi", ".mov"))
        options = {"preset": "ultrafast", "crf": 30, "codec": "libx264", "batch": rng.choice((1, 2, 5))}
        if rng.random() < 0.2:
            options["start_seconds"] = rng.choice(("0", "0.2", "0.41"))
        if rng.random() < 0.2:
            options["duration_seconds"] = rng.choice(("0.04", "0.3", "100"))
        options["deinterlace"] = rng.choice(("auto", "auto", "on", "off"))
        options["audio"] = rng.choice(("copy", "copy", "copy", "aac", "none"))
    options["strict"] = rng.random() < 0.1
    return Case(number, damaged, target, None if rng.random() < 0.1 else options)


# -- the child -----------------------------------------------------------------------------------------


def run_case(case: Case, model: Path, folder: Path) -> Outcome:
    """Try one file, in a folder of its own, which is removed afterwards."""
    folder.mkdir()
    path, target = folder / f"in{case.damaged.source.suffix}", folder / f"out{case.target}"
    path.write_bytes(case.damaged.data)
    started, findings, notes, said = time.monotonic(), list[str](), list[str](), ""
    try:
        end = _end_of(case, path, target, model, notes)
    except VsrError as error:
        end, said = f"{type(error).__name__}, exit code {error.exit_code}", str(error)
        names_a_file = path.name in str(error) or target.name in str(error) or isinstance(error, StrictError)
        if len(str(error).splitlines()) != 1 or not names_a_file or ".part" in str(error):
            findings.append(f"message: {str(error)!r}")
    except BaseException as error:  # whatever it is, it is to be reported
        end = "exception"
        findings.append(f"{type(error).__name__}: {error} at {_place_of(error)}")
    findings += [f"note of several lines: {line!r}" for line in notes if "\n" in line]
    findings += _left_behind(folder, {path.name} | ({target.name} if end == "done" and case.options else set()))
    seconds = time.monotonic() - started
    shutil.rmtree(folder)
    if end == "done" and any("damaged" in line for line in notes):
        end = "done, with damage named"
    source = case.damaged.source.name
    return Outcome(case.number, source, case.damaged.mutations, end, said, tuple(findings), round(seconds, 2))


def _end_of(case: Case, path: Path, target: Path, model: Path, notes: list[str]) -> str:
    if case.options is None:
        describe_file(path)
        return "described"
    report = vsr.enhance(path, target, model=str(model), note=notes.append, **case.options)
    return "done" if report.num_frames > 0 and target.stat().st_size else "nothing written"


def _place_of(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/vsr/" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def _left_behind(folder: Path, expected: set[str]) -> Iterator[str]:
    found = {path.name for path in folder.iterdir()}
    if found != expected:
        yield f"files: {sorted(found)} instead of {sorted(expected)}"
    others = [thread.name for thread in threading.enumerate() if thread.name.startswith("vsr")]
    if others:
        yield f"threads left: {others}"
    for handle in Path("/proc/self/fd").iterdir():
        try:
            where = handle.readlink()
        except OSError:  # the handle by which the folder was listed
            continue
        if where.is_relative_to(folder):
            yield f"still open: {where.name}"


def child(pipe: Connection, seed: int, sources: list[Source], model: Path, folder: Path) -> None:
    """Run the cases whose numbers come through the pipe, and send back their outcomes."""
    torch.set_num_threads(1)
    said = folder / f"stderr.{os.getpid()}"
    handle = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    while (number := pipe.recv()) is not None:
        outcome = run_case(make_case(seed, number, sources), model, folder / str(number))
        if text := _taken(handle):
            outcome = replace(outcome, findings=(*outcome.findings, f"stderr: {text[:300]!r}"))
        pipe.send(outcome)


def _taken(handle: int) -> str:
    """Take the new output on stderr, without the lines that image libraries write there by themselves."""
    text = os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace")
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    return "\n".join(line for line in text.splitlines() if not line.startswith(OF_LIBRARIES))


# -- the parent ----------------------------------------------------------------------------------------


@dataclass
class Worker:
    """Run a child process, and replace it when it dies."""

    start: Callable[[Connection], Any]
    most_seconds: float
    most_mebibytes: int
    process: Any = None
    pipe: Any = None

    def run(self, case: Case) -> Outcome:
        """Run one case in the child; report here if the child cannot."""
        if self.process is None:
            self.pipe, other = multiprocessing.Pipe()
            self.process = self.start(other)
            other.close()
        self.pipe.send(case.number)
        started = time.monotonic()
        while not self.pipe.poll(POLL_SECONDS):
            seconds = time.monotonic() - started
            if not self.process.is_alive() and not self.pipe.poll():
                return self._lost(case, f"died: {_signal_name(self.process.exitcode)}", seconds)
            if seconds > self.most_seconds:
                return self._lost(case, f"hangs: not done after {seconds:.0f} s", seconds)
            if (mebibytes := _resident_mebibytes(self.process.pid)) > self.most_mebibytes:
                return self._lost(case, f"memory: {mebibytes} MiB", seconds)
        try:
            outcome: Outcome = self.pipe.recv()
        except EOFError:
            self.process.join()
            return self._lost(case, f"died: {_signal_name(self.process.exitcode)}", time.monotonic() - started)
        return outcome

    def _lost(self, case: Case, finding: str, seconds: float) -> Outcome:
        self.close()
        end = finding.partition(":")[0]
        names = (case.damaged.source.name, case.damaged.mutations)
        return Outcome(case.number, *names, end, findings=(finding,), seconds=round(seconds, 2))

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def _signal_name(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _resident_mebibytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just died
        return 0
    return pages * os.sysconf("SC_PAGESIZE") // 2**20


def save_model(path: Path) -> Path:
    """Save a ×1 luma network of random weights, as small as can be."""
    card = ModelCard("tiny", "luma", {"features": 4, "depth": 0, "scale": 1}, 1, "y", 2)
    torch.manual_seed(0)
    save_model_file(path, card, build_net(card).state_dict())
    return path


@dataclass
class Counts:
    """Count the trials and their outcomes."""

    ends: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    by_mutation: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[dict[str, object]] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.ends[outcome.end] += 1
        self.by_source.setdefault(outcome.source, Counter())[outcome.end] += 1
        for name in outcome.mutations:
            self.by_mutation.setdefault(name, Counter())[outcome.end] += 1
        self.slowest_seconds = max(self.slowest_seconds, outcome.seconds)
        if outcome.findings:
            self.findings.append(asdict(outcome))

    def as_json(self) -> dict[str, object]:
        sort = lambda counts: {name: dict(sorted(c.items())) for name, c in sorted(counts.items())}  # noqa: E731
        return {
            "inputs": self.ends.total(),
            "ends": dict(self.ends.most_common()),
            "slowest_seconds": self.slowest_seconds,
            "findings": self.findings,
            "by_source": sort(self.by_source),
            "by_mutation": sort(self.by_mutation),
        }


@click.command()
@click.option("--count", default=2000, help="Files to try.")
@click.option("--seed", default=0)
@click.option("--only", "numbers", type=int, multiple=True, help="Number of a file to try, instead; may be repeated.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the files that --only tries.")
@click.option("--seconds", default=60.0, help="The longest that a file may take.")
@click.option("--mebibytes", default=2048, help="The most memory that the process may have.")
@click.option("--verbose", is_flag=True, help="Say how every file ends.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the result to this file.")
def main(
    count: int,
    seed: int,
    numbers: tuple[int, ...],
    keep: Path | None,
    seconds: float,
    mebibytes: int,
    verbose: bool,
    out: Path | None,
) -> None:
    started, counts = time.monotonic(), Counts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, sources = save_model(folder / "tiny.safetensors"), _sources(folder)

        def start(pipe: Connection) -> Any:
            context = multiprocessing.get_context("fork")  # this process has started no threads so far
            process = context.Process(target=child, args=(pipe, seed, sources, model, folder), daemon=True)
            process.start()
            return process

        worker = Worker(start, seconds, mebibytes)
        for number in numbers or range(count):
            case = make_case(seed, number, sources)
            if keep is not None and numbers:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}{case.damaged.source.suffix}").write_bytes(case.damaged.data)
                click.echo(f"{number}: {case.options} to {case.target}")
            outcome = worker.run(case)
            counts.add(outcome)
            if outcome.findings or numbers or verbose:
                click.echo(f"{number}: {outcome}")
        worker.close()
    result = {**describe_run(), "seed": seed, "wall_seconds": round(time.monotonic() - started), **counts.as_json()}
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    click.echo(json.dumps({key: result[key] for key in ("inputs", "ends", "slowest_seconds", "wall_seconds")}))
    click.echo(f"{len(counts.findings)} findings")
    sys.exit(1 if counts.findings else 0)


def _sources(folder: Path) -> list[Source]:
    """Make the sources in a process of their own: encoders start threads, and a process with threads must not fork."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return pool.apply(make_sources, (folder,))


if __name__ == "__main__":
    main()
