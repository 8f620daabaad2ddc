"""Decide which of the other streams the output container can hold, and how."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Self

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream

from vsr.errors import reason
from vsr.media.formats import (
    ATTACHED_COVERS,
    TEXT_SUBTITLES,
    Container,
    audio_encoder_for,
    find_container,
)
from vsr.media.pyav_fixes import described_codec
from vsr.media.write.audio import choose_audio_encoder, fit_encoder, with_names

__all__ = [
    "TEXT_TIME_BASE",
    "AudioMode",
    "StreamPlan",
    "add_copy",
    "codec_name",
    "plan_streams",
]

AudioMode = Literal["copy", "aac", "opus", "none"]

# FFmpeg 8.1's muxer of ISO files compares the end of a text with the times of other tracks, whatever their ticks are,
# and ends it at once where its own ticks are the longer ones. No other track has ticks shorter than this one.
TEXT_TIME_BASE = Fraction(1, 1_000_000)

LONGEST_LEAD_SECONDS = 0.1  # of what prepares a decoder of audio: 80 ms of Opus, 48 ms of AAC
MOST_AUDIO_OFFSET_SECONDS = 0.02  # beside the video, that nobody notices


def codec_name(stream: Stream) -> str | None:
    """FFmpeg's name of a stream's codec, or None where it has none."""
    name = getattr(stream.codec_context or stream, "name", None)
    if name is None and stream.type == "subtitle" and isinstance(stream.container, InputContainer):
        return described_codec(stream.container, stream.index)
    return name


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The decision on one stream of the input; plain values, so that a job can be sent elsewhere.

    index: of the stream in the input.  kind: "audio", "subtitle" and so on.  codec: FFmpeg's name of it.
    note: why it is not plainly copied.  is_omission: whether something of it is left out that was not asked to be.
    """

    index: int
    kind: str
    codec: str
    language: str | None
    action: Literal["copy", "transcode", "attach", "leave"]
    encoder: str | None = None
    note: str | None = None
    is_omission: bool = False

    @classmethod
    def of(
        cls,
        stream: Stream,
        action: Literal["copy", "transcode", "attach", "leave"],
        encoder: str | None = None,
        note: str | None = None,
        is_omission: bool = False,
    ) -> Self:
        """Make the plan of a stream."""
        codec = codec_name(stream) or "unknown codec"
        return cls(stream.index, stream.type, codec, stream.language, action, encoder, note, is_omission)

    @property
    def title(self) -> str:
        """The stream's name in messages."""
        language = f", {self.language}" if self.language else ""
        return f"{self.kind} stream {self.index} ({self.codec}{language})"


def plan_streams(
    streams: Iterable[Stream],
    container: str,
    audio: AudioMode,
    has_chapters: bool,
    chosen: Collection[int] | None = None,
    covers: Collection[int] = (),
    video_start: Fraction | None = None,
) -> list[StreamPlan]:
    """Decide for every stream: copied where the container takes it, else transcoded (audio, text) or left out.

    container: FFmpeg's name of the output format.  chosen: indices of the streams that are wanted; None for all.
    covers: indices of attached images, which the reader holds whole.
    video_start: when the main video begins, in seconds; None where that does not matter.
    """
    plans, row = [], find_container(container)
    for stream in streams:
        if chosen is not None and stream.index not in chosen:
            plans.append(StreamPlan.of(stream, "leave", note="left out as asked (`maps`)"))
        elif stream.index in covers and row.holds_attachments and codec_name(stream) in ATTACHED_COVERS:
            plans.append(StreamPlan.of(stream, "attach"))
        else:
            plan = _plan_stream(stream, row, audio, has_chapters)
            if row.starts_at_first_frame and video_start is not None:
                plan = _without_offset(plan, stream, video_start)
            plans.append(plan if row.holds_negative_times else _without_past(plan, stream))
    return plans


def _without_past(plan: StreamPlan, stream: Stream) -> StreamPlan:
    """Return the plan of a stream that goes where there are no times before zero.

    FFmpeg's start of a stream does not count what only prepares the decoder and is not played.
    """
    if plan.action != "copy" or plan.kind not in ("audio", "subtitle"):
        return plan
    if (stream.start_time or 0) < 0:
        return replace(plan, note="what lies before time zero is left out: its container has none", is_omission=True)
    if plan.kind == "subtitle" or (stream.start_time or 0) * (stream.time_base or 0) >= LONGEST_LEAD_SECONDS:
        return plan
    note = "copied, but for what lies before time zero to prepare the decoder: the container has no such times"
    return replace(plan, note=note)


def _without_offset(plan: StreamPlan, stream: Stream, video_start: Fraction) -> StreamPlan:
    """Return the plan of a stream that goes where sound begins with the video, whenever that was."""
    if plan.action == "leave" or plan.kind != "audio" or stream.start_time is None or stream.time_base is None:
        return plan
    seconds = float(stream.start_time * stream.time_base - video_start)
    if abs(seconds) < MOST_AUDIO_OFFSET_SECONDS:
        return plan
    before = f"{plan.note}; " if plan.note else ""
    offset = f"{abs(seconds):.3f} s {'after' if seconds > 0 else 'before'} the video"
    note = f"{before}that it begins {offset} is left out: its container has no place for it"
    return replace(plan, note=note, is_omission=True)


