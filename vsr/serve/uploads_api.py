"""Answer requests of the tus protocol 1.0, by which a broken upload goes on where it was.

https://tus.io/protocols/resumable-upload: the core, and the extensions creation, creation-with-upload,
termination, checksum and expiration.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from vsr.serve.errors import RefusedError
from vsr.serve.job_service import JobService
from vsr.serve.services import Services
from vsr.serve.uploads import CHECKSUMS, Upload, UploadStore

__all__ = ["make_uploads_router"]

_VERSION = "1.0.0"
_CONTENT_TYPE = "application/offset+octet-stream"
_CHUNK_BYTES = 2**20
_BODY = {"content": {_CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
UploadId = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,32}$", examples=["0f1e2d3c4b5a69788796a5b4"])]
Number = Annotated[int, Header(ge=0, le=2**53)]
Checksum = Annotated[str | None, Header(max_length=200)]
Version = Annotated[str | None, Header(alias="Tus-Resumable", examples=[_VERSION])]


def make_uploads_router(services: Services) -> APIRouter:
    """Make the routes of resumable uploads."""
    router = APIRouter(prefix="/v1/uploads", tags=["resumable uploads"])
    _add_creation(router, services.jobs, services.settings.limits.upload_bytes)
    _add_parts(router, services.jobs)
    return router


def _add_creation(router: APIRouter, jobs: JobService, most_bytes: int) -> None:
    @router.options("", status_code=204, summary="Tell what this service does of tus")
    def describe() -> Response:
        headers = {
            "Tus-Version": _VERSION,
            "Tus-Extension": "creation,creation-with-upload,termination,checksum,expiration",
            "Tus-Max-Size": str(most_bytes),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        }
        return _answer(headers)

    @router.post(
        "",
        status_code=201,
        summary="Begin an upload, with its first bytes if they come along",
        response_class=Response,
        openapi_extra={"requestBody": _BODY},
    )
    async def create(
        request: Request,
        upload_length: Number,
        upload_metadata: Annotated[str, Header(max_length=4096, examples=["filename aG9saWRheS5tcDQ="])] = "",
        upload_checksum: Checksum = None,
        version: Version = None,
    ) -> Response:
        _check_version(version)
        uploads = jobs.uploads
        upload = await run_in_threadpool(uploads.create, upload_length, upload_metadata)
        if request.headers.get("content-type", "") == _CONTENT_TYPE:
            try:
                await _append(request, uploads, upload.id, 0, upload_checksum)
            except BaseException:  # the client does not learn its address
                uploads.remove(upload.id)
                raise
        return _answer({"Location": f"/v1/uploads/{upload.id}", **_state(uploads.find(upload.id))}, 201)


def _add_parts(router: APIRouter, jobs: JobService) -> None:
    @router.head("/{upload_id}", summary="Ask where an upload goes on", response_class=Response)
    def show(upload_id: UploadId, version: Version = None) -> Response:
        _check_version(version)
        upload = jobs.uploads.find(upload_id)
        headers = {"Upload-Length": str(upload.length), "Cache-Control": "no-store", **_state(upload)}
        if upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
        return _answer(headers, 200)

    @router.patch(
        "/{upload_id}",
        status_code=204,
        summary="Send the next bytes of an upload",
        response_class=Response,
        openapi_extra={"requestBody": _BODY},
    )
    async def append(
        request: Request,
        upload_id: UploadId,
        upload_offset: Number,
        upload_checksum: Checksum = None,
        version: Version = None,
    ) -> Response:
        _check_version(version)
        if request.headers.get("content-type", "") != _CONTENT_TYPE:
            raise RefusedError(f"Content-Type must be {_CONTENT_TYPE}", status=415, code="content_type")
        await _append(request, jobs.uploads, upload_id, upload_offset, upload_checksum)
        return _answer(_state(jobs.uploads.find(upload_id)))

    @router.delete("/{upload_id}", status_code=204, summary="Remove an upload", response_class=Response)
    def remove(upload_id: UploadId, version: Version = None) -> Response:
        _check_version(version)
        jobs.uploads.remove(upload_id)
        return _answer({})


async def _append(request: Request, uploads: UploadStore, upload_id: str, offset: int, checksum: str | None) -> None:
    """Write the body of a request as it comes; of one that breaks off, what has come stays."""
    with uploads.appending(upload_id, offset, checksum) as part:
        waiting = bytearray()
        try:
            async for data in request.stream():
                waiting += data
                if len(waiting) >= _CHUNK_BYTES:
                    await run_in_threadpool(part.write, bytes(waiting))
                    waiting.clear()
        except ClientDisconnect:
            part.write(bytes(waiting))
            raise RefusedError("the connection broke off", code="broken") from None
        await run_in_threadpool(part.write, bytes(waiting))


def _state(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": formatdate(upload.expires, usegmt=True)}


def _check_version(version: str | None) -> None:
    if version != _VERSION:
        raise RefusedError(
            f"send Tus-Resumable: {_VERSION}", status=412, code="version", headers={"Tus-Version": _VERSION}
        )


def _answer(headers: Mapping[str, str], status: int = 204) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": _VERSION, **headers})
