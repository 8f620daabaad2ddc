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
from typing import IO, Any

from vsr.cluster.member_pool import MemberPool
from vsr.cluster.patience import Patience
from vsr.cluster.pool import Answer, Worker
from vsr.cluster.segment_task import Failure, FramesDone, Hello, SegmentResult, SegmentTask

__all__ = ["ProcessPool"]


class ProcessPool(MemberPool["_Process"]):
    """See `Pool`: processes that end with this one."""

    def __init__(self, num_workers: int, num_gpus: int = 0, patience: Patience | None = None) -> None:
        """Start the processes.

        num_gpus: of this machine, on which they are spread; 0 where they compute on the CPU, whose cores they share.
        """
        super().__init__(patience)
        self._num_gpus, self._num_workers = num_gpus, num_workers
        self._events: queue.SimpleQueue[tuple[_Process, Any]] = queue.SimpleQueue()
        try:
            for place in range(num_workers):
                self._add(place)
        except BaseException:
            self.close()
            raise

    def start(self, worker: Worker, task: SegmentTask) -> None:
        """See `Pool`."""
        process = self._member_of(worker)
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
        self._replace(self._member_of(worker))

    def close(self) -> None:
        """See `Pool`."""
        for process in self._members:
            process.kill()
        for process in self._members:
            process.join()
        self._members.clear()

    def _take(self, process: _Process, message: Any, answers: list[Answer]) -> None:
        """Act on a message of a process; None where it has ended."""
        if process not in self._members:
            return
        if isinstance(message, Hello):
            self._greet(process, message)
        elif isinstance(message, FramesDone):
            assert process.worker is not None
            answers.append(Answer(process.worker, message))
        elif isinstance(message, (SegmentResult, Failure)):
            answers.append(self._answered(process, message))
        else:
            answers.extend(self._ended(process, process.describe_end()))
            self._replace(process)

    def _replace(self, process: _Process) -> None:
        self._members.remove(process)
        process.kill()
        process.join()
        self._add(process.place)

    def _add(self, place: int) -> None:
        self._members.append(_Process(place, self._environment(place), self._events))

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

    @property
    def process_id(self) -> int:
        return self._process.pid

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
