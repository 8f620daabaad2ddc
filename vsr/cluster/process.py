"""A worker as a process: takes tasks from stdin and answers on stdout, as pickles.

    python -m vsr.cluster.process

It ends when its stdin does, as when the process that started it has gone.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
from typing import IO, Any

from vsr.cluster.segment_task import Failure, FramesDone, Hello, SegmentTask

__all__ = ["main"]

_SECONDS_BETWEEN_REPORTS = 0.5


def main() -> None:
    """Answer tasks, one after the other, for ever."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    tasks: queue.SimpleQueue[SegmentTask] = queue.SimpleQueue()
    threading.Thread(target=_read_tasks, args=(sys.stdin.buffer, tasks), daemon=True).start()
    _send(answers, Hello.of_this_process())
    from vsr.cluster.worker import SegmentMaker

    maker = SegmentMaker()
    while True:
        task, last_report = tasks.get(), time.monotonic()

        def report(num_frames: int) -> None:
            nonlocal last_report
            if time.monotonic() - last_report >= _SECONDS_BETWEEN_REPORTS:
                last_report = time.monotonic()
                _send(answers, FramesDone(num_frames))

        try:
            _send(answers, maker.make(task, report))
        except Exception as error:
            _send(answers, Failure.of(error))


def _read_tasks(source: IO[bytes], tasks: queue.SimpleQueue[SegmentTask]) -> None:
    """Queue the tasks that come; end the process where no more can come, whatever it is at."""
    while True:
        try:
            tasks.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(1)


def _send(answers: IO[bytes], message: Any) -> None:
    pickle.dump(message, answers)
    answers.flush()


if __name__ == "__main__":
    main()
