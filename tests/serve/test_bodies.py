"""Requests and answers that lie in memory: so much together, and not for ever."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx
from waiting import PATIENCE_SECONDS, until

from vsr.serve.bodies import BodyLimit
from vsr.serve.settings import Limits, Settings

Listen = Callable[..., tuple[Any, int]]
PIXEL = json.dumps({"instances": [[[[0.5, 0.5, 0.5]]]]})


def _begin(port: int, length: int, body: bytes = b"") -> socket.socket:
    """Send the head of a request, and the first bytes of its body."""
    head = f"POST /v1/models/nano:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    connection.sendall(head.encode() + body)
    return connection


def _predict(port: int) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}/v1/models/nano:predict", content=PIXEL, timeout=PATIENCE_SECONDS)


def _predict_until(port: int, status: int) -> httpx.Response:
    """Ask again and again, until the answer has a status."""
    answers: list[httpx.Response] = []

    def has_come() -> bool:
        answers.append(_predict(port))
        return answers[-1].status_code == status

    until(has_come, f"no answer is {status}")
    return answers[-1]


def test_bodies_have_so_much_memory_together(listen: Listen) -> None:
    port = listen(limits=Limits(queued_bytes=1000))[1]
    with _begin(port, 990, b" " * 980):
        answer = _predict_until(port, 503)
        assert answer.headers["retry-after"] == "1"
        assert "try again" in answer.json()["error"]
    assert _predict_until(port, 200).json()["predictions"]


def test_a_body_that_grows_beyond_the_memory_for_all_is_refused(listen: Listen) -> None:
    port = listen(limits=Limits(queued_bytes=1000))[1]
    url = f"http://127.0.0.1:{port}/v1/models/nano:predict"
    assert httpx.post(url, content=(b" " * 100 for _ in range(20)), timeout=PATIENCE_SECONDS).status_code == 503
    assert _predict(port).status_code == 200


def test_a_request_that_does_not_come_is_ended(listen: Listen) -> None:
    port = listen(limits=Limits(request_seconds=1))[1]
    with _begin(port, 990, b" " * 10) as connection:
        answer = connection.recv(10_000)
        assert b" 408 " in answer.splitlines()[0]


def test_an_image_is_under_way_until_its_answer_is_read(listen: Listen) -> None:
    app, port = listen()
    body = json.dumps({"instances": [[[[0.123] * 3] * 300] * 300]}).encode()  # some 40 MB come back
    with _begin(port, len(body), body) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert app.state.services.images.num_under_way == 1
    until(lambda: not app.state.services.images.num_under_way, "the image still counts")


def test_an_answer_that_nobody_reads_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given_back = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["held"].callback(given_back.append, "memory")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    limit = BodyLimit(app, Settings(state=tmp_path, limits=Limits(request_seconds=1)))
    with caplog.at_level(logging.WARNING, "vsr.serve"):
        asyncio.run(limit({"type": "http", "path": "/model/predict", "headers": []}, receive, send))
    assert given_back == ["memory"]
    assert "has not read its answer" in caplog.text
