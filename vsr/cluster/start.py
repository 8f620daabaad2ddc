"""Start the pool of workers that somebody asks for: processes of this machine, or of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vsr.backends.select import choose_place
from vsr.cluster.pool import Pool
from vsr.cluster.processes import ProcessPool
from vsr.cluster.ray_pool import RayPool
from vsr.errors import OptionError

__all__ = ["WorkerOptions", "start_pool"]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Say which workers make the segments of a job.

    workers: how many; None for one process, or on a cluster for as many as there is room for.
    cluster: the address of a Ray cluster, as `vsr.cluster.ray_pool.connect` takes it; None for processes here.
    storage: a folder that all nodes of the cluster see under this name, if there is one.
    """

    workers: int | None = None
    cluster: str | None = None
    storage: Path | None = None

    def __post_init__(self) -> None:
        """Raise OptionError for a number below one, and for a folder without a cluster."""
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"`workers={self.workers}`: must be 1 or more")
        if self.storage is not None and self.cluster is None:
            raise OptionError("`storage`: is of a cluster; give `cluster`, too")

    @property
    def are_wanted(self) -> bool:
        """Tell whether there are any; else a job runs in this process."""
        return self.workers is not None or self.cluster is not None


def start_pool(options: WorkerOptions, device: str, backend: str) -> Pool:
    """Start workers. device, backend: of the jobs. Raises the errors of the pools."""
    uses_gpus = choose_place(device, backend).device.type == "cuda"
    if options.cluster is not None:
        return RayPool(options.cluster, num_workers=options.workers, uses_gpus=uses_gpus, storage=options.storage)
    # A GPU that is asked for by its number takes all workers; else each worker gets the next.
    shares_gpus = uses_gpus and ":" not in device
    return ProcessPool(options.workers or 1, torch.cuda.device_count() if shares_gpus else 0)
