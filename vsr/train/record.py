"""Record a run in its folder: recipe, log, TensorBoard events and the best weights so far."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from vsr.errors import InputError, install_hint
from vsr.files import naming_output, write_file
from vsr.train.recipes import AnyRecipe
from vsr.version import __version__

__all__ = ["RunRecord"]


class RunRecord:
    """Write the files of a run folder, except the checkpoint.

    recipe.json: recipe, arguments, version and git revision, one entry for each start of the run.
    log.csv: step, minutes, every loss and score.  tensorboard/: the same and sample images.
    """

    def __init__(self, out: Path, num_steps: int, log: Callable[[str], None]) -> None:
        self.out, self._log = out, log
        self._csv, self._writer = out / "log.csv", None
        self._report_of_threads, threading.excepthook = threading.excepthook, self._report_thread
        try:
            with naming_output(out):
                out.mkdir(parents=True, exist_ok=True)
                self._drop_rows_after(num_steps)
                self._writer = self._tensorboard(num_steps)
        except BaseException:
            self.close()
            raise

    def start(self, recipe: AnyRecipe, arguments: Mapping[str, Any]) -> None:
        """Record the recipe, arguments and code version of a start or a resumption."""
        path = self.out / "recipe.json"
        starts = _starts(path) if path.is_file() else []
        starts.append({**arguments, "vsr": __version__, "git_revision": _git_revision()})
        text = json.dumps({"recipe": asdict(recipe), "starts": starts}, indent=2, default=str)
        with naming_output(path):
            write_file(path, text + "\n")

    def report(
        self, step: int, minutes: float, progress: float, losses: Mapping[str, float], scores: Mapping[str, float]
    ) -> None:
        """Write one line to the log, one row to log.csv, and one point of each curve."""
        shown = [f"{name} {value:.5f}" for name, value in losses.items()]
        shown += [f"{name} {value:.3f}" for name, value in scores.items()]
        self._log("  ".join([f"{progress:6.1%}  step {step}  {minutes:.1f} min", *shown]))
        row = {"step": step, "minutes": round(minutes, 3), **losses, **scores}
        with naming_output(self._csv):
            self._append(row)
        for kind, values in (("loss", losses), ("score", scores)):
            for name, value in values.items():
                if math.isfinite(value):
                    self._draw("add_scalar", f"{kind}/{name}", value, step)

    def images(self, step: int, grid: Tensor) -> None:
        """Show sample images: (3, H, W) or (1, H, W) in [0, 1]."""
        self._draw("add_image", "bicubic | output | truth", grid, step)
        self._draw("flush")

    def close(self) -> None:
        try:
            self._draw("close")
        finally:
            threading.excepthook = self._report_of_threads

    def _draw(self, method: str, *arguments: Any) -> None:
        """Call a method of TensorBoard's writer, if there is one; once it fails, it cannot even be closed."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with naming_output(self.out / "tensorboard"):
                getattr(writer, method)(*arguments)
            self._writer = writer

    def _report_thread(self, args: threading.ExceptHookArgs) -> None:
        """Report what ends a thread, but for that of TensorBoard's writer, which hands its error to the next call."""
        if not type(args.thread).__module__.startswith("tensorboard."):
            self._report_of_threads(args)

    def _append(self, row: Mapping[str, Any]) -> None:
        rows = self._rows()
        columns = list(dict.fromkeys([*(rows[0] if rows else ()), *row]))
        self._write(columns, [*rows, {key: str(value) for key, value in row.items()}])

    def _drop_rows_after(self, num_steps: int) -> None:
        """Drop rows that a killed run wrote after its last checkpoint, which would come twice."""
        rows = self._rows()
        try:
            kept = [row for row in rows if int(row["step"]) <= num_steps]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._csv}: is damaged; move it away, and the run goes on with a new one") from error
        if len(kept) != len(rows):
            self._write(list(rows[0]), kept)

    def _rows(self) -> list[dict[str, str]]:
        if not self._csv.is_file():
            return []
        try:
            with self._csv.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except (csv.Error, ValueError) as error:
            raise InputError(f"{self._csv}: is damaged; move it away, and the run goes on with a new one") from error

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        with self._csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def _tensorboard(self, num_steps: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._log(f"no TensorBoard curves and images; for them: {install_hint('train')}")
            return None
        return SummaryWriter(self.out / "tensorboard", purge_step=num_steps + 1)


def _starts(path: Path) -> list[Any]:
    """Read the earlier starts of a run. Raises InputError for a damaged file."""
    try:
        return list(json.loads(path.read_text("utf-8"))["starts"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged; move it away, and the run goes on with a new one") from error


def _git_revision() -> str:
    """Return the commit of the checkout this code runs from, "-dirty" if changed; "" for an installed package."""
    here = Path(__file__).parent
    try:
        for command in (["ls-files", "--error-unmatch", Path(__file__).name], ["describe", "--always", "--dirty"]):
            done = subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
