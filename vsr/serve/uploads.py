"""Keep files that clients send in parts, until they become jobs or their time is over."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vsr.files import write_file
from vsr.serve.errors import RefusedError, TooLargeError
from vsr.serve.job_files import check_room, clean_name, filling_disk
from vsr.serve.settings import Settings

__all__ = ["CHECKSUMS", "Appending", "Upload", "UploadStore", "parse_metadata"]

CHECKSUMS = ("sha256", "sha1", "md5")
_MOST_PER_JOB = 4  # uploads that are kept at one time, for each job that may wait
_MOST_METADATA = 4096  # characters
_CHECKSUM_MISMATCH = 460  # of the tus protocol


@dataclass(frozen=True, slots=True)
class Upload:
    """Describe an upload.

    Args:
        id: Letters and digits, which cannot be guessed.
        length: Bytes of the whole file.
        offset: Bytes that are here.
        name: Of the client's file, for people.
        metadata: As the client gave it, in the form of tus.
        expires: When it is removed, in seconds since 1970.
    """

    id: str
    length: int
    offset: int
    name: str
    metadata: str
    expires: float

    @property
    def is_complete(self) -> bool:
        return self.offset == self.length


class UploadStore:
    """The uploads of a service, each in a folder of its own; used from any thread.

    The bytes in an upload's file are those that count: after a kill a client goes on from there.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._lock, self._busy = threading.Lock(), set[str]()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, length: int, metadata: str = "") -> Upload:
        """Make room for a file of `length` bytes. Raises TooLargeError, and RefusedError (413, 429) without room."""
        settings = self._settings
        if length > settings.limits.upload_bytes:
            raise TooLargeError(f"the file has {length:,} bytes; at most {settings.limits.upload_bytes:,} are taken")
        name = clean_name(parse_metadata(metadata).get("filename", ""))
        upload_id = secrets.token_hex(12)
        with self._lock:
            others = self._all()
            if len(others) >= _MOST_PER_JOB * settings.limits.jobs:
                text, headers = "as many uploads are here as this service takes", {"Retry-After": "600"}
                raise RefusedError(text, status=429, code="too_many", headers=headers)
            promised = sum(each.length - each.offset for each in others)
            check_room(settings.state, promised + length, settings.limits)
            folder = self._folder / upload_id
            folder.mkdir(mode=0o700)
            (folder / "data").touch(mode=0o600)
            expires = time.time() + settings.retention_seconds
            info = {"length": length, "name": name, "metadata": metadata, "expires": expires}
            write_file(folder / "info.json", json.dumps(info))
        return self.find(upload_id)

    def find(self, upload_id: str) -> Upload:
        """Return an upload. Raises RefusedError (404) where there is none."""
        upload = self._read(upload_id)
        if upload is None or upload.expires <= time.time():
            raise RefusedError("there is no such upload", status=404, code="no_upload")
        return upload

    def path(self, upload_id: str) -> Path:
        """Return the file of a complete upload. Raises RefusedError: 404, or 409 where a part is missing."""
        upload = self.find(upload_id)
        if not upload.is_complete:
            missing = upload.length - upload.offset
            raise RefusedError(f"{missing:,} bytes of the upload are missing", status=409, code="incomplete")
        return self._folder / upload_id / "data"

    @contextmanager
    def appending(self, upload_id: str, offset: int, checksum: str | None = None) -> Iterator[Appending]:
        """Take the next bytes of a file; those that came stay, also where the block ends with an error.

        Raises RefusedError: 409 where the upload does not end at `offset`, 423 while other bytes of it come.

        Args:
            upload_id: The upload.
            offset: Bytes that are here already.
            checksum: Of the bytes to come, as tus has it: "sha256 BASE64"; if it is wrong, none of them stay.
        """
        with self._alone(upload_id):
            upload = self.find(upload_id)
            if upload.offset != offset:
                raise RefusedError(f"the upload goes on at byte {upload.offset}", status=409, code="offset")
            with (self._folder / upload_id / "data").open("r+b", buffering=0) as file:
                file.seek(offset)
                part = Appending(file, upload, checksum)
                try:
                    yield part
                except BaseException:
                    part.keep_or_drop()
                    raise
                part.check()

    def remove(self, upload_id: str) -> None:
        """Remove an upload. Raises RefusedError: 404, or 423 while bytes of it come."""
        with self._alone(upload_id):
            self.find(upload_id)
            shutil.rmtree(self._folder / upload_id, ignore_errors=True)

    def remove_expired(self, now: float) -> None:
        """Remove the uploads whose time is over. now: seconds since 1970."""
        for path in self._folder.iterdir():
            upload = self._read(path.name)
            with self._lock:
                if path.name not in self._busy and (upload is None or upload.expires <= now):
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _alone(self, upload_id: str) -> Iterator[None]:
        with self._lock:
            if upload_id in self._busy:
                raise RefusedError("bytes of this upload are coming in already", status=423, code="locked")
            self._busy.add(upload_id)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(upload_id)

    def _all(self) -> list[Upload]:
        found = [self._read(path.name) for path in self._folder.iterdir()]
        return [upload for upload in found if upload is not None]

    def _read(self, upload_id: str) -> Upload | None:
        if not upload_id.isalnum() or not upload_id.isascii():
            return None
        folder = self._folder / upload_id
        try:
            info = json.loads((folder / "info.json").read_text("utf-8"))
            offset = (folder / "data").stat().st_size
        except (OSError, ValueError):
            return None
        return Upload(upload_id, info["length"], offset, info["name"], info["metadata"], info["expires"])


