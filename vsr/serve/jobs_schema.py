"""Describe what requests about video jobs bring and get, with examples, for clients and for OpenAPI."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vsr.serve.errors import RefusedError
from vsr.serve.form_upload import FILE_FIELD
from vsr.serve.job_service import JobService
from vsr.serve.job_store import JobState
from vsr.serve.video_options import VideoOptions

__all__ = ["CREATE_JOB", "JobRequest", "JobView", "view_of"]

_VERSION = re.compile(r" v?\d+(\.\d+)+[^\s,]*")  # of a library, in the name of an engine


class JobRequest(BaseModel):
    """A job to take on: one of `upload`, `path` and `job` says on which video."""

    model_config = ConfigDict(extra="forbid")

    upload: str | None = Field(default=None, max_length=64, description="A complete upload, by its id.")
    path: str | None = Field(
        default=None, max_length=4096, description="A file under a folder that the service may read."
    )
    job: str | None = Field(default=None, max_length=64, description="Another job, whose video is taken again.")
    name: str | None = Field(default=None, max_length=400, description="Name of the file, to show.")
    options: VideoOptions = Field(default_factory=VideoOptions)
    preview_seconds: float | None = Field(
        default=None,
        gt=0,
        le=60,
        description="Upscale so much alone, from start_seconds or the most detailed moment on.",
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if sum(each is not None for each in (self.upload, self.path, self.job)) != 1:
            raise ValueError("give one of upload, path and job")
        return self


class NoteView(BaseModel):
    """A note of a job. code: its subject, for programs."""

    code: str
    text: str


class ErrorView(BaseModel):
    """Why a job failed. code: for programs."""

    code: str
    message: str


class SourceView(BaseModel):
    """The video of a job, by its header."""

    codec: str
    width: int
    height: int
    seconds: float | None
    num_bytes: int
    has_audio: bool


class ResultView(BaseModel):
    """The result of a job."""

    url: str
    num_bytes: int
    sha256: str
    width: int
    height: int


class JobView(BaseModel):
    """A video job as it stands."""

    model_config = ConfigDict(protected_namespaces=())

    id: str = Field(examples=["p3Xa9kQmZr71TbVw"])
    state: JobState
    name: str = Field(examples=["holiday.mp4"])
    options: VideoOptions
    preview_seconds: float | None
    created: float = Field(description="In seconds since 1970.")
    changed: float = Field(description="In seconds since 1970.")
    frames: int = Field(examples=[480])
    frames_expected: int | None = Field(examples=[1500])
    fps: float | None = Field(examples=[12.5])
    seconds_left: float | None = Field(examples=[81.6])
    source: SourceView
    model: str | None
    engine: str | None
    notes: list[NoteView]
    error: ErrorView | None
    result: ResultView | None
    stream: str | None = Field(description="An HLS playlist of what is finished.")


def view_of(jobs: JobService, job_id: str) -> JobView:
    """Describe a job to a client. Raises RefusedError (404)."""
    record = jobs.get(job_id)
    notes = [NoteView(**event.data) for event in jobs.notes(job_id)]
    error = result = None
    if record.state is JobState.FAILED:
        error = ErrorView(code=record.error_code or "internal", message=record.error or "the job failed")
    if record.state is JobState.DONE:
        result = ResultView(
            url=f"/v1/jobs/{job_id}/result",
            num_bytes=record.result_bytes or 0,
            sha256=record.result_sha256 or "",
            width=record.width or 0,
            height=record.height or 0,
        )
    return JobView(
        id=record.id,
        state=record.state,
        name=record.name,
        options=VideoOptions(**record.options),
        preview_seconds=record.preview_seconds,
        created=record.created,
        changed=record.changed,
        frames=record.num_frames,
        frames_expected=record.num_frames_expected,
        fps=record.frames_per_second,
        seconds_left=record.seconds_left,
        source=SourceView(**{name: record.video[name] for name in SourceView.model_fields}),
        model=record.model,
        engine=None if record.engine is None else _VERSION.sub("", record.engine),
        notes=notes,
        error=error,
        result=result,
        stream=f"/v1/jobs/{job_id}/stream.m3u8" if _can_be_watched(jobs, job_id) else None,
    )


def _can_be_watched(jobs: JobService, job_id: str) -> bool:
    try:
        jobs.segment_files(job_id)
    except RefusedError:
        return False
    return True


_FORM = {
    "type": "object",
    "required": [FILE_FIELD],
    "properties": {
        FILE_FIELD: {"type": "string", "format": "binary", "description": "The video."},
        "options": {"type": "string", "description": "The options, as JSON.", "example": '{"model": "fast"}'},
        "preview_seconds": {"type": "string", "example": "3"},
    },
}


def _request_schema() -> dict[str, Any]:
    """Return the JSON schema of `JobRequest`, whole: as the request's body has no model, FastAPI adds no part of it."""
    schema = JobRequest.model_json_schema()
    schema["properties"]["options"] = schema.pop("$defs")["VideoOptions"]
    return schema


# The body is read by hand, as a file of gigabytes must not go through memory; so it is described by hand, too.
CREATE_JOB: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _request_schema(),
                "examples": {
                    "an upload": {"value": {"upload": "0f1e2d3c4b5a69788796a5b4", "options": {"model": "fast"}}},
                    "a preview": {"value": {"path": "holiday/beach.mp4", "preview_seconds": 3}},
                },
            },
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
