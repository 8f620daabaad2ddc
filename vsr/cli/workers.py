"""Carry out --workers: jobs in this process, or on a pool of workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from vsr.cluster.pool import Pool
    from vsr.jobs.options import JobOptions
    from vsr.jobs.report import JobReport

__all__ = ["Workers"]


class Workers:
    """The workers that a command line asks for, if any; they start with the first job. Use as a context manager."""

    def __init__(self, num_workers: int | None, device: str, backend: str) -> None:
        self._num_workers, self._device, self._backend = num_workers, device, backend
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def enhance_file(self, source: Path, output: Path, options: JobOptions, **rest: Any) -> JobReport:
        """Make a job and run it, as `vsr.jobs.run.enhance_file` does, which takes the rest, too."""
        if self._num_workers is None:
            from vsr.jobs.run import enhance_file

            return enhance_file(source, output, options, **rest)
        from vsr.cluster.run import enhance_file_on

        if self._pool is None:
            self._pool = self._started(self._num_workers)
        return enhance_file_on(self._pool, source, output, options, **rest)

    def _started(self, num_workers: int) -> Pool:
        import torch

        from vsr.backends.select import choose_place
        from vsr.cluster.processes import ProcessPool

        device = choose_place(self._device, self._backend).device
        # A GPU that is asked for by its number takes all workers; else each worker gets the next.
        shares_gpus = device.type == "cuda" and ":" not in self._device
        return ProcessPool(num_workers, torch.cuda.device_count() if shares_gpus else 0)
