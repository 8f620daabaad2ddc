"""Answer whether the service lives, and whether it is ready for work."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from vsr.serve.services import Services

__all__ = ["make_health_router", "make_metrics_router"]


def make_health_router(services: Services) -> APIRouter:
    """Make the routes that supervisors ask."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Tell whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready", summary="Tell whether the model is loaded", responses={503: {"description": "Not yet"}})
    async def ready() -> JSONResponse:
        is_ready = services.images.is_ready
        return JSONResponse({"status": "ready" if is_ready else "loading"}, 200 if is_ready else 503)

    return router


def make_metrics_router(services: Services) -> APIRouter:
    """Make the route that Prometheus reads."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", summary="Count requests, images and failures, for Prometheus", response_class=Response)
    def metrics() -> Response:  # in a thread: it looks at the disk
        return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
