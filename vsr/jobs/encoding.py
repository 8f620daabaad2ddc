"""Choose container, encoder, samples and colour of an output file."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import torch
from av.video.codeccontext import VideoCodecContext

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.errors import OptionError, OutputError
from vsr.frames import ChromaLocation, Color, Matrix, Range, Transfer
from vsr.media.endpoints import Pipe, Target
from vsr.media.formats import ENCODERS, Y4M, Container, Encoder, container_named, find_container, find_encoder
from vsr.media.pyav_fixes import open_encoder
from vsr.media.read.color_tags import CENTERED_CHROMA, color_of_rgb_as_video
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.options import EncodingOptions
from vsr.media.write.stored_format import coarseness, native_format

__all__ = ["Encoding", "beside_network", "check_encoder_size", "choose_encoding", "suited_to_size"]

_LARGE_FRAME = 1920 * 1080  # pixels; encoders may have a faster way for larger ones


_TRIAL_SIZE = (352, 288)  # which encoders of few sizes take, too


@dataclass(frozen=True, slots=True)
class Encoding:
    """Container, encoder (with its options), samples and colour of an output file, in FFmpeg's names."""

    container: str
    codec: str
    options: dict[str, str]
    pixel_format: PixelFormat
    color: Color
    stored_as: str | None = None  # the format that the encoder takes, where frames are not made in it


def choose_encoding(info: VideoInfo, target: Target, options: EncodingOptions, shorter_side: int) -> Encoding:
    """Choose how to encode a file.

    Args:
        info: The video it shows.
        target: The file, or stdout.
        options: The wishes; what they leave open follows from the container and the video.
        shorter_side: Of the output's frames, in pixels.
    """
    container, default = _container(target, options.format)
    codec = _encoder_name(options.codec or _default_codec(container, default, info, shorter_side))
    if isinstance(target, Pipe) and options.codec is None:
        codec = container.pipe_encoder or codec
    if container.only_encoder not in (None, codec):
        name = container.shown_name
        raise OptionError(f'`codec="{options.codec}"`: {name} holds raw video; add `format="matroska"` or nut')
    encoder = find_encoder(codec)
    stored = _choose_pixel_format(encoder, container, info, options.pix_fmt)
    format_ = native_format(stored)
    assert format_ is not None
    color, stored_as = _output_color(info, format_, codec), None if stored in FORMATS else stored
    return Encoding(container.name, codec, _encoder_options(encoder, options), format_, color, stored_as)


def suited_to_size(encoding: Encoding, options: EncodingOptions, width: int, height: int) -> Encoding:
    """Take the encoder's faster way for large frames, unless a preset or a quality was asked for.

    Args:
        encoding: as `choose_encoding` gives it.
        options: the wishes that it follows.
        width, height: of the output's frames, in pixels.
    """
    encoder, asked = find_encoder(encoding.codec), options.encoder_options.keys()
    is_asked = options.crf is not None or options.preset is not None or (encoder.quality_options | {"preset"}) & asked
    if is_asked or not encoder.large_quality or width * height <= _LARGE_FRAME:
        return encoding
    return replace(encoding, options={**encoding.options, **encoder.large_quality})


def check_encoder_size(codec: str, width: int, height: int) -> None:
    """Raise OptionError where an encoder does not take so large a frame, and name one that does.

    Args:
        codec: FFmpeg's name of the encoder.
        width, height: Of the output, in pixels.
    """
    encoder, side = find_encoder(codec), max(width, height)
    if not encoder.largest_side or side <= encoder.largest_side:
        return
    family = codec.rpartition("_")[2]
    larger = (row.name for row in ENCODERS.values() if row.name.endswith(f"_{family}") and row.largest_side >= side)
    fitting, most = next(larger, encoder.software), encoder.largest_side
    raise OptionError(
        f'`codec="{codec}"`: takes frames of up to {most}x{most}, and the output is {width}x{height}; '
        f'use `codec="{fitting}"`'
    )


