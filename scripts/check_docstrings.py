"""Hold the first line of every docstring in vsr/ to a verb and its object: refuse clauses without a main clause.

python scripts/check_docstrings.py
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# "What a job takes", "Where it lies", "Of the network": a reader has to guess what the thing does.
CLAUSE = re.compile(r"(What|Where|How|Whether|Of|Those|The way|A way|That|Which|When|For|In)\b")


def clauses(source: str) -> Iterator[tuple[int, str]]:
    """Yield line number and first line of each docstring that begins with a clause."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if CLAUSE.match(first):
                yield getattr(node, "lineno", 1), first


def main() -> int:
    """Print what is found; 1 where there is any."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: begins with a clause: {first}"
        for path in sorted((ROOT / "vsr").rglob("*.py"))
        for line, first in clauses(path.read_text("utf-8"))
    ]
    for text in found:
        print(text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
