"""Answer every error over HTTP: a status and one line in the words of the dialect, without paths or versions.

Three dialects share a service, told apart by the path of a request:

    /model/...        {"message": text}                      the ×4 image service
    /v1/models/...    {"error": text}                        TensorFlow Serving
    all else          {"code": word, "message": text}        our own
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from vsr.errors import (
    EngineError,
    InputError,
    JobCancelledError,
    MissingExtraError,
    ModelError,
    OptionError,
    OutputError,
    StrictError,
    VerificationError,
    VsrError,
)

__all__ = [
    "BusyError",
    "RefusedError",
    "TooLargeError",
    "add_error_handlers",
    "error_answer",
    "public_text",
    "status_of",
]

_STATUS: Mapping[type[VsrError], int] = {
    InputError: 400,
    OptionError: 400,
    ModelError: 404,
    MissingExtraError: 400,
    OutputError: 409,
    JobCancelledError: 409,
    StrictError: 422,
    VerificationError: 500,
    EngineError: 500,
}
# An absolute path, of POSIX or Windows, but no part of a URL or a fraction: its last part may stay.
_PATH = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:\\|/)(?:[^'\"`:;/\\]+[/\\])+(?P<name>[^\s'\"`:,;()/\\]*)")
_INTERNAL = "the service failed; its log has the request's id"


class RefusedError(VsrError):
    """A request that the service does not take on. code: for programs; status: of HTTP."""

    def __init__(
        self, text: str, *, status: int = 400, code: str = "refused", headers: Mapping[str, str] | None = None
    ):
        super().__init__(text)
        self.status, self.code, self.headers = status, code, dict(headers or {})


class TooLargeError(RefusedError):
    """A request or file beyond a limit of the service."""

    def __init__(self, text: str) -> None:
        super().__init__(text, status=413, code="too_large")


class BusyError(RefusedError):
    """A request that finds a full queue; it may come again after `retry_seconds`."""

    def __init__(self, text: str, retry_seconds: int = 1) -> None:
        super().__init__(text, status=503, code="busy", headers={"Retry-After": str(max(1, retry_seconds))})


def status_of(error: VsrError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, RefusedError):
        return error.status
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def code_of(error: VsrError) -> str:
    """Return the word by which programs know an error: "input" of InputError."""
    if isinstance(error, RefusedError):
        return error.code
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()


def public_text(error: BaseException, names: Mapping[Path, str] | None = None) -> str:
    """Return the text of an error as a client may read it: names of files, and no folders of this machine.

    Args:
        error: any error; of one that `vsr` did not raise on purpose, the text is not shown.
        names: the name that a client knows a private file by.
    """
    if not isinstance(error, VsrError):
        return _INTERNAL
    text = str(error)
    for path, name in (names or {}).items():
        text = text.replace(str(path), name)
    return _PATH.sub(lambda match: match["name"] or "a folder", text)


def error_answer(
    path: str, status: int, text: str, code: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Make the answer to a request that failed, in the dialect of its path."""
    if path.startswith("/v1/models"):
        content = {"error": text}
    elif path.startswith("/model/"):
        content = {"message": text}
    else:
        content = {"code": code, "message": text}
    return JSONResponse(content, status, dict(headers or {}))


def add_error_handlers(app: FastAPI) -> None:
    """Have an application answer errors in the dialects above."""

    def of_vsr(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, VsrError)
        headers = error.headers if isinstance(error, RefusedError) else None
        return error_answer(request.url.path, status_of(error), public_text(error), code_of(error), headers)

    def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_")
        text = phrase if error.detail == phrase else str(error.detail)
        return error_answer(request.url.path, error.status_code, text, code, error.headers)

    def of_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_answer(request.url.path, 400, _validation_text(error), "validation")

    def of_bug(request: Request, error: Exception) -> JSONResponse:
        return error_answer(request.url.path, 500, _INTERNAL, "internal")

    app.add_exception_handler(VsrError, of_vsr)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(Exception, of_bug)


def _validation_text(error: RequestValidationError) -> str:
    """Name each value of a request that does not fit, and why."""
    parts = []
    for each in error.errors():
        where = ".".join(str(part) for part in each["loc"] if part not in ("body", "query", "path", "header"))
        parts.append(f"{where}: {each['msg']}" if where else str(each["msg"]))
    return "; ".join(parts) or "the request does not fit"
