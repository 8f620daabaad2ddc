"""Run many files on the workers of a pool, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vsr.cluster.pool import Pool
from vsr.cluster.run import DividedRun, run_all
from vsr.errors import MissingExtraError, ModelError, VsrError
from vsr.events import OnNote, Progress
from vsr.jobs.batch import Outcome, files_to_do, make_folder
from vsr.jobs.model_cache import ModelCache
from vsr.jobs.options import JobOptions
from vsr.jobs.report import JobReport

__all__ = ["FileEvents", "enhance_each_on"]


@dataclass(frozen=True, slots=True)
class FileEvents:
    """Calls for what happens to several files.

    note, complain: with a line for what is worth knowing, and for a file that fails.
    on_progress: with an input, and how far it is.  on_report: with the report of each that is done.
    """

    note: OnNote = lambda line: None
    complain: Callable[[str], None] = lambda line: None
    on_progress: Callable[[Path, Progress], None] = lambda source, progress: None
    on_report: Callable[[JobReport], None] = lambda report: None


def enhance_each_on(
    pool: Pool, named: Sequence[tuple[Path, Path]], options: JobOptions, models: ModelCache, events: FileEvents
) -> Outcome:
    """Enhance every file as `vsr.jobs.batch.enhance_each` does, on the workers of a pool.

    Workers take segments of all files that are begun in turn; the next file is begun where a worker has nothing to do.
    """
    files = _Files(pool, options, models, events)
    run_all(pool, files.begun(named))
    files.count_ended()
    return files.outcome


class _Files:
    """The files that were begun. outcome: how those that are over have ended."""

    def __init__(self, pool: Pool, options: JobOptions, models: ModelCache, events: FileEvents) -> None:
        self._pool, self._options, self._models, self._events = pool, options, models, events
        self._running: list[tuple[Path, DividedRun]] = []
        self.outcome = Outcome()

    def begun(self, named: Sequence[tuple[Path, Path]]) -> Iterator[DividedRun]:
        """Begin one file after the other; raise what would fail all of them alike."""
        for source, output in files_to_do(named, self._options, self.outcome, self._events.note):
            self.count_ended()
            progress = partial(self._events.on_progress, source)
            arguments = (self._options, self._pool.patience, self._events.note, progress, self._models)
            try:
                make_folder(output.parent)
                run = DividedRun.begun(source, output, *arguments)
            except (ModelError, MissingExtraError):
                raise
            except VsrError as error:
                self._fail(source, error)
                continue
            if isinstance(run, JobReport):
                self._finish(source, run)
                continue
            self._running.append((source, run))
            yield run

    def count_ended(self) -> None:
        """Report the files that have ended since."""
        for source, run in [each for each in self._running if each[1].is_over]:
            self._running.remove((source, run))
            try:
                self._finish(source, run.result())
            except VsrError as error:
                self._fail(source, error)

    def _finish(self, source: Path, report: JobReport) -> None:
        self._events.on_report(report)
        self.outcome.done.append(source)

    def _fail(self, source: Path, error: VsrError) -> None:
        self._models.forget()
        self._events.complain(str(error))
        self.outcome.failed.append((source, error))
