"""The limits that scripts/check_sizes.py holds: what it finds, and what it lets pass."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def check_sizes() -> Any:
    spec = importlib.util.spec_from_file_location("check_sizes", ROOT / "scripts" / "check_sizes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_sizes"] = module  # which its dataclass looks for
    spec.loader.exec_module(module)
    return module


def _found(check_sizes: Any, tmp_path: Path, text: str) -> list[tuple[str, str, int]]:
    (tmp_path / "a.py").write_text(text, "utf-8")
    return [(each.name, each.kind, each.count) for each in check_sizes.findings(tmp_path / "a.py", "a.py")]


@pytest.mark.parametrize(
    ("text", "name", "kind", "count"),
    [
        ("def f():\n" + "    x = 1\n" * 50, "a.py:f", "lines", 51),
        ("async def f():\n" + "    x = 1\n" * 50, "a.py:f", "lines", 51),
        ("class C:\n    def f(self):\n" + "        x = 1\n" * 50, "a.py:C.f", "lines", 51),
        ("def f(a, b, c, d, e, f, g, h): pass", "a.py:f", "parameters", 8),
        ("def f(a, b, /, c, d, *e, g, h, **i): pass", "a.py:f", "parameters", 8),
        ("class C:\n    def f(self, a, b, c, d, e, f, g, h): pass", "a.py:C.f", "parameters", 8),
        ("class C:\n    @staticmethod\n    def f(a, b, c, d, e, f, g, h): pass", "a.py:C.f", "parameters", 8),
        ("if x:\n    def f():\n        def g(a, b, c, d, e, f, g, h): pass", "a.py:f.g", "parameters", 8),
        ("class C:\n" + "".join(f"    def f{i}(self): pass\n" for i in range(21)), "a.py:C", "methods", 21),
    ],
)
def test_what_is_too_large_is_found(
    check_sizes: Any, tmp_path: Path, text: str, name: str, kind: str, count: int
) -> None:
    assert _found(check_sizes, tmp_path, text) == [(name, kind, count)]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n" + "    x = 1\n" * 49,
        "class C:\n    def f(self, a, b, c, d, e, f, g): pass",
        "class C:\n    @classmethod\n    def f(cls, a, b, c, d, e, f, g): pass",
        "class C:\n" + "".join(f"    def f{i}(self): pass\n" for i in range(20)),
        "def test_f(a, b, c, d, e, f, g, h, i): pass",  # pytest gives them
    ],
)
def test_what_fits_is_let_pass(check_sizes: Any, tmp_path: Path, text: str) -> None:
    assert _found(check_sizes, tmp_path, text) == []


def test_an_exception_without_need_is_an_error(
    check_sizes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_sizes, "EXCEPTIONS", {**check_sizes.EXCEPTIONS, "lines": {"vsr/version.py:gone": ""}})
    assert check_sizes.main() == 1
    assert "vsr/version.py:gone: its lines fit" in capsys.readouterr().out
