"""Guard every request: an id, a log line, a token, and security headers."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import logging
import re
import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vsr.serve.errors import error_answer
from vsr.serve.metrics import Metrics
from vsr.serve.settings import Settings, is_loopback

__all__ = ["LOGGER", "TOKEN_COOKIE", "Guard", "RequestLog"]

LOGGER = logging.getLogger("vsr.serve")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TOKEN_COOKIE = "vsr_token"
_OPEN_PATHS = ("/health/live", "/health/ready", "/page/enter")  # for supervisors without a token; the last checks it
# The page's scripts and styles are inside it; no code is evaluated, and nothing comes from another server.
_CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class RequestLog:
    """Give every request an id, which comes back as X-Request-ID, and log it as one line of JSON."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - began
            LOGGER.info(json.dumps(_line(scope, request_id, status, seconds)))
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(scope["method"] if route != "other" else "any", route, status).inc()
            self._metrics.seconds.labels(route).observe(seconds)


def _line(scope: Scope, request_id: str, status: int, seconds: float) -> dict[str, object]:
    client = scope.get("client")
    return {
        "request": request_id,
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(seconds * 1000, 1),
    }


class Guard:
    """Refuse requests without the token, by a foreign name of this machine, or that another web site sends.

    The token comes as "Authorization: Bearer TOKEN", as the password of HTTP Basic, which browsers ask for, or in the
    cookie that /page/enter sets.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        own = {"localhost", "127.0.0.1", "::1", settings.host.strip("[]"), *settings.hosts}
        self._hosts = {name.lower() for name in own}
        self._is_public = not is_loopback(settings.host)
        self._is_any = self._is_public and settings.token is not None and not settings.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            refusal = self._refusal(Headers(scope=scope), scope["path"])
            if refusal is not None:
                status, text, code = refusal
                headers = {"WWW-Authenticate": 'Basic realm="vsr", charset="UTF-8"'} if status == 401 else {}
                await error_answer(scope["path"], status, text, code, headers)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_called(self, name: str) -> bool:
        """Tell whether clients may use a host name: another web site can have a name of its own point here."""
        return self._is_any or name in self._hosts or (self._is_public and _is_address(name))

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if not self._is_called(_host_name(host)):
            return 421, "this service does not go by that host name; --name gives it one", "host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "requests from another web site are refused", "origin"
        token = self.settings.token
        if token is None or path in _OPEN_PATHS or _brings(headers.get("authorization", ""), token):
            return None
        if _has_cookie(headers.get("cookie", ""), token):
            return None
        return 401, "this service asks for a token", "token"


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:  # a bracket that is not closed
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _brings(authorization: str, token: str) -> bool:
    """Tell whether a header brings the token, in a time that does not depend on where it differs."""
    scheme, _, value = authorization.partition(" ")
    given = value.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given, token.encode())


def _has_cookie(cookies: str, token: str) -> bool:
    """Tell whether the cookies of a request hold the token."""
    values = cookie_parser(cookies)
    return hmac.compare_digest(values.get(TOKEN_COOKIE, "").encode("utf-8", "surrogateescape"), token.encode())