def beside_network(options: EncodingOptions, device: torch.device) -> EncodingOptions:
    """Tell an encoder of NVIDIA's GPUs to use the one that runs the network, unless another is asked for."""
    if device.type != "cuda" or not (options.codec or "").endswith("_nvenc") or "gpu" in options.encoder_options:
        return options
    return replace(options, encoder_options={**options.encoder_options, "gpu": str(device.index or 0)})


def _container(target: Target, format_: str | None) -> tuple[Container, str]:
    """Return the container that a name, or else a file's suffix, asks for, and FFmpeg's default video encoder for it.

    Raises OptionError and OutputError where there is none that can be written to the target.
    """
    path, is_pipe = target.path, isinstance(target, Pipe)
    if format_ is None and is_pipe and not path.suffix:
        format_ = Y4M
    name = container_named(format_) if format_ is not None else None
    remedy = "use .mp4, .mkv, .mov or .webm"
    try:
        with av.open(io.BytesIO() if name else f"file:{path}", "w", format=name) as probe:  # no header, no bytes
            container = find_container(probe.format.name)
            codec, audio = probe.default_video_codec, probe.default_audio_codec
    except (av.FFmpegError, ValueError) as error:
        if name is not None:
            raise OptionError(
                f'`format="{format_}"`: this FFmpeg writes no such format; try matroska or nut'
            ) from error
        raise OutputError(f"{path}: the suffix '{path.suffix}' names no container; {remedy}") from error
    if container.remedy:
        raise OutputError(f"{path}: {container.name} is not written: {container.remedy}; {remedy}")
    if codec == "none" or (codec == "png" and audio != "none"):  # audio files hold a PNG cover at most
        raise OutputError(f"{path}: {container.name} does not hold video; {remedy}")
    if is_pipe and container.needs_seeking:
        raise OptionError(
            f'`format="{container.name}"`: {container.name} cannot go to a pipe; try matroska, mpegts, nut or y4m'
        )
    return container, codec


def _default_codec(container: Container, default: str, info: VideoInfo, shorter_side: int) -> str:
    """Return the name of the usual encoder for a video in a container."""
    is_deep = info.color.bit_depth > 8 or info.color.transfer in (Transfer.PQ, Transfer.HLG)
    if is_deep and container.deep_encoder and shorter_side >= find_encoder(container.deep_encoder).smallest_side:
        return container.deep_encoder
    return container.encoder or default


def _encoder_name(codec: str) -> str:
    """Return the encoder's own name, for "hevc" and other names of codecs."""
    try:
        return str(av.Codec(codec, "w").name)
    except (av.FFmpegError, ValueError) as error:
        raise OptionError(f'`codec="{codec}"`: this FFmpeg has no such encoder; "vsr doctor" lists some') from error


