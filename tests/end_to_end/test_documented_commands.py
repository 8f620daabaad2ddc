"""Every command that the README and docs/ show is run as it stands there, on small clips, or at least parsed.

A block of shell lines under a comment such as "<!-- not run: needs a GPU -->" is parsed only.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import cv2
import numpy as np
import pytest
import torch
from command_line import Run

from vsr.models.nets import SRVGG

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"((?:<!--[^>]*-->\s*)*)```sh\n(.*?)```", re.S)
_PIPES = re.compile(r"(?<!\S)[|<>](?!\S)")
_RUN_BY_CI = ("<!-- first command -->", "<!-- test command -->")


@dataclass(frozen=True)
class Line:
    """A shell line of a page. is_run: whether it is run, rather than parsed."""

    page: str
    text: str
    is_run: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of each program that the line starts."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        commands: list[list[str]] = [[]]
        for word in lexer:
            if set(word) <= set("|&;<>"):
                commands.append([])
            else:
                commands[-1].append(word)
        return [words for words in commands if words]

    @property
    def vsr_commands(self) -> list[list[str]]:
        """The words after each `vsr`."""
        return [words[1:] for words in self.commands if Path(words[0]).name == "vsr"]


def _lines(page: Path) -> Iterator[Line]:
    for comments, block in _BLOCK.findall(page.read_text("utf-8")):
        is_run = "not run:" not in comments and not any(mark in comments for mark in _RUN_BY_CI)
        for text in block.splitlines():
            if text.strip():
                yield Line(page.name, text, is_run)


LINES = [line for page in PAGES for line in _lines(page)]
ONCE = list({line.text: line for line in LINES}.values())  # some lines stand on two pages


def _cases(lines: list[Line]) -> list[Any]:
    return [pytest.param(line, id=f"{line.page}: {line.text[:60]}") for line in lines]


# -- what the lines name ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named_files(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path], Track: Any) -> Path:
    """A folder with every file that the pages take as given: in.mp4 lasts 70 seconds, others less."""
    folder = tmp_path_factory.mktemp("named")
    make_clip(folder / "in.mp4", size=(32, 24), pts=range(0, 70, 10), time_base=Fraction(1), audio=[Track()])
    make_clip(folder / "in.mkv", pts=range(4), audio=[Track()], chapters=[(0, 100, "One")])
    make_clip(folder / "in.mov", pts=range(2))
    make_clip(folder / "small.mp4", pts=range(4))
    for name in ("large.mp4", "reference.mp4", "distorted.mp4"):
        make_clip(folder / name, size=(256, 192), pts=range(4))
    for name in ("films", "frames", "DIR", "CLIPS", "PICTURES"):
        (folder / name).mkdir()
    make_clip(folder / "films/one.mp4", pts=range(2))
    image = np.tile(np.arange(0, 256, 4, np.uint8)[None, :, None], (48, 1, 3))
    for path in ("photo.jpg", "films/two.png", "frames/000001.png", "frames/000002.png"):
        cv2.imwrite(str(folder / path), image)
    (folder / "in.yuv").write_bytes(bytes(320 * 180 * 3 // 2))
    for name in ("FILE", "net.onnx", "FSRCNN_x4.pb"):
        (folder / name).touch()
    net = SRVGG(features=4, depth=1, scale=2)  # which repeats pixels, with weights of zero
    torch.save({"params": {key: torch.zeros_like(w) for key, w in net.state_dict().items()}}, folder / "theirs.pth")
    return folder


@pytest.fixture
def in_copy(named_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with those files in it."""
    for path in named_files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- the tests -------------------------------------------------------------------------------------------------


def test_every_page_is_read() -> None:
    """The pattern of a block fits the pages: nothing is left out without being seen."""
    text = "".join(page.read_text("utf-8") for page in PAGES)
    blocks = [block for page in PAGES for _, block in _BLOCK.findall(page.read_text("utf-8"))]
    assert text.count("```sh\n") == len(blocks)
    assert sum(line.is_run for line in LINES) >= 25


@pytest.mark.parametrize("line", _cases([one for one in ONCE if one.is_run and one.vsr_commands]))
def test_runs_as_it_stands(line: Line, in_copy: Path, run: Run) -> None:
    """In this process, with words as the shell gives them; whole pipes in a shell."""
    before = {path: path.stat().st_mtime_ns for path in in_copy.rglob("*")}
    if any(words[0] == "ffmpeg" for words in line.commands) and shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    if _PIPES.search(line.text):
        _run_in_shell(line.text, in_copy)
    else:
        ended = run(*_words(line.text, in_copy)[1:])
        assert ended.code == 0, ended.err
    for path in before:
        assert path.stat().st_mtime_ns == before[path], f"{path.name} was changed"


@pytest.mark.parametrize("line", _cases([one for one in ONCE if not one.is_run and one.vsr_commands]))
def test_has_options_that_exist(line: Line, in_copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Command, "invoke", lambda command, context: None)
    for words in line.vsr_commands:
        ended = run(*words)
        assert ended.code == 0, ended.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_that_are_named_are_there(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])((?:scripts|benchmarks|samples|vsr|tests)/[\w./-]*\w)", page.read_text("utf-8"))
    for path in {path for path in named if "NAME" not in path}:
        assert (ROOT / path).exists(), path


def _words(text: str, folder: Path) -> list[str]:
    """The words of one command after a shell has expanded its patterns and taken off its quotes."""
    show = f"show() {{ printf '%s\\0' \"$@\"; }}; show {text}"
    shown = subprocess.run(["sh", "-c", show], cwd=folder, check=True, capture_output=True, text=True)
    return shown.stdout.split("\0")[:-1]


def _run_in_shell(text: str, folder: Path) -> None:
    programs = folder / "programs"
    programs.mkdir()
    (programs / "vsr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vsr.cli "$@"\n')
    (programs / "vsr").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    script = f"set -o pipefail; {text}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = [one for one in folder.glob("out.*") if not one.is_symlink()]
    assert [_has_frames(one) for one in made] == [True]


def _has_frames(path: Path) -> bool:
    with av.open(str(path)) as container:
        return next(container.decode(video=0), None) is not None
