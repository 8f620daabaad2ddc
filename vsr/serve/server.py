"""Listen for requests until the process is asked to stop."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from vsr.errors import OutputError, reason
from vsr.extras import importing
from vsr.serve.settings import Settings

__all__ = ["bound_threads", "check_extra", "importing_service", "log_to_stderr", "run_server"]

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "gradio")


def check_extra() -> None:
    """Raise MissingExtraError where a package that the service needs is not installed."""
    with importing_service():
        pass


def importing_service() -> AbstractContextManager[None]:
    """See `importing`: for the packages of the service."""
    return importing("the service", "serve", *_PACKAGES)


def run_server(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that are under way are finished first."""
    check_extra()
    _use_private_folder(settings.state)
    # A second bound on what is decoded, beside that on an image's header; read when OpenCV loads.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(settings.limits.output_pixels))
    with importing_service():
        import uvicorn

        from vsr.serve.app import make_app
        from vsr.serve.page.mount import mount_page, page_parts

    bound_threads(settings.threads)
    log_to_stderr()
    app = make_app(settings)
    mount_page(app, page_parts(app.state.services))
    uvicorn.run(
        app,
        host=settings.host.strip("[]"),
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.limits.connections,
        timeout_graceful_shutdown=10,
    )


def _use_private_folder(state: Path) -> None:
    """Keep temporary files, such as parts of uploads, under the folder that only this user can read."""
    folder = state / "tmp"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{state}: cannot be used ({reason(error)}); name another `state`") from error
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def bound_threads(threads: int | None) -> None:
    """Bound the threads of PyTorch, and of OpenVINO, which takes as many as PyTorch."""
    import cv2
    import torch

    count = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write the log of the service to stderr, from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("vsr.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
