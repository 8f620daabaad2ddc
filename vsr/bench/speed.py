"""Measure the speed of networks here, alone and in jobs: frames per second, memory, utilization of the device.

Every engine runs in a process of its own, so that its memory is its own. They take turns, round by round: any other
load of the machine then slows all of them alike.
"""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.stream import VideoStream
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vsr.backends.engine import PRECISIONS, Signature, choose_precision
from vsr.backends.installed import describe_backends
from vsr.backends.select import EngineMaker, choose_place
from vsr.errors import EngineError, OptionError, VsrError
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import choose_batch
from vsr.jobs.run import enhance_file
from vsr.models.weights import load_int8_net
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.loading import load_card_and_net, signature_of
from vsr.pipeline.upscaler import Upscaler
from vsr.version import __version__

__all__ = ["Case", "Speed", "cases", "job_fps", "make_clip", "measure", "table", "to_json"]

ROUNDS = 5
ROUND_SECONDS = 0.5  # of one engine in one round, at least
_FLOPS_SIDE = 48  # of the image on which operations are counted
_CEILING_SIDE = {"cpu": 1024, "cuda": 8192, "mps": 4096}  # of the matrices


FEWEST_BATCHES = 8  # of a job; fewer would measure how it starts and ends
_RATE = 30
_BLUR_SIGMA, _CONTRAST = 1.5, 40.0  # of the image that moves, in pixels and code values


@dataclass(frozen=True, slots=True)
class Case:
    """Describe one measurement.

    Args:
        width, height: of the input, in pixels.
        batch: frames per batch; None for a job's own choice.
    """

    model: str
    backend: str = "auto"
    precision: str = "auto"
    width: int = 640
    height: int = 360
    batch: int | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Speed:
    """Hold the result of a measurement.

    Args:
        fps: frames per second of the network alone, the median of `rounds`.
        fps_rounds: that of each round.
        job_fps, job_fps_rounds: the same of whole jobs, from a file of H.264 to another, without loading.
        start_seconds: time from the loaded network to the engine's first result; what is built then may be kept.
        flops: operations per frame; a multiplication and an addition count as one each.
        matmul_flops_per_second: PyTorch's best here in that precision, or for int8 in that of "auto".
        utilization: the network's share of it.
        peak_rss_mib: peak memory of a process that does nothing else, jobs included.
    """

    case: Case
    engine: str
    batch: int
    fps: float
    fps_rounds: tuple[float, ...]
    job_fps: float
    job_fps_rounds: tuple[float, ...]
    start_seconds: float
    peak_rss_mib: float | None
    flops: int | None
    matmul_flops_per_second: float
    utilization: float | None


def cases(
    models: Iterable[str],
    backends: Iterable[str] = ("auto",),
    precisions: Iterable[str] = ("auto",),
    sizes: Iterable[tuple[int, int]] = ((640, 360),),
    batch: int | None = None,
    device: str = "auto",
) -> list[Case]:
    """List all combinations; sizes are (width, height) of the input in pixels."""
    combinations = product(models, sizes, precisions, backends)
    return [Case(model, backend, precision, *size, batch, device) for model, size, precision, backend in combinations]


def measure(
    wanted: list[Case],
    *,
    rounds: int = ROUNDS,
    round_seconds: float = ROUND_SECONDS,
    note: Callable[[str], None] = lambda line: None,
) -> list[Speed]:
    """Measure the cases of one model and size side by side, so that few engines are in memory at once.

    Args:
        wanted: the cases.
        rounds: turns of each case.
        round_seconds: least time of a turn.
        note: called with a line per finished case.

    Raises the error of a case that cannot run.
    """
    groups: dict[tuple[str, int, int], list[Case]] = {}
    for case in wanted:
        groups.setdefault((case.model, case.width, case.height), []).append(case)
    results = []
    for group in groups.values():
        for speed in _measure_group(group, rounds, round_seconds):
            results.append(speed)
            note(_row(speed))
    return results


