"""What a person can ask of a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from vsr.errors import OptionError
from vsr.media.read.decoder import HwAccelMode
from vsr.media.read.deinterlace import DeinterlaceMode
from vsr.media.read.opening import InputFormat
from vsr.media.write.stream_plan import AudioMode
from vsr.models.fidelity import FAITHFUL, SHARP

__all__ = ["JobOptions"]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a person can ask of a job; the defaults are those of the command line.

    model: "auto", a name, or the path of a weights file.  scale: output pixels per input pixel.
    size: "WIDTHxHEIGHT", or "1080p", "4k" and their like (height; width by the aspect ratio).
    fidelity: instead of a model, a point between `srgan` (0) and `srresnet` (1).
    device, precision, backend: see `load_model`.  batch: frames per batch; None chooses.  tile: input pixels.
    reuse: take what has not changed since the frame before from its result, which is the same bit for bit.
    codec, crf, preset, pix_fmt, encoder_options: of the video encoder, in FFmpeg's words.
    hwaccel: what decodes: "none", the CPU; "cuda", a GPU; "auto", the GPU that the network runs on.
    input_format: FFmpeg's name of what the input is, instead of what it looks like.  video_size, pixel_format: of raw
        video.  framerate: frames a second of raw video, of pictures, and of what else has no times of its own.
    format: FFmpeg's name of the output's container, instead of what its suffix says.
    audio: "copy", "aac", "opus" or "none".  deinterlace: "auto" (where flagged), "on" or "off".
    maps: which streams to take, as ffmpeg's -map says it; none for all.
    start_seconds, duration_seconds: the part to enhance.
    report: file for what the job did, as JSON.  reference: what the output should look like; the report then
        holds every frame's luma PSNR against it, before encoding.
    resume: whether a job that is stopped can be gone on with, and goes on where one was stopped; None: where it
        will take more than ten minutes, or was begun so.
    overwrite: replace an existing output.  strict: make every loss an error.  verify: check the output.
    """

    model: str = "auto"
    scale: float | None = None
    size: str | None = None
    fidelity: float | None = None
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    batch: int | None = None
    tile: int | None = None
    reuse: bool = True
    hwaccel: HwAccelMode = "none"
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    encoder_options: dict[str, str] = field(default_factory=dict)
    input_format: str | None = None
    video_size: str | None = None
    pixel_format: str | None = None
    framerate: Fraction | None = None
    format: str | None = None
    audio: AudioMode = "copy"
    deinterlace: DeinterlaceMode = "auto"
    maps: tuple[str, ...] = ()
    start_seconds: Fraction | None = None
    duration_seconds: Fraction | None = None
    reference: Path | None = None
    report: Path | None = None
    resume: bool | None = None
    overwrite: bool = False
    strict: bool = False
    verify: bool = True

    @property
    def source_format(self) -> InputFormat:
        """What is said of the input. Raises OptionError where that does not fit together."""
        return InputFormat(self.input_format, self.video_size, self.pixel_format, self.framerate)

    def __post_init__(self) -> None:
        _ = self.source_format
        if self.scale is not None and self.size is not None:
            raise OptionError("--scale and --size exclude each other; give one")
        if self.scale is not None and not 1 <= self.scale <= 16:
            raise OptionError(f"--scale {self.scale:g}: must lie between 1 and 16")
        if self.fidelity is not None and self.model not in ("auto", SHARP, FAITHFUL):
            raise OptionError(f"--fidelity lies between {SHARP} and {FAITHFUL}; it cannot change '{self.model}'")
        for name in ("batch", "tile"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name} {value}: must be at least 1")
        if self.reference is not None and self.report is None:
            raise OptionError("--reference: needs --report FILE, where the figures go")
        if self.start_seconds is not None and self.start_seconds < 0:
            raise OptionError("--start: must not be negative")
        if self.duration_seconds is not None and self.duration_seconds <= 0:
            raise OptionError("--duration: must be greater than zero")
