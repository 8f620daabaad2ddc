"""Ctrl-C, SIGTERM and SIGHUP as exceptions, so that what was begun is cleaned up on their way out."""

from __future__ import annotations

import signal
from typing import NoReturn

__all__ = ["Terminated", "handle_signals", "stop_if_interrupted"]

_interrupts: list[int] = []


class Terminated(BaseException):
    """SIGTERM or SIGHUP, which stop a job as Ctrl-C does but end with exit codes of their own.

    number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def handle_signals() -> None:
    """From now on, raise KeyboardInterrupt on Ctrl-C, and Terminated on SIGTERM and where the terminal is closed.

    Under nohup, which makes a process ignore that its terminal is closed, it goes on doing so.
    """
    _interrupts.clear()
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _on_sigterm)
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
    raise Terminated(number)
