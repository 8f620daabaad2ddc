"""Workers as actors of a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cluster_clips import options_of, packets_of, write_large_clip

from vsr.cluster import ray_pool
from vsr.cluster.patience import Patience
from vsr.cluster.piece_sender import IN_FLIGHT_BYTES
from vsr.cluster.pool import Worker
from vsr.cluster.ray_pool import TRANSFERS_AT_ONCE, RayPool, _Actor, connect
from vsr.cluster.remote_file import PIECE_BYTES
from vsr.cluster.run import enhance_file_on
from vsr.cluster.segment_task import Hello, SegmentResult, SegmentTask
from vsr.cluster.status import describe_cluster
from vsr.errors import MissingExtraError, VsrError
from vsr.jobs.run import enhance_file

pytest.importorskip("ray")

OBJECT_STORE_BYTES = 100 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and three nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster()
    try:
        try:
            cluster.add_node(**head)
            for _ in range(3):
                cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
        except Exception as error:  # a node of Ray gives up where its parts need more than 15 s to start
            pytest.skip(f"Ray starts no cluster on this machine, which may be too busy ({error})")
        yield cluster
    finally:
        with contextlib.suppress(Exception):
            cluster.shutdown()


def _node_of(worker: _Actor) -> str:
    ray: Any = pytest.importorskip("ray")
    node: str = ray.get(worker.handle.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()))
    return node


@dataclass(frozen=True, slots=True)
class OnceHurried(Patience):
    """Gives the second task that is begun no time at all, so that its worker counts as hung."""

    num_begun: list[int] = field(default_factory=list)

    def deadline_seconds(self, predicted: float, *, is_first: bool) -> float:
        self.num_begun.append(1)
        return 0.0 if len(self.num_begun) == 2 else 1e6


@dataclass
class Faults:
    """Strike three workers of a pool, one each: its node is killed, it is stopped, its segment is damaged."""

    cluster: Any
    pool: RayPool
    struck: dict[str, str] = field(default_factory=dict)  # workers, by faults

    def __post_init__(self) -> None:
        self._start, self._fetched = self.pool.start, self.pool._transfer.fetched
        self.pool.start = self.start  # type: ignore[method-assign]
        self.pool._transfer.fetched = self.fetched  # type: ignore[method-assign]

    def start(self, worker: Worker, task: SegmentTask) -> None:
        self._start(worker, task)
        fault = ("damaged", "hung", "killed")[len(self.struck)] if len(self.struck) < 3 else None
        if fault is None or worker.name in self.struck.values():
            return
        self.struck[fault] = worker.name
        if fault == "hung":
            os.kill(int(worker.name.rpartition(":")[2]), signal.SIGSTOP)
        if fault == "killed":
            node = _node_of(self.pool._member_of(worker))
            self.cluster.remove_node(next(n for n in self.cluster.list_all_nodes() if n.node_id == node))

    def fetched(self, handle: Any, task: SegmentTask, result: SegmentResult) -> SegmentResult:
        worker = next(each.worker for each in self.pool._members if each.handle is handle)
        result = self._fetched(handle, task, result)
        if worker is not None and worker.name == self.struck.get("damaged") and task.attempt == 0:
            data = bytearray(task.path.read_bytes())
            data[len(data) // 2] ^= 1
            task.path.write_bytes(data)
            self.struck["damaged"] = f"{worker.name}, struck"
        return result


def _processes_of(names: Sequence[str]) -> list[str]:
    return [name for name in names if Path(f"/proc/{name.rpartition(':')[2].partition(',')[0]}").exists()]


@pytest.mark.slow  # a cluster starts
def test_nodes_that_share_nothing_make_the_file_of_one_process_though_each_has_its_fault(
    cluster: Any, clip: Path, model: Path, tmp_path: Path
) -> None:
    """One node is killed, one worker hangs, and one gives a damaged segment."""
    enhance_file(clip, tmp_path / "whole.mkv", options_of(model, resume=True))
    with RayPool(cluster.address, patience=OnceHurried()) as pool:
        while len(pool.ready()) < 3:
            pool.wait(1)
        faults = Faults(cluster, pool)
        report = enhance_file_on(pool, clip, tmp_path / "out.mkv", options_of(model))
    assert sorted(faults.struck) == ["damaged", "hung", "killed"]
    assert packets_of(tmp_path / "out.mkv") == packets_of(tmp_path / "whole.mkv")
    reasons = " ".join(str(each) for each in report.retried)
    assert "is damaged" in reasons
    assert "past the deadline" in reasons
    assert "has gone" in reasons
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mkv", "whole.mkv"]
    for _ in range(100):  # Ray ends a worker in the background
        if not _processes_of(list(faults.struck.values())):
            return
        time.sleep(0.3)
    pytest.fail(f"workers are still there: {_processes_of(list(faults.struck.values()))}")


def _store_bytes(nodes: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return the bytes that the fullest object store must keep, and those that all have spilled."""
    api: Any = pytest.importorskip("ray._private.internal_api")
    alive = [node for node in nodes if node["Alive"]]
    stats = [api.node_stats(n["NodeManagerAddress"], n["NodeManagerPort"], False).store_stats for n in alive]
    return max(each.object_store_bytes_primary_copy for each in stats), sum(each.spilled_bytes_total for each in stats)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VSR_CLUSTER_CLIPS"), reason="VSR_CLUSTER_CLIPS is not set: sends 200 MB")
