"""The command line."""

from __future__ import annotations

from vsr.cli.main import main

__all__ = ["main"]
