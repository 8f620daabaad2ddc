"""What every test shares: data, one thread, engines kept for the tests alone, exports made once, --require-all."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Tiny networks gain nothing from threads, and the tests of several workers would wait for each other's. Set
# before torch is imported, and passed on to the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)  # also where torch was imported before
MOST_WORKERS = 8  # each holds torch and OpenVINO in memory, about 1 GB
# How a skip begins that --require-all turns into a failure; spandrel is no part of the extra 'test'.
_MISSING = re.compile(r"(Skipped: )?(no test data|could not import '(?!spandrel)|got empty parameter set)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-all",
        action="store_true",
        default=os.environ.get("VSR_REQUIRE_ALL", "0") not in ("", "0"),
        help="fail, instead of skip, where the test data or a package of the extra 'test' is missing; "
        "VSR_REQUIRE_ALL=1 does the same",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many workers as cores; none for one file or named tests, which have their output and debugger then."""
    if (len(config.args) == 1 and config.args[0].endswith(".py")) or any("::" in name for name in config.args):
        return 0
    asked = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(asked) if asked.isdecimal() else min(cores, MOST_WORKERS)


def _fail_if_missing(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    if report.outcome == "skipped" and config.getoption("require_all") and _MISSING.match(reason):
        report.outcome, report.longrepr = "failed", f"{reason}: --require-all wants it here"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    _fail_if_missing(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    _fail_if_missing(report, collector.config)
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that this PyTorch knows")


# -- what is shared --------------------------------------------------------------------------------------

# Data that is not in the repository: by default from the folder beside the checkout.
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
if _BESIDE.is_dir():
    os.environ.setdefault("VSR_DATA", str(_BESIDE))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of images and clips for testing, which is not part of the repository."""
    folder = Path(os.environ.get("VSR_DATA", ""))
    if not (folder / "test").is_dir():
        pytest.skip("no test data: set VSR_DATA to the folder that holds test/ and clips/")
    return folder


@pytest.fixture(scope="session")
def data_file(data_folder: Path) -> Callable[[str], Path]:
    """Finds a file by its path in the data folder; skips the test where it is not there."""

    def find(name: str) -> Path:
        path = data_folder / name
        if not path.is_file():
            pytest.skip(f"no test data at {path}")
        return path

    return find


@pytest.fixture(scope="session", autouse=True)
def _engines_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks that backends prepare and keep are kept for these tests alone, for each worker apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VSR_ENGINES", str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.fixture(autouse=True)
def _nothing_hangs_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of backends and precisions to choose from, PyTorch in fp32 counts as the fastest; no test measures."""
    from vsr.backends import tuning

    def pretend(runs: Any) -> dict[Any, float]:
        return {candidate: 1.0 if str(candidate) == "pytorch fp32" else 2.0 for candidate in runs}

    monkeypatch.setattr(tuning, "take_turns", pretend)


@pytest.fixture(scope="session")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """`export_onnx` that keeps each export, which takes seconds, for all workers.

    The bytes depend on the network and the options alone, as tests/backends/test_export.py holds.
    """
    from vsr.backends.onnx_export import export_onnx, fingerprint

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers' folders lie beside each other
    (folder / "exports").mkdir(exist_ok=True)

    def export(net: torch.nn.Module, signature: Any, **options: Any) -> bytes:
        key = hashlib.sha256(f"{fingerprint(net)} {signature} {sorted(options.items())}".encode()).hexdigest()
        path = folder / "exports" / f"{key}.onnx"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_bytes(export_onnx(net, signature, **options))
            partial.replace(path)
        return path.read_bytes()

    return export


@pytest.fixture(scope="session", autouse=True)
def _exported_once(export_once: Callable[..., bytes]) -> Iterator[None]:
    """Engines are made of exports that are there already; the export itself is tested apart from them."""
    from vsr.backends import openvino_engine, tensorrt_builder

    with pytest.MonkeyPatch.context() as patch:
        for module in (openvino_engine, tensorrt_builder):
            patch.setattr(module, "export_onnx", export_once)
        yield


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A program in the place of `python` that starts in an instant; see `warm_python.py` for what differs."""
    if not sys.platform.startswith("linux"):
        yield sys.executable
        return
    folder, code = tmp_path_factory.mktemp("python"), Path(__file__).with_name("warm_python.py")
    # Not in the tests' folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="vsr-") as short:
        place = f"{short}/socket"
        program = folder / "python"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{code}" call "{place}" "$@"\n')
        program.chmod(0o755)
        command = [sys.executable, str(code), "serve", place]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            yield str(program)
            server.terminate()


@pytest.fixture
def quick_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are asked for by multiprocessing's "spawn" start in an instant, with torch imported."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(["torch", "vsr.bench.speed"])
        context = multiprocessing.get_context("forkserver")
        monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)
