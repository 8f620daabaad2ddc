"""Keep built TensorRT engines: named by all they depend on, checked when read, written whole or not at all.

An engine is two files: `NAME.engine`, and `NAME.engine.json`, its record, with the key and the checksum. A timing
cache, `timing-….cache`, has such a record too. Whoever builds or writes one holds `locks/NAME.lock`, an empty file
that stays: were it removed, one process could hold the old file and another a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vsr.errors import reason
from vsr.files import target_of_partial, write_file

__all__ = ["EngineEntry", "EngineKey", "EngineStore", "Target", "engines_folder"]

_DIGEST_LENGTH = 16  # hexadecimal digits of a file name; the record holds the whole key


@dataclass(frozen=True, slots=True)
class Target:
    """A version of TensorRT and a GPU, which it tunes engines for. A timing cache is good for one of these.

    tensorrt: its full version, "10.16.1.11".  compute_capability: "9.0".
    """

    tensorrt: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that a built engine depends on; anything else can change and the engine stays right.

    onnx_sha256: of the exported network, its weights included.  shape: of the first input, (N, C, H, W).
    options: of the builder, by name.
    """

    onnx_sha256: str
    target: Target
    shape: tuple[int, int, int, int]
    precision: str
    options: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """The file name without a suffix: size, batch and precision for a person, and a digest of the key."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        batch, _, height, width = self.shape
        return f"{width}x{height}-b{batch}-{self.precision}-{digest[:_DIGEST_LENGTH]}"


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """An engine file. key is None where its record is missing or unreadable; problem is "" for a sound file."""

    path: Path
    num_bytes: int
    key: EngineKey | None
    label: str
    built: str
    problem: str


def engines_folder() -> Path:
    """Return `VSR_ENGINES` where it is set; `engines/` in a checkout of vsr; else a folder in the user's cache."""
    if named := os.environ.get("VSR_ENGINES"):
        return Path(named).expanduser()
    in_checkout = Path(__file__).resolve().parents[2] / "engines"
    if (in_checkout / "README.md").is_file():
        return in_checkout
    return _user_cache() / "vsr" / "engines"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class EngineStore:
    """A folder of engines and timing caches. Makes the folder when it first writes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or engines_folder()

    # -- engines -----------------------------------------------------------------------------------

    def path(self, key: EngineKey) -> Path:
        return self.folder / f"{key.name}.engine"

    def read(self, key: EngineKey) -> tuple[bytes | None, str]:
        """Return the engine of a key and ""; or None and the fault of its file, "" where there is none."""
        data, record, problem = _read_checked(self.path(key))
        if data is not None and _key_of(record) != key:
            return None, "its record names another engine"
        return data, problem

    def write(self, key: EngineKey, data: bytes, *, label: str = "", build_seconds: float = 0.0) -> None:
        """Keep an engine. Raises OSError; an older file is then still whole or fails its check."""
        record = {"key": asdict(key), "label": label, "build_seconds": round(build_seconds, 1)}
        _write_checked(self.path(key), data, record)

    @contextmanager
    def building(self, key: EngineKey, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only one, among threads and processes, who builds the engine of a key.

        on_wait: called once where another is at it. Raises OSError where the folder cannot be written.
        """
        with self._locked(key.name, on_wait):
            yield

    # -- exports -------------------------------------------------------------------------------------

    def known_export(self, source: str) -> str | None:
        """Return the SHA-256 of the ONNX that `source`, a digest of a network and its options, gave before."""
        try:
            return self._export_path(source).read_text("ascii").strip()
        except (OSError, ValueError):
            return None

    def remember_export(self, source: str, onnx_sha256: str) -> None:
        """Note the result of an export, to spare the next process one where the engine is there. Raises OSError."""
        path = self._export_path(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, f"{onnx_sha256}\n", sync=True)

    def _export_path(self, source: str) -> Path:
        return self.folder / "exports" / f"{source}.sha256"

    # -- timing caches -------------------------------------------------------------------------------

    def timing_cache_path(self, target: Target) -> Path:
        slug = re.sub(r"[^a-z0-9.]+", "-", f"{target.tensorrt} {target.gpu} {target.compute_capability}".lower())
        return self.folder / f"timing-{slug}.cache"

    def read_timing_cache(self, target: Target) -> tuple[bytes | None, str]:
        """Read the measurements that builds for one TensorRT on one GPU share, as `read` does."""
        path = self.timing_cache_path(target)
        if not path.exists():
            return None, ""
        with self._locked(path.stem):
            data, record, problem = _read_checked(path)
        if data is not None and _target_of(record) != target:
            return None, "its record names another GPU or TensorRT"
        return data, problem

    def write_timing_cache(self, target: Target, data: bytes) -> None:
        """Replace a timing cache; of two builds that end together the later one's is kept. Raises OSError."""
        path = self.timing_cache_path(target)
        with self._locked(path.stem):
            _write_checked(path, data, {"target": asdict(target)})

    # -- housekeeping --------------------------------------------------------------------------------

    def entries(self) -> list[EngineEntry]:
        """List every engine file, checked."""
        return [_entry(path) for path in sorted(self.folder.glob("[!.]*.engine"))]

    def prune(self, is_wanted: Callable[[Target], bool]) -> list[Path]:
        """Remove engines and timing caches that are damaged or not wanted, and files of interrupted builds.

        Leaves engines alone that are being built at the moment. Returns the engines and caches that went.
        """
        removed = []
        for path in [*sorted(self.folder.glob("[!.]*.engine")), *sorted(self.folder.glob("[!.]*.cache"))]:
            with self._unless_busy(path.stem) as is_free:
                data, record, _ = _read_checked(path)
                target = _target_of(record)
                if is_free and (data is None or target is None or not is_wanted(target)):
                    _record_path(path).unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
                    removed.append(path)
        for partial in self.folder.glob(".*"):
            whole = target_of_partial(partial)
            if whole is None:
                continue
            with self._unless_busy(Path(whole.name.removesuffix(".json")).stem) as is_free:
                if is_free:
                    partial.unlink(missing_ok=True)
        return removed

    # -- locks -----------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _unless_busy(self, name: str) -> Iterator[bool]:
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")


