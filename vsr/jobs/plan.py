"""What a job will do, decided before any frame is touched: model, size, codec, samples, streams."""

from __future__ import annotations

import functools
import io
import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.stream import Stream

from vsr.errors import OptionError, OutputError
from vsr.frames import ChromaLocation, Color, Matrix, Range, Transfer
from vsr.media.av_frames import FORMATS, PixelFormat
from vsr.media.containers import container_losses
from vsr.media.pipe import is_pipe
from vsr.media.read.color_tags import SD_MAX_LINES, color_of_rgb_as_video
from vsr.media.read.deinterlace import DeinterlaceMode
from vsr.media.read.opening import InputFormat
from vsr.media.read.reader import HwAccelMode, VideoInfo, VideoReader
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.remuxer import AudioMode, StreamPlan, carried_tags, plan_streams
from vsr.media.write.y4m_writer import Y4M, Y4M_FORMATS
from vsr.models.cards import ModelCard
from vsr.models.fidelity import FAITHFUL, SHARP

__all__ = [
    "Encoding",
    "JobOptions",
    "VideoPlan",
    "choose_batch",
    "choose_encoding",
    "choose_model",
    "choose_size",
    "file_losses",
    "left_out_streams",
    "output_aspect",
    "plan_video",
    "sample_losses",
]

LARGEST_PICTURE_ON_CPU = 2**20  # pixels; above, the large network takes more than about a minute
LARGEST_VIDEO_ON_CPU = 1280 * 720  # pixels; above, even the light network takes seconds for a frame

_NAMED_HEIGHTS = {"720p": 720, "1080p": 1080, "1440p": 1440, "2k": 1440, "4k": 2160, "2160p": 2160, "8k": 4320}

_RAW = "rawvideo"
# What all readers of raw video take: of two formats for the same samples the common one.
_RAW_FORMATS = tuple(n for n, f in FORMATS.items() if f.layout != "semiplanar" and not n.startswith("yuvj"))

_FORMAT_NAMES = {"y4m": Y4M, "mkv": "matroska", "ts": "mpegts"}  # besides FFmpeg's own
_ASPECT_CONTAINERS = {"mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v", Y4M}
_ASPECT_CODECS = ("libx264", "libx265", "h264_", "hevc_", "mpeg4", "mjpeg")  # which have it in their bitstream
# Whose muxers go back to the start of a file to complete it.
_SEEKING_CONTAINERS = {"mp4", "mov", "ipod", "3gp", "3g2", "psp", "f4v", "ismv", "avi"}

_CONTAINER_CODECS = {"webm": "libvpx-vp9"}
_X264_CONTAINERS = {"mp4", "mov", "ipod", "matroska", "mpegts", "flv", "avi", "nut", "3gp", "3g2", "psp", "f4v"}
_X265_CONTAINERS = {"mp4", "mov", "ipod", "matroska", "mpegts", "nut"}
_X265_SMALLEST_SIDE = 64  # below, x265 refuses or gains nothing

# x264 complains of others to stderr, beside the error.
_X26X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip

# Visually close to lossless, as the point of the exercise is detail; ffmpeg's own defaults are coarser.
_DEFAULT_CRF = {"libx264": "18", "libx265": "20", "libvpx-vp9": "24", "libsvtav1": "26", "libaom-av1": "24"}

# x264's code for AVX-512 gives other files in other runs, and this its cure costs no time; x265 writes to stderr.
_OWN_PARAMETERS = {
    "libx264": {"x264-params": "cpu-independent=1"},
    "libx265": {"x265-params": "log-level=error"},
}

_DEFAULT_CQ = {"h264_nvenc": "19", "hevc_nvenc": "21", "av1_nvenc": "26"}  # NVENC's word for about the same
# What all generations of NVENC take; FFmpeg lists what the newest does, and more, for all three.
_NVENC_FORMATS = {
    "h264_nvenc": ("yuv420p", "yuv444p"),
    "hevc_nvenc": ("yuv420p", "p010le", "yuv444p"),
    "av1_nvenc": ("yuv420p", "p010le"),
}


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


@dataclass(frozen=True, slots=True)
class Encoding:
    """Container, encoder (with its options), samples and colour of an output file, in FFmpeg's names."""

    container: str
    codec: str
    options: dict[str, str]
    pixel_format: PixelFormat
    color: Color


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """A video job, decided. `notes` are worth knowing; `losses` are what `--strict` refuses."""

    settings: VideoSettings
    streams: tuple[StreamPlan, ...]
    container: str
    notes: tuple[str, ...]
    losses: tuple[str, ...]


