"""Choose container, encoder, samples and colour of an output file."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path

import av

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.errors import OptionError, OutputError
from vsr.frames import ChromaLocation, Color, Matrix, Range, Transfer
from vsr.jobs.options import JobOptions
from vsr.media.pipe import is_pipe
from vsr.media.read.color_tags import color_of_rgb_as_video
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.y4m_writer import Y4M, Y4M_FORMATS

__all__ = ["RAW", "Encoding", "choose_encoding"]

RAW = "rawvideo"

# What all readers of raw video take: of two formats for the same samples the common one.
_RAW_FORMATS = tuple(n for n, f in FORMATS.items() if f.layout != "semiplanar" and not n.startswith("yuvj"))
_FORMAT_NAMES = {"y4m": Y4M, "mkv": "matroska", "ts": "mpegts"}  # besides FFmpeg's own

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
class Encoding:
    """Container, encoder (with its options), samples and colour of an output file, in FFmpeg's names."""

    container: str
    codec: str
    options: dict[str, str]
    pixel_format: PixelFormat
    color: Color


def choose_encoding(info: VideoInfo, output: Path, options: JobOptions, shorter_side: int) -> Encoding:
    """How a file is to be encoded that shows what `info` describes, with a picture of that shorter side in pixels."""
    container, default_codec = _container(output, options.format)
    codec = _encoder_name(options.codec or _default_codec(container, default_codec, info, shorter_side))
    if container == "nut" and is_pipe(output) and options.codec is None:
        codec = RAW
    if container == Y4M and codec != RAW:
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
    return container, RAW if container == Y4M else codec


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


def _choose_pixel_format(codec: str, info: VideoInfo, asked: str | None, container: str) -> PixelFormat:
    """The encoder's format that loses least of the source, or the one asked for."""
    _, names = _encoder_facts(codec)
    if codec == RAW:
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


def _output_color(info: VideoInfo, format_: PixelFormat) -> Color:
    source, depth = info.color, format_.bit_depth
    if format_.kind == "rgb":
        location = ChromaLocation.LEFT
        return Color(Matrix.RGB, source.primaries, source.transfer, Range.FULL, location, depth)
    if source.is_rgb:
        source = color_of_rgb_as_video(source, info.height)
    color_range = Range.FULL if format_.name.startswith("yuvj") else source.range
    return Color(source.matrix, source.primaries, source.transfer, color_range, source.chroma_location, depth)
