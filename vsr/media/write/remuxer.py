"""The streams that are not upscaled: which the output container can hold, and their way into it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.rational import AVRational
from av.stream import Disposition, Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from vsr.media.packet_times import PacketOrder
from vsr.media.read.reader import reason

__all__ = [
    "AUDIO_ENCODERS",
    "AudioMode",
    "Remuxer",
    "StreamPlan",
    "carried_tags",
    "codec_name",
    "copy_chapters",
    "plan_streams",
    "use_known_languages",
]

AudioMode = Literal["copy", "aac", "opus", "none"]
AUDIO_ENCODERS: dict[str, str] = {"aac": "aac", "opus": "libopus"}

# What the transcoded audio of a container should be where its own default is an old codec.
_CONTAINER_AUDIO = {"webm": "libopus", "matroska": "libopus", "mpegts": "aac"}

_CHAPTER_CONTAINERS = {"mp4", "mov", "ipod", "matroska", "webm", "nut", "asf", "ogg", "ogv"}

# What MPEG-TS has numbers for. FFmpeg writes the rest as private data, in which no player finds anything.
_MPEGTS_CODECS = {
    "h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpegvideo", "mpeg4", "vc1", "cavs", "jpeg2000",
    "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "aac", "aac_latm", "ac3", "eac3", "dca", "truehd",
    "opus", "libopus", "s302m", "dvbsub", "pgssub", "libzvbi_teletextdec",
}  # fmt: skip

_COVER_CONTAINERS = {"mp4", "ipod", "matroska", "nut", "asf"}  # Matroska has some as attachments, others as a track

# ISO 639-2 has two codes for some languages; QuickTime's table has the second.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb", "hye": "arm", "kat": "geo",
    "mya": "bur", "bod": "tib", "msa": "may", "mkd": "mac", "gle": "iri", "fre": "fra", "rum": "ron", "cze": "ces",
    "slo": "slk",
}  # fmt: skip

# Subtitles that are words; the others are pictures, which nothing here can read.
_CONTAINER_TEXT = {"mp4": "mov_text", "mov": "mov_text", "ipod": "mov_text", "webm": "webvtt", "matroska": "ass"}
_TEXT_CODECS = {"srt", "subrip", "ssa", "ass", "mov_text", "webvtt", "text"}

# Covers that Matroska holds as attachments; a track of one picture would be a second video to players.
_ATTACHED_COVERS = {"png": ("cover.png", "image/png"), "mjpeg": ("cover.jpg", "image/jpeg")}

# Whose muxers make a timecode track of the tag that the video stream has.
_TIMECODE_CONTAINERS = {"mp4", "mov"}

_FROM_ZERO_ON = {"nut"}  # containers without times before zero

# Containers that hold PCM only with a name for each channel; PCM elsewhere may have none, and the muxer says so last.
_NAMED_CHANNELS_ONLY = {"mp4", "ipod", "3gp", "3g2", "psp"}
_USUAL_LAYOUTS = {
    "1 channels": "mono", "2 channels": "stereo", "3 channels": "2.1", "4 channels": "4.0", "5 channels": "5.0",
    "6 channels": "5.1", "7 channels": "6.1", "8 channels": "7.1",
}  # fmt: skip

# Tags of the source's bitstream or file that would be untrue of the output's.
_STALE_TAGS = {
    "encoder", "handler_name", "vendor_id", "major_brand", "minor_version", "compatible_brands", "duration",
    "bps", "number_of_frames", "number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc",
    "_statistics_tags",
}  # fmt: skip


def carried_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata for what is encoded anew: all of it, less what describes the source's own encoding."""
    return {k: v for k, v in metadata.items() if k.lower().removesuffix("-eng") not in _STALE_TAGS}


