"""Optional libraries that are missing, and ones that are there and do not load."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vsr.errors import BrokenExtraError, MissingExtraError, ModelError
from vsr.extras import importing, is_installed


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of a name that nobody has, which fails at its import as one that was built for another PyTorch."""
    name = "vsr_broken_library"
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_library_that_is_missing_is_named_with_how_to_install_it() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'vsr-enhance\[onnx\]'"),
        importing("the export to ONNX", "onnx", "no_such_library"),
    ):
        pytest.fail("the import was tried")
    assert not is_installed("no_such_library")


def test_a_library_that_does_not_load_is_told_from_one_that_is_missing(broken: str) -> None:
    assert is_installed(broken)
    with pytest.raises(BrokenExtraError) as caught, importing("the export to ONNX", "onnx", broken):
        __import__(broken)
    text = str(caught.value)
    assert text.startswith(f"the export to ONNX needs {broken}: installed, but not to be loaded (RuntimeError ")
    assert "torchvision::nms" in text and "install anew" in text and "vsr-enhance[" not in text


def test_errors_of_vsr_go_through() -> None:
    with pytest.raises(ModelError, match="mine"), importing("a cluster", "cluster", "json"):
        raise ModelError("mine")
