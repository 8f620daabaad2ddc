"""Run workers as actors of a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vsr.cluster.file_transfer import FileTransfer
from vsr.cluster.member_pool import MemberPool
from vsr.cluster.patience import Patience
from vsr.cluster.pool import Answer, Worker
from vsr.cluster.ray_worker import RayWorker
from vsr.cluster.segment_task import Failure, FramesDone, Hello, SegmentResult, SegmentTask
from vsr.errors import EngineError, VsrError, reason
from vsr.extras import importing

__all__ = ["RayPool", "connect", "disconnect"]

CONNECT_SECONDS = 30.0
_MOST_CPUS_A_WORKER = 4
_CALLS_AT_ONCE = 8  # of a worker: its task, a question for a piece, and what is answered at once
_SECONDS_BETWEEN_LOOKS = 2.0  # at the nodes of the cluster, and for progress
_SECONDS_TO_LEAVE = 5.0
TRANSFERS_AT_ONCE = 2


def connect(address: str, seconds: float = CONNECT_SECONDS) -> Any:
    """Join a Ray cluster; return the module `ray`.

    address: "auto" for the one that runs on this machine, "ray://HOST:PORT" for a Ray client's, or "HOST:PORT".
    Raises MissingExtraError where Ray is not installed, VsrError where the cluster does not answer in time.
    """
    with importing("a cluster", "cluster", "ray"):
        import ray
    _check_reachable(address, seconds)
    failed: list[BaseException] = []

    def join() -> None:
        try:
            ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except BaseException as error:
            failed.append(error)

    # Ray tries for minutes where there is something else at the address.
    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise VsrError(f"`cluster={address}`: no answer of a Ray cluster within {seconds:g} s")
    if failed:
        text = str(failed[0]).strip().splitlines()[0] if str(failed[0]).strip() else type(failed[0]).__name__
        raise VsrError(
            f"`cluster={address}`: no Ray cluster can be joined ({text}); 'ray start --head' starts one, and one "
            "with a token needs RAY_AUTH_MODE=token"
        )
    return ray


def disconnect() -> None:
    """Leave the cluster."""
    import ray

    ray.shutdown()


def _check_reachable(address: str, seconds: float) -> None:
    """Raise VsrError where nothing listens at an address."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if address == "auto" or parts.hostname is None:
        return
    try:
        port = parts.port or 10001
        socket.create_connection((parts.hostname, port), timeout=seconds).close()
    except (OSError, ValueError) as error:
        raise VsrError(f"`cluster={address}`: cannot be reached ({reason(error)})") from error


@dataclass(eq=False, slots=True)
class _Actor:
    """An actor: its handle, and what it was asked for.

    hello: asked for at the start.  made: asked for with a task.  frames: asked for now and then.
    models: places there of model files that were brought.
    """

    handle: Any
    hello: Any
    worker: Worker | None = None
    task: SegmentTask | None = None
    made: Any = None
    frames: Any = None
    models: dict[str, str] = field(default_factory=dict)