def codec_name(stream: Stream) -> str | None:
    """FFmpeg's name of a stream's codec, or None where neither a decoder nor PyAV's class knows one."""
    return getattr(stream.codec_context or stream, "name", None)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What happens to one stream of the input. `note` says why, where it is not plainly copied.

    cover: the picture of a stream that is to become an attachment.
    """

    stream: Stream
    action: Literal["copy", "transcode", "attach", "leave"]
    encoder: str | None = None
    note: str | None = None
    is_loss: bool = False
    cover: bytes = b""

    @property
    def title(self) -> str:
        codec = codec_name(self.stream) or "unknown codec"
        language = f", {self.stream.language}" if self.stream.language else ""
        return f"{self.stream.type} stream {self.stream.index} ({codec}{language})"


def plan_streams(
    streams: Iterable[Stream],
    container: str,
    audio: AudioMode,
    has_chapters: bool,
    chosen: Container[int] | None = None,
    covers: Mapping[int, bytes] | None = None,
) -> list[StreamPlan]:
    """Decide for every stream: copied where the container takes it, else transcoded (audio, text) or left out.

    container: FFmpeg's name of the output format.  chosen: indices of the streams that are wanted; None for all.
    covers: attached pictures by the index of their stream.
    """
    plans = []
    for stream in streams:
        cover = (covers or {}).get(stream.index)
        if chosen is not None and stream.index not in chosen:
            plans.append(StreamPlan(stream, "leave", note="left out as asked (-map)"))
        elif cover and container == "matroska" and codec_name(stream) in _ATTACHED_COVERS:
            plans.append(StreamPlan(stream, "attach", cover=cover))
        else:
            plan = _plan_stream(stream, container, audio, has_chapters)
            plans.append(_without_past(plan) if container in _FROM_ZERO_ON else plan)
    return plans


def _without_past(plan: StreamPlan) -> StreamPlan:
    """The plan of a stream that goes where there are no times before zero.

    FFmpeg's start of a stream does not count what only prepares the decoder and is not played.
    """
    if plan.action != "copy" or plan.stream.type not in ("audio", "subtitle"):
        return plan
    if (plan.stream.start_time or 0) < 0:
        return replace(plan, note="what lies before time zero is left out: its container has none", is_loss=True)
    if plan.stream.type == "subtitle":
        return plan
    note = "copied, but for what lies before time zero to prepare the decoder: the container has no such times"
    return replace(plan, note=note)


def _plan_stream(stream: Stream, container: str, audio: AudioMode, has_chapters: bool) -> StreamPlan:
    if stream.type == "audio" and audio == "none":
        return StreamPlan(stream, "leave", note="left out as asked (--audio none)")
    if stream.type == "audio" and audio in AUDIO_ENCODERS and not _has_decoder(stream):
        return StreamPlan(stream, "leave", note="left out: this FFmpeg has no decoder for it", is_loss=True)
    if stream.type == "audio" and audio in AUDIO_ENCODERS:
        return StreamPlan(stream, "transcode", AUDIO_ENCODERS[audio], f"transcoded to {audio} as asked")
    if stream.type == "data" and stream.name == "bin_data" and has_chapters:
        return StreamPlan(stream, "leave", note="is a chapter track, rebuilt from the chapters")
    if stream.type == "data" and "timecode" in stream.metadata and container in _TIMECODE_CONTAINERS:
        return StreamPlan(stream, "leave", note="is a timecode track, rebuilt from the timecode")
    refusal = _known_refusal(stream, container) or _refusal(stream, container)
    if refusal is None:
        return StreamPlan(stream, "copy")
    if stream.type == "audio" and stream.codec_context is not None:
        encoder = _audio_encoder(container)
        if encoder:
            note = f"transcoded to {encoder}: {container} cannot hold it as it is"
            return StreamPlan(stream, "transcode", encoder, note, is_loss=True)
    if stream.type == "subtitle" and codec_name(stream) in _TEXT_CODECS:
        encoder = _CONTAINER_TEXT.get(container)
        if encoder:
            note = f"transcoded to {encoder}: {container} cannot hold it as it is"
            return StreamPlan(stream, "transcode", encoder, note, is_loss=True)
    return StreamPlan(stream, "leave", note=f"left out: {container} cannot hold it ({refusal})", is_loss=True)


def _has_decoder(stream: Stream) -> bool:
    return stream.codec_context is not None


def _known_refusal(stream: Stream, container: str) -> str | None:
    """What a header alone does not show."""
    if codec_name(stream) in ("amrnb", "amrwb") and container in ("mov", "mp4", "3gp", "3g2", "ipod"):
        return "several AMR frames in a packet"  # as phones record it; the muxer stops at the first
    if Disposition.attached_pic in stream.disposition and container not in _COVER_CONTAINERS:
        return "no covers"  # which its muxer leaves out without a word, or makes a second video of
    is_numbered = stream.type not in ("audio", "video", "subtitle") or codec_name(stream) in _MPEGTS_CODECS
    if container == "mpegts" and not is_numbered:
        return "it has no number for this codec"
    return None


def _refusal(stream: Stream, container: str) -> str | None:
    """Why a container does not take a stream: found out by writing a header with it alone."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as probe:
            copied = _add_copy(probe, stream)
            if copied.type == "attachment":  # needs a stream beside it, and the muxer has the last word
                return None if container == "matroska" else "no attachments"
            probe.start_encoding()
    except (av.FFmpegError, ValueError, OSError) as error:
        return reason(error)
    return None


