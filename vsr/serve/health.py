"""Answer whether the service lives, and whether it is ready for work."""

from __future__ import annotations

from fastapi import APIRouter

from vsr.serve.services import Services

__all__ = ["make_health_router"]


def make_health_router(services: Services) -> APIRouter:
    """Make the routes that supervisors ask."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Tell whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready", summary="Tell whether the model is loaded")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return router
