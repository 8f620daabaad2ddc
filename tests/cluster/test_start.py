"""Workers that Python and the command line ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster_clips import packets_of
from inline_pool import InlinePool

import vsr
from vsr.cluster import start
from vsr.errors import OptionError

ENCODING = {"batch": 2, "preset": "veryfast", "backend": "pytorch", "device": "cpu"}


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[tuple[InlinePool, tuple[Any, ...], dict[str, Any]]]:
    """Gather the pools that are started, with their arguments; their workers are in this process."""
    started: list[tuple[InlinePool, tuple[Any, ...], dict[str, Any]]] = []

    def make(*arguments: Any, **named: Any) -> InlinePool:
        started.append((InlinePool(), arguments, named))
        return started[-1][0]

    monkeypatch.setattr(start, "ProcessPool", make)
    monkeypatch.setattr(start, "RayPool", make)
    return started


def test_python_makes_the_same_file_on_workers(
    pools: list[tuple[InlinePool, Any, Any]], clip: Path, model: Path, tmp_path: Path
) -> None:
    vsr.enhance(clip, tmp_path / "one.mkv", model=model, resume=True, **ENCODING)  # type: ignore[arg-type]
    frames: list[int] = []
    report = vsr.enhance(
        clip,
        tmp_path / "many.mkv",
        model=model,
        workers=3,
        on_progress=lambda progress: frames.append(progress.num_frames),
        **ENCODING,  # type: ignore[arg-type]
    )
    ((pool, arguments, named),) = pools
    assert (arguments, named) == ((3, 0), {})
    assert packets_of(tmp_path / "many.mkv") == packets_of(tmp_path / "one.mkv")
    assert report.num_frames == frames[-1] == 40
    assert len(pool.made) == 7
    assert pool.is_closed


def test_a_cluster_gets_its_address_and_folder(
    pools: list[tuple[InlinePool, Any, Any]], clip: Path, model: Path, tmp_path: Path
) -> None:
    storage = str(tmp_path)
    vsr.enhance(clip, tmp_path / "out.mkv", model=model, cluster="auto", storage=storage, **ENCODING)  # type: ignore[arg-type]
    ((_, arguments, named),) = pools
    assert (arguments, named) == (("auto",), {"num_workers": None, "uses_gpus": False, "storage": tmp_path})


@pytest.mark.parametrize(
    ("options", "text"),
    [({"workers": 0}, "`workers=0`"), ({"storage": "here"}, "`storage`: is of a cluster")],
)
def test_wrong_options_are_refused_before_anything_starts(
    options: dict[str, Any], text: str, pools: list[Any], clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=text):
        vsr.enhance(clip, tmp_path / "out.mkv", **options)
    assert not pools


def test_a_loaded_model_cannot_go_to_workers(pools: list[Any], clip: Path, model: Path, tmp_path: Path) -> None:
    loaded = vsr.load_model(model, device="cpu", backend="pytorch")
    with pytest.raises(OptionError, match="`workers`: load a model of their own"):
        vsr.enhance(clip, tmp_path / "out.mkv", model=loaded, workers=2)
    assert not pools
