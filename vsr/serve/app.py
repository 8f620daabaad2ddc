"""Put a service together: its routes, its guards, and its shared parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from vsr.serve.bodies import BodyLimit
from vsr.serve.errors import add_error_handlers
from vsr.serve.health import make_health_router, make_metrics_router
from vsr.serve.image_api import make_image_router
from vsr.serve.images import ImageService
from vsr.serve.job_metrics import JobCollector
from vsr.serve.job_service import JobService
from vsr.serve.jobs_api import make_jobs_router
from vsr.serve.metrics import Metrics
from vsr.serve.middleware import Guard, RequestLog
from vsr.serve.predict_api import make_predict_router
from vsr.serve.services import Services
from vsr.serve.settings import Settings
from vsr.serve.turns import DeviceTurns
from vsr.serve.uploads_api import make_uploads_router

__all__ = ["make_app"]

_DESCRIPTION = "Upscale images and videos with super-resolution networks; nothing else of them is lost."


def make_app(settings: Settings) -> FastAPI:
    """Make the application that answers all requests of a service; `app.state.services` has its shared parts."""
    turns, metrics = DeviceTurns(), Metrics()
    images, jobs = ImageService(settings, turns, metrics), JobService(settings, turns)
    metrics.registry.register(JobCollector(jobs))
    services = Services(settings, turns, images, jobs, metrics)
    app = FastAPI(
        title="vsr", description=_DESCRIPTION, version="1", lifespan=_lifespan(services), docs_url=None, redoc_url=None
    )
    app.state.services = services
    add_error_handlers(app)
    _add_routes(app, services)
    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(RequestLog, metrics=metrics)
    return app


def _add_routes(app: FastAPI, services: Services) -> None:
    app.include_router(make_health_router(services))
    app.include_router(make_jobs_router(services))
    app.include_router(make_uploads_router(services))
    app.include_router(make_metrics_router(services))
    app.include_router(make_image_router(services))
    app.include_router(make_predict_router(services))
    # the page comes last, as it is mounted at "/": mount_page(app, services)


def _lifespan(services: Services):  # type: ignore[no-untyped-def]
    """Start the parts that run beside requests, and stop them in the reverse order."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            services.images.start()
            stack.push_async_callback(asyncio.to_thread, services.images.close)
            await asyncio.to_thread(services.jobs.start)
            stack.push_async_callback(asyncio.to_thread, services.jobs.close)
            yield

    return running