# -- checked files -------------------------------------------------------------------------------------


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_checked(path: Path) -> tuple[bytes | None, dict[str, Any], str]:
    """Return (contents, record, ""), or (None, the record as far as it is there, the fault, "" for no file)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, {}, ""
    except OSError as error:
        return None, {}, f"cannot be read ({reason(error)})"
    try:
        record = json.loads(_record_path(path).read_text("utf-8"))
        checksum = record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}, "has no readable record"
    if hashlib.sha256(data).hexdigest() != checksum:
        return None, record, "fails its checksum"
    return data, record, ""


def _write_checked(path: Path, data: bytes, record: dict[str, Any]) -> None:
    """Write the file, then its record: a crash between the two leaves a file that fails its check."""
    path.parent.mkdir(parents=True, exist_ok=True)
    built = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"sha256": hashlib.sha256(data).hexdigest(), "built": built, **record}
    write_file(path, data, sync=True)
    write_file(_record_path(path), json.dumps(record, indent=2) + "\n", sync=True)


def _entry(path: Path) -> EngineEntry:
    _, record, problem = _read_checked(path)
    key = _key_of(record)
    if key is None and not problem:
        problem = "its record names no engine"
    num_bytes = path.stat().st_size if path.exists() else 0
    return EngineEntry(path, num_bytes, key, str(record.get("label", "")), str(record.get("built", "")), problem)


def _key_of(record: dict[str, Any]) -> EngineKey | None:
    try:
        values = dict(record["key"])
        values["target"] = Target(**values["target"])
        batch, channels, height, width = values["shape"]
        values["shape"] = (batch, channels, height, width)
        values["options"] = tuple((str(name), value) for name, value in values["options"])
        return EngineKey(**values)
    except (KeyError, TypeError, ValueError):
        return None


def _target_of(record: dict[str, Any]) -> Target | None:
    try:
        return Target(**(record["target"] if "target" in record else record["key"]["target"]))
    except (KeyError, TypeError):
        return None
