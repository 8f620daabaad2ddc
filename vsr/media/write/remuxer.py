"""Copy or transcode the streams that are not upscaled into the output."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.rational import AVRational
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from vsr.media.formats import ATTACHED_COVERS, find_container
from vsr.media.packet_times import PacketOrder
from vsr.media.read.opening import readable_text
from vsr.media.write.audio import AudioTranscoder
from vsr.media.write.stream_plan import TEXT_TIME_BASE, StreamPlan, add_copy, codec_name

__all__ = [
    "Remuxer", "carried_tags", "copy_chapters", "is_same_language", "trimmed_chapters", "use_known_languages",
]  # fmt: skip


# ISO 639-2 has two codes for some languages; QuickTime's table has the second.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb", "hye": "arm", "kat": "geo",
    "mya": "bur", "bod": "tib", "msa": "may", "mkd": "mac", "gle": "iri", "fre": "fra", "rum": "ron", "cze": "ces",
    "slo": "slk",
}  # fmt: skip


def is_same_language(a: str | None, b: str | None) -> bool:
    """Tell whether two codes stand for the same language; "und" stands for none."""
    first, second = ("" if code in (None, "und") else _QUICKTIME_LANGUAGES.get(code, code) for code in (a, b))
    return first == second


# Tags of the source's bitstream or file that would be untrue of the output's.
_STALE_TAGS = {
    "encoder", "handler_name", "vendor_id", "major_brand", "minor_version", "compatible_brands", "duration",
    "bps", "number_of_frames", "number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc",
    "_statistics_tags",
}  # fmt: skip


def carried_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Return the metadata for a stream or file that is encoded anew: without tags of the source's own encoding."""
    kept = {k: v for k, v in metadata.items() if k.lower().removesuffix("-eng") not in _STALE_TAGS}
    # As AVI calls what others call "encoder".
    return {k: v for k, v in kept.items() if not (k.lower() == "software" and v.startswith("Lavf"))}


def use_known_languages(output: OutputContainer) -> None:
    """Replace the languages of an output's streams by the codes that its container knows, before the header."""
    for stream in output.streams if find_container(output.format.name).has_quicktime_languages else ():
        language = stream.metadata.get("language", "")
        stream.metadata["language"] = _QUICKTIME_LANGUAGES.get(language, language)


def copy_chapters(
    source: InputContainer, output: OutputContainer, shift_seconds: Fraction, end: Fraction | None
) -> int:
    """Copy the chapters of the source, moved by the trim. Returns the number that the container cannot hold.

    Args:
        source: The input.
        output: The output, before its header is written.
        shift_seconds: The start of the trim range.
        end: The end of the output, in seconds; None for that of the source.
    """
    chapters = trimmed_chapters(source, shift_seconds, end)
    if not find_container(output.format.name).holds_chapters:
        return len(chapters)
    output.set_chapters(chapters)  # type: ignore[arg-type]
    return 0


def trimmed_chapters(source: InputContainer, shift_seconds: Fraction, end: Fraction | None) -> list[dict[str, Any]]:
    """Return a source's chapters, as PyAV describes them, moved by a trim and cut at its end."""
    chapters = []
    for chapter in source.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        shift = round(shift_seconds / base)
        first, last = max(0, chapter["start"] - shift), chapter["end"] - shift
        if last > 0 and (end is None or first * base < end):
            limit = last if end is None else min(last, int(end / base))
            chapter["metadata"] = {readable_text(k): readable_text(v) for k, v in chapter["metadata"].items()}
            chapters.append({**chapter, "start": first if shift else chapter["start"], "end": limit})
    return chapters


