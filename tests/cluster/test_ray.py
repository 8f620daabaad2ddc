"""Workers as actors of a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_clips import options_of, packets_of

from vsr.cluster import ray_pool
from vsr.cluster.patience import Patience
from vsr.cluster.ray_pool import RayPool, connect
from vsr.cluster.run import enhance_file_on
from vsr.cluster.segment_task import Hello
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


def _worker_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("vsr-worker-*"))


@pytest.mark.slow  # a cluster starts
def test_nodes_that_share_nothing_make_the_file_of_one_process_though_one_is_killed(
    cluster: Any, clip: Path, model: Path, tmp_path: Path
) -> None:
    """The source and the model go to the nodes, and the segments back, by the object store."""
    enhance_file(clip, tmp_path / "whole.mkv", options_of(model, resume=True))
    notes: list[str] = []
    is_killed = False
    with RayPool(cluster.address) as pool:
        wait = pool.wait

        def wait_and_kill(seconds: float) -> Any:
            nonlocal is_killed
            busy = [worker for worker in pool.ready() if worker not in pool.idle()]
            if busy and not is_killed:
                is_killed = True
                cluster.remove_node(cluster.list_all_nodes()[-1])
            return wait(seconds)

        pool.wait = wait_and_kill  # type: ignore[method-assign]
        enhance_file_on(pool, clip, tmp_path / "out.mkv", options_of(model), note=notes.append)
    assert is_killed
    assert packets_of(tmp_path / "out.mkv") == packets_of(tmp_path / "whole.mkv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mkv", "whole.mkv"]


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
