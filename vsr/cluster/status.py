"""Describe the nodes of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from vsr.cluster.ray_pool import connect, disconnect
from vsr.cluster.segment_task import Hello
from vsr.version import __version__

__all__ = ["describe_cluster"]

_ANSWER_SECONDS = 60.0


def describe_cluster(address: str) -> Iterator[str]:
    """Yield a line for the cluster, and one for each node. Raises the errors of `connect`."""
    ray = connect(address)
    try:
        nodes, total, free = ray.nodes(), ray.cluster_resources(), ray.available_resources()
        parts = [
            f"{total.get(name, 0) - free.get(name, 0):g} of {total.get(name, 0):g} {name}s in use"
            for name in ("CPU", "GPU")
        ]
        yield f"{sum(node['Alive'] for node in nodes)} nodes, {', '.join(parts)}; here vsr {__version__}"
        asked = [_ask(ray, node["NodeID"]) if node["Alive"] else None for node in nodes]
        end = time.monotonic() + _ANSWER_SECONDS  # for all of them together
        for node, answer in zip(nodes, asked, strict=True):
            yield f"  {_describe(ray, node, answer, max(0.0, end - time.monotonic()))}"
    finally:
        disconnect()


def _describe(ray: Any, node: Mapping[str, Any], asked: Any, seconds: float) -> str:
    """Describe a node in a line. asked: for its version; None where it has gone.  seconds: to wait for that."""
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    if asked is None:
        return f"{name}: gone"
    has = node["Resources"]
    memory = has.get("object_store_memory", 0) / 2**30
    sizes = f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs, object store {memory:.1f} GiB"
    return f"{name}: {sizes}, {_version_of(ray, asked, seconds)}"


def _ask(ray: Any, node_id: str) -> Any:
    """Ask a node for its version of vsr."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(_hello).options(scheduling_strategy=place, num_cpus=0, max_retries=0).remote()


def _version_of(ray: Any, asked: Any, seconds: float) -> str:
    """Wait for a node's version."""
    if not ray.wait([asked], timeout=seconds)[0]:
        return f"no answer within {_ANSWER_SECONDS:g} s"
    try:
        version: str = ray.get(asked).version
    except Exception as error:
        return f"vsr cannot be loaded ({str(error).strip().splitlines()[-1]})"
    return f"vsr {version}" if version == __version__ else f"vsr {version}: another, which is refused"


def _hello() -> Hello:
    return Hello.of_this_process()
