"""Work around gaps and faults of PyAV and of the FFmpeg inside it, each seen with the versions named.

A newer version may have made one of them needless: remove it here, and see whether the tests still pass.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vsr.frames import ChromaLocation

__all__ = [
    "accept_unknown_side_data",
    "captured_errors",
    "choose_decoding_threads",
    "close_input",
    "count_streams",
    "demux_packets",
    "described_codec",
    "fill_in_timestamps",
    "flush_decoder",
    "has_chroma",
    "keep_timestamps",
    "mend_dts",
    "open_encoder",
    "read_chroma_location",
    "resize_frame",
]

_GEN_PTS = 1  # AVFMT_FLAG_GENPTS, which PyAV does not name


def keep_timestamps(container: InputContainer) -> None:
    """Stop FFmpeg from inventing timestamps that a file lacks.

    PyAV 18.1 sets AVFMT_FLAG_GENPTS in every input, as the ffmpeg program does not; it shifts H.264 in AVI.
    """
    container.flags &= ~_GEN_PTS


def fill_in_timestamps(container: InputContainer) -> None:
    """Let FFmpeg reckon the timestamps that a file lacks from those around, as PyAV does of itself."""
    container.flags |= _GEN_PTS


def close_input(container: InputContainer) -> None:
    """Close an input, once the threads of its video decoders are done.

    They may have something to report, for which they need Python's lock. PyAV 18.1 holds it while it frees a decoder,
    and both would wait for ever.
    """
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.flush_buffers()
    container.close()


def demux_packets(container: InputContainer) -> Iterator[Packet[Any]]:
    """Read the packets of a file, up to its end.

    PyAV 18.1 adds an empty packet for each stream at the end, to flush decoders with: without a time, as no empty
    packet of a file is. Where streams have turned up since the file was opened (MPEG-TS), it raises IndexError while
    it does so.
    """
    try:
        for packet in container.demux():
            if packet.size or packet.pts is not None or packet.dts is not None:
                yield packet
    except IndexError:
        return


def choose_decoding_threads(stream: VideoStream, *, one_by_one: bool) -> None:
    """Let a decoder use all cores: frame threads where the codec has them, else slices.

    A GPU is fed by one thread: each frame thread would take surfaces of its own beside those of the video, and a
    decoder of NVIDIA's has 32 in all, which some 16 threads use up.

    one_by_one: decode in one thread. PyAV 18.1 drops the frames that other threads have ready when one of them is
        damaged; images, of which each is a file, would be lost beside the damaged one.
    """
    if one_by_one or stream.codec_context.is_hwaccel:
        stream.codec_context.thread_count = 1
    else:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 0


def flush_decoder(context: VideoCodecContext, time_base: Fraction) -> list[av.VideoFrame]:
    """Take the frames that a decoder holds back, at the end of its stream.

    PyAV 18.1 takes the time base of a frame from the packet that completes it; at the end there is none.
    """
    frames = context.decode(None)
    for frame in frames:
        frame.time_base = time_base
    return frames


def resize_frame(
    frame: av.VideoFrame, width: int, height: int, format_: str, *, converts_colors: bool = True
) -> av.VideoFrame:
    """Resize a frame and change its pixel format by swscale's Lanczos filter, in one thread.

    With several threads, swscale's slices overwrite the start of one another's rows at odd widths (FFmpeg 8.1).

    converts_colors: False keeps the samples of Y'CbCr as they are where the matrix or range of both sides differ.
    """
    options: dict[str, Any] = {}
    if not converts_colors:
        options = {"src_colorspace": "DEFAULT", "dst_colorspace": "DEFAULT"}
    return frame.reformat(width, height, format_, interpolation="LANCZOS", threads=1, **options)


def has_chroma(format_: av.VideoFormat) -> bool:
    """Say whether a pixel format that is not RGB has Cb and Cr.

    PyAV 18.1's `VideoFormatComponent.is_chroma` is False for chroma that is not subsampled.
    """
    return len(format_.components) >= 3


def read_chroma_location(container: InputContainer, index: int) -> ChromaLocation | None:
    """Read the position of a stream's chroma samples, or None where the stream does not say.

    PyAV 18.1 has no name for it; FFmpeg's description of the file has. Call it before other threads decode.
    """
    names = "|".join(location.name.lower() for location in ChromaLocation)
    match = re.search(rf"Stream #0:{index}\b.*[(,] ?({names})\)", _description(container))
    return None if match is None else ChromaLocation[match[1].upper()]


def count_streams(container: InputContainer) -> int:
    """Count the streams that FFmpeg has found in a file so far.

    PyAV 18.1 lists those that there were when the file was opened.
    """
    return len(set(re.findall(r"^\s*Stream #0:(\d+)", _description(container), re.MULTILINE)))


def described_codec(container: InputContainer, index: int) -> str | None:
    """Return FFmpeg's name of the codec of a stream that it has no decoder for, such as TTML.

    PyAV 18.1 takes the name from the decoder; FFmpeg's description of the file has it. Not while other threads decode.
    """
    match = re.search(rf"^\s*Stream #0:{index}\b[^:]*: \w+: (\w+)", _description(container), re.MULTILINE)
    return None if match is None or match[1] in ("none", "unknown") else match[1]


def _description(container: InputContainer) -> str:
    """Return the lines that FFmpeg logs about a file at its verbose level. Not while other threads decode."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.VERBOSE)
    av.logging.set_libav_level(av.logging.VERBOSE)
    try:
        with av.logging.Capture(local=False):  # keeps the lines of other threads off stderr meanwhile
            return str(container.dumps_format())  # type: ignore[attr-defined]  # missing in its stub
    finally:
        av.logging.set_libav_level(av.logging.INFO)  # FFmpeg's own default
        av.logging.set_level(before)


