"""Hold functions to a screen and seven parameters, and classes to twenty methods.

python scripts/check_sizes.py

Each exception is named below with its reason. An exception that is no longer needed is an error too, so that the
list does not outlive its reasons. Exit code 1 where something is found.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("vsr", "tests", "scripts", "benchmarks")
Kind = Literal["lines", "parameters", "methods"]
MOST: Mapping[Kind, int] = {"lines": 50, "parameters": 7, "methods": 20}

# Kind of size, then path and qualified name: why it reads better as it is.
EXCEPTIONS: Mapping[Kind, Mapping[str, str]] = {
    "parameters": {
        "vsr/api.py:enhance": "the options of 'vsr enhance', by their names, each with its line",
        "vsr/api.py:save_video": "the options of an encoding, by their names",
        "vsr/api.py:verify": "the options of 'vsr verify', by their names",
        "vsr/cli/verify.py:verify": "its options, which click gives by their names",
        "vsr/api.py:upscale": "the options of a model, by their names",
        "vsr/pipeline/loading.py:load_model": "the options of a model, by their names",
        "vsr/video.py:open_video": "the options of an input, by their names",
        "tests/faulty_copies.py:copy": "builds a test clip: keywords with defaults, a test names one or two",
        "benchmarks/fuzz.py:main": "a click command: its options",
        "tests/compare/test_compare.py:_write": "builds a test clip: keywords with defaults, a test names one or two",
        "tests/end_to_end/conftest.py:make_clip": "builds a test clip: keywords with defaults, a test names one or two",
        "vsr/bench/quality.py:measure_quality": "the options of 'vsr benchmark', by their names",
        "vsr/compare/compare.py:write_comparison": "the options of 'vsr compare', by their names",
        "vsr/export/onnx.py:export_model": "the options of 'vsr export', by their names",
        "vsr/models/nets/srgan.py:SRResNet.__init__": "what a model card says of the network, by its names there",
        "vsr/train/command.py:run_training": "the options of 'vsr train', by their names",
        "vsr/train/clip_loop.py:train_on_clips": "the options of a run, by their names",
        "vsr/train/loop.py:train": "the options of a run, by their names",
    },
    "lines": {
        "vsr/api.py:enhance": "the options of 'vsr enhance', by their names, each with its line",
    },
    "methods": {},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Describe a function or class that is too large.

    Args:
        name: path and qualified name, as the exceptions have it.
    """

    name: str
    line: int
    kind: Kind
    count: int

    @property
    def is_excepted(self) -> bool:
        return self.name in EXCEPTIONS[self.kind]


def findings(path: Path, name: str) -> Iterator[Finding]:
    """Yield the functions and classes of a Python file that are too large, from top to bottom.

    Args:
        path: the file to read.
        name: the path to report it under.
    """
    yield from _walk(ast.parse(path.read_text("utf-8")), f"{name}:", is_in_class=False)


def _walk(parent: ast.AST, prefix: str, *, is_in_class: bool) -> Iterator[Finding]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _walk(node, prefix, is_in_class=is_in_class)
            continue
        name = prefix + node.name
        sizes = _size_of_class(node) if isinstance(node, ast.ClassDef) else _sizes_of_function(node, is_in_class)
        for kind, count in sizes.items():
            if count > MOST[kind]:
                yield Finding(name, node.lineno, kind, count)
        yield from _walk(node, f"{name}.", is_in_class=isinstance(node, ast.ClassDef))


def _size_of_class(node: ast.ClassDef) -> dict[Kind, int]:
    return {"methods": sum(isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for child in node.body)}


def _sizes_of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool) -> dict[Kind, int]:
    sizes: dict[Kind, int] = {"lines": (node.end_lineno or node.lineno) - node.lineno + 1}
    # pytest fills in the parameters of a test: they are its fixtures and the columns of its table.
    if not node.name.startswith("test_"):
        sizes["parameters"] = _num_parameters(node, is_method)
    return sizes


def _num_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool) -> int:
    """Count parameters as a caller sees them: without self and cls."""
    taken = node.args
    count = len(taken.posonlyargs) + len(taken.args) + len(taken.kwonlyargs)
    count += (taken.vararg is not None) + (taken.kwarg is not None)
    is_static = any(isinstance(each, ast.Name) and each.id == "staticmethod" for each in node.decorator_list)
    return count - (is_method and not is_static)


def main() -> int:
    """Print oversized functions and classes, and needless exceptions; return the exit code."""
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    found = [each for path in paths for each in findings(path, path.relative_to(ROOT).as_posix())]
    wrong = [
        f"{each.name} (line {each.line}): {each.count} {each.kind}, at most {MOST[each.kind]} fit"
        for each in found
        if not each.is_excepted
    ]
    too_large = {(each.kind, each.name) for each in found}
    excepted = [(kind, name) for kind, names in EXCEPTIONS.items() for name in names]
    wrong += [
        f"{name}: its {kind} fit; take it off the exceptions of scripts/check_sizes.py"
        for kind, name in excepted
        if (kind, name) not in too_large
    ]
    print("\n".join(wrong) if wrong else f"sizes: {len(paths)} files, {len(excepted)} named exceptions")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
