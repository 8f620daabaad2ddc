from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from vsr.backends import engine_store
from vsr.backends.engine_store import EngineKey, EngineStore, Target, engines_folder
from vsr.files import partial_path, write_file

TARGET = Target("10.16.1.11", "NVIDIA H200", "9.0")
KEY = EngineKey("ab" * 32, TARGET, (4, 1, 720, 1280), "fp16", (("optimization_level", 3), ("tf32", 1)))


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def test_what_was_written_is_read(store: EngineStore) -> None:
    assert store.read(KEY) == (None, "")
    store.write(KEY, b"plan", label="fast", build_seconds=3.21)
    assert store.read(KEY) == (b"plan", "")
    record = json.loads((store.folder / f"{KEY.name}.engine.json").read_text())
    assert record["label"] == "fast" and record["build_seconds"] == 3.2
    assert record["key"]["target"]["gpu"] == "NVIDIA H200"


def test_a_name_says_what_the_engine_is_for() -> None:
    assert KEY.name.startswith("1280x720-b4-fp16-")


@pytest.mark.parametrize(
    "changed",
    [
        replace(KEY, onnx_sha256="cd" * 32),
        replace(KEY, target=replace(TARGET, tensorrt="11.4.0.106")),
        replace(KEY, target=replace(TARGET, gpu="NVIDIA H100")),
        replace(KEY, target=replace(TARGET, compute_capability="9.1")),
        replace(KEY, shape=(2, 1, 720, 1280)),
        replace(KEY, shape=(4, 3, 720, 1280)),
        replace(KEY, precision="fp32"),
        replace(KEY, options=(("optimization_level", 5), ("tf32", 1))),
    ],
)
def test_every_part_of_the_key_makes_another_engine(store: EngineStore, changed: EngineKey) -> None:
    store.write(KEY, b"plan")
    assert changed.name != KEY.name
    assert store.read(changed) == (None, "")


def test_an_engine_under_another_s_name_is_refused(store: EngineStore) -> None:
    store.write(KEY, b"plan")
    other = replace(KEY, precision="fp32")
    for suffix in (".engine", ".engine.json"):
        (store.folder / (KEY.name + suffix)).rename(store.folder / (other.name + suffix))
    assert store.read(other) == (None, "its record names another engine")


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "no record", "record cut", "record of another kind"])
def test_a_damaged_file_is_told_from_a_missing_one(store: EngineStore, damage: str) -> None:
    store.write(KEY, b"plan of an engine")
    path, record = store.path(KEY), store.folder / f"{KEY.name}.engine.json"
    if damage == "no record":
        record.unlink()
    elif damage == "record cut":
        record.write_text(record.read_text()[:20])
    elif damage == "record of another kind":
        record.write_text("[1, 2]")
    else:
        path.write_bytes({"flip": b"plan of an enginf", "truncate": b"plan", "empty": b""}[damage])
    data, problem = store.read(KEY)
    assert data is None and problem in ("fails its checksum", "has no readable record")


