"""From a file to batches of native planes, with every packet of the other streams beside them."""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream
from torch import Tensor

from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.errors import InputError, OptionError, reason
from vsr.frames import FrameBatch
from vsr.media.av_frames import closest_native, load_planes, repeated
from vsr.media.image_sequence import find_sequence
from vsr.media.packet_checksum import StreamTally
from vsr.media.packet_times import PacketClock, PacketOrder
from vsr.media.pipe import PipeReader, apart, is_pipe
from vsr.media.read.alpha_decoder import decoder_with_alpha
from vsr.media.read.color_tags import (
    chroma_location_of_stream,
    color_of_frame,
    display_matrix_of_frame,
    hdr_of_frame,
    num_streams_by_now,
    side_data_not_carried,
)
from vsr.media.read.decoder import EXACT_ON_GPU
from vsr.media.read.deinterlace import DeinterlaceMode, deinterlaced
from vsr.media.read.opening import DEFAULT_FRAMERATE, InputFormat, open_input, open_pipe, open_sequence
from vsr.media.read.stream_map import mapped_streams
from vsr.media.read.trim import Window, pts_of
from vsr.media.read.video_info import VideoInfo

__all__ = ["Chunk", "FramePosition", "VideoReader"]

SEARCH_SECONDS = 1  # before a frame that is looked for, so that what deinterlaces it has its neighbours
COUNTED_BY_BYTES = {"yuv4mpegpipe", "rawvideo"}  # nothing but whole frames follow one another in them
WITHOUT_LIST_OF_STREAMS = {"mpegts", "mpeg", "flv"}  # of which more may turn up on the way
WITH_DURATION = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv"}  # in a header; of others it is estimated
MISSING_SECONDS = 1  # less is no more than a stream that ends early


@dataclass(frozen=True, slots=True)
class Chunk:
    """A step of the file: the packets of other streams met on the way, and then some frames.

    batch is None only in the last chunk, which may carry trailing packets alone.
    """

    packets: tuple[Packet[Any], ...]
    batch: FrameBatch | None


@dataclass(frozen=True, slots=True)
class FramePosition:
    """A frame to find again: its PTS as it was handed out, and the SHA-256 of its planes."""

    pts: int
    sha256: str

    @classmethod
    def of_last(cls, batch: FrameBatch) -> Self:
        """That of the last frame in a batch."""
        digest = hashlib.sha256()
        for plane in batch.planes:
            digest.update(plane[-1].contiguous().numpy().data)
        return cls(batch.pts[-1], digest.hexdigest())