def _measure_group(group: list[Case], rounds: int, seconds: float) -> list[Speed]:
    with ExitStack() as stack:
        workers, started = [], []
        for case in group:  # one after the other, as their starts are timed
            workers.append(stack.enter_context(_worker(case)))
            started.append(workers[-1].recv())
        turns = [[_ask(worker, seconds) for worker in workers] for _ in range(rounds)]
        peaks = [_ask(worker, None) for worker in workers]
    best: dict[str, float] = {}  # by precision, of whichever process: the device's, not the moment's
    for index, start in enumerate(started):
        best[start.precision] = max(best.get(start.precision, 0.0), *(turn[index].matmul for turn in turns))
    return [
        _speed(case, start, [turn[index] for turn in turns], best[start.precision], peaks[index])
        for index, (case, start) in enumerate(zip(group, started, strict=True))
    ]


def _speed(case: Case, start: _Start, turns: list[_Turn], ceiling: float, peak_mib: float | None) -> Speed:
    fps = median(turn.fps for turn in turns)
    return Speed(
        case=case,
        engine=start.engine,
        batch=start.batch,
        fps=fps,
        fps_rounds=tuple(turn.fps for turn in turns),
        job_fps=median(turn.job_fps for turn in turns),
        job_fps_rounds=tuple(turn.job_fps for turn in turns),
        start_seconds=start.seconds,
        peak_rss_mib=peak_mib,
        flops=start.flops,
        matmul_flops_per_second=ceiling,
        utilization=None if start.flops is None else fps * start.flops / ceiling,
    )


# -- the process of one engine -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Start:
    engine: str
    precision: str
    batch: int
    seconds: float
    flops: int | None


@dataclass(frozen=True, slots=True)
class _Turn:
    fps: float
    job_fps: float
    matmul: float  # floating-point operations per second