class RayPool(MemberPool[_Actor]):
    """See `Pool`: actors, one for each GPU, or for a share of the CPUs of a node."""

    start_hint = "; is vsr-enhance[cluster] installed on all nodes?"

    def __init__(
        self,
        address: str,
        *,
        num_workers: int | None = None,
        uses_gpus: bool = False,
        storage: Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Join a cluster, and start workers.

        Args:
            address: As `connect` takes it.
            num_workers: To be asked for, also where the cluster has to grow for them; None for as many as there is
                room for now.
            uses_gpus: Give each worker a GPU.
            storage: A folder that all nodes see under this name; None to send files through the object store.
        """
        super().__init__(patience)
        self._num_wanted, self._uses_gpus = num_workers, uses_gpus
        self._threads = ThreadPoolExecutor(TRANSFERS_AT_ONCE, "vsr-transfer")
        self._events: queue.SimpleQueue[tuple[_Actor, Any]] = queue.SimpleQueue()
        self._last_look = 0.0
        with ExitStack() as stack:
            self._ray = connect(address)
            stack.callback(disconnect)
            self._transfer = FileTransfer(self._ray, storage)
            stack.callback(self._transfer.close)
            self._look_around()
            stack.pop_all()

    # -- see `Pool` --------------------------------------------------------------------------------

    def start(self, worker: Worker, task: SegmentTask) -> None:
        """See `Pool`."""
        actor = self._member_of(worker)
        actor.task = task

        def send() -> Any:
            return self._transfer.sent(actor.handle, actor.models, task)

        self._in_thread(actor, send)

    def wait(self, seconds: float) -> Sequence[Answer]:
        """See `Pool`."""
        answers: list[Answer] = []
        end = time.monotonic() + seconds
        while not answers and time.monotonic() < end:
            if time.monotonic() - self._last_look >= _SECONDS_BETWEEN_LOOKS:
                self._look_around()
            asked = {ref: (actor, name) for actor in self._members for name, ref in _refs(actor)}
            done = self._ray.wait(list(asked), num_returns=1, timeout=0.2)[0] if asked else []
            if not asked:
                time.sleep(0.1)
            had_ready = len(self.ready())
            for ref in done:
                self._take(*asked[ref], ref, answers)
            with contextlib.suppress(queue.Empty):
                while True:
                    self._take_transferred(*self._events.get_nowait(), answers)
            if len(self.ready()) > had_ready:
                break
        return answers

    def discard(self, worker: Worker) -> None:
        """See `Pool`."""
        self._end(self._member_of(worker))

    def close(self) -> None:
        """See `Pool`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(Exception):  # they clear up, as far as they can be reached
            leaving = [actor.handle.leave.remote() for actor in self._members if actor.worker is not None]
            self._ray.wait(leaving, num_returns=len(leaving), timeout=_SECONDS_TO_LEAVE)
        for actor in list(self._members):
            self._end(actor)
        self._transfer.close()
        disconnect()

    # -- actors ------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Start workers where there is room for them. Raises EngineError where no node can have one."""
        self._last_look = time.monotonic()
        cpus, room = _room(self._ray.nodes(), uses_gpus=self._uses_gpus)
        if not room and self._num_wanted is None:
            raise EngineError(f"the cluster has no node with a {'GPU' if self._uses_gpus else 'CPU'} to spare")
        wanted = room if self._num_wanted is None else self._num_wanted
        remote = self._ray.remote(RayWorker)
        for _ in range(wanted - len(self._members)):
            needs = {"num_gpus": 1} if self._uses_gpus else {"num_cpus": cpus}
            handle = remote.options(**needs, max_concurrency=_CALLS_AT_ONCE, max_restarts=0).remote()
            self._members.append(_Actor(handle, handle.hello.remote()))
            if self._transfer.pieces is not None:
                self._transfer.pieces.serve(handle)
        for actor in self._members:
            if actor.made is not None and actor.frames is None:
                actor.frames = actor.handle.frames.remote()

    def _take(self, actor: _Actor, name: str, ref: Any, answers: list[Answer]) -> None:
        """Act on something that an actor was asked for."""
        setattr(actor, name, None)
        try:
            value = self._ray.get(ref)
        except Exception as error:  # of Ray: the actor or its node has gone, or does not start
            self._lose(actor, error, answers)
            return
        if isinstance(value, Hello):
            self._greet(actor, value)
        elif name == "frames":
            if actor.worker is not None and actor.task is not None:
                answers.append(Answer(actor.worker, FramesDone(value)))
        elif isinstance(value, SegmentResult):
            task = actor.task
            assert task is not None
            self._in_thread(actor, lambda: self._transfer.fetched(actor.handle, task, value))
        else:
            answers.append(self._answered(actor, value))

    def _in_thread(self, actor: _Actor, act: Callable[[], Any]) -> None:
        """Do something with files, and take what comes of it later."""

        def run() -> None:
            try:
                self._events.put((actor, act()))
            except Exception as error:
                self._events.put((actor, error))

        self._threads.submit(run)

    def _take_transferred(self, actor: _Actor, value: Any, answers: list[Answer]) -> None:
        if actor not in self._members:
            return
        if isinstance(value, (SegmentResult, Failure)):
            answers.append(self._answered(actor, value))
        elif isinstance(value, VsrError):
            answers.append(self._answered(actor, Failure.of(value)))
        elif isinstance(value, Exception):
            self._lose(actor, value, answers)
        else:
            actor.made = value

    def _lose(self, actor: _Actor, error: Exception, answers: list[Answer]) -> None:
        """Count an actor as gone. Raises EngineError where none ever gets ready."""
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        answers.extend(self._ended(actor, f"has gone: {text}"))
        self._end(actor)

    def _end(self, actor: _Actor) -> None:
        if actor in self._members:
            self._members.remove(actor)
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle, no_restart=True)


def _refs(actor: _Actor) -> list[tuple[str, Any]]:
    names = ("hello", "made", "frames")
    return [(name, ref) for name in names if (ref := getattr(actor, name)) is not None]


def _room(nodes: Sequence[dict[str, Any]], *, uses_gpus: bool) -> tuple[int, int]:
    """Return the CPUs of a worker, and how many workers all nodes that live have room for."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if uses_gpus:
        return 1, sum(int(each.get("GPU", 0)) for each in alive)
    cpus = [int(each.get("CPU", 0)) for each in alive if each.get("CPU", 0) >= 1]
    per_worker = min([_MOST_CPUS_A_WORKER, *cpus])
    return per_worker, sum(each // per_worker for each in cpus)
