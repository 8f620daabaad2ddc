"""Use a service as a device: send it a video, follow the job, and fetch the result, over connections that break."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from vsr.errors import (
    EngineError,
    InputError,
    ModelError,
    OptionError,
    OutputError,
    StrictError,
    VerificationError,
    VsrError,
    reason,
)
from vsr.events import Note, NoteCode, OnNote, Progress
from vsr.files import (
    check_target,
    claim,
    naming_output,
    partial_path,
    put_in_place,
    remove_left,
    sha256_of,
    write_file,
)
from vsr.jobs.report import JobReport

__all__ = ["RemoteService"]

_TUS = {"Tus-Resumable": "1.0.0"}
_PART_BYTES = 4 * 2**20  # of an upload; each is checked by itself
_MOST_FAILURES = 8  # in a row, with waits that double: about three minutes
_LONGEST_WAIT_SECONDS = 60.0
_PAUSE_SECONDS = 5.0  # for which somebody who has pressed Ctrl-C waits for the service
_CONTAINERS = ("mp4", "mkv", "mov", "webm")
_SECONDS = 60.0  # for an answer; events come every 15 s at least
_KINDS: Mapping[str, type[VsrError]] = {
    "input": InputError, "option": OptionError, "validation": OptionError, "model": ModelError, "engine": EngineError,
    "output": OutputError, "strict": StrictError, "verification": VerificationError, "not_a_video": InputError,
    "codec": InputError, "too_large": InputError,
}  # fmt: skip


@dataclass(slots=True)
class _Ticket:
    """Remembers an unfinished job at a service, in a file beside the output, so that the same call goes on with it.

    request: all that the job depends on; another request begins anew.
    """

    request: dict[str, Any]
    upload: str | None = None
    job: str | None = None

    @classmethod
    def read(cls, path: Path, request: dict[str, Any]) -> Self:
        """Read the ticket of the same request, or make a new one."""
        try:
            found = cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(request)
        return found if found.request == request else cls(request)

    def write(self, path: Path) -> None:
        with naming_output(path):
            write_file(path, json.dumps(asdict(self)))


class RemoteService:
    """A service that runs jobs. Use as a context manager."""

    def __init__(self, url: str, token: str | None = None, *, note: OnNote = lambda note: None) -> None:
        """Take the address of a service; nothing is sent yet. Raises OptionError where it is none.

        Args:
            url: Such as "http://127.0.0.1:5000".
            token: That the service asks for; None for none.
            note: Called with one line for what is worth knowing, such as a connection that broke.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.url, self._note = url.rstrip("/"), note
        if not self.url.startswith(("http://", "https://")):
            raise OptionError(f"{url}: is no address of a service; give one such as http://127.0.0.1:5000")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def enhance(
        self,
        source: Path,
        output: Path,
        options: Mapping[str, Any],
        *,
        preview_seconds: float | None = None,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> JobReport:
        """Upscale a video at the service; the output is there when it is complete and its checksum is right.

        A call that was interrupted pauses the job; the same call goes on where it was. Bytes on the way are checked by
        SHA-256, and the service compares the result with the source, as `vsr.enhance` does.
        Raises the errors of `vsr.errors`, those of the job by their kinds.

        Args:
            source, output: The files; the output's suffix is its container.
            options: By their names in the service's API; `container` follows from the output.
            preview_seconds: Upscale so much alone, of the most detailed moment or from `start_seconds` on.
            overwrite: Replace an output that exists.
            on_progress: Called with the job's progress.
        """
        started = time.perf_counter()
        if not source.is_file():
            raise InputError(f"{source}: no such file")
        check_target(output, overwrite, source)
        container = output.suffix.lower().removeprefix(".")
        if container not in _CONTAINERS:
            raise OptionError(f"{output}: a service writes {', '.join(_CONTAINERS)}; name such a file")
        status = source.stat()
        identity = [str(source.absolute()), status.st_size, status.st_mtime_ns]
        given = {**options, "container": container}
        request = {"url": self.url, "source": identity, "options": given, "preview_seconds": preview_seconds}
        path = output.with_name(f".{output.name}.vsr-remote")
        ticket = _Ticket.read(path, request)
        job = self._job_of(ticket, path, source)
        try:
            job = self._follow(job["id"], on_progress)
        except BaseException:
            self._pause(job["id"])
            raise
        self._check(job, source)
        self._download(job, output, overwrite)
        self._forget(ticket, path)
        engine, result = f"{job['engine']} at {self.url}", job["result"]
        seconds = time.perf_counter() - started
        return JobReport(output, job["model"], engine, job["frames"], result["width"], result["height"], seconds)

    # -- requests ----------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Send a request, again and again while the service cannot be reached or is busy. Raises errors of refusals."""
        tries = _Tries(self.url, self._note)
        while True:
            try:
                answer = self._http.request(method, path, **given)
            except httpx.TransportError as error:
                tries.failed(error)
                continue
            if answer.status_code in (423, 429, 502, 503, 504):
                tries.failed(_error_of(answer), _retry_after(answer))
                continue
            if answer.is_success:
                return answer
            raise _error_of(answer)

    def _find(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> httpx.Response | None:
        """Ask for something that may be gone; None if it is."""
        try:
            return self._ask(method, path, headers=headers)
        except _GoneError:
            return None

    # -- up ----------------------------------------------------------------------------------------

    def _job_of(self, ticket: _Ticket, path: Path, source: Path) -> dict[str, Any]:
        """Find the job that an earlier call has begun, or begin one."""
        found = None if ticket.job is None else self._find(f"/v1/jobs/{ticket.job}")
        if found is not None and found.json()["state"] not in ("cancelled", "failed"):
            self._note(Note(NoteCode.RESUME, f"going on with the job that is at {self.url}"))
            if found.json()["state"] in ("paused", "pausing"):
                found = self._ask("POST", f"/v1/jobs/{ticket.job}/resume")
            return dict(found.json())
        upload = None if ticket.upload is None else self._find(f"/v1/uploads/{ticket.upload}", _TUS, "HEAD")
        if upload is None:
            name = base64.b64encode(source.name.encode()).decode()
            headers = {"Upload-Length": str(source.stat().st_size), "Upload-Metadata": f"filename {name}"}
            upload = self._ask("POST", "/v1/uploads", headers=_TUS | headers)
            ticket.upload = upload.headers["Location"].rsplit("/", 1)[1]
            ticket.write(path)
        self._upload(source, f"/v1/uploads/{ticket.upload}", int(upload.headers["Upload-Offset"]))
        request = ticket.request
        body = {"upload": ticket.upload, "options": request["options"], "preview_seconds": request["preview_seconds"]}
        job = dict(self._ask("POST", "/v1/jobs", json=body).json())
        ticket.job = job["id"]
        ticket.write(path)
        return job

    def _upload(self, source: Path, url: str, offset: int) -> None:
        """Send the rest of a file, part by part; after each break the service says where it goes on."""
        tries, length = _Tries(self.url, self._note), source.stat().st_size
        with source.open("rb") as file:
            while offset < length:
                file.seek(offset)
                part = file.read(_PART_BYTES)
                digest = base64.b64encode(hashlib.sha256(part).digest()).decode()
                headers = {
                    "Content-Type": "application/offset+octet-stream",
                    "Upload-Offset": str(offset),
                    "Upload-Checksum": f"sha256 {digest}",
                }
                try:
                    answer = self._http.patch(url, content=part, headers=_TUS | headers)
                except httpx.TransportError as error:
                    tries.failed(error)
                else:
                    if answer.is_success:
                        tries.succeeded()
                        offset = int(answer.headers["Upload-Offset"])
                        continue
                    if answer.status_code not in (409, 423, 460, 502, 503, 504):
                        raise _error_of(answer)
                    tries.failed(_error_of(answer))
                before, offset = offset, int(self._ask("HEAD", url, headers=_TUS).headers["Upload-Offset"])
                if offset > before:
                    tries.succeeded()

    # -- meanwhile ---------------------------------------------------------------------------------

    def _follow(self, job_id: str, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
        """Follow a job to its end; return it."""
        tries, last = _Tries(self.url, self._note), 0
        while True:
            try:
                with self._http.stream("GET", f"/v1/jobs/{job_id}/events", params={"after": last}) as answer:
                    if answer.is_error:
                        answer.read()
                        raise _error_of(answer)
                    for number, kind, data in _events(answer.iter_lines()):
                        tries.succeeded()
                        last = max(last, number)
                        self._tell(kind, data, on_progress)
            except httpx.TransportError as error:
                tries.failed(error)
                continue
            job = dict(self._ask("GET", f"/v1/jobs/{job_id}").json())
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            time.sleep(1)  # the service has closed the stream, as it does when it ends

    def _tell(self, kind: str, data: Mapping[str, Any], on_progress: Callable[[Progress], None]) -> None:
        if kind == "note" and data["code"] in list(NoteCode):
            self._note(Note(NoteCode(data["code"]), data["text"]))
        elif kind == "progress" and data["frames"]:
            fps = data["fps"] or 0.0
            on_progress(Progress(data["frames"], data["frames_expected"], data["frames"] / fps if fps else 0.0))

    def _pause(self, job_id: str) -> None:
        try:
            self._http.post(f"/v1/jobs/{job_id}/pause", timeout=_PAUSE_SECONDS)
        except httpx.TransportError:
            return
        self._note(Note(NoteCode.RESUME, f"the job waits at {self.url}; the same command goes on with it"))

    def _check(self, job: Mapping[str, Any], source: Path) -> None:
        """Raise the error of a job that has none of a result."""
        if job["state"] == "failed":
            error = job["error"]
            raise _KINDS.get(error["code"], VsrError)(f"{source}: at {self.url}: {error['message']}")
        if job["state"] == "cancelled":
            raise OutputError(f"{source}: the job was cancelled at {self.url}")

    # -- down --------------------------------------------------------------------------------------

    def _download(self, job: Mapping[str, Any], output: Path, overwrite: bool) -> None:
        """Fetch the result, and check it, before it is put in its place."""
        result, partial, tries = job["result"], partial_path(output), _Tries(self.url, self._note)
        for name in remove_left(output):
            self._note(Note(NoteCode.OUTPUT, f"{name} was left by a run that was killed; it is removed"))
        with naming_output(output):
            release = claim(partial)
        try:
            with naming_output(output), partial.open("wb") as file:
                while file.tell() < result["num_bytes"]:
                    try:
                        self._fetch(result["url"], file)
                        tries.succeeded()
                    except httpx.TransportError as error:
                        tries.failed(error)
            if sha256_of(partial) != result["sha256"]:
                raise OutputError(f"{output}: was damaged on its way from {self.url}; try again")
            put_in_place(partial, output, overwrite)
        finally:
            partial.unlink(missing_ok=True)
            release()

    def _fetch(self, url: str, file: Any) -> None:
        with self._http.stream("GET", url, headers={"Range": f"bytes={file.tell()}-"}) as answer:
            if answer.is_error:
                answer.read()
                raise _error_of(answer)
            if answer.status_code != 206:
                file.seek(0)
            for data in answer.iter_bytes():
                file.write(data)

    def _forget(self, ticket: _Ticket, path: Path) -> None:
        """Remove what is at the service, and the ticket; what cannot be removed there is, after some time."""
        for url, headers in ((f"/v1/jobs/{ticket.job}", {}), (f"/v1/uploads/{ticket.upload}", _TUS)):
            try:
                self._http.delete(url, headers=headers)
            except httpx.TransportError:
                continue
        path.unlink(missing_ok=True)


class _GoneError(InputError):
    """Something is not at the service, or no more."""


class _Tries:
    """Waits between tries, longer each time, and gives up after too many failures in a row."""

    def __init__(self, url: str, note: OnNote) -> None:
        self._url, self._note, self._num_failures = url, note, 0

    def succeeded(self) -> None:
        self._num_failures = 0

    def failed(self, error: Exception, wait_seconds: float | None = None) -> None:
        """Wait before the next try. Raises InputError after too many failures."""
        self._num_failures += 1
        if self._num_failures > _MOST_FAILURES:
            raise InputError(f"{self._url}: the service cannot be reached ({reason(error)})") from error
        if self._num_failures == 1:
            self._note(Note(NoteCode.RESUME, f"{self._url}: {reason(error)}; trying again"))
        time.sleep(min(wait_seconds or 0.5 * 2**self._num_failures, _LONGEST_WAIT_SECONDS))


def _retry_after(answer: httpx.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _error_of(answer: httpx.Response) -> VsrError:
    """Make the error that a refusal stands for."""
    try:
        told = answer.json()
        code, text = str(told["code"]), str(told["message"])
    except (ValueError, LookupError, TypeError):
        code, text = "", f"answers {answer.status_code}"
    where = str(answer.request.url.copy_with(path="/", query=None)).rstrip("/")
    if answer.status_code == 401:
        return InputError(f"{where}: {text}; set VSR_TOKEN to it")
    if answer.status_code == 404 and code not in _KINDS:
        return _GoneError(f"{where}: {text}")
    return _KINDS.get(code, InputError)(f"{where}: {text}")


def _events(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Read server-sent events: number, kind and data."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields and not line:
            yield int(fields.get("id") or 0), fields.get("event", ""), json.loads(fields.get("data") or "{}")
            fields = {}
