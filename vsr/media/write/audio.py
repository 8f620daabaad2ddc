"""Transcode audio: choose an encoder that keeps what it can of a stream, and fit it to what is decoded."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from vsr.errors import reason
from vsr.media.formats import Container, find_audio_encoder, find_container

__all__ = ["AudioFit", "AudioTranscoder", "choose_audio_encoder", "fit_encoder", "with_names"]

_USUAL_LAYOUTS = {
    "1 channels": "mono", "2 channels": "stereo", "3 channels": "2.1", "4 channels": "4.0", "5 channels": "5.0",
    "6 channels": "5.1", "7 channels": "6.1", "8 channels": "7.1",
}  # fmt: skip
# Layouts of as many channels, of which encoders know the one or the other.
_LIKE_LAYOUTS = {
    "5.1(side)": "5.1", "5.1": "5.1(side)", "5.0(side)": "5.0", "5.0": "5.0(side)", "quad(side)": "quad",
    "quad": "4.0", "4.0": "quad", "6.1(back)": "6.1", "6.1(front)": "6.1", "7.1(wide)": "7.1", "7.1(wide-side)": "7.1",
}  # fmt: skip
_SMALLER_LAYOUTS = ("7.1", "5.1", "stereo", "mono")
_BITS_PER_CHANNEL = 96_000  # a second, for encoders that want to be told
_SURROUND_ENCODERS = ("ac3", "aac", "flac")  # for more channels than the usual encoder has


@dataclass(frozen=True, slots=True)
class AudioFit:
    """Set an audio encoder to what it takes, as close to its source as it can be.

    encoder: FFmpeg's name.  sample_rate: in Hz.  layout, format: of the channels and samples, in FFmpeg's words.
    bit_rate: in bits a second; 0 for the encoder's own.
    loss: what the encoder cannot keep, as in "192000 Hz becomes 96000 Hz"; "" for nothing.
    """

    encoder: str
    sample_rate: int
    layout: str
    format: str
    bit_rate: int
    loss: str


def with_names(layout: AudioLayout) -> str:
    """Return the layout for channels of which only the number is known, as ffmpeg guesses it; else its own name."""
    return _USUAL_LAYOUTS.get(layout.name, layout.name)


def fit_encoder(
    encoder: str, source: AudioCodecContext, bit_rate: int | None = None, sample_rate: int | None = None
) -> AudioFit | None:
    """Find what an encoder takes of a source, by opening it; None where it opens for nothing of the kind.

    bit_rate: in bits a second; None for the encoder's own.  sample_rate: in Hz; None for the source's, if it can be.
    """
    if not _is_described(source):
        return None
    codec = av.Codec(encoder, "w")
    wanted = sample_rate or find_audio_encoder(encoder).sample_rate or source.sample_rate
    rates = sorted(codec.audio_rates or [wanted])
    rate = next((each for each in rates if each >= wanted), rates[-1])
    layout, format_ = with_names(source.layout), _closest_samples(codec, source)
    smaller = [each for each in _SMALLER_LAYOUTS if AudioLayout(each).nb_channels < source.layout.nb_channels]
    for name in (layout, _LIKE_LAYOUTS.get(layout, layout), *smaller):
        own = _BITS_PER_CHANNEL * AudioLayout(name).nb_channels
        for bits in (bit_rate or 0, own):
            if _opens(encoder, rate, name, format_, bits):
                return AudioFit(encoder, rate, name, format_, bits, _loss(source, layout, name, wanted, rate))
    return None


def _is_described(source: AudioCodecContext) -> bool:
    """Tell whether a file says of audio how it is sampled; a damaged header may not, and then nobody decodes it."""
    format_: av.AudioFormat | None = source.format  # whatever its stub says
    return format_ is not None and source.sample_rate > 0 and source.layout.nb_channels > 0


def _loss(source: AudioCodecContext, layout: str, kept: str, wanted: int, rate: int) -> str:
    losses = []
    if AudioLayout(kept).nb_channels < source.layout.nb_channels:
        losses.append(f"{layout} becomes {kept}")
    if rate < min(wanted, source.sample_rate):
        losses.append(f"{source.sample_rate} Hz becomes {rate} Hz")
    return ", ".join(losses)


def _closest_samples(codec: av.Codec, source: AudioCodecContext) -> str:
    """Return FFmpeg's name of the encoder's sample format that loses least of the source's."""
    names = [format_.name for format_ in codec.audio_formats or ()] or [source.format.name]
    wanted = source.format

    def lost(name: str) -> tuple[float, ...]:
        format_ = av.AudioFormat(name)
        is_float = format_.packed.name in ("flt", "dbl")
        return max(0, wanted.bits - format_.bits), is_float != (wanted.packed.name in ("flt", "dbl")), format_.bits

    return min(names, key=lost)