class Appending:
    """The next bytes of an upload, on their way to its file."""

    def __init__(self, file: IO[bytes], upload: Upload, checksum: str | None) -> None:
        self._file, self._upload, self.offset = file, upload, upload.offset
        self._expected, self._digest = None, hashlib.sha256()
        if checksum is not None:
            name, _, value = checksum.partition(" ")
            if name not in CHECKSUMS:
                raise RefusedError(f"checksums are {', '.join(CHECKSUMS)}", status=400, code="checksum")
            try:
                self._expected = base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise RefusedError("the checksum is not base64", status=400, code="checksum") from error
            self._digest = hashlib.new(name, usedforsecurity=False)

    def write(self, data: bytes) -> None:
        """Take bytes. Raises TooLargeError for more than the file is to have."""
        if self.offset + len(data) > self._upload.length:
            raise TooLargeError(f"more bytes came than the {self._upload.length:,} of the file")
        view = memoryview(data)
        with filling_disk():
            while view:
                view = view[self._file.write(view) :]
        self.offset += len(data)
        if self._expected is not None:
            self._digest.update(data)

    def keep_or_drop(self) -> None:
        """After a connection that broke: bytes that were to be checked and cannot be are dropped."""
        if self._expected is not None:
            self._file.truncate(self._upload.offset)

    def check(self) -> None:
        """Compare the checksum, if one was given. Raises RefusedError (460)."""
        if self._expected is not None and self._digest.digest() != self._expected:
            self._file.truncate(self._upload.offset)
            raise RefusedError(
                "the checksum is wrong: send these bytes again", status=_CHECKSUM_MISMATCH, code="checksum"
            )


def parse_metadata(text: str) -> dict[str, str]:
    """Read the metadata of tus: "key base64, key base64". Raises RefusedError (400) for anything else."""
    found: dict[str, str] = {}
    if len(text) > _MOST_METADATA:
        raise RefusedError("Upload-Metadata is too long", status=400, code="metadata")
    for pair in filter(None, (each.strip() for each in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except ValueError as error:
            raise RefusedError(
                "Upload-Metadata is not 'key base64, key base64'", status=400, code="metadata"
            ) from error
    return found
