"""Decode the packets of a video stream."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vsr.errors import InputError, reason
from vsr.events import OnNote
from vsr.media.av_frames import copy_frame, pts_of
from vsr.media.pyav_fixes import choose_decoding_threads, flush_decoder
from vsr.media.read.alpha_decoder import decoder_with_alpha
from vsr.media.read.gpu_frames import GpuFrames

__all__ = ["EXACT_ON_GPU", "Decoder", "HwAccelMode"]

HwAccelMode = Literal["none", "auto", "cuda"]
EXACT_ON_GPU = ("h264", "hevc")  # their standards fix every decoded sample, so that a GPU gives the same
USUAL_TIME_BASE = Fraction(1, 90000)
USUAL_RATE = Fraction(25)
# Frames that are held back, so that later ones can go before them: four sort three levels of B-frames whose decoder
# was told of none. A GPU's decoder has few places for frames.
MOST_WAITING, MOST_WAITING_ON_GPU = 4, 2


class Decoder:
    """Turn packets of a video stream into frames in presentation order, each with a PTS greater than the last.

    A packet that damage leaves without a frame is replaced by a copy of the frame before.

    last_pts: of the last frame decoded, in the stream's ticks; None before the first.
    num_torn: packets that the demuxer knows to be incomplete, or the ones before such.
    num_lost: packets that gave no frame.
    num_repeated: frames in the place of those that could not be decoded.
    num_moved_pts: frames whose PTS did not increase and was moved on.
    num_reordered: frames that came after one that is shown later, and were put in order.
    is_timed: whether the first frame has a time from the file; else it is taken for zero.
    """

    def __init__(self, stream: VideoStream, path: Path, warn: OnNote, *, one_by_one: bool) -> None:
        """Prepare the stream's decoder.

        Args:
            stream: of a container that was just opened.
            path: of the input, for messages.
            warn: called with one line where frames of a GPU are fetched the slower way.
            one_by_one: decode in one thread, for images of which any may be damaged.
        """
        self.last_pts: int | None = None
        self.num_torn = self.num_lost = self.num_repeated = self.num_moved_pts = self.num_reordered = 0
        self.is_timed = True
        self._waiting: list[av.VideoFrame] = []  # in the order in which they are shown
        self._newest_pts: int | None = None  # of the frames that the decoder gave
        self._stream, self._path = stream, path
        self._last_frame: av.VideoFrame | None = None
        self._has_begun = False
        self._repeats: list[int] = []  # the PTS of frames that are like the ones before, in ascending order
        self._awaited_pts: set[int] = set()  # of packets that were decoded and have given no frame yet
        choose_decoding_threads(stream, one_by_one=one_by_one)
        self._alpha_decoder = decoder_with_alpha(stream)
        self._gpu_frames = GpuFrames(path, warn)

    @property
    def is_on_gpu(self) -> bool:
        """True where the stream was given to a GPU to decode."""
        return self._stream.codec_context.is_hwaccel

    def decode(self, packet: Packet[Any]) -> Iterator[av.VideoFrame]:
        """Decode a packet; hand out the frames that it completes. Raises InputError where a GPU fails."""
        if not packet.size:  # to FFmpeg's decoders an empty packet is the end
            if self._stream.codec_context.name == "theora" and packet.pts is not None and self._has_begun:
                self._repeats.append(packet.pts)  # in Theora it is a frame like the one before
            else:
                self.num_lost += 1
            return
        self._has_begun = True
        if packet.pts is not None and not packet.is_discard:  # discarded frames are decoded as references only
            self._awaited_pts.add(packet.pts)
        self.num_torn += packet.is_corrupt
        try:
            frames = packet.decode() if self._alpha_decoder is None else self._alpha_decoder.decode(packet)
            frames = [self._gpu_frames.fetch(frame) for frame in frames]
        except av.FFmpegError as error:
            self._count_failure(error)
            return
        yield from self._in_order(frames)

    def flush(self) -> Iterator[av.VideoFrame]:
        """Hand out the frames that the decoder holds back, at the end of the stream."""
        context = self._alpha_decoder or self._stream.codec_context
        try:
            frames = flush_decoder(context, self._stream.time_base or USUAL_TIME_BASE)
            frames = [self._gpu_frames.fetch(frame) for frame in frames]
        except av.FFmpegError as error:
            self._count_failure(error)
            frames = []  # with many threads, also those of sound packets
        yield from self._in_order(frames)
        if self._last_frame is not None:
            yield from self._repeated(None)
            yield from self._stand_ins(None, self._last_frame)
        while self._waiting:
            yield self._shown(self._waiting.pop(0))

    def reset(self) -> None:
        """Forget all packets and frames, after a seek. The counts stay."""
        if self._alpha_decoder is not None:
            self._alpha_decoder.flush_buffers()
        self._last_frame = self.last_pts = self._newest_pts = None
        self.is_timed = True
        self._waiting.clear()
        self._repeats.clear()
        self._has_begun = False
        self._awaited_pts.clear()

    def _count_failure(self, error: av.FFmpegError) -> None:
        """Take a packet for damaged, unless a GPU decodes, which may be full or gone instead."""
        if self.is_on_gpu:
            remedy = '`hwaccel="none"` decodes on the CPU'
            raise InputError(f"{self._path}: the GPU's decoder failed ({reason(error)}); {remedy}") from error
        self.num_lost += 1

    def _in_order(self, frames: list[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Hand out frames, each after stand-ins for those that damage took before it."""
        for frame in frames:
            if frame.pts is not None:
                yield from self._repeated(frame.pts)
                self._awaited_pts.discard(frame.pts)
                yield from self._stand_ins(frame.pts, self._last_frame or frame)
            self._last_frame = frame
            yield from self._sorted(frame)

    def _repeated(self, before_pts: int | None) -> Iterator[av.VideoFrame]:
        """Copy the last frame for each that is like it and is shown before a PTS; None for the end."""
        while self._repeats and (before_pts is None or self._repeats[0] < before_pts):
            pts = self._repeats.pop(0)
            if self._last_frame is not None:
                yield from self._sorted(copy_frame(self._last_frame, pts))

    def _stand_ins(self, before_pts: int | None, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Copy `frame` for each packet before a PTS that can no longer give one of its own; None for the end.

        Decoders put frames out in the order of their PTS. Without damage, a packet that gives no frame of
        its own PTS is no loss: the second field of a picture, or a frame that is not to be shown.
        """
        overdue = sorted(pts for pts in self._awaited_pts if before_pts is None or pts < before_pts)
        self._awaited_pts.difference_update(overdue)
        for pts in overdue if self.num_lost else ():
            if self._newest_pts is None or pts > self._newest_pts:
                self.num_repeated += 1
                yield from self._sorted(copy_frame(frame, pts))

    def _sorted(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Take a frame of the decoder, and hand out the one that is shown first of those that wait.

        Some files give the frames of a video, in the order in which they are shown, times that swap places.
        """
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None or (frame.pts is None and self._newest_pts is not None and pts <= self._newest_pts):
            self.is_timed = self.is_timed and (pts is not None or self._newest_pts is not None)
            pts = 0 if self._newest_pts is None else self._newest_pts + self._frame_ticks(frame)
        frame.pts = pts
        self.num_reordered += self._newest_pts is not None and pts < self._newest_pts
        self._newest_pts = pts if self._newest_pts is None else max(pts, self._newest_pts)
        bisect.insort(self._waiting, frame, key=pts_of)
        if len(self._waiting) > (MOST_WAITING_ON_GPU if self.is_on_gpu else MOST_WAITING):
            yield self._shown(self._waiting.pop(0))

    def _shown(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Give a frame that is handed out a PTS greater than the last."""
        if self.last_pts is not None and pts_of(frame) <= self.last_pts:
            self.num_moved_pts += 1
            frame.pts = self.last_pts + 1
        self.last_pts = frame.pts
        return frame

    def _frame_ticks(self, frame: av.VideoFrame) -> int:
        """Return the length of a frame whose container has no timestamps (raw H.264): its own or the nominal."""
        if frame.duration:
            return frame.duration
        rate = self._stream.guessed_rate or self._stream.average_rate or USUAL_RATE
        return max(1, round(1 / (rate * (frame.time_base or USUAL_TIME_BASE))))