def _audio_encoder(container: str) -> str | None:
    if container in _CONTAINER_AUDIO:
        return _CONTAINER_AUDIO[container]
    with av.open(io.BytesIO(), "w", format=container) as probe:
        name = probe.default_audio_codec
    return name if name in av.codecs_available and name != "none" else None


def _add_copy(output: OutputContainer, stream: Stream) -> Stream:
    copied: Stream = output.add_stream_from_template(stream, opaque=True)
    copied.metadata.update(stream.metadata)
    copied.disposition = stream.disposition
    if isinstance(copied, AudioStream) and output.format.name in _NAMED_CHANNELS_ONLY:
        context = copied.codec_context
        if context.name.startswith("pcm_"):
            context.layout = _with_names(context.layout)
    return copied


def _with_names(layout: AudioLayout) -> AudioLayout | str:
    """A layout for channels of which only the number is known, as ffmpeg guesses it; else the layout as it is."""
    return _USUAL_LAYOUTS.get(layout.name, layout)


def use_known_languages(output: OutputContainer) -> None:
    """Say the languages of an output's streams in the codes that its container knows. Before its header is written."""
    for stream in output.streams if output.format.name == "mov" else ():
        language = stream.metadata.get("language", "")
        stream.metadata["language"] = _QUICKTIME_LANGUAGES.get(language, language)


def copy_chapters(
    source: InputContainer, output: OutputContainer, shift_seconds: Fraction, end: Fraction | None
) -> int:
    """Set the output's chapters to the source's, moved by the trim. Returns how many cannot be held."""
    chapters = []
    for chapter in source.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        shift = round(shift_seconds / base)
        first, last = max(0, chapter["start"] - shift), chapter["end"] - shift
        if last > 0 and (end is None or first * base < end):
            limit = last if end is None else min(last, int(end / base))
            chapters.append({**chapter, "start": first if shift else chapter["start"], "end": limit})
    if output.format.name not in _CHAPTER_CONTAINERS:
        return len(chapters)
    output.set_chapters(chapters)  # type: ignore[arg-type]
    return 0