class VideoReader:
    """Decode the main video stream of a file, of stdin ("-") or of pictures, lazily and in presentation order.

    start_seconds, duration_seconds: the part to read, counted as ffmpeg's -ss and -t do from the start
        of the file; frames from the first one at or after the start. Timestamps then start at zero.
        Without a start, timestamps are those of the file, untouched.
    deinterlace: "auto" deinterlaces from the first frame on that is flagged as interlaced, "on" always.
    input_format: what FFmpeg cannot see of the input.
    maps: which streams are wanted, as ffmpeg's -map says it; the video stream that is decoded is one of them.
    gpu: index of the CUDA GPU that decodes, where it can give the same samples; None for the CPU.
    warn: called with one line for anything out of the ordinary.

    Raises InputError where no frame can be decoded. Use as a context manager.
    """

    def __init__(
        self,
        path: Path,
        *,
        start_seconds: Fraction | None = None,
        duration_seconds: Fraction | None = None,
        deinterlace: DeinterlaceMode = "auto",
        input_format: InputFormat | None = None,
        maps: Sequence[str] = (),
        gpu: int | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._warn, self._input_format, self._maps = warn, input_format or InputFormat(), tuple(maps)
        self.pipe = PipeReader() if is_pipe(path) else None
        self.path = path if self.pipe is None else Path(self.pipe.name)
        self.sequence = None if self.pipe is not None else find_sequence(path)
        self.num_repeated = 0  # frames in the place of such as could not be decoded
        self._num_lost = 0  # packets that gave no frame
        self._num_concealed = 0  # frames that the decoder guessed in part
        self._num_torn = 0  # packets that the demuxer knows to be incomplete, or the ones before such
        self._awaited_pts: set[int] = set()  # of packets that were decoded and have given no frame yet
        self._frames: Generator[av.VideoFrame, None, None]
        self._first: av.VideoFrame | None  # decoded, and not handed out yet
        self._last_frame: av.VideoFrame | None = None
        self._last_pts: int | None = None
        self._num_moved_pts = 0
        self._strange_sizes: set[tuple[int, int]] = set()
        self._strange_formats: set[str] = set()
        self._sound_ends: dict[int, int] = {}  # of the last packet of each stream of sound, in its ticks
        self._num_cut = 0
        self._last_byte = 0  # where the last packet of the video ended, for COUNTED_BY_BYTES
        self._packets: list[Packet[Any]] = []
        self.pts: array[int] = array("q")  # of every frame handed out, on the output's clock; 8 bytes a frame
        self.tallies: dict[int, StreamTally] = {}  # of the packets handed out, by stream
        begin = functools.partial(self._begin, gpu, start_seconds, duration_seconds)
        try:
            if self.pipe is None:
                begin()
            else:
                apart(begin, self.pipe.interrupt)
            assert self._first is not None
            self.info = self._describe(self._first)
            if self.stream.codec_context.is_hwaccel and self.info.pixel_format.layout != "semiplanar":
                # FFmpeg has turned to its own decoder by itself: frames of GPUs are nv12, p010 and their like.
                self._warn(f"{self.path}: decoded on the CPU: the GPU does not take {self.info.source_pixel_format}")
            self.is_deinterlaced = deinterlace == "on" or (deinterlace == "auto" and self.info.interlaced)
            self._may_deinterlace, self._deinterlace_every_frame = deinterlace != "off", deinterlace == "on"
            self._shown = self._presented()
        except BaseException:
            self._close_input()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._frames.close()
        self._close_input()

    def _close_input(self) -> None:
        if hasattr(self, "container"):
            self.container.close()
        if self.pipe is not None:
            self.pipe.close()

    @property
    def num_damaged(self) -> int:
        """Packets of the video, so far, that could not be decoded or not wholly; a cut one at the end too."""
        return max(self._num_torn, self._num_lost + self._num_concealed) + self._num_cut

    def interrupt(self) -> None:
        """End a read that waits for a pipe, in whatever thread; the input ends there. For a job that stops."""
        if self.pipe is not None:
            self.pipe.interrupt()

    @property
    def other_streams(self) -> list[Stream]:
        """Every stream but the one that is decoded, in the order of the file."""
        return [s for s in self.container.streams if s.index != self.stream.index]

    @property
    def covers(self) -> dict[int, bytes]:
        """Attached pictures, each a whole file of its kind, by the index of their stream. Before `chunks` is called."""
        attached = (p for p in self._packets if Disposition.attached_pic in p.stream.disposition)
        return {packet.stream.index: bytes(packet) for packet in attached}

    @property
    def chosen_streams(self) -> frozenset[int]:
        """Indices of the streams that are wanted."""
        return mapped_streams(tuple(self.container.streams), self._maps, self.path)

    @property
    def shift_seconds(self) -> Fraction:
        """What is taken off every timestamp: the start of the part that is read, else zero."""
        return self._window.start or Fraction(0)

    @property
    def duration_limit_seconds(self) -> Fraction | None:
        """Where the part that is read ends, on the output's clock, or None for the end of the file."""
        return None if self._window.end is None else self._window.end - self.shift_seconds

    def chunks(self, batch_size: int) -> Iterator[Chunk]:
        """The whole file once, `batch_size` frames at a time (fewer at the end). Call it once."""
        frames: list[av.VideoFrame] = []
        for frame in self._shown:
            frames.append(frame)
            if len(frames) == batch_size:
                yield Chunk(self._take_packets(), self._batch(frames))
                frames = []
        if num_restarts := self._clock.num_restarts:
            times = "once" if num_restarts == 1 else f"{num_restarts} times"
            self._warn(f"{self.path}: its clock starts anew {times}; what follows goes on from there")
        if num_moved := self._num_moved_pts + self._order.num_moved:
            self._warn(f"{self.path}: {num_moved} timestamps did not increase and were moved on")
        if num_damaged := self.num_damaged - self._num_cut:
            self._warn(
                f"{self.path}: {num_damaged} damaged packet{'s' if num_damaged > 1 else ''}: "
                f"{self.num_repeated} frames repeat the one before, "
                f"{self._num_concealed} are shown as far as they could be decoded"
            )
        self._check_for_missing_end()
        yield Chunk(self._take_packets(), self._batch(frames) if frames else None)

    def other_packets(self) -> Iterator[Packet[Any]]:
        """The packets of the other streams alone, as `chunks` hands them out. Call it once, instead of `chunks`."""
        yield from self._take_packets()
        for packet in self._demux():
            if self._window.is_far_behind(packet):
                return
            if packet.size and packet.stream.index != self.stream.index:
                self._keep_packet(packet)
                yield from self._take_packets()

    def first_batch(self, num_frames: int) -> FrameBatch:
        """The first frame, `num_frames` times, to try something on. Before `chunks` is called."""
        assert self._first is not None
        info, planes = self.info, self._planes([self._fitted(self._first)] * num_frames)
        return FrameBatch(planes, tuple(range(num_frames)), (0,) * num_frames, info.time_base, info.color)

    def skip_through(self, last: FramePosition, *, search: bool) -> bool:
        """Make `chunks` go on after a frame that an earlier reader of the same part of the same file handed out.

        search: whether to go to a key frame before it, as far as the file can be searched, or to decode all again.
        Returns whether that frame is there, with the same samples. If not, the reader is of no more use.
        """
        if search:
            time_base = self.info.time_base
            target = last.pts + self._window.shift_ticks(time_base) - round(SEARCH_SECONDS / time_base)
            try:
                self.container.seek(target, stream=self.stream)
            except av.FFmpegError:
                return False
            self._frames.close()
            if self._alpha_decoder is not None:
                self._alpha_decoder.flush_buffers()
            self._clock = PacketClock(self.container)
            self._frames = self._decode()
            self._first = self._last_frame = self._last_pts = None
            self._awaited_pts.clear()
            self._shown = self._presented()
        shift = self._window.shift_ticks(self.info.time_base)
        for frame in self._shown:
            if pts_of(frame) - shift >= last.pts:
                break
            self._packets.clear()
        else:
            return False
        if search and self.num_damaged:  # by being torn out of its place, maybe
            return False
        batch = FrameBatch(self._planes([frame]), (pts_of(frame) - shift,), (0,), self.info.time_base, self.info.color)
        return FramePosition.of_last(batch) == last

    # -- opening ---------------------------------------------------------------------------------

    def _begin(self, gpu: int | None, start: Fraction | None, duration: Fraction | None) -> None:
        """Open the input and decode its first frame."""
        can_search = self.pipe is None or self.pipe.seekable()  # else all before the start is decoded, too
        self._first = self._first_frame(gpu, start, duration, search=can_search)
        if self._first is None and start is not None and self.pipe is None and self._last_pts is None:
            # A search in a short MPEG-TS ends behind its last key frame.
            self.container.close()
            self._packets.clear()
            self.tallies.clear()
            self._awaited_pts.clear()
            self._first = self._first_frame(gpu, start, duration, search=False)
        if self._first is None:
            raise InputError(f"{self.path}: {self._nothing_found()}")

    def _first_frame(
        self, gpu: int | None, start: Fraction | None, duration: Fraction | None, *, search: bool
    ) -> av.VideoFrame | None:
        """Open the input and decode up to its first frame in the part to read."""
        self.container = self._open()
        self.stream = self._main_stream()
        if gpu is not None:
            self._move_to_gpu(gpu)
        self._num_bytes = self.container.size if self.pipe is None else 0
        self._chroma_location = chroma_location_of_stream(self.container, self.stream.index)  # before threads decode
        self._clock, self._order = PacketClock(self.container), PacketOrder()
        self._window: Window = Window(self.container, start, duration)
        self._start_decoder(search)
        self._frames = self._decode()
        return next(self._frames, None)

    def _open(self) -> InputContainer:
        if self.pipe is not None:
            container = open_pipe(self.pipe, self.path, self._input_format)
            if container.format.name.endswith("_pipe") and self._input_format.framerate is None:
                self._warn(f"{self.path}: pictures, read as {DEFAULT_FRAMERATE} a second")
            return container
        if self.sequence is not None:
            if self._input_format.framerate is None:
                self._warn(f"{self.path}: {len(self.sequence.files)} pictures, read as {DEFAULT_FRAMERATE} a second")
            return open_sequence(self.sequence, self.path, self._input_format)
        return open_input(self.path, format_=self._input_format)

    def _main_stream(self) -> VideoStream:
        streams = self.container.streams.video
        moving = [s for s in streams if Disposition.attached_pic not in s.disposition]
        if not moving:
            kinds = ", ".join(s.type for s in self.container.streams) or "none"
            raise InputError(f"{self.path}: has no video stream (streams: {kinds})")
        chosen = self.chosen_streams
        wanted = [s for s in moving if s.index in chosen]
        if not wanted:
            raise OptionError(f"-map {' -map '.join(self._maps)}: takes no video; add -map 0:v")
        main = next((s for s in wanted if Disposition.default in s.disposition), wanted[0])
        if main.codec_context is None:
            raise InputError(f"{self.path}: this FFmpeg has no decoder for its video stream")
        return main

    def _move_to_gpu(self, gpu: int) -> None:
        """Open the file again with a decoder on a GPU; where that cannot be, all stays as it is, with a line."""
        codec = self.stream.codec_context.name
        if codec not in EXACT_ON_GPU:
            self._warn(f"{self.path}: decoded on the CPU: of a GPU's {codec}, samples may differ")
            return
        if self.pipe is not None:
            self._warn(f"{self.path}: decoded on the CPU: to open it again for a GPU, it has to be a file")
            return
        try:
            container = open_input(self.path, HWAccel("cuda", str(gpu), allow_software_fallback=True))
        except (av.FFmpegError, OSError, ValueError) as error:
            self._warn(f"{self.path}: decoded on the CPU: FFmpeg finds no CUDA decoder ({reason(error)})")
            return
        self.container.close()
        self.container = container
        self.stream = self._main_stream()

    def _start_decoder(self, search: bool) -> None:
        if self.sequence is None:
            self.stream.thread_type = "AUTO"  # frame threads where the codec has them, else slices
            self.stream.codec_context.thread_count = 0
        else:  # PyAV gives no frame of those that threads hold when one of them is damaged
            self.stream.codec_context.thread_count = 1
        self._alpha_decoder = decoder_with_alpha(self.stream)
        if self._window.start is not None and search:
            try:
                self.container.seek(self._window.seek_target(self.stream), stream=self.stream)
            except av.FFmpegError as error:
                raise InputError(f"{self.path}: cannot be searched for the start time ({reason(error)})") from error

    def _describe(self, frame: av.VideoFrame) -> VideoInfo:
        name = closest_native(frame.format)
        format_ = FORMATS[name]
        if name != frame.format.name:
            self._warn(f"{self.path}: pixel format {frame.format.name} is read as {name}")
        codec = self.stream.codec_context.name
        color, untagged = color_of_frame(frame, format_, codec, self._chroma_location)
        duration = self.container.duration
        start = self.stream.start_time
        time_base = frame.time_base or self.stream.time_base or Fraction(1, 90000)
        return VideoInfo(
            codec=self.stream.codec_context.name,
            pixel_format=format_,
            source_pixel_format=frame.format.name,
            width=frame.width,
            height=frame.height,
            color=color,
            untagged=untagged,
            time_base=time_base,
            average_rate=self.stream.average_rate or self.stream.guessed_rate,
            sample_aspect_ratio=self.stream.sample_aspect_ratio or None,
            display_matrix=display_matrix_of_frame(frame),
            rotation_degrees=frame.rotation,
            hdr=hdr_of_frame(frame),
            side_data_not_carried=side_data_not_carried(frame, self.stream.codec_context.name),
            interlaced=frame.interlaced_frame,
            start_seconds=None if start is None else start * time_base,
            duration_seconds=None if duration is None else duration / av.time_base,
            num_frames_from_header=self.stream.frames or None,
        )

    # -- reading ---------------------------------------------------------------------------------

    def _decode(self) -> Generator[av.VideoFrame, None, None]:
        """Frames of the window; packets of other streams gather in `_packets` on the way."""
        is_over = False  # the window's last frame is out; sound that lies later in the file may follow
        for packet in self._demux():
            if is_over and self._window.is_far_behind(packet):
                return
            if packet.stream.index != self.stream.index:  # stream_index is 0 in every flush packet
                if packet.size:  # flush packets are empty
                    self._keep_packet(packet)
                continue
            if is_over:
                continue
            for frame in self._decoded(packet):
                self._set_pts(frame)
                if is_over or self._window.ends_before(frame):
                    is_over = True
                elif self._window.holds(frame):
                    self._num_concealed += frame.is_corrupt
                    yield frame

    def _decoded(self, packet: Packet[Any]) -> Iterator[av.VideoFrame]:
        """The frames that a packet completes, each after stand-ins for those that damage took before it."""
        if packet.size and packet.pts is not None and not packet.is_discard:  # which is decoded for others' sake
            self._awaited_pts.add(packet.pts)
        self._num_torn += packet.is_corrupt
        try:
            frames = packet.decode() if self._alpha_decoder is None else self._alpha_decoder.decode(packet)
        except av.FFmpegError as error:
            if self.stream.codec_context.is_hwaccel:  # maybe no damage, but a GPU that is full or gone
                remedy = "--hwaccel none decodes on the CPU"
                raise InputError(f"{self.path}: the GPU's decoder failed ({reason(error)}); {remedy}") from error
            self._num_lost += 1
            frames = []  # with a decoder of many threads, at the end, those of sound packets too
        for frame in frames:
            if frame.pts is not None:
                self._awaited_pts.discard(frame.pts)
                yield from self._stand_ins(frame.pts, self._last_frame or frame)
            self._last_frame = frame
            yield frame
        if not packet.size and self._last_frame is not None:  # the end: nothing more will come
            yield from self._stand_ins(None, self._last_frame)

    def _stand_ins(self, before_pts: int | None, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Copies of `frame` for the packets up to a PTS that can no longer give one of their own.

        Decoders put frames out in the order of their PTS. Without damage, a packet that gives no frame of
        its own PTS is no loss: the second field of a picture, or a frame that is not to be shown.
        """
        overdue = sorted(pts for pts in self._awaited_pts if before_pts is None or pts < before_pts)
        self._awaited_pts.difference_update(overdue)
        for pts in overdue if self._num_lost else ():
            if self._last_pts is None or pts > self._last_pts:
                self.num_repeated += 1
                yield repeated(frame, pts)

    def _demux(self) -> Iterator[Packet[Any]]:
        try:
            for packet in self.container.demux():
                self._clock.carry_on(packet)
                if self.container.format.name in COUNTED_BY_BYTES and packet.size:
                    if packet.is_corrupt:  # the beginning of a frame
                        continue
                    self._last_byte = (packet.pos or 0) + packet.size
                yield packet
            self._check_for_shrinking()
            self._check_for_cut()
            self._check_for_late_streams()
        except IndexError:  # in PyAV, at the end of a file in which streams have turned up since it was opened
            self._check_for_late_streams()
        except av.InvalidDataError as error:
            self._check_for_shrinking()
            if self._last_pts is not None:  # else an error will say that there is nothing
                self._warn(f"{self.path}: reading stopped at damaged data ({reason(error)})")
            self._num_lost += 1
            yield self._end_of_stream()
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: reading failed ({reason(error)})") from error

    def _end_of_stream(self) -> Packet[Any]:
        """What makes the decoder hand out the frames that it holds back."""
        packet: Packet[Any] = Packet()
        packet.stream, packet.time_base = self.stream, self.stream.time_base or Fraction(1, 90000)
        return packet

    def _check_for_shrinking(self) -> None:
        """At the end: whether the file was longer when it was opened."""
        if self.pipe is None and self.container.size < self._num_bytes:
            raise InputError(f"{self.path}: has become shorter while it was read; start again when it is complete")

    def _check_for_missing_end(self) -> None:
        """Where a header promises far more than there is, the file may be incomplete; or its header is wrong."""
        promised, end = self.info.duration_seconds, self._clock.end_seconds
        is_promised = self.pipe is None and self.container.format.name in WITH_DURATION and self._window.end is None
        if is_promised and promised is not None and end is not None and end < promised - MISSING_SECONDS:
            self._warn(
                f"{self.path}: its header promises {promised:g} s, and there are {float(end):g} s; "
                "is the file complete?"
            )

    def _check_for_cut(self) -> None:
        """At the end of what has nothing but frames: whether there is a part of one more."""
        if self.container.format.name not in COUNTED_BY_BYTES:
            return
        if self.pipe is None or self.pipe.seekable():
            num_bytes, remedy = self.container.size, "is the file complete?"
        else:
            num_bytes, remedy = self.pipe.num_bytes, "did the program before vsr fail?"
        if num_bytes > self._last_byte and not (self.pipe is not None and self.pipe.is_interrupted):
            self._warn(f"{self.path}: ends in the middle of a frame, which is left out; {remedy}")
            self._num_cut = 1

    def _check_for_late_streams(self) -> None:
        """At the end: whether there were streams that the start of the input did not show."""
        if not set(self.container.format.name.split(",")) & WITHOUT_LIST_OF_STREAMS:
            return
        num_late = num_streams_by_now(self.container) - len(self.container.streams)
        if num_late > 0:
            self._warn(
                f"{self.path}: {num_late} streams that begin later are left out; "
                "ffmpeg -analyzeduration 1G -probesize 1G -c copy to .mkv first finds them"
            )
            self._num_cut += num_late

    def _time_sound(self, packet: Packet[Any]) -> None:
        """Give a packet of sound without a time, as short streams from a pipe have them, that after the one before."""
        context = packet.stream.codec_context
        if packet.stream.type != "audio" or context is None:
            return
        if packet.dts is None and packet.pts is None:
            packet.pts = packet.dts = self._sound_ends.get(packet.stream.index)
        time = packet.dts if packet.dts is not None else packet.pts
        if time is not None and context.frame_size and context.sample_rate:
            length = packet.duration or round(Fraction(context.frame_size, context.sample_rate) / packet.time_base)
            self._sound_ends[packet.stream.index] = time + length

    def _keep_packet(self, packet: Packet[Any]) -> None:
        self._time_sound(packet)
        if self._window.holds_packet(packet):
            self._order.put(packet)
            self._packets.append(packet)
            self.tallies.setdefault(packet.stream.index, StreamTally()).add(packet)

    def _set_pts(self, frame: av.VideoFrame) -> None:
        """Give every frame a PTS that is greater than the last, touching only those that lack it."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            pts = 0 if self._last_pts is None else self._last_pts + self._frame_ticks(frame)
        if self._last_pts is not None and pts <= self._last_pts:
            if frame.pts is not None:
                self._num_moved_pts += 1
                pts = self._last_pts + 1
            else:
                pts = self._last_pts + self._frame_ticks(frame)
        frame.pts = self._last_pts = pts

    def _frame_ticks(self, frame: av.VideoFrame) -> int:
        """The length of a frame whose container has no timestamps (raw H.264): its own or the nominal."""
        if frame.duration:
            return frame.duration
        rate = self.stream.guessed_rate or self.stream.average_rate or Fraction(25)
        return max(1, round(1 / (rate * (frame.time_base or Fraction(1, 90000)))))

    def _all_frames(self) -> Iterator[av.VideoFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def _take_packets(self) -> tuple[Packet[Any], ...]:
        packets, self._packets = tuple(self._packets), []
        return packets

    def _presented(self) -> Iterator[av.VideoFrame]:
        """All frames as they are to be seen: of one size and format, without fields."""
        frames: Iterator[av.VideoFrame]
        frames = (self._fitted(frame) for frame in self._all_frames())
        if not self._may_deinterlace:
            return frames
        return deinterlaced(frames, self._deinterlace_every_frame, self._begin_deinterlacing)

    def _begin_deinterlacing(self, frame: av.VideoFrame) -> None:
        if not self.is_deinterlaced:  # as the first frame told
            seconds = float(pts_of(frame) * self.info.time_base)
            self._warn(f"{self.path}: interlaced from {seconds:g} s on; deinterlaced by bwdif from there")

    def _planes(self, frames: list[av.VideoFrame]) -> tuple[Tensor, ...]:
        info = self.info
        planes = allocate_planes(info.pixel_format, len(frames), info.height, info.width)
        for position, frame in enumerate(frames):
            load_planes(frame, info.pixel_format, planes, position)
        return planes

    def _batch(self, frames: list[av.VideoFrame]) -> FrameBatch:
        info = self.info
        shift = self._window.shift_ticks(info.time_base)
        self.pts.extend(pts_of(f) - shift for f in frames)
        return FrameBatch(
            self._planes(frames),
            tuple(pts_of(f) - shift for f in frames),
            tuple(f.duration or 0 for f in frames),
            info.time_base,
            info.color,
        )

    def _fitted(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame in the format and size of the first one, by one swscale pass where it differs."""
        info = self.info
        if frame.format.name == info.pixel_format.name and (frame.width, frame.height) == (info.width, info.height):
            return frame
        size = (frame.width, frame.height)
        if size != (info.width, info.height) and size not in self._strange_sizes:
            self._strange_sizes.add(size)
            self._warn(
                f"{self.path}: the picture changes size to {frame.width}x{frame.height}; "
                f"scaled to the first size, {info.width}x{info.height}"
            )
        if frame.format.name not in (info.source_pixel_format, *self._strange_formats):
            self._strange_formats.add(frame.format.name)
            self._warn(
                f"{self.path}: the pixel format changes to {frame.format.name}; "
                f"turned into the first one, {info.pixel_format.name}"
            )
        options: dict[str, Any] = {}
        if info.pixel_format.kind != "rgb":  # the samples keep their meaning: no matrix or range change
            options = {"src_colorspace": "DEFAULT", "dst_colorspace": "DEFAULT"}
        # One thread: swscale's slices overwrite the start of one another's rows at odd widths (FFmpeg 8.1).
        return frame.reformat(
            info.width, info.height, info.pixel_format.name, interpolation="LANCZOS", threads=1, **options
        )

    def _nothing_found(self) -> str:
        if self._last_pts is not None:  # frames there are, but outside the window
            return f"has no frame at or after {float(self._window.start or 0):g} s; start earlier"
        if self.pipe is not None and not self.pipe.seekable() and "mp4" in self.container.format.name.split(","):
            return "its index comes last, which a pipe cannot go back from; add -movflags +faststart, or send NUT"
        damage = f" ({self.num_damaged} damaged packets)" if self.num_damaged else ""
        return f"no video frame could be decoded{damage}"