def _plan_stream(stream: Stream, container: Container, audio: AudioMode, has_chapters: bool) -> StreamPlan:
    asked = audio_encoder_for(audio)
    if stream.type == "audio" and audio == "none":
        return StreamPlan.of(stream, "leave", note='left out as asked (`audio="none"`)')
    if stream.type == "audio" and asked is not None and not _has_decoder(stream):
        return StreamPlan.of(stream, "leave", note="left out: this FFmpeg has no decoder for it", is_omission=True)
    if stream.type == "audio" and asked is not None:
        return _transcoded_as_asked(stream, asked.name, audio)
    if stream.type == "data" and stream.name == "bin_data" and has_chapters:
        return StreamPlan.of(stream, "leave", note="is a chapter track, rebuilt from the chapters")
    if stream.type == "data" and "timecode" in stream.metadata and container.rebuilds_timecode:
        return StreamPlan.of(stream, "leave", note="is a timecode track, rebuilt from the timecode")
    refusal = _known_refusal(stream, container) or _refusal(stream, container)
    if refusal is None:
        return StreamPlan.of(stream, "copy")
    encoder, loss = None, ""
    if isinstance(stream.codec_context, AudioCodecContext):
        fit = choose_audio_encoder(container, stream.codec_context)
        encoder, loss = (None, "") if fit is None else (fit.encoder, f" ({fit.loss})" if fit.loss else "")
    elif stream.type == "subtitle" and codec_name(stream) in TEXT_SUBTITLES:
        encoder = container.text_encoder
    if encoder:
        why = f"{container.name} cannot hold it as it is"
        if codec_name(stream) in container.unwritten_codecs:
            why = f"PyAV does not copy it into {container.name}"
        note = f"transcoded to {encoder}{loss}: {why}"
        return StreamPlan.of(stream, "transcode", encoder, note, is_omission=True)
    return StreamPlan.of(
        stream, "leave", note=f"left out: {container.name} cannot hold it ({refusal})", is_omission=True
    )


def _transcoded_as_asked(stream: Stream, encoder: str, audio: AudioMode) -> StreamPlan:
    """Return the plan of audio that is to be transcoded by an encoder; what that cannot keep is an omission."""
    assert isinstance(stream.codec_context, AudioCodecContext)
    fit = fit_encoder(encoder, stream.codec_context)
    if fit is None:
        note = f"left out: {encoder} takes nothing like it, or its header says too little of it"
        return StreamPlan.of(stream, "leave", note=note, is_omission=True)
    note = f"transcoded to {audio} as asked{f'; {fit.loss}' if fit.loss else ''}"
    return StreamPlan.of(stream, "transcode", encoder, note, is_omission=bool(fit.loss))


def _has_decoder(stream: Stream) -> bool:
    return stream.codec_context is not None


def _known_refusal(stream: Stream, container: Container) -> str | None:
    """Return why a container does not take a stream, where a header alone does not show it; else None."""
    if codec_name(stream) in ("amrnb", "amrwb") and not container.holds_packed_amr:
        return "several AMR frames in a packet"  # as phones record it; the muxer stops at the first
    if Disposition.attached_pic in stream.disposition and not container.holds_covers:
        return "no covers"  # which its muxer leaves out without a word, or makes a second video of
    known = container.stream_codecs
    if known is not None and stream.type in ("audio", "video", "subtitle") and codec_name(stream) not in known:
        return "it has no number for this codec"
    return None


def _refusal(stream: Stream, container: Container) -> str | None:
    """Return why a container does not take a stream, found out by writing a header with it alone; else None."""
    probe = av.open(io.BytesIO(), "w", format=container.name)
    try:
        copied = add_copy(probe, stream)
        if copied.type == "attachment":  # needs a stream beside it, and the muxer has the last word
            return None if container.holds_attachments else "no attachments"
        probe.start_encoding()
    except (av.FFmpegError, ValueError, OSError) as error:
        return reason(error)
    finally:
        with contextlib.suppress(av.FFmpegError, OSError):  # as nothing follows the header
            probe.close()
    return None


def add_copy(output: OutputContainer, stream: Stream) -> Stream:
    if stream.type == "subtitle" and not _has_decoder(stream):  # PyAV has no template of what nobody decodes
        copied: Stream = output.add_mux_stream(codec_name(stream) or "unknown")
        copied.time_base = stream.time_base
    else:
        copied = output.add_stream_from_template(stream, opaque=True)
    copied.metadata.update(stream.metadata)
    if "name" in stream.metadata:  # as FFmpeg reads a track's title of ISO files, and does not write it
        copied.metadata.setdefault("title", stream.metadata["name"])
    copied.disposition = stream.disposition
    if codec_name(stream) == "mov_text":
        copied.time_base = TEXT_TIME_BASE
    if isinstance(copied, AudioStream) and find_container(output.format.name).needs_channel_names:
        context = copied.codec_context
        if context.name.startswith("pcm_"):
            context.layout = with_names(context.layout)
    return copied
