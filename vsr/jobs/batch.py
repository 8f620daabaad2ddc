"""Many files, one after the other: what is done is skipped, what fails is named, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vsr.errors import InputError, MissingExtraError, ModelError, OptionError, OutputError, VsrError, reason
from vsr.events import Note, NoteCode, OnNote
from vsr.jobs.model_cache import ModelCache
from vsr.jobs.options import JobOptions
from vsr.media.formats import VIDEO_SUFFIXES
from vsr.media.image_sequence import is_image

__all__ = ["Outcome", "enhance_each", "files_to_do", "make_folder", "name_outputs"]


@dataclass(slots=True)
class Outcome:
    """List the files that were done, skipped and failed, each in its order.

    failed: with the error of each.
    """

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, VsrError]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or that of the first error."""
        return self.failed[0][1].exit_code if self.failed else 0

    def by_name(self) -> dict[str, list[str]]:
        """The files as JSON has them."""
        failed = [path for path, _ in self.failed]
        return {
            name: [str(path) for path in paths]
            for name, paths in (("done", self.done), ("skipped", self.skipped), ("failed", failed))
        }

    def summary(self) -> str:
        """One line: how many were done, skipped and failed, and which failed."""
        total = len(self.done) + len(self.skipped) + len(self.failed)
        counts = [f"{len(self.done)} done", f"{len(self.skipped)} skipped", f"{len(self.failed)} failed"]
        names = f" ({', '.join(path.name for path, _ in self.failed)})" if self.failed else ""
        return f"{total} file{'s' if total != 1 else ''}: {', '.join(counts)}{names}"


def name_outputs(
    sources: Sequence[Path],
    folder: Path,
    suffix: str = "",
    container: str | None = None,
    *,
    recursive: bool = False,
) -> list[tuple[Path, Path]]:
    """Every input with its output in `folder`: the input's name, with `suffix` behind its stem.

    sources: files, and folders, of which the videos and pictures are taken, in the order of their names; what is hidden
        is not, nor what lies deeper unless `recursive`: it then lies as deep in `folder`.
    container: suffix of the videos to write ("mkv"), instead of the input's own. Pictures stay what they are.

    Raises OptionError where two inputs would get one name, or one that of an input, and InputError where there is
    no file. Nothing is read or written.
    """
    named = []
    for source in sources:
        for file in _files_in(source, recursive, folder) if source.is_dir() else [source]:
            place = folder / file.parent.relative_to(source) if source.is_dir() else folder
            named.append((file, place / f"{file.stem}{suffix}{_type_of(file, container)}"))
    inputs = {file.resolve() for file, _ in named}
    taken: dict[Path, Path] = {}
    for file, output in named:
        if output.resolve() in inputs:
            raise OptionError(f"{output}: is one of the inputs; add a `suffix`, or choose another folder for outputs")
        first = taken.setdefault(output.resolve(), file)
        if first is not file:
            raise OptionError(f"{first} and {file} would both become {output}; rename one, or do them one by one")
    return named


def _files_in(folder: Path, recursive: bool, outputs: Path) -> list[Path]:
    """List the videos and images of a folder, without those in the folder of outputs."""
    try:
        entries = sorted(folder.rglob("*") if recursive else folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({reason(error)})") from error
    if outputs.resolve() != folder.resolve():
        entries = [path for path in entries if not path.resolve().is_relative_to(outputs.resolve())]
    is_shown = (not any(part.startswith(".") for part in path.relative_to(folder).parts) for path in entries)
    files = [path for path, shown in zip(entries, is_shown, strict=True) if shown and path.is_file()]
    known = [path for path in files if is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES]
    if not known:
        deeper = "" if recursive else "; `recursive=True` looks into folders inside it"
        raise InputError(f"{folder}: holds no video and no picture{deeper}")
    return known


def _type_of(file: Path, container: str | None) -> str:
    return file.suffix if container is None or is_image(file) else f".{container.removeprefix('.')}"


def enhance_each(
    named: Sequence[tuple[Path, Path]],
    options: JobOptions,
    enhance: Callable[[Path, Path, JobOptions], object],
    models: ModelCache,
    *,
    note: OnNote = lambda line: None,
    complain: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Enhance every file to its output; a file that fails does not keep the others from it.

    named: inputs and outputs, as `name_outputs` gives them, in a folder that is there.
    enhance: does one file, maybe with the model of the file before (`models`), and raises the errors of `vsr.errors`.
    note, complain: called with a line for what is skipped, and for what fails.

    An output that exists is skipped unless `overwrite=True`. Raises what would fail every file alike: a model that
    cannot be loaded, a part that is not installed.
    """
    outcome = Outcome()
    for source, output in files_to_do(named, options, outcome, note):
        try:
            enhance(source, output, options)
        except (ModelError, MissingExtraError):
            raise
        except VsrError as error:
            models.forget()
            complain(str(error))
            outcome.failed.append((source, error))
        else:
            outcome.done.append(source)
    return outcome


def files_to_do(
    named: Sequence[tuple[Path, Path]], options: JobOptions, outcome: Outcome, note: OnNote
) -> Iterator[tuple[Path, Path]]:
    """Yield the inputs whose output is not there, each with it; count the others as skipped."""
    for number, (source, output) in enumerate(named, 1):
        if output.exists() and not options.policy.overwrite:
            text = f"{output}: exists already, {source.name} is skipped (`overwrite=True` does it again)"
            note(Note(NoteCode.FILES, text))
            outcome.skipped.append(source)
            continue
        note(Note(NoteCode.FILES, f"[{number}/{len(named)}] {source}"))
        yield source, output


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, and those above it, where they are missing. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({reason(error)})") from error