@contextmanager
def _worker(case: Case) -> Iterator[_Peer]:
    """Start the process of a case and its engine; it ends with the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(case, there), daemon=True)
    process.start()
    there.close()
    try:
        yield _Peer(case, here)
    finally:
        here.close()
        process.join(timeout=10)
        if process.is_alive():
            process.terminate()


@dataclass(frozen=True, slots=True)
class _Peer:
    case: Case
    connection: Connection

    def recv(self) -> Any:
        try:
            answer = self.connection.recv()
        except EOFError as error:
            raise EngineError(f"the process that measures {self.case.model} ended before its time") from error
        if isinstance(answer, VsrError):
            raise answer
        return answer


def _ask(worker: _Peer, question: float | None) -> Any:
    worker.connection.send(question)
    return worker.recv()


def _work(case: Case, connection: Connection) -> None:
    """Start the engine; then measure for each number of seconds received; for None, send the peak memory."""
    try:
        bench = _Bench(case)
        connection.send(bench.start)
        while True:
            seconds = connection.recv()
            connection.send(_peak_rss_mib() if seconds is None else bench.turn(seconds))
    except VsrError as error:
        connection.send(_portable(error))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _portable(error: VsrError) -> VsrError:
    """Convert an error to a class that can be rebuilt from its text alone in another process."""
    return error if type(error).__init__ is Exception.__init__ else OptionError(str(error))


class _Bench:
    def __init__(self, case: Case) -> None:
        card, net = load_card_and_net(case.model)
        place = choose_place(case.device, case.backend)
        signature = signature_of(card)
        load_quantized = functools.partial(load_int8_net, card)
        maker = EngineMaker(net, signature, place, label=card.name, work=math.inf, load_quantized=load_quantized)
        maker.is_int8_proven = card.is_int8_proven
        precision = maker.choose_precision(case.precision)
        batch = choose_batch(case.batch, case.width, case.height, place.device)
        self._device = place.device
        # PyTorch multiplies no integers: their share is one of what it reaches in its fastest type.
        dtype = PRECISIONS[choose_precision(place.device) if precision == "int8" else precision]
        # A network that sees time takes its frames one after the other.
        frames = 1 if card.recurrent else batch
        self._inputs = tuple(
            torch.rand(frames, channels, case.height, case.width, device=place.device)
            for _, channels in signature.inputs
        )
        self._batch = batch
        side = _CEILING_SIDE[place.device.type]
        self._matrix = torch.rand(side, side, device=place.device).to(dtype)
        begun = time.perf_counter()
        self._engine = maker.make(precision)
        self._run()
        seconds = time.perf_counter() - begun
        made = self._engine
        network = CheckedNetwork(
            card,
            lambda wanted: made if wanted == precision else maker.make(wanted),
            precision,
            make_reference=maker.make_reference,
            is_fixed=maker.is_fixed,
        )
        self._upscaler = Upscaler(network)
        pixels = case.width * case.height
        flops = _flops_per_pixel(net, signature) if isinstance(net, nn.Module) else None
        total = None if flops is None else round(flops * pixels)
        self.start = _Start(self._engine.name, precision, batch, seconds, total)

    def turn(self, seconds: float) -> _Turn:
        frames, _, height, width = self._inputs[0].shape
        fps = frames * _per_second(self._run, seconds)
        flops = 2 * self._matrix.shape[0] ** 3
        matmul = flops * _per_second(self._multiply, seconds / 2)
        return _Turn(fps, job_fps(self._upscaler, width, height, self._batch, fps, seconds), matmul)

    def _run(self) -> None:
        self._engine(*self._inputs)
        self._wait()

    def _multiply(self) -> None:
        torch.mm(self._matrix, self._matrix)
        self._wait()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()


def _per_second(call: Callable[[], None], seconds: float) -> float:
    call()  # after the others' turns: caches and clocks
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds or count == 0:
        call()
        count += 1
    return count / passed


def _flops_per_pixel(net: nn.Module, signature: Signature) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(*(torch.zeros(1, channels, _FLOPS_SIDE, _FLOPS_SIDE) for _, channels in signature.inputs))
    return float(counter.get_total_flops()) / _FLOPS_SIDE**2


def _peak_rss_mib() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 << (20 if sys.platform == "darwin" else 10)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# -- results -------------------------------------------------------------------------------------------


def table(speeds: list[Speed]) -> str:
    """Format a line per case, for people."""
    return "\n".join([_HEAD, *(_row(speed) for speed in speeds)])


_HEAD = (
    f"{'model':<12}{'input':<11}{'batch':<7}{'fps':>8}{'job fps':>9}{'start':>9}{'memory':>10}{'of matmul':>11}  engine"
)


def _row(speed: Speed) -> str:
    size = f"{speed.case.width}x{speed.case.height}"
    memory = "" if speed.peak_rss_mib is None else f"{speed.peak_rss_mib:.0f} MiB"
    share = "" if speed.utilization is None else f"{speed.utilization:.0%}"
    return (
        f"{Path(speed.case.model).stem:<12}{size:<11}{speed.batch:<7}{speed.fps:>8.2f}{speed.job_fps:>9.2f}"
        f"{speed.start_seconds:>7.1f} s"
        f"{memory:>10}{share:>11}  {speed.engine}"
    )


def to_json(speeds: list[Speed]) -> str:
    """Format all results and the machine as JSON."""
    machine = {
        "vsr": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "backends": describe_backends(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
    return json.dumps({"machine": machine, "speeds": [asdict(speed) for speed in speeds]}, indent=2) + "\n"


def make_clip(path: Path, width: int, height: int, num_frames: int) -> None:
    """Write a clip in H.264 of soft noise that moves by a pixel a frame; no frame repeats. Of even or odd size."""
    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.standard_normal((height, width + num_frames)), (0, 0), _BLUR_SIGMA)
    plane = np.clip(128 + noise * (_CONTRAST / noise.std()), 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"preset": "veryfast", "crf": "23"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        for index in range(num_frames):
            view = np.ascontiguousarray(plane[:, index : index + width])
            frame = av.VideoFrame.from_ndarray(view, "gray").reformat(format=stream.pix_fmt, threads=1)
            frame.pts, frame.time_base = index, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def job_fps(upscaler: Upscaler, width: int, height: int, batch: int, network_fps: float, seconds: float) -> float:
    """Measure frames per second of a job: decoding, network, x264 with its defaults, and the check of the output.

    Args:
        upscaler: the loaded network.
        width, height: of the input, in pixels.
        batch: frames per batch.
        network_fps: speed of the network alone, by which the clip's length is chosen.
        seconds: wanted duration, about, at that speed.
    """
    num_frames = max(FEWEST_BATCHES * batch, math.ceil(network_fps * seconds))
    with tempfile.TemporaryDirectory() as name:
        clip, output = Path(name, "in.mp4"), Path(name, "out.mp4")
        make_clip(clip, width, height, num_frames)
        report = enhance_file(clip, output, JobOptions.of(batch=batch, resume=False), upscaler=upscaler)
    return report.num_frames / report.seconds
