"""Say which workers make the segments of a job, without loading anything that they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vsr.errors import OptionError

__all__ = ["WorkerOptions"]


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