def test_a_write_that_fails_leaves_the_old_engine_and_no_partial_file(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(KEY, b"old")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write(KEY, b"new")
    assert store.read(KEY) == (b"old", "")
    assert not list(store.folder.glob("*.part*"))


def test_a_crash_between_engine_and_record_is_noticed(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(KEY, b"old")

    def crash_at_record(path: Path, data: bytes | str, *, sync: bool) -> None:
        if path.suffix == ".json":
            raise OSError(5, "the power went")
        write_file(path, data, sync=sync)

    monkeypatch.setattr(engine_store, "write_file", crash_at_record)
    with pytest.raises(OSError, match="power"):
        store.write(KEY, b"new")
    assert store.read(KEY) == (None, "fails its checksum")


def test_one_builder_at_a_time_per_key_and_the_other_is_told(store: EngineStore) -> None:
    inside, waiting, order = threading.Event(), threading.Event(), []

    def second() -> None:
        inside.wait(10)
        with store.building(KEY, waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with store.building(KEY), store.building(replace(KEY, precision="fp32")):  # another key is free
        inside.set()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_lock_is_free_after_an_error(store: EngineStore) -> None:
    with pytest.raises(RuntimeError), store.building(KEY):
        raise RuntimeError
    with store.building(KEY, lambda: pytest.fail("still locked")):
        pass


def test_timing_caches_are_one_per_tensorrt_and_gpu(store: EngineStore) -> None:
    assert store.read_timing_cache(TARGET) == (None, "")
    store.write_timing_cache(TARGET, b"timings")
    assert store.read_timing_cache(TARGET) == (b"timings", "")
    assert store.read_timing_cache(replace(TARGET, gpu="NVIDIA H100")) == (None, "")
    assert store.read_timing_cache(replace(TARGET, tensorrt="11.4.0.106")) == (None, "")
    store.timing_cache_path(TARGET).write_bytes(b"timingz")
    assert store.read_timing_cache(TARGET) == (None, "fails its checksum")


def test_exports_are_remembered(store: EngineStore) -> None:
    assert store.known_export("12" * 32) is None
    store.remember_export("12" * 32, "ab" * 32)
    assert store.known_export("12" * 32) == "ab" * 32


def test_entries_name_what_is_sound_and_what_is_not(store: EngineStore) -> None:
    other = replace(KEY, precision="fp32")
    store.write(KEY, b"plan", label="fast")
    store.write(other, b"plan")
    store.path(other).write_bytes(b"plam")
    (store.folder / "stray.engine").write_bytes(b"?")
    entries = {entry.path.name: entry for entry in store.entries()}
    assert entries[f"{KEY.name}.engine"].problem == "" and entries[f"{KEY.name}.engine"].label == "fast"
    assert entries[f"{KEY.name}.engine"].key == KEY
    assert entries[f"{other.name}.engine"].problem == "fails its checksum"
    assert entries["stray.engine"].problem == "has no readable record" and entries["stray.engine"].key is None


def test_prune_removes_what_is_damaged_unwanted_or_left_over(store: EngineStore) -> None:
    unwanted, damaged = replace(KEY, target=replace(TARGET, gpu="old")), replace(KEY, precision="fp32")
    for key in (KEY, unwanted, damaged):
        store.write(key, b"plan")
    store.write_timing_cache(TARGET, b"timings")
    store.write_timing_cache(unwanted.target, b"timings")
    store.path(damaged).write_bytes(b"plam")
    leftover = partial_path(store.folder / f"{KEY.name}.engine.json")
    leftover.write_bytes(b"half")
    removed = store.prune(lambda target: target == TARGET)
    assert set(removed) == {store.path(unwanted), store.path(damaged), store.timing_cache_path(unwanted.target)}
    assert store.read(KEY) == (b"plan", "") and store.read_timing_cache(TARGET) == (b"timings", "")
    assert not leftover.exists() and not list(store.folder.glob(f"{damaged.name}*"))


def test_prune_leaves_what_is_being_built(store: EngineStore) -> None:
    store.write(KEY, b"plan")
    partial = partial_path(store.path(KEY))
    partial.write_bytes(b"half")
    assert [entry.path for entry in store.entries()] == [store.path(KEY)]
    held, done = threading.Event(), threading.Event()

    def build() -> None:
        with store.building(KEY):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=build)
    thread.start()
    assert held.wait(10)
    assert store.prune(lambda target: False) == [] and partial.exists()
    done.set()
    thread.join(10)
    assert store.prune(lambda target: False) == [store.path(KEY)] and not partial.exists()


def test_the_folder_is_that_of_the_environment_the_checkout_or_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path / "named"))
    assert engines_folder() == tmp_path / "named"
    monkeypatch.delenv("VSR_ENGINES")
    checkout = Path(__file__).resolve().parents[2]
    assert engines_folder() == checkout / "engines"
    monkeypatch.setattr(
        engine_store, "__file__", str(tmp_path / "site-packages" / "vsr" / "backends" / "engine_store.py")
    )
    monkeypatch.setattr(engine_store.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert engines_folder() == tmp_path / "cache" / "vsr" / "engines"
