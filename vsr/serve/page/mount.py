"""Mount the page on a service."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse, Response

from vsr.serve.middleware import TOKEN_COOKIE
from vsr.serve.page.blocks import mount_blocks
from vsr.serve.page.files import PageFiles
from vsr.serve.page.parts import PageParts
from vsr.serve.page.sections import Tab
from vsr.serve.services import Services
from vsr.serve.settings import Settings

__all__ = ["mount_page", "page_parts"]


def page_parts(services: Services) -> PageParts:
    """Make the parts that the page works with, of those of the service."""
    settings = services.settings
    files = PageFiles(settings.state / "page" / "files", settings.retention_seconds)
    return PageParts(services.images, services.jobs, files)


def mount_page(app: FastAPI, parts: PageParts, more_tabs: Sequence[Tab] = ()) -> None:
    """Mount the page at "/", after all other routes of a service.

    Args:
        app: As `make_app` made it.
        parts: Of the page.
        more_tabs: Titles of tabs that come first, and what adds their fields.
    """
    settings: Settings = app.state.services.settings
    app.include_router(parts.files.router())
    app.include_router(_make_entrance(settings))
    uploads = settings.state / "page" / "uploads"
    mount_blocks(app, parts, uploads, settings.limits.upload_bytes, more_tabs)


def _make_entrance(settings: Settings) -> APIRouter:
    """Make the address that a browser comes in by with the token, which then stays in a cookie."""
    router = APIRouter(prefix="/page", include_in_schema=False)

    @router.get("/enter")
    def enter(token: str = "") -> Response:
        if settings.token is None or not hmac.compare_digest(token.encode(), settings.token.encode()):
            return RedirectResponse("../", 303)
        answer = RedirectResponse("../", 303)
        answer.set_cookie(TOKEN_COOKIE, token, httponly=True, samesite="strict")
        return answer

    return router