class Remuxer:
    """Takes packets of the input's other streams and muxes them, copied or with transcoded audio."""

    def __init__(self, output: OutputContainer, plans: Iterable[StreamPlan]) -> None:
        self._output = output
        self._streams: dict[int, Stream] = {}
        self._encoders: dict[int, AudioStream] = {}
        self._texts: dict[int, SubtitleStream] = {}
        self._order = PacketOrder.of(output)
        self.num_damaged_audio = 0  # packets of sound, and of text, that could not be decoded or held
        self._is_from_zero_on = output.format.name in _FROM_ZERO_ON
        self.num_refused: Counter[int] = Counter()  # packets that cannot be held, by the output's stream
        self._plans = {plan.stream.index: plan for plan in plans}

    def add_stream(self, index: int) -> None:
        """Create the output's stream for the input's stream `index`, if it has one."""
        plan = self._plans[index]
        if plan.action == "copy":
            self._streams[index] = _add_copy(self._output, plan.stream)
        elif plan.action == "transcode" and plan.stream.type == "subtitle":
            self._texts[index] = self._add_text(plan)
        elif plan.action == "transcode":
            source = plan.stream.codec_context
            assert isinstance(source, AudioCodecContext)
            rate = 48000 if plan.encoder == "libopus" else source.sample_rate
            encoded = self._output.add_stream(plan.encoder or "aac", rate=rate)
            assert isinstance(encoded, AudioStream)
            encoded.codec_context.layout = _with_names(source.layout)
            encoded.metadata.update(carried_tags(plan.stream.metadata))
            encoded.disposition = plan.stream.disposition
            self._encoders[index] = encoded
        elif plan.action == "attach":
            name, kind = _ATTACHED_COVERS[codec_name(plan.stream) or ""]
            self._output.add_attachment(plan.stream.metadata.get("filename", name), kind, plan.cover)

    def _add_text(self, plan: StreamPlan) -> SubtitleStream:
        decoder = plan.stream.codec_context
        assert isinstance(decoder, SubtitleCodecContext)
        decoder.open(strict=False)  # which makes the header of styles that the encoder wants
        stream = self._output.add_stream(plan.encoder or "ass")
        assert isinstance(stream, SubtitleStream)
        stream.codec_context.subtitle_header = decoder.subtitle_header
        stream.time_base = plan.stream.time_base
        stream.metadata.update(carried_tags(plan.stream.metadata))
        stream.disposition = plan.stream.disposition
        return stream

    @property
    def copied(self) -> dict[int, int]:
        """Index in the output of every stream that is copied packet by packet, by its index in the input."""
        return {index: stream.index for index, stream in self._streams.items() if stream.type != "attachment"}

    def mux(self, packet: Packet[Any]) -> None:
        """Mux one packet of the input."""
        index = packet.stream.index
        if index in self._streams:
            if packet.dts is None and packet.pts is None:
                packet.dts = packet.pts = 0  # a cover picture has no time, and muxers want one
            if packet.duration and packet.duration >= 2**31:
                packet.duration = 0  # "until further notice", which muxers refuse as too long
            target = self._streams[index]
            try:
                self._write(packet, target)
            except (av.InvalidDataError, av.error.PatchWelcomeError):  # AAC with a broken header, which is rewritten
                self.num_refused[target.index] += 1
                self.num_damaged_audio += 1
        elif index in self._encoders:
            self._transcode(packet, index)
        elif index in self._texts:
            self._translate(packet, index)

    def _transcode(self, packet: Packet[Any], index: int) -> None:
        try:
            frames: list[AudioFrame] = packet.decode()  # type: ignore[assignment]
        except av.FFmpegError:
            self.num_damaged_audio += 1
            return
        for frame in frames:
            self._write_all(self._encoders[index].encode(frame), self._encoders[index])

    def _translate(self, packet: Packet[Any], index: int) -> None:
        """Subtitles of one kind of text as those of another, at the same time and for as long."""
        decoder = self._plans[index].stream.codec_context
        assert isinstance(decoder, SubtitleCodecContext)
        try:
            words = decoder.decode2(packet)
            if words is None:  # nothing on screen
                return
            translated = self._texts[index].codec_context.encode_subtitle(words)
        except av.FFmpegError:
            self.num_damaged_audio += 1
            return
        translated.time_base = packet.time_base
        translated.pts = translated.dts = packet.pts
        translated.duration = packet.duration
        self._write(translated, self._texts[index])

    def _write_all(self, packets: Iterable[Packet[Any]], target: Stream) -> None:
        for packet in packets:
            self._write(packet, target)

    def _write(self, packet: Packet[Any], target: Stream) -> None:
        packet.stream = target
        if target.time_base is not None:
            packet.rescale_ts(AVRational(target.time_base.numerator, target.time_base.denominator))
        if self._is_from_zero_on and packet.pts is not None and packet.pts < 0:
            self.num_refused[target.index] += 1
            return
        self._order.put(packet)  # also of what was in order by finer ticks, or was encoded from damaged sound
        self._output.mux(packet)

    def flush(self) -> None:
        """Drain the audio decoders and encoders."""
        for index, encoder in self._encoders.items():
            try:
                frames = self._plans[index].stream.decode(None)  # type: ignore[attr-defined]
            except av.FFmpegError:
                self.num_damaged_audio += 1
                frames = []
            for frame in frames:
                self._write_all(encoder.encode(frame), encoder)
            self._write_all(encoder.encode(None), encoder)
