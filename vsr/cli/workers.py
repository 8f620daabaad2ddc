"""Carry out --workers and --cluster: jobs in this process, or on a pool of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vsr.errors import OptionError

if TYPE_CHECKING:
    from vsr.cli.progress import ProgressPrinter
    from vsr.cluster.pool import Pool
    from vsr.jobs.batch import Outcome
    from vsr.jobs.model_cache import ModelCache
    from vsr.jobs.options import JobOptions
    from vsr.jobs.report import JobReport

__all__ = ["Workers"]


@dataclass
class Workers:
    """The workers that a command line asks for, if any; they start with the first job. Use as a context manager.

    num_workers: None for one process, or on a cluster for as many as there is room for.
    cluster: the address of a Ray cluster, as `vsr.cluster.ray_pool.connect` takes it; None for processes here.
    storage: a folder that all nodes of the cluster see.  device, backend: those of the jobs.
    """

    num_workers: int | None
    cluster: str | None
    storage: Path | None
    device: str
    backend: str
    _pool: Pool | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.storage is not None and self.cluster is None:
            raise OptionError("`storage`: is of a cluster; give `cluster`, too")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.close()

    @property
    def are_wanted(self) -> bool:
        """Tell whether there are any."""
        return self.num_workers is not None or self.cluster is not None

    def enhance_file(self, source: Path, output: Path, options: JobOptions, **rest: Any) -> JobReport:
        """Make a job and run it, as `vsr.jobs.run.enhance_file` does, which takes the rest, too."""
        if not self.are_wanted:
            from vsr.jobs.run import enhance_file

            return enhance_file(source, output, options, **rest)
        from vsr.cluster.run import enhance_file_on

        return enhance_file_on(self._started(), source, output, options, **rest)

    def enhance_each(
        self, named: Sequence[tuple[Path, Path]], options: JobOptions, models: ModelCache, printer: ProgressPrinter
    ) -> Outcome:
        """Run jobs on several files, side by side."""
        from vsr.cluster.batch import FileEvents, enhance_each_on

        events = FileEvents(printer.note, printer.complain, printer.update_one, printer.report)
        return enhance_each_on(self._started(), named, options, models, events)

    def _started(self) -> Pool:
        self._pool = self._pool or self._start()
        return self._pool

    def _start(self) -> Pool:
        import torch

        from vsr.backends.select import choose_place
        from vsr.cluster.processes import ProcessPool
        from vsr.cluster.ray_pool import RayPool

        uses_gpus = choose_place(self.device, self.backend).device.type == "cuda"
        if self.cluster is not None:
            return RayPool(self.cluster, num_workers=self.num_workers, uses_gpus=uses_gpus, storage=self.storage)
        # A GPU that is asked for by its number takes all workers; else each worker gets the next.
        shares_gpus = uses_gpus and ":" not in self.device
        return ProcessPool(self.num_workers or 1, torch.cuda.device_count() if shares_gpus else 0)
