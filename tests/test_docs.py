"""The README and docs/ agree with the program: options, commands, figures, links and the picture of the rooms."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from vsr.cli.main import cli
from vsr.jobs.purposes import PURPOSES
from vsr.models.cards import find_card, shipped_cards

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text("utf-8")


def _imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script that is not part of the package."""
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    module = __import__(path.stem)
    monkeypatch.delitem(sys.modules, path.stem)
    return module


def _slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
            assert anchor in map(_slug, headings), target


def test_every_page_is_linked_from_the_readme() -> None:
    readme = README.read_text("utf-8")
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in readme


def test_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 7000


def test_command_line_lists_every_command() -> None:
    listed = re.findall(r"^\| `vsr ([\w-]+)` \|", COMMAND_LINE, re.M)
    assert sorted(listed) == sorted(cli.commands)


def test_command_line_lists_every_option_of_enhance_once() -> None:
    section = COMMAND_LINE.split("## Options of vsr enhance")[1].split("\n## ")[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    listed = re.findall(r"`(--[\w-]+)`", " ".join(cells))
    options = [p for p in cli.commands["enhance"].params if isinstance(p, click.Option)]
    names = [name for option in options for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
    assert sorted(listed) == sorted(names)


@pytest.mark.parametrize("word", PURPOSES)
def test_command_line_says_what_a_word_stands_for(word: str) -> None:
    (row,) = (line.split(" | ") for line in COMMAND_LINE.splitlines() if line.startswith(f"| `{word}` |"))
    options = PURPOSES[word]
    scale = options.get("scale", find_card(options["model"]).scale)
    size = options.get("size", f"×{scale:g}")
    assert row[2:] == [
        f"`{options['model']}`",
        f"{options['restore']:g}" if "restore" in options else "–",
        f"`{options['deinterlace']}`",
        f"{size} |",
    ]


def test_exit_codes_are_those_of_the_help() -> None:
    section = COMMAND_LINE.split("## Exit codes")[1]
    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.M) for code in row.split(",")}
    assert cli.help
    in_help = {int(code) for code in re.findall(r"\b\d+\b", cli.help.split("Exit codes:")[1])}
    assert listed == in_help


def test_models_of_the_readme_have_the_figures_of_their_cards() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \|[^|]*\| ([\d.]+ [kM]) \| ([\d.]+|–) \| ([\d.]+) \|$", README.read_text("utf-8"), re.M
    )
    assert len(rows) == 5
    for name, parameters, set5, vid4 in rows:
        card = shipped_cards()[name]
        millions = card.num_parameters / 1e6
        assert parameters == (f"{millions:.2f} M" if millions >= 1 else f"{round(1000 * millions)} k")
        of_stills = "–" if card.recurrent else f"{card.figures['Set5']:.2f}"
        assert (set5, vid4) == (of_stills, f"{card.figures['Vid4 BI']:.2f}")


def test_tables_are_those_of_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """What benchmarks/models.py and benchmarks/quality.py write into the pages."""
    models = _imported(ROOT / "benchmarks" / "models.py", monkeypatch)
    results = json.loads((ROOT / "benchmarks" / "models.json").read_text("utf-8"))["results"]
    assert models.table(results) in models.PAGE.read_text("utf-8")
    quality = _imported(ROOT / "benchmarks" / "quality.py", monkeypatch)
    bi, bd = (
        json.loads((ROOT / "benchmarks" / "quality" / name / "results.json").read_text("utf-8"))
        for name in ("vid4", "vid4-bd")
    )
    assert "\n".join(quality.table(bi, bd)) in quality.PAGE.read_text("utf-8")


def test_picture_of_the_rooms_is_that_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = _imported(ROOT / "scripts" / "draw_rooms.py", monkeypatch)
    assert rooms.PICTURE.read_text("utf-8") == rooms.drawing(), "draw it again: python scripts/draw_rooms.py"
