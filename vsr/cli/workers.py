"""Carry out --workers and --cluster: jobs in this process, or on a pool of workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vsr.cluster.worker_options import WorkerOptions

if TYPE_CHECKING:
    from vsr.cli.progress import ProgressPrinter
    from vsr.cluster.pool import Pool
    from vsr.jobs.batch import Outcome
    from vsr.jobs.model_cache import ModelCache
    from vsr.jobs.options import JobOptions
    from vsr.jobs.report import JobReport

__all__ = ["Workers"]


class Workers:
    """The workers that a command line asks for, if any; they start with the first job. Use as a context manager."""

    def __init__(
        self, workers: int | None, cluster: str | None, storage: Path | None, device: str, backend: str
    ) -> None:
        """Take options as `WorkerOptions` has them. device, backend: those of the jobs."""
        self._options = WorkerOptions(workers, cluster, storage)
        self._device, self._backend = device, backend
        self._pool: Pool | None = None

    @property
    def are_wanted(self) -> bool:
        """See `WorkerOptions`."""
        return self._options.are_wanted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.close()

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
        from vsr.cluster.start import start_pool

        self._pool = self._pool or start_pool(self._options, self._device, self._backend)
        return self._pool