def _opens(encoder: str, rate: int, layout: str, format_: str, bit_rate: int) -> bool:
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate, context.time_base = rate, Fraction(1, rate)
    context.layout, context.format = layout, format_
    context.bit_rate = bit_rate
    try:
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def choose_audio_encoder(container: Container, source: AudioCodecContext) -> AudioFit | None:
    """Choose the encoder for audio that a container cannot hold as it is; None where there is none.

    PCM of any kind, and what is nearly as large, stays without loss where the container holds PCM or FLAC; channels are
    kept where they can be.
    """
    if not _is_described(source):
        return None
    with av.open(io.BytesIO(), "w", format=container.name) as probe:
        default = probe.default_audio_codec
    usual = container.audio_encoder or default
    names = [*(_lossless_encoders(source)), usual]
    names += [name for name in _SURROUND_ENCODERS if source.layout.nb_channels > 2 and name != usual]
    fits = []
    for name in names:
        fit = _fit_in(container, name, source)
        if fit is not None and not fit.loss:
            return fit
        fits += [fit] if fit is not None else []
    return fits[0] if fits else None


def _lossless_encoders(source: AudioCodecContext) -> tuple[str, ...]:
    """Return the encoders that keep PCM or ADPCM as it is, best first; none for audio that is smaller by far."""
    if source.name.startswith("adpcm_"):
        return ("flac", "pcm_s16le")
    if not source.name.startswith("pcm_"):
        return ()
    kinds = {"flt": "f32", "dbl": "f64", "s32": "s24" if "24" in source.name else "s32"}
    return f"pcm_{kinds.get(source.format.packed.name, 's16')}le", "flac"


def _fit_in(container: Container, encoder: str, source: AudioCodecContext) -> AudioFit | None:
    """Fit an encoder to a source, where a container holds what it makes."""
    try:
        name = av.Codec(encoder, "w").name
    except (av.FFmpegError, ValueError):  # such as "none"
        return None
    if container.stream_codecs is not None and name not in container.stream_codecs:
        return None
    fit = fit_encoder(name, source, sample_rate=container.audio_rate)
    is_held = fit is not None and any(_holds(container, fit, with_video=with_video) for with_video in (False, True))
    return fit if is_held else None


def _holds(container: Container, fit: AudioFit, *, with_video: bool) -> bool:
    """Tell whether a container takes audio, by writing a header; some, such as MXF, want video before it."""
    probe = av.open(io.BytesIO(), "w", format=container.name)
    try:
        if with_video:
            probe.add_stream(probe.default_video_codec, rate=25, width=352, height=288)
        _add_stream(probe, fit)
        probe.start_encoding()
    except (av.FFmpegError, ValueError, OSError):
        return False
    finally:
        with contextlib.suppress(av.FFmpegError, OSError):  # as nothing follows the header
            probe.close()
    return True


def _add_stream(output: OutputContainer, fit: AudioFit) -> AudioStream:
    stream = output.add_stream(fit.encoder, rate=fit.sample_rate)
    assert isinstance(stream, AudioStream)
    context = stream.codec_context
    context.layout, context.format, context.bit_rate = fit.layout, fit.format, fit.bit_rate
    return stream


class AudioTranscoder:
    """Decode one audio stream and encode it anew, at the same times.

    stream: the output's.
    first_seconds: when the first samples are heard; some decoders, such as WMA's, give none of the first packets.
    """

    def __init__(self, output: OutputContainer, source: Stream, encoder: str, bit_rate: int | None) -> None:
        """Add the output's stream. bit_rate: in bits a second; None for the encoder's own. Raises ValueError."""
        decoder = source.codec_context
        assert isinstance(decoder, AudioCodecContext)
        fit = fit_encoder(encoder, decoder, bit_rate, find_container(output.format.name).audio_rate)
        if fit is None:
            raise ValueError(f"{encoder} takes no audio of {decoder.sample_rate} Hz, {decoder.layout.name}")
        self.stream = _add_stream(output, fit)
        self._source, self._fit = source, fit
        self.first_seconds: float | None = None
        self._resampler: AudioResampler | None = None
        self._taken: tuple[str, str, int] | None = None  # what the resampler was made for

    def transcode(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Transcode a packet. Raises av.InvalidDataError where it cannot be decoded."""
        try:
            frames: list[AudioFrame] = packet.decode()  # type: ignore[assignment]
        except av.FFmpegError as error:  # decoders of damaged sound fail with whatever number comes up
            raise av.InvalidDataError(error.errno or 0, reason(error)) from error
        for frame in frames:
            yield from self._encode(frame)

    def flush(self) -> Iterator[Packet[Any]]:
        """Drain decoder and encoder. Raises av.FFmpegError where the last frame cannot be decoded."""
        try:
            for frame in self._source.decode(None):  # type: ignore[attr-defined]
                yield from self._encode(frame)
        finally:
            for frame in self._end_of_resampler():
                yield from self.stream.encode(frame)
            yield from self.stream.encode(None)

    def _encode(self, frame: AudioFrame) -> Iterator[Packet[Any]]:
        """Encode a frame, whatever its layout and rate: a broadcast changes them from one programme to the next."""
        if self.first_seconds is None and frame.pts is not None and frame.time_base is not None:
            self.first_seconds = float(frame.pts * frame.time_base)
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self._taken:
            for last in self._end_of_resampler():
                yield from self.stream.encode(last)
            fit = self._fit
            self._resampler = AudioResampler(fit.format, fit.layout, fit.sample_rate)
            self._taken = kind
        assert self._resampler is not None
        for resampled in self._resampler.resample(frame):
            yield from self.stream.encode(resampled)

    def _end_of_resampler(self) -> list[AudioFrame]:
        if self._resampler is None:
            return []
        return [frame for frame in self._resampler.resample(None) if frame is not None]