def open_encoder(context: VideoCodecContext) -> None:
    """Open an encoder, without the real-time priority that SVT-AV1 4.1 gives to its threads and its caller's for root.

    All other programs would wait for the job, a service's own threads too. A process that had it before keeps it.
    Raises what PyAV raises.
    """
    tasks = Path("/proc/self/task")
    if sys.platform != "linux" or not tasks.is_dir() or os.sched_getscheduler(0) == os.SCHED_FIFO:
        context.open()
        return
    try:
        context.open()
    finally:
        for task in tasks.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if os.sched_getscheduler(int(task.name)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def captured_errors(codec: str) -> Iterator[list[str]]:
    """Collect the lines that a codec logs as errors inside; there after the block. PyAV 18.1 drops them untold."""
    lines: list[str] = []
    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as logged:  # keeps the lines of other threads off stderr meanwhile
            yield lines
    finally:
        av.logging.set_level(before)
        texts = [" ".join(text.split()) for level, name, text in logged if name == codec and level <= av.logging.ERROR]
        lines += dict.fromkeys(text for text in texts if text)


_MOST_DELAY_TICKS = 2**40
_SHORTEST_DELAY_TICKS = 8


def mend_dts(packet: Packet[VideoStream], last_dts: int | None) -> None:
    """Give a DTS to a packet of an encoder that left it to chance: just after the last one, and before all PTS.

    libx265 in FFmpeg 8.1 reads the DTS of a video that is shorter than its run of B-frames from memory that nobody
    wrote. Muxers refuse one that lies after the PTS, and take others for hundreds of thousands of years.

    Args:
        packet: Of the encoder, in the order of decoding.
        last_dts: Of the packet before, in the same ticks; None for the first.
    """
    if packet.pts is None or packet.dts is None:
        return
    if packet.pts - _MOST_DELAY_TICKS < packet.dts <= packet.pts and (last_dts is None or packet.dts > last_dts):
        return
    packet.dts = packet.pts - _SHORTEST_DELAY_TICKS if last_dts is None else last_dts + 1


def accept_unknown_side_data() -> None:
    """Make PyAV read frames that carry side data of a type it does not list.

    PyAV 18.1 lacks the newest types of FFmpeg 8 and raises ValueError when the side data of such a frame are read.
    """
    if "_missing_" not in vars(Type):
        Type._missing_ = classmethod(_type_of_number)  # type: ignore[assignment]


def _type_of_number(kind: type[Type], number: int) -> Type:
    """Make the enumeration's member for a number that it lacks."""
    member = object.__new__(kind)
    member._name_ = f"TYPE_{number}"
    object.__setattr__(member, "_value_", number)
    kind._value2member_map_[number] = member
    return member
