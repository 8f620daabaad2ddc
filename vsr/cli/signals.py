"""Ctrl-C and SIGTERM as exceptions, so that what was begun is cleaned up on their way out."""

from __future__ import annotations

import signal
from typing import NoReturn

__all__ = ["Terminated", "handle_signals", "stop_if_interrupted"]

_interrupts: list[int] = []


class Terminated(BaseException):
    """SIGTERM, which stops a job as Ctrl-C does but ends with its own exit code."""


def handle_signals() -> None:
    """From now on, raise KeyboardInterrupt on Ctrl-C and Terminated on SIGTERM."""
    _interrupts.clear()
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, _on_sigint)


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed and nothing came of it: an import may swallow the exception."""
    if _interrupts:
        raise KeyboardInterrupt


def _on_sigint(number: int, frame: object) -> NoReturn:
    _interrupts.append(number)
    raise KeyboardInterrupt


def _on_sigterm(number: int, frame: object) -> NoReturn:
    raise Terminated