# -- model and size ------------------------------------------------------------------------------------


def choose_model(
    options: JobOptions, width: int, height: int, device: torch.device, *, is_picture: bool = False
) -> tuple[str, str]:
    """The model asked for, or the best that the device can bear; and why, in one line."""
    if options.model != "auto":
        return options.model, "as asked"
    wanted = 4.0
    if options.scale is not None:
        wanted = options.scale
    elif options.size is not None:
        size = _parse_size(options.size, width, height)
        wanted = max(size[0] / width, size[1] / height)
    subject = "a picture" if is_picture else "video"
    if wanted <= 2:
        name = "fast-x2"
    elif device.type != "cpu" or (is_picture and width * height <= LARGEST_PICTURE_ON_CPU):
        name = "srresnet"
    elif not is_picture and width * height > LARGEST_VIDEO_ON_CPU:
        name = "nano"
    else:
        name = "fast"
    return name, f"auto: for ×{wanted:g}, {subject} of {width}x{height} on {device.type}"


def choose_size(
    options: JobOptions, card: ModelCard, width: int, height: int, even: tuple[bool, bool]
) -> tuple[int, int]:
    """(width, height) of the output in pixels.

    even: whether (width, height) must be even, because chroma is subsampled; a size that was asked for
        in pixels and is odd is an error, one that follows from a scale is rounded up.
    """
    if options.size is not None:
        out = _parse_size(options.size, width, height)
        if out[0] < width or out[1] < height:
            raise OptionError(
                f"--size {options.size}: {out[0]}x{out[1]} is smaller than the input, {width}x{height}; "
                "vsr enlarges (ffmpeg's scale filter reduces)"
            )
        if any(side % 2 and must for side, must in zip(out, even, strict=True)):
            raise OptionError(f"--size {options.size}: must be even for 4:2:0; or add --pix-fmt yuv444p")
        return out
    scale = options.scale or card.scale
    sides = (round(width * scale), round(height * scale))
    return sides[0] + (sides[0] % 2 if even[0] else 0), sides[1] + (sides[1] % 2 if even[1] else 0)


def _parse_size(text: str, width: int, height: int) -> tuple[int, int]:
    named = _NAMED_HEIGHTS.get(text.lower())
    if named is not None:
        # A portrait picture is named by its shorter side too: "1080p" of a phone video is 1080 wide.
        if width <= height:
            return named, 2 * round(height * named / width / 2)
        return 2 * round(width * named / height / 2), named
    match = re.fullmatch(r"(\d+)[x×:](\d+)", text)
    if not match:
        raise OptionError(f"--size {text}: give WIDTHxHEIGHT, or one of {', '.join(_NAMED_HEIGHTS)}")
    return int(match[1]), int(match[2])


