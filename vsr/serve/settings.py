"""Settle everything about a service before it starts."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from vsr.errors import OptionError

__all__ = ["TOKEN_VARIABLE", "Limits", "Settings", "default_state_folder", "is_loopback"]

TOKEN_VARIABLE = "VSR_TOKEN"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound the work that a service accepts; a request beyond a bound is refused, never cut short.

    image_bytes: of an image's file.  image_pixels: of an image, by its header.
    output_pixels: of an upscaled image.
    predict_bytes: of a request with pixels as JSON.  queued_bytes: of all such requests together, until they are
        answered; the next is answered 503.
    upload_bytes: of a video's file.  video_pixels: of a frame.  video_seconds, video_frames: of a video.
    jobs: video jobs that are queued, run or pause at one time.  job_seconds: for which a job is computed, in all.
    stored_bytes: of all uploads and results together.
    connections: open at one time; the next is answered 503.
    queued_images: images under way; the next is answered 503.  queued_pixels: of these together.
    batch_images: in one batch.  batch_pixels: of a batch together; a larger image is computed alone, in tiles.
    batch_wait_ms: for others of the same size.  decoders: images that are decoded or encoded at one time.
    request_seconds: for which an image may wait and be computed; a request may take as long to come, and a client to
        read its answer.
    """

    image_bytes: int = 32 * _MIB
    image_pixels: int = 4_000_000
    output_pixels: int = 64_000_000
    predict_bytes: int = 16 * _MIB
    queued_bytes: int = 64 * _MIB
    upload_bytes: int = 8 * 1024 * _MIB
    video_pixels: int = 3840 * 2160
    video_seconds: int = 4 * 3600
    video_frames: int = 1_000_000
    jobs: int = 100
    job_seconds: int = 7 * 24 * 3600
    stored_bytes: int = 64 * 1024 * _MIB
    connections: int = 256
    queued_images: int = 256
    queued_pixels: int = 16_000_000
    batch_images: int = 16
    batch_pixels: int = 300_000
    batch_wait_ms: int = 4
    decoders: int = 2
    request_seconds: int = 120

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise OptionError(f"`limit={each.name}={getattr(self, each.name)}`: must be at least 1")


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold all that a service is started with. Raises OptionError where it would be open to others by accident.

    host, port: the address to listen on.  allow_public: listen beyond this machine without a token.
    token: every request must bring; None for none.
    hosts: names by which clients may call the service, beside those of this machine; with a token, none given allows
        every name.
    roots: folders whose files a job may name by path.  state: folder of jobs, uploads and results.
    model: of images, where a request names none.  device, backend, precision: as in `ModelOptions`.
    threads: that networks compute with; None for all cores.
    retention_seconds: after which uploads and the results of finished jobs are removed.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    token: str | None = field(default=None, repr=False)
    allow_public: bool = False
    hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    state: Path = field(default_factory=lambda: default_state_folder())
    model: str = "srgan"
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    retention_seconds: int = 24 * 3600
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.token is not None and not self.token.strip():
            raise OptionError(f"`token`: is empty; give {TOKEN_VARIABLE} a value, or unset it")
        if not is_loopback(self.host) and self.token is None and not self.allow_public:
            raise OptionError(
                f"`host={self.host}`: whoever reaches this machine could use the service; set {TOKEN_VARIABLE} to a "
                "secret that clients send, or give `allow_public=True`"
            )
        if not 0 <= self.port <= 65535:
            raise OptionError(f"`port={self.port}`: must lie between 0 and 65535")
        for root in self.roots:
            if not root.is_dir():
                raise OptionError(f"`root={root}`: no such folder")


def default_state_folder() -> Path:
    """Return the user's folder for the state of services: VSR_STATE, or ~/.local/state/vsr."""
    given = os.environ.get("VSR_STATE")
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(given) if given else Path(home) / "vsr"


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
