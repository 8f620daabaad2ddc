"""The options that a client may give a video job: those of `vsr.enhance` that name no file and run no other code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from vsr.errors import OptionError
from vsr.jobs.options import JobOptions
from vsr.models.cards import find_card
from vsr.serve.settings import Settings
from vsr.video import exact

__all__ = ["CONTAINERS", "VideoOptions", "job_options", "parse_options"]

Container = Literal["mp4", "mkv", "mov", "webm"]
CONTAINERS: tuple[Container, ...] = ("mp4", "mkv", "mov", "webm")
_Codec = Literal[
    "libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks", "h264_nvenc", "hevc_nvenc", "av1_nvenc"
]
_EncoderOption = Literal["tune", "profile", "level", "g", "bf"]
_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
_Stream = Annotated[str, StringConstraints(pattern=r"^-?[0-9a-zA-Z:?]{1,32}$")]
_Seconds = Annotated[float, Field(ge=0, le=10**7, allow_inf_nan=False)]


class VideoOptions(BaseModel):
    """Options of a video job, by their names in `vsr.enhance`; all may be left out."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), json_schema_extra={"examples": [{"model": "fast", "crf": 16}]}
    )

    model: _Word = Field(default="auto", description="auto, or a name that `vsr models` lists.")
    scale: float | None = Field(
        default=None, ge=1, le=16, description="Output pixels per input pixel; the model's if null."
    )
    size: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}([x×:][0-9]{1,5}|p)$|^[248]k$")] | None = Field(
        default=None, description="1920x1080, 720p, 1080p, 1440p, 4k or 8k, instead of a scale."
    )
    fidelity: float | None = Field(
        default=None, ge=0, le=1, description="Instead of a model: 0 invents detail, 1 is faithful."
    )
    restore: float | None = Field(default=None, ge=0, le=1, description="0 is faithful, 1 rid of what codecs leave.")
    square: bool = Field(default=False, description="Make pixels square, where those of the source are not.")
    precision: Literal["auto", "int8", "fp16", "bf16", "fp32"] | None = Field(
        default=None, description="Of the network."
    )
    batch: int | None = Field(default=None, ge=1, le=64, description="Frames that the network takes at once.")
    tile: int | None = Field(default=None, ge=32, le=8192, description="Side of a tile in input pixels.")
    reuse: bool = Field(
        default=True, description="Compute only those parts of a frame that differ from the frame before."
    )
    start_seconds: _Seconds | None = Field(default=None, description="Start of the part to upscale.")
    duration_seconds: Annotated[float, Field(gt=0, le=10**7, allow_inf_nan=False)] | None = Field(
        default=None, description="Length of the part to upscale."
    )
    maps: list[_Stream] = Field(default=[], max_length=64, description="Streams to take, as ffmpeg's -map names them.")
    deinterlace: Literal["auto", "on", "off", "double"] = "auto"
    container: Container = Field(default="mp4", description="Container of the result.")
    codec: _Codec | None = Field(default=None, description="Video encoder, by FFmpeg's name.")
    crf: float | None = Field(default=None, ge=0, le=255, description="Quality of the encoder: lower is better.")
    preset: _Word | None = Field(default=None, description="Speed of the encoder.")
    pix_fmt: _Word | None = Field(default=None, description="Pixel format of the result.")
    encoder_options: dict[_EncoderOption, _Word] = Field(default={}, description="Further options of the encoder.")
    audio: Literal["copy", "aac", "opus", "none"] = "copy"
    strict: bool = Field(default=False, description="Fail, rather than note, where the result cannot hold a part.")


def parse_options(values: Mapping[str, object]) -> VideoOptions:
    """Check options that were given by name. Raises OptionError for the first that does not fit."""
    try:
        return VideoOptions.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        raise OptionError(f"`{name}`: {first['msg']}") from error


def job_options(given: VideoOptions, settings: Settings, demuxer: str) -> JobOptions:
    """Make the options of a job of what a client gave. Raises OptionError and ModelError where they do not fit.

    Args:
        given: the client's.
        settings: of the service, which chooses device and backend.
        demuxer: FFmpeg's name of the source's format, which was found to be harmless: no other may read it.
    """
    values: dict[str, Any] = given.model_dump(exclude={"container"})
    if given.model != "auto":
        find_card(given.model)  # else the name of a file would be taken for a model
    for name in ("start_seconds", "duration_seconds"):
        values[name] = exact(values[name])
    values["precision"] = given.precision or settings.precision
    values["maps"] = tuple(given.maps)
    return JobOptions.of(
        **values, device=settings.device, backend=settings.backend, input_format=demuxer, resume=True, verify=True
    )
