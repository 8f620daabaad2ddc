"""A pool whose workers make segments in the test's own process, in any order, and fail as they are told to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Self

from vsr.cluster.patience import Patience
from vsr.cluster.pool import Answer, Worker
from vsr.cluster.segment_task import Failure, SegmentTask
from vsr.cluster.worker import SegmentMaker
from vsr.jobs.model_cache import ModelSource

# How a segment can fail: the worker ends, never answers, answers with another file than it says, or raises.
FAULTS = ("gone", "hung", "damaged", "raises")
Faults = Callable[[Worker, SegmentTask], str | None]


class InlinePool:
    """See `Pool`. Tasks of the same moment are answered in an order of chance.

    made: the numbers of the segments, as they were made.  most_at_once: tasks at a time.
    now: a clock that goes on only where all that are at work hang.
    """

    def __init__(
        self,
        num_workers: int = 3,
        models: ModelSource | None = None,
        faults: Faults = lambda worker, task: None,
        seed: int = 0,
        patience: Patience | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self._maker, self._faults, self._chance = SegmentMaker(models), faults, random.Random(seed)
        self._num_started = self.most_at_once = 0
        self._workers = [self._worker() for _ in range(num_workers)]
        self._tasks: dict[Worker, SegmentTask] = {}
        self._hung: set[Worker] = set()
        self.made: list[int] = []
        self.is_closed, self.now = False, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _worker(self) -> Worker:
        self._num_started += 1
        return Worker(f"here:{self._num_started}", "here")

    def ready(self) -> Sequence[Worker]:
        return list(self._workers)

    def idle(self) -> Sequence[Worker]:
        return [worker for worker in self._workers if worker not in self._tasks]

    def start(self, worker: Worker, task: SegmentTask) -> None:
        assert worker in self.idle()
        self._tasks[worker] = task
        self.most_at_once = max(self.most_at_once, len(self._tasks))

    def wait(self, seconds: float) -> Sequence[Answer]:
        able = [worker for worker in self._tasks if worker not in self._hung]
        if not able:
            self.now += 1e6  # far past any deadline
            time.sleep(0.01)  # so that what is joined gets on
            return []
        worker = self._chance.choice(able)
        task = self._tasks[worker]
        fault = self._faults(worker, task)
        if fault == "hung":
            self._hung.add(worker)
            return []
        worker.num_answers += 1
        del self._tasks[worker]
        if fault == "gone":
            self.discard(worker)
            return [Answer(worker, Failure("EngineError", "ended by signal 9", is_gone=True))]
        if fault == "raises":
            return [Answer(worker, Failure("EngineError", "out of memory"))]
        try:
            result = self._maker.make(task)
        except Exception as error:
            return [Answer(worker, Failure.of(error))]
        if fault == "damaged":
            data = bytearray(result.segment.path.read_bytes())
            data[len(data) // 2] ^= 1
            result.segment.path.write_bytes(data)
        self.made.append(task.range.number)
        return [Answer(worker, result)]

    def discard(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self._tasks.pop(worker, None)
        self._hung.discard(worker)
        self._workers.append(self._worker())

    def close(self) -> None:
        self.is_closed = True
