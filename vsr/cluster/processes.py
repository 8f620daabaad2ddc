"""Run workers as processes of this machine, one for each GPU or share of its cores."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, Self

from vsr.cluster.patience import Patience
from vsr.cluster.pool import Answer, Worker
from vsr.cluster.segment_task import Failure, FramesDone, Hello, SegmentResult, SegmentTask, check_version
from vsr.errors import EngineError

__all__ = ["ProcessPool"]

_FRUITLESS_STARTS = 3  # of a worker that ends before it is ready


class ProcessPool:
    """See `Pool`: processes that end with this one."""

    def __init__(self, num_workers: int, num_gpus: int = 0, patience: Patience | None = None) -> None:
        """Start the processes.

        num_gpus: of this machine, on which they are spread; 0 where they compute on the CPU, whose cores they share.
        """
        self.patience = patience or Patience()
        self._num_gpus, self._num_workers = num_gpus, num_workers
        self._events: queue.SimpleQueue[tuple[_Process, Any]] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self._num_fruitless = 0
        try:
            for place in range(num_workers):
                self._add(place)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ready(self) -> Sequence[Worker]:
        """See `Pool`."""
        return [each.worker for each in self._processes if each.worker is not None]

    def idle(self) -> Sequence[Worker]:
        """See `Pool`."""
        return [each.worker for each in self._processes if each.worker is not None and each.task is None]

    def start(self, worker: Worker, task: SegmentTask) -> None:
        """See `Pool`."""
        process = self._process_of(worker)
        process.task = task
        process.send(task)

    def wait(self, seconds: float) -> Sequence[Answer]:
        """See `Pool`."""
        answers: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            self._take(*self._events.get(timeout=seconds), answers)
            while True:
                self._take(*self._events.get_nowait(), answers)
        return answers

    def discard(self, worker: Worker) -> None:
        """See `Pool`."""
        self._replace(self._process_of(worker))

    def close(self) -> None:
        """See `Pool`."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._processes.clear()

    def _take(self, process: _Process, message: Any, answers: list[Answer]) -> None:
        """Act on a message of a process; None where it has ended."""
        if process not in self._processes:
            return
        if isinstance(message, Hello):
            check_version(message)
            process.worker = Worker(message.name, message.host)
            self._num_fruitless = 0
            return
        worker = process.worker
        if isinstance(message, (SegmentResult, Failure, FramesDone)):
            assert worker is not None
            if not isinstance(message, FramesDone):
                process.task, worker.num_answers = None, worker.num_answers + 1
            answers.append(Answer(worker, message))
            return
        why = process.describe_end()
        if worker is None:
            self._num_fruitless += 1
            if self._num_fruitless >= _FRUITLESS_STARTS:
                raise EngineError(f"worker processes end before they are ready: {why}")
        elif process.task is not None:
            answers.append(Answer(worker, Failure("EngineError", why, is_gone=True)))
        self._replace(process)

    def _replace(self, process: _Process) -> None:
        self._processes.remove(process)
        process.kill()
        process.join()
        self._add(process.place)

    def _add(self, place: int) -> None:
        self._processes.append(_Process(place, self._environment(place), self._events))

    def _process_of(self, worker: Worker) -> _Process:
        return next(process for process in self._processes if process.worker is worker)

    def _environment(self, place: int) -> Mapping[str, str]:
        """Share out GPUs, and threads, which many libraries take from here."""
        values = dict(os.environ)
        if self._num_gpus:
            shown = [name for name in values.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            names = shown or [str(number) for number in range(self._num_gpus)]
            values["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
        values["OMP_NUM_THREADS"] = str(max(1, _num_cores() // self._num_workers))
        return values


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """A worker process, and the thread that reads its answers.

    place: which of the pool's processes it is.  worker: once it is ready.  task: what it is at.
    """

    def __init__(
        self, place: int, environment: Mapping[str, str], events: queue.SimpleQueue[tuple[_Process, Any]]
    ) -> None:
        self.place = place
        self.worker: Worker | None = None
        self.task: SegmentTask | None = None
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by join
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vsr.cluster.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the process that owns the job, which then ends this one
        )
        assert self._process.stdout is not None
        self._reading = threading.Thread(target=self._read, args=(self._process.stdout, events), daemon=True)
        self._reading.start()

    def _read(self, source: IO[bytes], events: queue.SimpleQueue[tuple[_Process, Any]]) -> None:
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError, ValueError):
            while True:
                events.put((self, pickle.load(source)))
        events.put((self, None))

    def send(self, task: SegmentTask) -> None:
        """Hand over a task; where the process has gone, its end is an event."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            pickle.dump(task, self._process.stdin)
            self._process.stdin.flush()

    def describe_end(self) -> str:
        """Say how the process has ended, with the last line that it wrote."""
        code = self._process.wait()
        how = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(0, self._messages.tell() - 4096))
        lines = self._messages.read().decode("utf-8", "replace").strip().splitlines()
        return f"{how} ({lines[-1].strip()})" if lines else how

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def join(self) -> None:
        """Wait for the end of the process, and close what belongs to it."""
        self._process.wait()
        self._reading.join()
        for file in (self._process.stdin, self._process.stdout, self._messages):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
