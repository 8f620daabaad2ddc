"""Keep account of the members of a pool, which are workers once they are ready, whatever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from vsr.cluster.patience import Patience
from vsr.cluster.pool import Answer, Worker
from vsr.cluster.segment_task import Failure, Hello, SegmentResult, SegmentTask, check_version
from vsr.errors import EngineError

__all__ = ["Member", "MemberPool"]

_FRUITLESS_STARTS = 3  # of members, one after the other, that end before they are ready


class Member(Protocol):
    """A process or an actor. worker: once it is ready.  task: that it is at."""

    worker: Worker | None
    task: SegmentTask | None


M = TypeVar("M", bound=Member)


class MemberPool(ABC, Generic[M]):
    """See `Pool`: the part that does not depend on what the members are.

    start_hint: what to say to somebody none of whose workers starts.
    """

    start_hint: ClassVar[str] = ""

    def __init__(self, patience: Patience | None) -> None:
        self.patience = patience or Patience()
        self._members: list[M] = []
        self._num_fruitless = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """See `Pool`."""

    def ready(self) -> Sequence[Worker]:
        """See `Pool`."""
        return [each.worker for each in self._members if each.worker is not None]

    def idle(self) -> Sequence[Worker]:
        """See `Pool`."""
        return [each.worker for each in self._members if each.worker is not None and each.task is None]

    def _member_of(self, worker: Worker) -> M:
        return next(member for member in self._members if member.worker is worker)

    def _greet(self, member: M, hello: Hello) -> None:
        """Take a member for ready. Raises VsrError for one of another version."""
        check_version(hello)
        member.worker, self._num_fruitless = Worker(hello.name, hello.host), 0

    def _answered(self, member: M, event: SegmentResult | Failure) -> Answer:
        """Note that a member is done with its task."""
        assert member.worker is not None
        member.task, member.worker.num_answers = None, member.worker.num_answers + 1
        return Answer(member.worker, event)

    def _ended(self, member: M, reason: str) -> Sequence[Answer]:
        """Note that a member has ended; its task, if it has one, has failed.

        Raises EngineError where one after the other ends before it is ready.
        """
        if member.worker is None:
            self._num_fruitless += 1
            if self._num_fruitless >= _FRUITLESS_STARTS:
                raise EngineError(f"workers do not start ({reason}){self.start_hint}")
        elif member.task is not None:
            return [Answer(member.worker, Failure("EngineError", reason, is_gone=True))]
        return []
