"""Who may use the service, and what answers tell: tokens, host names, other web sites, ids, errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from vsr.errors import InputError, OptionError
from vsr.serve.errors import public_text
from vsr.serve.settings import Limits, Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "example.org"])
def test_a_public_address_needs_a_token_or_a_word(host: str) -> None:
    with pytest.raises(OptionError, match="VSR_TOKEN"):
        Settings(host=host)
    assert Settings(host=host, token="secret").host == host
    assert Settings(host=host, allow_public=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.0.1"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert Settings(host=host).token is None


def test_an_empty_token_is_no_token() -> None:
    with pytest.raises(OptionError, match="is empty"):
        Settings(token=" ")


def test_settings_never_print_the_token() -> None:
    assert "secret" not in repr(Settings(token="secret"))


def test_limits_are_at_least_one() -> None:
    with pytest.raises(OptionError, match="image_bytes"):
        Limits(image_bytes=0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Basic !"}, 401),
        ({"Authorization": "secret"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "Basic YW55Ym9keTpzZWNyZXQ="}, 200),  # anybody:secret
    ],
)
def test_the_token_is_asked_for(make_client: Callable[..., Any], headers: dict[str, str], status: int) -> None:
    client = make_client(token="secret")
    answer = client.get("/openapi.json", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Basic")  # browsers ask for it then
        assert answer.json()["code"] == "token"


def test_supervisors_need_no_token(make_client: Callable[..., Any]) -> None:
    assert make_client(token="secret").get("/health/live").status_code == 200


def test_a_foreign_name_of_this_machine_is_refused(client: Any) -> None:
    """A page of another site whose name was made to point here must not reach the service."""
    assert client.get("/health/live", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/health/live", headers={"Host": "[::1"}).status_code == 421
    assert client.get("/health/live", headers={"Host": "localhost:5000"}).status_code == 200


def test_names_that_were_given_are_served(make_client: Callable[..., Any]) -> None:
    client = make_client(hosts=("vsr.example",))
    assert client.get("/health/live", headers={"Host": "vsr.example"}).status_code == 200


def test_an_address_names_a_public_service_and_a_foreign_name_does_not(make_client: Callable[..., Any]) -> None:
    client = make_client(host="0.0.0.0", allow_public=True, hosts=("vsr.example",))
    for host, status in (("192.168.0.7:5000", 200), ("vsr.example", 200), ("[::1]", 200), ("evil.example", 421)):
        assert client.get("/health/live", headers={"Host": host}).status_code == status


def test_another_web_site_is_refused(client: Any) -> None:
    answer = client.post("/model/predict", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_answers_have_an_id_and_security_headers(client: Any) -> None:
    answer = client.get("/health/live", headers={"X-Request-ID": "abc-1"})
    assert answer.headers["X-Request-ID"] == "abc-1"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    bad = client.get("/health/live", headers={"X-Request-ID": "a b\tc"})
    assert len(bad.headers["X-Request-ID"]) == 32  # a new one, as the given one might break a log
    assert "server" not in bad.headers


def test_each_request_is_a_line_of_json_in_the_log(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vsr.serve"):
        client.get("/health/live", headers={"X-Request-ID": "abc-2"})
    line = json.loads(caplog.records[-1].message)
    assert line["request"] == "abc-2"
    assert line["path"] == "/health/live"
    assert line["status"] == 200


def test_an_unknown_path_is_404_in_the_words_of_its_dialect(client: Any) -> None:
    assert set(client.get("/v1/nothing").json()) == {"code", "message"}


def test_a_large_body_is_refused_by_its_length_alone(make_client: Callable[..., Any]) -> None:
    client = make_client(limits=Limits(image_bytes=1000))
    answer = client.post("/model/predict", content=b"", headers={"Content-Length": "5000000000"})
    assert answer.status_code == 413
    assert "larger" in answer.json()["message"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jo/x y/in.mp4: no video", "in.mp4: no video"),
        ("reading '/var/lib/vsr/a.png' failed", "reading 'a.png' failed"),
        (r"C:\Users\jo\in.mp4: no video", "in.mp4: no video"),
        ("`framerate=30000/1001`: too high", "`framerate=30000/1001`: too high"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_errors_name_files_without_their_folders(text: str, shown: str) -> None:
    assert public_text(InputError(text)) == shown


def test_a_private_file_has_the_name_that_the_client_gave_it() -> None:
    private = Path("/state/uploads/0f3a")
    assert public_text(InputError(f"{private}: no video"), {private: "in.mp4"}) == "in.mp4: no video"


def test_an_error_that_nobody_meant_is_not_shown() -> None:
    assert "secret" not in public_text(ValueError("/etc/secret is broken"))
