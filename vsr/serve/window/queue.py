"""Work through a queue of files of this machine, images and videos, and put each result where it belongs."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from vsr.errors import InputError, OutputError, VsrError
from vsr.files import partial_file, write_file
from vsr.media.image_sequence import is_image
from vsr.media.images import encode_image
from vsr.serve.errors import RefusedError
from vsr.serve.job_store import JobRecord, JobState
from vsr.serve.page.choices import choose_for_image, video_model
from vsr.serve.page.parts import PageParts
from vsr.serve.page.words import error_text

__all__ = ["MEDIA_SUFFIXES", "Entry", "EntryState", "FileQueue", "QueueOptions"]

_VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".wmv",
    ".asf", ".ogv", ".3gp", ".mxf", ".dv", ".nut", ".y4m",
)  # fmt: skip
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MEDIA_SUFFIXES = frozenset((*_VIDEO_SUFFIXES, *_IMAGE_SUFFIXES))


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """Say what becomes of files.

    Args:
        model: A name of `image_models` or `video_models`; where one is not for a kind of file, "auto" takes its place.
        scale: Output pixels per input pixel: 2, 3 or 4.
        folder: The results' folder; None puts each beside its source.
    """

    model: str = "auto"
    scale: int = 4
    folder: str | None = None


class EntryState(StrEnum):
    """The state of a file in the queue."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the queue.

    Args:
        path: Of the file.
        options: See `QueueOptions`.
        state: See `EntryState`.
        job: Id of its video job, once there is one.
        output: Path of the result, once it is there.
        text: Why it failed.
    """

    path: str
    options: QueueOptions
    state: EntryState = EntryState.WAITING
    job: str | None = None
    output: str | None = None
    text: str = ""


class FileQueue:
    """A queue of files, kept in a file so that it goes on where it was. Use as a context manager; from any thread.

    Files of a window are the user's own: they are read by path, without a copy where the disk allows it.
    """

    def __init__(
        self, parts: PageParts, store: Path, on_end: Callable[[str, str], None] = lambda title, text: None
    ) -> None:
        """store: JSON file of the queue.  on_end: called with title and text when the last file is done."""
        self._parts, self._store, self._on_end = parts, store, on_end
        self._entries = _read(store)
        self._lock, self._changed = threading.RLock(), threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="vsr-queue", daemon=True)

    def __enter__(self) -> FileQueue:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop after an image, or leave a video's job to the service, which keeps it; the queue stays in its file."""
        self._is_closing = True
        self._changed.set()
        self._thread.join(timeout=10)

    def add(self, paths: Iterable[Path], options: QueueOptions) -> int:
        """Put files, and the media files right in folders, at the end of the queue; return how many.

        Files that wait already are passed over. Raises InputError for what is not there or no image or video, and
        OutputError for a folder of results that is not there.
        """
        if options.folder is not None and not Path(options.folder).is_dir():
            raise OutputError(f"{options.folder}: no such folder for the results")
        found = [file for path in paths for file in _media_files(path)]
        with self._lock:
            waiting = {e.path for e in self._entries if e.state in (EntryState.WAITING, EntryState.RUNNING)}
            new = [Entry(str(file), options) for file in dict.fromkeys(found) if str(file) not in waiting]
            self._entries += new
            self._save()
        self._changed.set()
        return len(new)

    def entries(self) -> list[Entry]:
        """Return the files in the order in which they are worked on."""
        with self._lock:
            return list(self._entries)

    def record(self, entry: Entry) -> JobRecord | None:
        """Return the video job of a file, as it stands; None where there is none."""
        with contextlib.suppress(RefusedError):
            return self._parts.jobs.get(entry.job) if entry.job else None
        return None

    def clear(self) -> None:
        """Forget the files that are not waited for any more; their results stay."""
        with self._lock:
            self._entries = [e for e in self._entries if e.state in (EntryState.WAITING, EntryState.RUNNING)]
            self._save()

    def cancel(self) -> None:
        """End the file that is at work, and take all others out of the queue."""
        with self._lock:
            jobs = [e.job for e in self._entries if e.state is EntryState.RUNNING and e.job]
            self._entries = [
                replace(e, state=EntryState.CANCELLED) if e.state is EntryState.WAITING else e for e in self._entries
            ]
            self._save()
        for job in jobs:
            with contextlib.suppress(RefusedError):
                self._parts.jobs.cancel(job)

    def pause(self, *, go_on: bool = False) -> None:
        """Pause the video that is at work, or go on with it."""
        for entry in self.entries():
            if entry.state is EntryState.RUNNING and entry.job:
                with contextlib.suppress(RefusedError):
                    (self._parts.jobs.resume if go_on else self._parts.jobs.pause)(entry.job)

    # -- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        num_done = 0
        while not self._is_closing:
            self._changed.clear()
            number = next((n for n, e in enumerate(self.entries()) if _is_open(e)), None)
            if number is not None:
                num_done += self._run(self.entries()[number])
                continue
            if num_done:
                self._on_end("vsr is done", f"{num_done} file{'s' if num_done != 1 else ''} finished")
                num_done = 0
            self._changed.wait()

    def _run(self, entry: Entry) -> int:
        """Work on one file, and record what became of it; return 1 where it has ended."""
        entry = self._put(entry, state=EntryState.RUNNING)
        source = Path(entry.path)
        try:
            if entry.job is None and is_image(source):
                self._put(entry, state=EntryState.DONE, output=str(self._enlarge(source, entry.options)))
                return 1
            job = entry.job or self._submit(source, entry.options)
            entry = self._put(entry, job=job)
            record = self._followed(job)
            if record is None:
                return 0
            self._put(entry, **self._ended(record, source, entry.options))
            self._parts.jobs.delete(job)
        except Exception as error:
            self._put(entry, state=EntryState.FAILED, text=error_text(error, {source: source.name}))
        return 1

    def _put(self, entry: Entry, **values: object) -> Entry:
        """Replace an entry by one with other values."""
        after = replace(entry, **values)  # type: ignore[arg-type]
        with self._lock:
            self._entries = [after if each.path == entry.path and _is_open(each) else each for each in self._entries]
            self._save()
        return after

    def _enlarge(self, source: Path, options: QueueOptions) -> Path:
        image = self._parts.decode(source)
        model = options.model if options.model in _image_names() else "auto"
        choice = choose_for_image(model, options.scale, image.shape[1], image.shape[0])
        target = _target(source, options, source.suffix if source.suffix.lower() != ".gif" else ".png")
        write_file(target, encode_image(self._parts.images.upscale(image, choice.name, options.scale), target))
        return target

    def _submit(self, source: Path, options: QueueOptions) -> str:
        container = "mkv" if source.suffix.lower() in (".mkv", ".webm") else "mp4"
        try:
            model = video_model(options.model, options.scale)
        except VsrError:  # a model for images alone
            model = "auto"
        values = {"model": model, "scale": options.scale, "container": container}
        return self._parts.jobs.submit(source, values, name=source.name)

    def _followed(self, job: str) -> JobRecord | None:
        """Wait for the end of a job; None where the service ends first."""
        for _ in self._parts.jobs.events(job):
            if self._is_closing:
                return None
        record = self._parts.jobs.get(job)
        return record if record.has_ended else None

    def _ended(self, record: JobRecord, source: Path, options: QueueOptions) -> dict[str, object]:
        if record.state is JobState.FAILED:
            return {"state": EntryState.FAILED, "text": record.error or "the job failed"}
        if record.state is JobState.CANCELLED:
            return {"state": EntryState.CANCELLED}
        result = self._parts.jobs.result(record.id)
        target = _target(source, options, result.suffix)
        with partial_file(target) as partial:
            shutil.copyfile(result, partial)
        return {"state": EntryState.DONE, "output": str(target)}

    def _save(self) -> None:
        text = json.dumps([asdict(entry) for entry in self._entries], indent=1)
        self._store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._store, text)


