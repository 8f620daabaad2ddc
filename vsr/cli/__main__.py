"""Run the command line as `python -m vsr.cli`."""

from __future__ import annotations

from vsr.cli import main

main()
