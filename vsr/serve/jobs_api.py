"""Answer requests about video jobs."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from vsr.serve.errors import RefusedError
from vsr.serve.form_upload import FILE_FIELD, receiving_form
from vsr.serve.hls import playlist
from vsr.serve.job_files import check_room, open_in_roots
from vsr.serve.job_service import JobService
from vsr.serve.job_store import JobEvent
from vsr.serve.jobs_schema import CREATE_JOB, JobRequest, JobView, view_of
from vsr.serve.services import Services

__all__ = ["make_jobs_router"]

_MEDIA_TYPES = {".mp4": "video/mp4", ".mkv": "video/x-matroska", ".mov": "video/quicktime", ".webm": "video/webm"}
_MOST_JSON = 2**20  # bytes
_EVENT_STREAM = {"text/event-stream": {"example": 'event: progress\ndata: {"frames": 48, "fps": 12.5}\n\n'}}
_LIVE = {"Cache-Control": "no-cache"}
_REFUSED: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such job."},
    409: {"description": "The job is not in a state for it."},
}
JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,32}$", examples=["p3Xa9kQmZr71TbVw"])]


def make_jobs_router(services: Services) -> APIRouter:
    """Make the routes of video jobs."""
    router = APIRouter(prefix="/v1/jobs", tags=["video jobs"])
    _add_creation(router, services.jobs)
    _add_states(router, services.jobs)
    _add_steps(router, services.jobs)
    _add_results(router, services.jobs)
    return router


# -- creation ------------------------------------------------------------------------------------------


def _add_creation(router: APIRouter, jobs: JobService) -> None:
    @router.post(
        "",
        status_code=201,
        response_model=JobView,
        summary="Take on a job",
        openapi_extra=CREATE_JOB,
        responses={
            403: {"description": "The path is not under a folder of this service."},
            413: {"description": "The video is beyond a limit, or there is no room for it."},
            415: {"description": "The file is no video of a format that this service takes."},
        },
    )
    async def create(request: Request, response: Response) -> JobView:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            job_id = await _job_of_form(request, jobs)
        elif kind == "application/json":
            job_id = await run_in_threadpool(_job_of_json, await _short_body(request), jobs)
        else:
            text = "send application/json, or multipart/form-data with a file in the field 'video'"
            raise RefusedError(text, status=415, code="content_type")
        response.headers["Location"] = f"/v1/jobs/{job_id}"
        return await run_in_threadpool(view_of, jobs, job_id)


async def _job_of_form(request: Request, jobs: JobService) -> str:
    length = request.headers.get("content-length", "")
    expected = int(length) if length.isdecimal() else 0
    await run_in_threadpool(check_room, jobs.settings.state, expected, jobs.settings.limits)
    with receiving_form(request.headers["content-type"], jobs.incoming) as form:
        async for data in request.stream():
            await run_in_threadpool(form.write, data)
        await run_in_threadpool(form.finish)
        if not form.has_file:
            raise RefusedError(f"the form has no file in the field '{FILE_FIELD}'", code="form")
        values: dict[str, Any] = {"options": _parsed(form.fields.get("options") or "{}", "the field 'options'")}
        if form.fields.get("preview_seconds"):
            values["preview_seconds"] = form.fields["preview_seconds"]
        given = _validated({**values, "name": form.name or None, "upload": "form"})
        return await run_in_threadpool(_submit, jobs, form.file, given)


async def _short_body(request: Request) -> bytes:
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > _MOST_JSON:
            raise RefusedError("the JSON is too long", status=413, code="too_large")
    return bytes(body)


def _job_of_json(body: bytes, jobs: JobService) -> str:
    given = _validated(_parsed(body, "the body"))
    if given.path is not None:
        with open_in_roots(given.path, jobs.settings.roots) as file:
            return _submit(jobs, file, given, PurePath(given.path).name)
    if given.job is not None:
        return _submit(jobs, jobs.source(given.job), given, jobs.get(given.job).name)
    assert given.upload is not None
    return _submit(jobs, jobs.uploads.path(given.upload), given, jobs.uploads.find(given.upload).name)


def _submit(jobs: JobService, source: Any, given: JobRequest, name: str = "") -> str:
    return jobs.submit(source, given.options, name=given.name or name or "video", preview_seconds=given.preview_seconds)


def _parsed(text: bytes | str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{what} is not JSON", code="json") from error


def _validated(values: Any) -> JobRequest:
    try:
        return JobRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedError(f"{where}: {first['msg']}" if where else first["msg"], code="validation") from error


# -- states --------------------------------------------------------------------------------------------


def _add_states(router: APIRouter, jobs: JobService) -> None:
    @router.get("", summary="List jobs, the newest first")
    def list_jobs(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[JobView]:
        views = []
        for record in jobs.jobs()[:limit]:
            with suppress(RefusedError):  # it is gone meanwhile
                views.append(view_of(jobs, record.id))
        return views

    @router.get("/{job_id}", summary="Show a job", responses={404: _REFUSED[404]})
    def show(job_id: JobId) -> JobView:
        return view_of(jobs, job_id)

    @router.get(
        "/{job_id}/events",
        summary="Follow a job by server-sent events: state, note, segment, progress",
        response_class=StreamingResponse,
        responses={200: {"content": _EVENT_STREAM}, 404: _REFUSED[404]},
    )
    async def follow(
        job_id: JobId,
        after: Annotated[int, Query(ge=0, le=2**53, description="Number of the last event that is known.")] = 0,
        last_event_id: Annotated[str | None, Header(pattern=r"^\d{0,15}$")] = None,
    ) -> StreamingResponse:
        events = jobs.events_async(job_id, int(last_event_id or after))
        return StreamingResponse(_lines(events), media_type="text/event-stream", headers=_LIVE)


async def _lines(events: AsyncIterator[JobEvent | None]) -> AsyncIterator[str]:
    async for event in events:
        if event is None:
            yield ": still here\n\n"  # keeps proxies from closing the connection
            continue
        number = f"id: {event.number}\n" if event.number else ""
        yield f"{number}event: {event.kind}\ndata: {json.dumps(event.data)}\n\n"


# -- what may be done to them --------------------------------------------------------------------------


def _add_steps(router: APIRouter, jobs: JobService) -> None:
    @router.post("/{job_id}/pause", summary="Stop a job after the segment that it is at", responses=_REFUSED)
    def pause(job_id: JobId) -> JobView:
        return view_of(jobs, jobs.pause(job_id).id)

    @router.post("/{job_id}/resume", summary="Go on with a job that was paused, or has failed", responses=_REFUSED)
    def resume(job_id: JobId) -> JobView:
        return view_of(jobs, jobs.resume(job_id).id)

    @router.post("/{job_id}/cancel", summary="End a job for good", responses=_REFUSED)
    def cancel(job_id: JobId) -> JobView:
        return view_of(jobs, jobs.cancel(job_id).id)

    @router.delete(
        "/{job_id}", status_code=204, summary="Forget a job and remove its files", responses={404: _REFUSED[404]}
    )
    def delete(job_id: JobId) -> None:
        jobs.delete(job_id)


# -- results -------------------------------------------------------------------------------------------


def _add_results(router: APIRouter, jobs: JobService) -> None:
    @router.get(
        "/{job_id}/result",
        summary="Download the result; ranges may be asked for",
        response_class=FileResponse,
        responses=_REFUSED,
    )
    def result(
        job_id: JobId,
        inline: Annotated[bool, Query(description="To be shown in a browser rather than saved.")] = False,
    ) -> FileResponse:
        path, record = jobs.result(job_id), jobs.get(job_id)
        digest = base64.b64encode(bytes.fromhex(record.result_sha256 or "")).decode()
        return FileResponse(
            path,
            media_type=_MEDIA_TYPES[path.suffix],
            filename=f"{PurePath(record.name).stem}{path.suffix}",
            content_disposition_type="inline" if inline else "attachment",
            headers={"ETag": f'"{record.result_sha256}"', "Repr-Digest": f"sha-256=:{digest}:"},
        )

    @router.get(
        "/{job_id}/stream.m3u8",
        summary="Watch the finished segments as HLS, while the others are computed",
        response_class=Response,
        responses={200: {"content": {"application/vnd.apple.mpegurl": {}}}, **_REFUSED},
    )
    def stream(job_id: JobId) -> Response:
        jobs.segment_files(job_id)  # raises where there is none
        text = playlist(jobs.segments(job_id), jobs.get(job_id).has_ended, "segments")
        return Response(text, media_type="application/vnd.apple.mpegurl", headers=_LIVE)

    @router.get("/{job_id}/segments/init.mp4", summary="The head of all segments", response_class=Response)
    def head(job_id: JobId) -> Response:
        return Response(jobs.segment_files(job_id).head(), media_type="video/mp4")

    @router.get("/{job_id}/segments/{number}.m4s", summary="A finished segment", response_class=Response)
    def fragment(job_id: JobId, number: Annotated[str, Path(pattern=r"^\d{1,6}$", examples=["000000"])]) -> Response:
        return Response(jobs.segment_files(job_id).fragment(int(number)), media_type="video/iso.segment")
