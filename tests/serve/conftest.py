"""Shared by the tests of the service: a client that talks to an application in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ADDRESS = "http://127.0.0.1:5000"


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make clients of a service with the given settings: started, and stopped after the test."""
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from vsr.serve.app import make_app
    from vsr.serve.settings import Settings

    with ExitStack() as stack:

        def make(**settings: Any) -> TestClient:
            given = {"state": tmp_path / "state", "model": "nano", "device": "cpu", "backend": "pytorch"} | settings
            app = make_app(Settings(**given))
            return stack.enter_context(TestClient(app, base_url=ADDRESS, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(make_client: Callable[..., Any]) -> Any:
    """A client of a service as it is started by default, with the smallest model."""
    return make_client()
