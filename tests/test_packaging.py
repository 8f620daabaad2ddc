"""The package as its users install it: names in messages fit what pyproject.toml declares."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import vsr

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SOURCES = sorted(Path(vsr.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_install_nothing_but_extras_that_exist(path: Path) -> None:
    named = re.findall(r"pip install (?:-e )?'([^']*)\[([^']*)\]'", path.read_text("utf-8"))
    for distribution, extras in named:
        assert distribution in (".", "vsr-enhance"), distribution  # the name vsr belongs to another project
        assert set(extras.split(",")) <= set(EXTRAS)


def test_messages_install_nothing_but_extras_that_exist() -> None:
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    named = set(re.findall(r"""(?:install_hint\(|MissingExtraError\("[^"]*", )["']([a-z0-9-]+)["']""", text))
    assert {"cpu", "train", "spandrel"} <= named <= set(EXTRAS)
    assert re.findall(r"pip install '(?!vsr-enhance\[|\.\[)[^']*'", text) == []


def test_extras_list_no_package_twice() -> None:
    """What two extras share is an extra of its own, which both name."""
    listed = [one for extra in EXTRAS.values() for one in extra if not one.startswith("vsr-enhance[")]
    listed += PYPROJECT["project"]["dependencies"]
    names = [re.match(r"[A-Za-z0-9-]+", one)[0] for one in listed]  # type: ignore[index]
    assert sorted(set(names)) == sorted(names)


def test_no_module_guesses_where_test_data_lies() -> None:
    assert [str(path) for path in SOURCES if "shared/data" in path.read_text("utf-8")] == []


def test_importers_get_the_types() -> None:
    assert (Path(vsr.__file__).parent / "py.typed").is_file()
