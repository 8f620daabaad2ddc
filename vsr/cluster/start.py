"""Start the pool of workers that somebody asks for: processes of this machine, or of a cluster."""

from __future__ import annotations

import torch

from vsr.backends.select import choose_place
from vsr.cluster.pool import Pool
from vsr.cluster.processes import ProcessPool
from vsr.cluster.ray_pool import RayPool
from vsr.cluster.worker_options import WorkerOptions

__all__ = ["start_pool"]


def start_pool(options: WorkerOptions, device: str, backend: str) -> Pool:
    """Start workers. device, backend: of the jobs. Raises the errors of the pools."""
    uses_gpus = choose_place(device, backend).device.type == "cuda"
    if options.cluster is not None:
        return RayPool(options.cluster, num_workers=options.workers, uses_gpus=uses_gpus, storage=options.storage)
    # A GPU that is asked for by its number takes all workers; else each worker gets the next.
    shares_gpus = uses_gpus and ":" not in device
    return ProcessPool(options.workers or 1, torch.cuda.device_count() if shares_gpus else 0)
