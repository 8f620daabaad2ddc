"""Listen for requests until the process is asked to stop."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys

from vsr.errors import MissingExtraError
from vsr.serve.settings import Settings

__all__ = ["check_extra", "run_server"]

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def check_extra() -> None:
    """Raise MissingExtraError where a package that the service needs is not installed."""
    if any(importlib.util.find_spec(package) is None for package in _PACKAGES):
        raise MissingExtraError("the service (fastapi, uvicorn)", "serve")


def run_server(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that are under way are finished first."""
    check_extra()
    import uvicorn

    from vsr.serve.app import make_app

    _bound_threads(settings.threads)
    _log_to_stderr()
    uvicorn.run(
        make_app(settings),
        host=settings.host.strip("[]"),
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.limits.connections,
        timeout_graceful_shutdown=10,
    )


def _bound_threads(threads: int | None) -> None:
    """Bound the threads of PyTorch, and of OpenVINO, which takes as many as PyTorch."""
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("vsr.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
