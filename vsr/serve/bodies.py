"""Bound what requests and answers hold in memory: the bytes of each, of all together, and for how long."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vsr.serve.errors import BusyError, RefusedError, TooLargeError, code_of, error_answer
from vsr.serve.settings import Limits, Settings

__all__ = ["BodyLimit"]

LOGGER = logging.getLogger("vsr.serve")
_TO_DISK = ("/v1/jobs", "/v1/uploads", "/gradio_api", "/page")
_IN_MEMORY = "/v1/models"
_FORM_BYTES = 2**16  # of a form around its file


class BodyLimit:
    """Refuse a body that is too large (413), finds no room in memory beside others (503), or does not come (408).

    A body is refused by its length where it says so, else as it arrives. Those of videos and of images go to the disk;
    pixels as JSON lie in memory until their request is answered. Routes put into `request.state.held`, an ExitStack,
    what is to be given back once a client has taken its answer; one that does not take it is cut off.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self._limits = app, settings.limits
        self._num_held = 0  # bytes of all bodies in memory; the event loop's thread alone changes it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        body = _Body(self, receive, scope["path"], self._limits)
        try:
            body.expect(int(length) if length.isdecimal() else 0)
        except RefusedError as error:
            headers = error.headers | {"Connection": "close"}  # the rest of the body is not read
            await error_answer(scope["path"], error.status, str(error), code_of(error), headers)(scope, receive, send)
            return
        is_to_disk, seconds = scope["path"].startswith(_TO_DISK), self._limits.request_seconds
        with ExitStack() as held:
            held.callback(lambda: self.hold(-body.num_held))
            scope.setdefault("state", {})["held"] = held
            # A player stops to read a video for as long as it has enough of it.
            sending = send if is_to_disk else _bounded(send, seconds)
            try:
                await self.app(scope, body.receive, sending)
            except _NotTakenError as error:  # the server closes the connection, as the answer is not whole
                LOGGER.warning("%s", error)

    def check_room(self, num_bytes: int) -> None:
        """Raise BusyError where so many bytes more have no room in memory."""
        if self._num_held + num_bytes > self._limits.queued_bytes:
            raise BusyError("other requests fill the memory that this service has for them; try again in a moment")

    def hold(self, num_bytes: int) -> None:
        """Count bytes that came into memory."""
        self._num_held += num_bytes


class _Body:
    """The body of one request, as it comes.

    num_held: bytes of it that lie in memory.
    """

    def __init__(self, room: BodyLimit, receive: Receive, path: str, limits: Limits) -> None:
        self._room, self._receive, self._seconds = room, receive, limits.request_seconds
        self._is_held, is_to_disk = path.startswith(_IN_MEMORY), path.startswith(_TO_DISK)
        self._most = limits.predict_bytes
        if not self._is_held:
            self._most = (limits.upload_bytes if is_to_disk else limits.image_bytes) + _FORM_BYTES
        # An upload may take hours, as long as something comes; all others have one time for the whole.
        self._deadline = None if is_to_disk else time.monotonic() + self._seconds
        self._num_bytes, self.num_held, self._is_whole = 0, 0, False

    def expect(self, length: int) -> None:
        """Check the length that a request announces. Raises TooLargeError and BusyError."""
        self._check(length)
        if self._is_held:
            self._room.check_room(length)

    async def receive(self) -> Message:
        """Wait for the next part. Raises TooLargeError, BusyError, and RefusedError (408) where none comes."""
        if self._is_whole:  # then this waits for the end of the connection, which may take as long as it likes
            return await self._receive()
        message = await self._next()
        self._is_whole = not message.get("more_body", False)
        num_bytes = len(message.get("body", b""))
        self._num_bytes += num_bytes
        self._check(self._num_bytes)
        if self._is_held:
            self._room.check_room(num_bytes)
            self._room.hold(num_bytes)
            self.num_held += num_bytes
        return message

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._most:
            raise TooLargeError(f"the request is larger than {self._most:,} bytes")

    async def _next(self) -> Message:
        seconds = self._seconds if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return await asyncio.wait_for(self._receive(), seconds)
        except TimeoutError as error:
            text = f"the request did not come within {self._seconds} s"
            raise RefusedError(text, status=408, code="timeout", headers={"Connection": "close"}) from error


class _NotTakenError(Exception):
    """A client that does not read its answer. Not an OSError: Starlette takes those for a client that went away."""


def _bounded(send: Send, seconds: float) -> Send:
    """Bound the time that a client may take for each part of an answer, which lies in memory until then."""

    async def sending(message: Message) -> None:
        try:
            await asyncio.wait_for(send(message), seconds)
        except TimeoutError as error:
            raise _NotTakenError(f"a client has not read its answer for {seconds:g} s") from error

    return sending
