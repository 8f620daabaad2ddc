"""The picture of the rooms in docs/design.md, drawn from the import contract in pyproject.toml.

    python scripts/draw_rooms.py

Writes docs/rooms.svg: a row for each layer of the contract, a box for each room of vsr/ that there is, and in it the
first line of its docstring. A test draws it again, so that it stays true.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, LEFT, GAP, PADDING = 920, 40, 10, 12  # in pixels, as all lengths here
TITLE_HEIGHT, LINE_HEIGHT = 20, 16
CHARACTER_WIDTH = 6.3  # of small text, on average
STYLE = """\
  rect { fill: #eef3f8; stroke: #5b7a99; }
  path { stroke: #5b7a99; stroke-width: 2; fill: none; }
  text { font: 12.5px sans-serif; fill: #1c2733; }
  .name { font-weight: bold; font-size: 14px; }
  .side { fill: #5b7a99; }"""


def layers() -> list[list[str]]:
    """Read the layers, from the top: the rooms of each that exist, by their names in vsr/."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    rows = [[room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]]
    there = [[room for room in row if _source(room).is_file()] for row in rows]
    return [row for row in there if row]


def purpose(room: str) -> str:
    """Read the first line of a room's docstring."""
    text = ast.get_docstring(ast.parse(_source(room).read_text("utf-8"))) or ""
    return text.splitlines()[0].replace("`", "")


def drawing() -> str:
    """Draw all layers as an SVG document."""
    parts, top = [], GAP
    for row in layers():
        boxes, height = _row(row, top)
        parts += boxes
        top += height + GAP
    arrow = f"M 20 {GAP + 6} V {top - GAP - 6} m -6 -9 l 6 9 l 6 -9"
    label = f'<text class="side" transform="translate(14 {top / 2:g}) rotate(-90)" text-anchor="middle">imports</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">'
    background = f'<rect width="{WIDTH}" height="{top}" style="fill: #ffffff; stroke: none"/>'
    body = [f"<style>\n{STYLE}\n</style>", background, f'<path d="{arrow}"/>', label, *parts]
    return "\n".join([head, *body, "</svg>", ""])


def _source(room: str) -> Path:
    package = ROOT / "vsr" / room / "__init__.py"
    return package if package.is_file() else ROOT / "vsr" / f"{room}.py"


def _row(rooms: list[str], top: int) -> tuple[list[str], int]:
    """Draw the boxes of a layer side by side; returns them and their height."""
    width = (WIDTH - LEFT - GAP - GAP * (len(rooms) - 1)) / len(rooms)
    texts = [textwrap.wrap(purpose(room), int((width - 2 * PADDING) / CHARACTER_WIDTH)) for room in rooms]
    height = PADDING + TITLE_HEIGHT + LINE_HEIGHT * max(map(len, texts))
    parts = []
    for index, (room, lines) in enumerate(zip(rooms, texts, strict=True)):
        left = LEFT + index * (width + GAP)
        parts.append(f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{height}" rx="6"/>')
        parts.append(f'<text class="name" x="{left + PADDING:g}" y="{top + TITLE_HEIGHT}">{escape(room)}</text>')
        for number, line in enumerate(lines, 1):
            y = top + TITLE_HEIGHT + LINE_HEIGHT * number
            parts.append(f'<text x="{left + PADDING:g}" y="{y}">{escape(line)}</text>')
    return parts, height


if __name__ == "__main__":
    PICTURE.write_text(drawing(), "utf-8")