class Remuxer:
    """Mux the packets of the input's other streams: copied, or with transcoded audio and text subtitles."""

    def __init__(self, output: OutputContainer, plans: Iterable[StreamPlan], audio_bitrate: int | None = None) -> None:
        """Prepare for an output.

        Args:
            output: The container, before its header is written.
            plans: Of the input's streams.
            audio_bitrate: Of audio that is transcoded, in bits a second; None for the encoder's own.
        """
        self._audio_bitrate = audio_bitrate
        self._output = output
        self._streams: dict[int, Stream] = {}
        self._transcoders: dict[int, AudioTranscoder] = {}
        self._texts: dict[int, SubtitleStream] = {}
        self._order = PacketOrder.of(output)
        self.num_damaged_audio = 0  # packets of audio and text that could not be decoded or held
        self._is_from_zero_on = not find_container(output.format.name).holds_negative_times
        self.num_refused: Counter[int] = Counter()  # packets that cannot be held, by the output's stream
        self.text_seconds: dict[int, array[float]] = {}  # when each transcoded text is due, by the output's stream
        self._last_texts: dict[int, tuple[int, int]] = {}  # PTS and end, by the input's stream
        self.num_cut_texts = 0  # texts of which the end is not kept, as the next begins before it
        self._plans = {plan.index: plan for plan in plans}
        self._sources: dict[int, Stream] = {}  # the input's streams that are decoded

    def add_stream(self, source: Stream, cover: bytes = b"") -> None:
        """Create the output's stream for a stream of the input, if it has one.

        cover: the image of an attached cover.
        """
        index, plan = source.index, self._plans[source.index]
        if plan.action == "copy":
            self._streams[index] = add_copy(self._output, source)
        elif plan.action == "transcode" and source.type == "subtitle":
            self._sources[index] = source
            self._texts[index] = self._add_text(source, plan.encoder or "ass")
        elif plan.action == "transcode":
            transcoder = AudioTranscoder(self._output, source, plan.encoder or "aac", self._audio_bitrate)
            transcoder.stream.metadata.update(carried_tags(source.metadata))
            transcoder.stream.disposition = source.disposition
            self._transcoders[index] = transcoder
        elif plan.action == "attach":
            name, kind = ATTACHED_COVERS[codec_name(source) or ""]
            self._output.add_attachment(source.metadata.get("filename", name), kind, cover)

    def _add_text(self, source: Stream, encoder: str) -> SubtitleStream:
        decoder = source.codec_context
        assert isinstance(decoder, SubtitleCodecContext)
        decoder.open(strict=False)  # which makes the header of styles that the encoder wants
        stream = self._output.add_stream(encoder)
        assert isinstance(stream, SubtitleStream)
        stream.codec_context.subtitle_header = decoder.subtitle_header
        stream.time_base = TEXT_TIME_BASE if encoder == "mov_text" else source.time_base
        stream.metadata.update(carried_tags(source.metadata))
        stream.disposition = source.disposition
        return stream

    @property
    def copied(self) -> dict[int, int]:
        """Return the index in the output of each stream that is copied packet by packet, by its index in the input."""
        return {index: stream.index for index, stream in self._streams.items() if stream.type != "attachment"}

    @property
    def transcoded_audio(self) -> dict[int, int]:
        """Return the index in the output of each audio stream that is transcoded, by its index in the input."""
        return {index: transcoder.stream.index for index, transcoder in self._transcoders.items()}

    @property
    def heard_seconds(self) -> dict[int, float]:
        """Return when the first samples of each stream that is transcoded are heard, by its index in the output."""
        found = {t.stream.index: t.first_seconds for t in self._transcoders.values()}
        return {index: seconds for index, seconds in found.items() if seconds is not None}

    def mux(self, packet: Packet[Any]) -> None:
        """Mux one packet of the input."""
        index = packet.stream.index
        if index in self._streams:
            if packet.dts is None and packet.pts is None:
                packet.dts = packet.pts = 0  # a cover image has no time, and muxers want one
            if packet.duration and packet.duration >= 2**31:
                packet.duration = 0  # "until further notice", which muxers refuse as too long
            target = self._streams[index]
            try:
                self._write(packet, target)
            except (av.InvalidDataError, av.error.PatchWelcomeError):  # AAC with a broken header, which is rewritten
                self.num_refused[target.index] += 1
                self.num_damaged_audio += 1
        elif index in self._transcoders:
            transcoder = self._transcoders[index]
            self._transcode(transcoder.transcode(packet), transcoder.stream)
        elif index in self._texts:
            self._translate(packet, index)

    def _transcode(self, packets: Iterable[Packet[Any]], target: Stream) -> None:
        """Write the packets that a transcoder makes of one; count one that cannot be decoded."""
        try:
            for packet in packets:
                self._write(packet, target)
        except (av.InvalidDataError, av.error.PatchWelcomeError, av.error.BugError):
            self.num_damaged_audio += 1

    def _translate(self, packet: Packet[Any], index: int) -> None:
        """Transcode text subtitles, at the same time and for as long."""
        decoder = self._sources[index].codec_context
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
        assert packet.pts is not None
        self._note_overlap(packet, index)
        seconds = self.text_seconds.setdefault(self._texts[index].index, array("d"))
        seconds.append(float(packet.pts * packet.time_base))
        self._write(translated, self._texts[index])

    def _note_overlap(self, packet: Packet[Any], index: int) -> None:
        """Count the text before this one where the output can show only one at a time, and this one begins sooner."""
        assert packet.pts is not None
        before, end = self._last_texts.get(index, (packet.pts, packet.pts))
        shows_one = self._texts[index].codec_context.name == "mov_text"
        self.num_cut_texts += shows_one and before <= packet.pts < end
        self._last_texts[index] = packet.pts, packet.pts + (packet.duration or 0)

    def _write(self, packet: Packet[Any], target: Stream) -> None:
        packet.stream = target
        if target.time_base is not None:
            packet.rescale_ts(AVRational(target.time_base.numerator, target.time_base.denominator))
        if self._is_from_zero_on and packet.pts is not None and packet.pts < 0:
            self.num_refused[target.index] += 1
            return
        self._order.put(packet)  # in the output's coarser ticks, or after damaged audio, DTS may repeat
        self._output.mux(packet)

    def flush(self) -> None:
        """Drain the audio decoders and encoders."""
        for transcoder in self._transcoders.values():
            self._transcode(transcoder.flush(), transcoder.stream)
