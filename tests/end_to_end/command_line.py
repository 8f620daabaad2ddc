"""Command lines run in the tests' own process, and what a refusal looks like."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vsr.cli import main

Run = Callable[..., "Ended"]


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, through the entry point of `vsr`."""

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["vsr", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capfd.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return call


def enhance(run: Run, *arguments: object) -> list[str]:
    """Run `vsr enhance`, which must succeed; gives the lines it wrote to stderr."""
    ended = run("enhance", *arguments)
    assert ended.code == 0, ended.err
    return ended.lines


def is_refused(ended: Ended, code: int, *words: str) -> None:
    """One line on stderr that says what is wrong, and nothing else anywhere."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert len(ended.lines) == 1, ended.err
    assert ended.err.startswith("vsr: ")
    for word in words:
        assert word in ended.err
