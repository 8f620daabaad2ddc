"""Start the application that scripts/build_app.py builds: the window, or the command line where arguments are given."""

from __future__ import annotations

import multiprocessing
import sys

from vsr.cli import main

if __name__ == "__main__":
    multiprocessing.freeze_support()
    if len(sys.argv) == 1:
        sys.argv.append("app")
    main()