def _is_open(entry: Entry) -> bool:
    return entry.state in (EntryState.WAITING, EntryState.RUNNING)


def _image_names() -> set[str]:
    from vsr.serve.page.choices import image_models

    return {name for _, name in image_models()}


def _read(store: Path) -> list[Entry]:
    """Read the queue of an earlier run; a file of another version is an empty queue."""
    try:
        values = json.loads(store.read_text("utf-8"))
        return [Entry(**v | {"options": QueueOptions(**v["options"]), "state": EntryState(v["state"])}) for v in values]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _media_files(path: Path) -> list[Path]:
    """List the media files of a folder, in the order of their names; or the file itself."""
    path = path.expanduser().absolute()
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in MEDIA_SUFFIXES and f.is_file())
        if not files:
            raise InputError(f"{path.name}: there is no image or video in this folder")
        return files
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if path.suffix.lower() not in MEDIA_SUFFIXES:
        raise InputError(f"{path.name}: is no image or video by its name")
    return [path]


def _target(source: Path, options: QueueOptions, suffix: str) -> Path:
    """Name the result after its source, as photo_x4.png; photo_x4_2.png where that is taken."""
    folder = source.parent if options.folder is None else Path(options.folder)
    stem = f"{source.stem}_x{options.scale}"
    target, number = folder / f"{stem}{suffix}", 2
    while target.exists():
        target, number = folder / f"{stem}_{number}{suffix}", number + 1
    return target