def test_a_source_larger_than_the_object_store_keeps_it_under_its_bound(
    cluster: Any, model: Path, tmp_path: Path
) -> None:
    """Nothing spills, and the store has to keep few pieces; those that have arrived may go when there is no room."""
    source = write_large_clip(tmp_path / "in.mov", 40)
    num_bytes = source.stat().st_size
    assert num_bytes > 1.5 * OBJECT_STORE_BYTES
    used: list[tuple[int, int]] = []
    with RayPool(cluster.address) as pool:
        wait, pieces = pool.wait, pool._transfer.pieces

        def wait_and_look(seconds: float) -> Any:
            used.append(_store_bytes(pool._ray.nodes()))
            return wait(seconds)

        pool.wait = wait_and_look  # type: ignore[method-assign]
        report = enhance_file_on(pool, source, tmp_path / "out.mkv", options_of(model, audio="none"))
    assert report.num_frames == 40
    assert pieces is not None
    assert pieces.most_in_flight <= IN_FLIGHT_BYTES
    assert max(bytes_used for bytes_used, _ in used) <= IN_FLIGHT_BYTES + TRANSFERS_AT_ONCE * PIECE_BYTES
    assert not max(spilled for _, spilled in used)
    assert pieces.num_bytes < 2.2 * num_bytes, "three workers do not each get all of it"


@pytest.mark.slow  # a cluster starts
def test_a_shared_folder_is_used_and_left_as_it_was(cluster: Any, clip: Path, model: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    enhance_file(clip, tmp_path / "whole.mkv", options_of(model, resume=True))
    with RayPool(cluster.address, num_workers=1, storage=shared) as pool:
        enhance_file_on(pool, clip, tmp_path / "out.mkv", options_of(model))
    assert packets_of(tmp_path / "out.mkv") == packets_of(tmp_path / "whole.mkv")
    assert not list(shared.iterdir())


@pytest.mark.slow  # a cluster starts
def test_status_names_nodes_and_versions(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsr.cluster.status._ANSWER_SECONDS", 600.0)  # a busy machine loads torch for minutes
    head, *nodes = describe_cluster(cluster.address)
    assert "of 2 CPUs in use" in head or "of 3 CPUs in use" in head
    assert len([line for line in nodes if "1 CPUs" in line and "vsr " in line]) >= 2


CONNECTING = """
import sys
from vsr.cluster.ray_pool import connect
from vsr.errors import VsrError
try:
    connect(sys.argv[1], seconds=3)
except VsrError as error:
    print(error)
"""


def test_a_cluster_that_does_not_answer_is_an_error_in_time(warm_python: str) -> None:
    """In a process of its own, as Ray goes on trying in the background."""
    command = [warm_python, "-c", CONNECTING]
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        # Somebody listens, and says nothing.
        silent = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
    assert silent.stdout.startswith("`cluster=ray://127")
    gone = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
    assert "cannot be reached" in gone.stdout


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"vsr-enhance\[cluster\]"):
        connect("auto")


def test_room_is_counted_by_whole_workers() -> None:
    def node(**resources: float) -> dict[str, Any]:
        return {"Alive": True, "Resources": resources}

    gone = {"Alive": False, "Resources": {"CPU": 64}}
    assert ray_pool._room([node(CPU=8), node(CPU=6), node(), gone], uses_gpus=False) == (4, 3)
    assert ray_pool._room([node(CPU=8), node(CPU=1)], uses_gpus=False) == (1, 9)
    assert ray_pool._room([node(CPU=8, GPU=2), node(CPU=8)], uses_gpus=True) == (1, 2)


@pytest.mark.slow  # a cluster starts
def test_a_worker_of_another_version_ends_the_job(
    cluster: Any, clip: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsr.cluster.segment_task.__version__", "99.1")
    with RayPool(cluster.address, patience=Patience()) as pool, pytest.raises(VsrError, match=r"and this is vsr 99\.1"):
        enhance_file_on(pool, clip, tmp_path / "out.mkv", options_of(model))
    assert not list(tmp_path.iterdir())
    assert Hello.of_this_process().version == "99.1"
