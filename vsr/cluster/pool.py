"""The contract of a pool of workers, whatever starts them: processes of this machine, or a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from vsr.cluster.patience import Patience
from vsr.cluster.segment_task import Failure, FramesDone, SegmentResult, SegmentTask

__all__ = ["Answer", "Pool", "Worker"]


@dataclass(eq=False, slots=True)
class Worker:
    """A worker that is ready.

    name: in messages, as "host:process".  host: of its machine.  num_answers: how many tasks it has answered.
    num_failures: how many of its last segments were no good, one after the other.
    """

    name: str
    host: str
    num_answers: int = field(default=0, init=False)
    num_failures: int = field(default=0, init=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An event of a worker: a segment, a failure, or progress."""

    worker: Worker
    event: SegmentResult | Failure | FramesDone


class Pool(Protocol):
    """Workers, each with at most one task at a time. Use as a context manager, which ends them all.

    A worker that has gone, or is discarded, is replaced as far as there is another to be had. One thread calls.
    patience: how long its workers are waited for.
    """

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    @property
    def patience(self) -> Patience: ...

    def ready(self) -> Sequence[Worker]:
        """List the workers that are ready, those at work among them."""
        ...

    def idle(self) -> Sequence[Worker]:
        """List the workers that are ready and have no task."""
        ...

    def start(self, worker: Worker, task: SegmentTask) -> None:
        """Give an idle worker a task."""
        ...

    def wait(self, seconds: float) -> Sequence[Answer]:
        """Wait until there are events, at most so long, and return them. Returns early where a worker gets ready.

        Raises VsrError where no worker will ever be ready.
        """
        ...

    def discard(self, worker: Worker) -> None:
        """End a worker, and its task with it: it gives no answer any more."""
        ...

    def close(self) -> None:
        """End all workers; none is at work when this returns, as far as it can be reached."""
        ...
