"""`vsr engine`: what it builds, lists and removes. TensorRT itself is played by a double in tests/backends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from vsr.backends.engine import Signature, image_signature
from vsr.backends.engine_store import EngineKey, EngineStore, Target
from vsr.cli.main import cli
from vsr.errors import EngineError, MissingExtraError, OptionError
from vsr.export import engines
from vsr.export.engines import build_engine, describe_engines, prune_engines
from vsr.models.conventions import AdaptedNet, Stated
from vsr.models.nets import SRVGG

HERE, ELSEWHERE = Target("11.4.0.106", "GPU here", "9.0"), Target("10.16.1.11", "GPU here", "9.0")


def key(target: Target, precision: str = "fp16") -> EngineKey:
    return EngineKey("ab" * 32, target, (4, 1, 720, 1280), precision, (("tf32", 1),))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineStore:
    monkeypatch.setenv("VSR_ENGINES", str(tmp_path / "engines"))
    return EngineStore()


def install(monkeypatch: pytest.MonkeyPatch, prepare: Any) -> list[Any]:
    """TensorRT and a GPU, as far as building ahead needs them; gives the arguments of the engine it makes."""
    made: list[Any] = []

    def make(net: Any, signature: Signature, **arguments: Any) -> Any:
        made.append({"signature": signature, **arguments})
        return SimpleNamespace(
            name="TensorRT 11.4", prepare=prepare, device=arguments["device"], precision=arguments["precision"]
        )

    monkeypatch.setattr(engines, "free_bytes", lambda device: 1 << 36)
    monkeypatch.setattr(engines, "load_tensorrt", lambda: SimpleNamespace(__version__=HERE.tensorrt))
    monkeypatch.setattr(engines, "choose_device", lambda asked: torch.device("cuda"))
    monkeypatch.setattr(engines, "make_tensorrt_engine", make)
    return made


@pytest.mark.parametrize(
    ("model", "batch", "shape"),
    [("fast", 3, (3, 1, 720, 1280)), ("srresnet", 3, (3, 3, 720, 1280)), ("fast", None, (4, 1, 720, 1280))],
)
def test_build_prepares_the_shape_that_a_job_will_ask_for(
    monkeypatch: pytest.MonkeyPatch, model: str, batch: int | None, shape: tuple[int, ...]
) -> None:
    shapes: list[Any] = []
    made = install(monkeypatch, shapes.append)
    build_engine(model, "1280x720", batch=batch, precision="fp16")
    assert shapes == [shape]
    assert made[0] == {**made[0], "precision": "fp16", "label": model, "signature": image_signature(shape[1])}


def test_build_asks_for_no_more_frames_than_fit_in_memory_as_a_job_does(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    install(monkeypatch, shapes.append)
    monkeypatch.setattr(engines, "free_bytes", lambda device: 3 << 30)
    build_engine("fast", "1280x720", precision="fp16")
    assert 1 <= shapes[0][0] < 4


def test_build_takes_a_foreign_network_as_a_job_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(SRVGG(8, 2, 2).state_dict(), tmp_path / "theirs.pth")
    nets: list[Any] = []

    def make(net: Any, signature: Signature, **arguments: Any) -> Any:
        nets.append(net)
        return SimpleNamespace(
            name="TensorRT 11.4", prepare=lambda shape: None, device=torch.device("cpu"), precision="fp16"
        )

    install(monkeypatch, None)
    monkeypatch.setattr(engines, "make_tensorrt_engine", make)
    build_engine(str(tmp_path / "theirs.pth"), "1280x720", precision="fp16", stated=Stated("0..255"))
    assert isinstance(nets[0], AdaptedNet) and nets[0].convention.takes.range == "0..255"


def test_build_without_memory_is_an_engine_error_that_names_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(shape: Any) -> None:
        raise torch.OutOfMemoryError

    install(monkeypatch, full)
    with pytest.raises(EngineError, match=r"out of memory.*`batch`"):
        build_engine("fast", "64x64")


@pytest.mark.parametrize("size", ["720p", "0x5", "64", "64x64x3", "-1x5"])
def test_build_takes_a_width_and_a_height(size: str) -> None:
    with pytest.raises(OptionError, match="WIDTHxHEIGHT"):
        build_engine("fast", size)


def test_build_without_tensorrt_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"vsr-enhance\[tensorrt\]"):
        build_engine("fast", "64x64")


def test_list_says_what_each_engine_is_for_and_what_is_damaged(store: EngineStore) -> None:
    assert describe_engines() == f"{store.folder}: no engines"
    store.write(key(HERE), b"plan", label="fast")
    store.write(key(HERE, "fp32"), b"plan", label="fast")
    store.path(key(HERE, "fp32")).write_bytes(b"plam")
    (store.folder / "stray.engine").write_bytes(b"?")
    lines = CliRunner().invoke(cli, ["engine", "list"]).output.splitlines()
    assert lines[0] == f"{store.folder}:" and len(lines) == 4
    assert "fast, 1280x720, batch 4, fp16, TensorRT 11.4.0.106, GPU here (9.0)" in lines[1]
    assert lines[2].endswith("fails its checksum") and lines[3].endswith("has no readable record")


def test_prune_keeps_what_runs_here(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(key(HERE), b"plan")
    store.write(key(ELSEWHERE), b"plan")
    monkeypatch.setattr(engines, "_targets_here", lambda: {HERE})
    assert CliRunner().invoke(cli, ["engine", "prune"]).output == f"removed {store.path(key(ELSEWHERE)).name}\n"
    assert prune_engines() == "nothing to remove"
    assert store.read(key(HERE)) == (b"plan", "")


def test_prune_without_a_gpu_removes_only_what_is_damaged_unless_all_is_asked(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(key(HERE), b"plan")
    store.write_timing_cache(HERE, b"timings")
    monkeypatch.setattr(engines, "_targets_here", lambda: None)
    assert "only damaged files were looked for" in prune_engines()
    assert store.read(key(HERE)) == (b"plan", "")
    assert len(CliRunner().invoke(cli, ["engine", "prune", "--all"]).output.splitlines()) == 2
    assert store.entries() == []