@functools.cache
def _encoder_facts(codec: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return the private options of an encoder, each with the words it takes, if any, and its pixel formats.

    Raises OptionError if it is not of video.
    """
    context = av.CodecContext.create(codec, "w")
    if context.type != "video":
        raise OptionError(f'`codec="{codec}"`: is not a video encoder')
    names = {option.name: tuple(c.name for c in option.choices) for option in context.supported_options.private}
    return names, tuple(f.name for f in context.codec.video_formats or ())


def _encoder_options(encoder: Encoder, options: EncodingOptions) -> dict[str, str]:
    """Return the options to open an encoder with: those asked for, and the usual quality where none is."""
    codec = encoder.name
    known, _ = _encoder_facts(codec)
    result: dict[str, str] = {}
    if not encoder.quality_options & options.encoder_options.keys():
        result |= encoder.quality
    result |= encoder.parameters
    if options.crf is not None:
        key = next((name for name in ("crf", "cq", "qp") if name in known), None)
        if key is None:
            raise OptionError(f"`crf`: the encoder {codec} has no such option; see `encoder_options`")
        if key == "cq" and options.crf < 1:  # which NVENC reads as "as you like"
            lossless = '`encoder_options={"tune": "lossless"}`'
            raise OptionError(f"`crf={options.crf:g}`: {codec} takes 1 to 51; or try {lossless}")
        result[key] = f"{options.crf:g}"
    if options.preset is not None:
        if "preset" not in known:
            raise OptionError(f"`preset`: the encoder {codec} has no such option")
        presets = encoder.presets or known["preset"]
        if presets and options.preset not in presets and not options.preset.lstrip("-").isdecimal():
            raise OptionError(f'`preset="{options.preset}"`: {codec} has {", ".join(presets)}')
        result["preset"] = options.preset
    given = dict(options.encoder_options)
    for name in encoder.parameters.keys() & given.keys():
        given[name] = f"{result[name]}:{given[name]}"
    return result | given


def _choose_pixel_format(encoder: Encoder, container: Container, info: VideoInfo, asked: str | None) -> str:
    """Return FFmpeg's name of the encoder's format that loses least of the source, or of the one asked for."""
    names = container.pixel_formats or encoder.pixel_formats or _encoder_facts(encoder.name)[1]
    if asked is not None:
        if native_format(asked) is None:
            raise OptionError(f'`pix_fmt="{asked}"`: not supported; try yuv420p, yuv420p10le or yuv444p')
        if names and asked not in names:
            taken = ", ".join(n for n in names if native_format(n) is not None)
            raise OptionError(f'`pix_fmt="{asked}"`: {encoder.name} takes {taken}')
        return asked
    names = encoder.usual_pixel_formats or names
    losses = {}
    for name in names:
        format_ = native_format(name)
        if format_ is not None:
            losses[name] = _loss(info.pixel_format, format_, info.color.range, coarseness(name)), name not in FORMATS
    ranked = sorted(losses, key=losses.__getitem__) or ["yuv420p"]
    # Of some formats, the list of an encoder says more than it takes.
    return next((name for name in ranked if _opens(encoder.name, name, info.color.range)), ranked[0])


@functools.cache
def _opens(codec: str, format_: str, color_range: Range) -> bool:
    """Tell whether an encoder opens for frames of a pixel format and range; of a GPU that is not there, none does."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height = _TRIAL_SIZE
    context.pix_fmt, context.color_range = format_, Range.FULL if format_.startswith("yuvj") else color_range
    context.framerate, context.time_base = Fraction(25), Fraction(1, 25)
    context.options = dict(find_encoder(codec).parameters)
    try:
        open_encoder(context)
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True


def _loss(source: PixelFormat, target: PixelFormat, color_range: Range, coarse: int = 0) -> tuple[float, ...]:
    """Return how much of `source` is lost in `target`, most important first, and then how much `target` wastes.

    coarse: of how few colours the target is, as `coarseness` gives it.
    """
    wide_j = target.name.startswith("yuvj")
    chroma_lost = 0
    if source.kind != "gray":
        chroma_lost = sum(t > s for s, t in zip(source.chroma_shift, target.chroma_shift, strict=True))
        chroma_lost += 3 * (target.kind == "gray")
    return (
        source.alpha and not target.alpha,
        chroma_lost,
        coarse,
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


def _output_color(info: VideoInfo, format_: PixelFormat, codec: str) -> Color:
    """Return the colour tags of an output: those of the source, but for what pixel format and encoder decide."""
    source, depth = info.color, format_.bit_depth
    if format_.kind == "rgb":
        location = ChromaLocation.LEFT
        return Color(Matrix.RGB, source.primaries, source.transfer, Range.FULL, location, depth)
    if source.is_rgb:
        source = color_of_rgb_as_video(source, info.width, info.height)
    color_range = Range.FULL if format_.name.startswith("yuvj") else source.range
    # Not every container says where chroma lies, and players then take it to lie where the codec has it.
    location = ChromaLocation.CENTER if _centers_chroma(codec) else source.chroma_location
    return Color(source.matrix, source.primaries, source.transfer, color_range, location, depth)


def _centers_chroma(codec: str) -> bool:
    """Tell whether chroma lies between the pixels by a codec's own standard. codec: FFmpeg's name of the encoder."""
    try:
        return av.Codec(codec, "w").canonical_name in CENTERED_CHROMA
    except ValueError:  # raised for an encoder that this FFmpeg lacks, which is named elsewhere
        return False