def choose_batch(options: JobOptions, card: ModelCard, width: int, height: int, device: torch.device) -> int:
    """Frames per batch: enough to keep the device busy, few enough to stay in its caches or memory.

    On a CPU at least two, so that there are frames to run side by side.
    """
    if options.batch is not None:
        return options.batch
    pixels, fewest, most = (2**18, 2, 4) if device.type == "cpu" else (2**22, 1, 16)
    return max(fewest, min(most, pixels // (width * height)))


# -- video ---------------------------------------------------------------------------------------------


def plan_video(reader: VideoReader, output: Path, options: JobOptions, card: ModelCard) -> VideoPlan:
    """Decide codec, samples, size and the fate of every other stream."""
    info = reader.info
    encoding = choose_encoding(info, output, options, min(info.width, info.height) * card.scale)
    codec, format_, container = encoding.codec, encoding.pixel_format, encoding.container
    even = (format_.chroma_shift[0] > 0, format_.chroma_shift[1] > 0)
    width, height = choose_size(options, card, info.width, info.height, even)
    settings = VideoSettings(
        codec=codec,
        pixel_format=format_,
        width=width,
        height=height,
        color=encoding.color,
        sample_aspect_ratio=output_aspect(info, width, height),
        options=encoding.options,
    )
    if container == Y4M:
        streams = left_out_streams(reader, options.audio, "y4m holds")
    else:
        has_chapters = bool(reader.container.chapters())
        streams = plan_streams(
            reader.other_streams, container, options.audio, has_chapters, reader.chosen_streams, reader.covers
        )
    losses = [f"{s.title}: {s.note}" for s in streams if s.is_loss]
    losses += [f"{name} of the video cannot be carried over" for name in info.side_data_not_carried]
    losses += file_losses(reader, "y4m holds") if container == Y4M else []
    losses += sample_losses(info.pixel_format, format_, "y4m" if container == Y4M else codec)
    if codec != _RAW and container != Y4M:
        losses += container_losses(container, codec, info, reader.container.metadata, streams)
    notes = [f"{s.title}: {s.note}" for s in streams if s.note and not s.is_loss]
    if settings.sample_aspect_ratio not in (None, 1) and not _holds_aspect(container, codec):
        losses.append(
            f"the sample aspect ratio {settings.sample_aspect_ratio} is left out: {codec} in {container} cannot be "
            "given it; .mp4, .y4m, libx264 and libx265 keep it"
        )
    if codec == _RAW:
        untold, worth_knowing = _untold(info, settings, container)
        losses += untold
        notes += worth_knowing
    elif info.untagged and not info.color.is_rgb:
        notes.append(f"the video has no colour tags; read as {info.color.matrix.name}, and tagged so")
    if reader.is_deinterlaced:
        notes.append("deinterlaced by bwdif, a frame for a frame (--deinterlace off leaves it)")
    elif info.interlaced:
        notes.append("the video is interlaced and is upscaled as it is, as asked")
    return VideoPlan(settings, tuple(streams), container, tuple(notes), tuple(losses))


def _holds_aspect(container: str, codec: str) -> bool:
    """Whether PyAV can write the sample aspect ratio: of the container's own, it reaches those of ISO files alone."""
    return container in _ASPECT_CONTAINERS or codec.startswith(_ASPECT_CODECS)


def _untold(info: VideoInfo, settings: VideoSettings, container: str) -> tuple[list[str], list[str]]:
    """What raw video does not say of itself: what is lost by that, and what a reader has to be told."""
    losses, notes, color = [], [], settings.color
    name = "y4m" if container == Y4M else container
    keeps = "--format matroska -c:v ffv1 keeps it"
    if not color.is_rgb:
        if not info.untagged:
            losses.append(f"the colour tags ({color.matrix.name}) are left out: {name} has none; {keeps}")
        elif (info.height <= SD_MAX_LINES) != (settings.height <= SD_MAX_LINES):
            read_as = f"the video has no colour tags; read as {color.matrix.name}"
            notes.append(f"{read_as}, which {name} cannot say and a reader of this size will not expect")
        if container != Y4M and color.range is Range.FULL:
            losses.append(f"that the range is full is left out: raw video in {container} cannot say so; {keeps}")
    if info.display_matrix:
        losses.append(f"that it is shown rotated is left out: {name} cannot say so")
    if info.hdr.mastering_display or info.hdr.content_light:
        losses.append(f"HDR10 metadata is left out: {name} has none; --format matroska -c:v libx265 keeps it")
    return losses, notes


def left_out_streams(reader: VideoReader, audio: AudioMode, holder: str) -> list[StreamPlan]:
    """The plans for all other streams where what is written, the `holder`, has no place for any."""
    return [_left_out(stream, reader, audio, holder) for stream in reader.other_streams]


def _left_out(stream: Stream, reader: VideoReader, audio: AudioMode, holder: str) -> StreamPlan:
    if stream.index not in reader.chosen_streams:
        return StreamPlan(stream, "leave", note="left out as asked (-map)")
    if stream.type == "audio" and audio == "none":
        return StreamPlan(stream, "leave", note="left out as asked (--audio none)")
    return StreamPlan(stream, "leave", note=f"left out: {holder} none", is_loss=True)


def file_losses(reader: VideoReader, holder: str) -> list[str]:
    """What is lost of the input as a whole where what is written, the `holder`, has pictures and nothing else."""
    losses, num_chapters = [], len(reader.container.chapters())
    if num_chapters:
        losses.append(f"{num_chapters} chapters: {holder} none")
    tags = carried_tags(reader.container.metadata)
    if tags:
        losses.append(f"metadata ({', '.join(tags)}): {holder} none")
    return losses


def choose_encoding(info: VideoInfo, output: Path, options: JobOptions, shorter_side: int) -> Encoding:
    """How a file is to be encoded that shows what `info` describes, with a picture of that shorter side in pixels."""
    container, default_codec = _container(output, options.format)
    codec = _encoder_name(options.codec or _default_codec(container, default_codec, info, shorter_side))
    if container == "nut" and is_pipe(output) and options.codec is None:
        codec = _RAW
    if container == Y4M and codec != _RAW:
        raise OptionError(f"--codec {options.codec}: y4m holds raw video; add --format matroska or nut")
    format_ = _choose_pixel_format(codec, info, options.pix_fmt, container)
    return Encoding(container, codec, _encoder_options(codec, options), format_, _output_color(info, format_))


def _container(path: Path, format_: str | None) -> tuple[str, str]:
    """FFmpeg's name of the container that a name, or else a file's suffix, asks for, and its usual video codec."""
    if format_ is None and is_pipe(path):
        format_ = Y4M
    name = _FORMAT_NAMES.get(format_, format_) if format_ is not None else None
    remedy = "use .mp4, .mkv, .mov or .webm"
    try:
        with av.open(io.BytesIO() if name else f"file:{path}", "w", format=name) as probe:  # no header, no bytes
            container, codec, audio = probe.format.name, probe.default_video_codec, probe.default_audio_codec
    except (av.FFmpegError, ValueError) as error:
        if name is not None:
            raise OptionError(f"--format {format_}: this FFmpeg writes no such format; try matroska or nut") from error
        raise OutputError(f"{path}: the suffix '{path.suffix}' names no container; {remedy}") from error
    if codec == "none" or (codec == "png" and audio != "none"):  # audio files hold a PNG cover at most
        raise OutputError(f"{path}: {container} does not hold video; {remedy}")
    if is_pipe(path) and container in _SEEKING_CONTAINERS:
        raise OptionError(f"--format {format_}: {container} cannot go to a pipe; try matroska, mpegts, nut or y4m")
    return container, _RAW if container == Y4M else codec


def _default_codec(container: str, default: str, info: VideoInfo, shorter_side: int) -> str:
    deep = info.color.bit_depth > 8 or info.color.transfer in (Transfer.PQ, Transfer.HLG)
    if deep and shorter_side >= _X265_SMALLEST_SIDE and container in _X265_CONTAINERS:
        return "libx265"
    if container in _X264_CONTAINERS:
        return "libx264"
    return _CONTAINER_CODECS.get(container, default)


def _encoder_name(codec: str) -> str:
    """The encoder's own name, for "hevc" and others that only say what it makes."""
    try:
        return str(av.Codec(codec, "w").name)
    except (av.FFmpegError, ValueError) as error:
        raise OptionError(f"--codec {codec}: this FFmpeg has no such encoder; 'vsr doctor' lists some") from error


@functools.cache
def _encoder_facts(codec: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The private options of an encoder, each with the words it takes, if any, and the pixel formats.

    Raises OptionError if it is not of video.
    """
    context = av.CodecContext.create(codec, "w")
    if context.type != "video":
        raise OptionError(f"--codec {codec}: is not a video encoder")
    names = {option.name: tuple(c.name for c in option.choices) for option in context.supported_options.private}
    return names, tuple(f.name for f in context.codec.video_formats or ())


def _encoder_options(codec: str, options: JobOptions) -> dict[str, str]:
    known, _ = _encoder_facts(codec)
    result: dict[str, str] = {}
    if codec in _DEFAULT_CRF and not {"crf", "qp", "b", "b:v"} & options.encoder_options.keys():
        result["crf"] = _DEFAULT_CRF[codec]
    if codec in _DEFAULT_CQ and not {"cq", "qp", "rc", "b", "tune"} & options.encoder_options.keys():
        result |= {"rc": "vbr", "cq": _DEFAULT_CQ[codec], "b": "0"}  # by quality alone
    result |= _OWN_PARAMETERS.get(codec, {})
    if options.crf is not None:
        key = next((name for name in ("crf", "cq", "qp") if name in known), None)
        if key is None:
            raise OptionError(f"--crf: the encoder {codec} has no such option; see --encoder-option")
        if key == "cq" and options.crf < 1:  # which NVENC reads as "as you like"
            raise OptionError(f"--crf {options.crf:g}: {codec} takes 1 to 51; or try --encoder-option tune=lossless")
        result[key] = f"{options.crf:g}"
    if options.preset is not None:
        if "preset" not in known:
            raise OptionError(f"--preset: the encoder {codec} has no such option")
        presets = _X26X_PRESETS if codec in ("libx264", "libx265") else known["preset"]
        if presets and options.preset not in presets and not options.preset.lstrip("-").isdecimal():
            raise OptionError(f"--preset {options.preset}: {codec} has {', '.join(presets)}")
        result["preset"] = options.preset
    given = dict(options.encoder_options)
    for name in _OWN_PARAMETERS.get(codec, {}).keys() & given.keys():
        given[name] = f"{result[name]}:{given[name]}"
    return result | given


# -- samples -------------------------------------------------------------------------------------------


def _choose_pixel_format(codec: str, info: VideoInfo, asked: str | None, container: str) -> PixelFormat:
    """The encoder's format that loses least of the source, or the one asked for."""
    _, names = _encoder_facts(codec)
    if codec == _RAW:
        names = Y4M_FORMATS if container == Y4M else _RAW_FORMATS
    if asked is not None:
        if asked not in FORMATS:
            raise OptionError(f"--pix-fmt {asked}: not supported; try yuv420p, yuv420p10le or yuv444p")
        if names and asked not in names:
            raise OptionError(f"--pix-fmt {asked}: {codec} takes {', '.join(n for n in names if n in FORMATS)}")
        return FORMATS[asked]
    names = _NVENC_FORMATS.get(codec, names)
    candidates = [FORMATS[n] for n in names if n in FORMATS] or [FORMATS["yuv420p"]]
    return min(candidates, key=lambda f: _loss(info.pixel_format, f, info.color.range))


def _loss(source: PixelFormat, target: PixelFormat, color_range: Range) -> tuple[float, ...]:
    """How much worse `target` holds what `source` holds, most important first; then what it wastes."""
    wide_j = target.name.startswith("yuvj")
    chroma_lost = 0
    if source.kind != "gray":
        chroma_lost = sum(t > s for s, t in zip(source.chroma_shift, target.chroma_shift, strict=True))
        chroma_lost += 3 * (target.kind == "gray")
    return (
        source.alpha and not target.alpha,
        chroma_lost,
        max(0, source.bit_depth - target.bit_depth),
        source.kind == "rgb" and target.kind != "rgb",
        source.kind != "rgb" and target.kind == "rgb",
        wide_j and color_range is not Range.FULL,
        max(0, target.bit_depth - source.bit_depth),
        target.alpha and not source.alpha,
        source.kind == "gray" and target.kind != "gray",
        -sum(target.chroma_shift),
        wide_j,
        target.layout != "planar",
    )


def sample_losses(source: PixelFormat, target: PixelFormat, codec: str) -> list[str]:
    """What samples of one format lose in another, a line each."""
    losses = []
    if source.alpha and not target.alpha:
        losses.append(f"alpha is left out: {codec} has none")
    if target.bit_depth < source.bit_depth:
        losses.append(f"{source.bit_depth} bit samples become {target.bit_depth} bit ({codec}, {target.name})")
    if source.kind != "gray" and any(t > s for s, t in zip(source.chroma_shift, target.chroma_shift, strict=True)):
        losses.append(f"colour is stored at lower resolution: {source.name} becomes {target.name}")
    return losses


def _output_color(info: VideoInfo, format_: PixelFormat) -> Color:
    source, depth = info.color, format_.bit_depth
    if format_.kind == "rgb":
        location = ChromaLocation.LEFT
        return Color(Matrix.RGB, source.primaries, source.transfer, Range.FULL, location, depth)
    if source.is_rgb:
        source = color_of_rgb_as_video(source, info.height)
    color_range = Range.FULL if format_.name.startswith("yuvj") else source.range
    return Color(source.matrix, source.primaries, source.transfer, color_range, source.chroma_location, depth)


def output_aspect(info: VideoInfo, width: int, height: int) -> Fraction | None:
    """The sample aspect ratio that keeps the shape of the picture, as ffmpeg's scale filter does."""
    stretch = Fraction(width, info.width) / Fraction(height, info.height)
    if info.sample_aspect_ratio is None and abs(stretch - 1) < Fraction(1, 100):
        return None
    if abs(stretch - 1) < Fraction(1, 1000):  # rounding to even sides is no change of shape
        return info.sample_aspect_ratio
    return ((info.sample_aspect_ratio or Fraction(1)) / stretch).limit_denominator(65535)
