"""Decode the packets of a video stream."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.packet import Packet
from av.video.stream import VideoStream

from vsr.errors import InputError, reason
from vsr.media.av_frames import copy_frame
from vsr.media.pyav_fixes import choose_decoding_threads, flush_decoder
from vsr.media.read.alpha_decoder import decoder_with_alpha

__all__ = ["EXACT_ON_GPU", "Decoder", "HwAccelMode"]

HwAccelMode = Literal["none", "auto", "cuda"]
EXACT_ON_GPU = ("h264", "hevc")  # their standards fix every decoded sample, so that a GPU gives the same
USUAL_TIME_BASE = Fraction(1, 90000)
USUAL_RATE = Fraction(25)


class Decoder:
    """Turn packets of a video stream into frames in presentation order, each with a PTS greater than the last.

    A packet that damage leaves without a frame is replaced by a copy of the frame before.

    last_pts: of the last frame decoded, in the stream's ticks; None before the first.
    num_torn: packets that the demuxer knows to be incomplete, or the ones before such.
    num_lost: packets that gave no frame.
    num_repeated: frames in the place of those that could not be decoded.
    num_moved_pts: frames whose PTS did not increase and was moved on.
    """

    def __init__(self, stream: VideoStream, path: Path, *, one_by_one: bool) -> None:
        """Prepare the stream's decoder.

        Args:
            stream: of a container that was just opened.
            path: of the input, for messages.
            one_by_one: decode in one thread, for images of which any may be damaged.
        """
        self.last_pts: int | None = None
        self.num_torn = self.num_lost = self.num_repeated = self.num_moved_pts = 0
        self._stream, self._path = stream, path
        self._last_frame: av.VideoFrame | None = None
        self._awaited_pts: set[int] = set()  # of packets that were decoded and have given no frame yet
        choose_decoding_threads(stream, one_by_one=one_by_one)
        self._alpha_decoder = decoder_with_alpha(stream)

    @property
    def is_on_gpu(self) -> bool:
        """True where the stream was given to a GPU to decode."""
        return self._stream.codec_context.is_hwaccel

    def decode(self, packet: Packet[Any]) -> Iterator[av.VideoFrame]:
        """Decode a packet; hand out the frames that it completes. Raises InputError where a GPU fails."""
        if not packet.size:  # to FFmpeg's decoders an empty packet is the end
            self.num_lost += 1
            return
        if packet.pts is not None and not packet.is_discard:  # discarded frames are decoded as references only
            self._awaited_pts.add(packet.pts)
        self.num_torn += packet.is_corrupt
        try:
            frames = packet.decode() if self._alpha_decoder is None else self._alpha_decoder.decode(packet)
        except av.FFmpegError as error:
            self._count_failure(error)
            return
        yield from self._in_order(frames)

    def flush(self) -> Iterator[av.VideoFrame]:
        """Hand out the frames that the decoder holds back, at the end of the stream."""
        context = self._alpha_decoder or self._stream.codec_context
        try:
            frames = flush_decoder(context, self._stream.time_base or USUAL_TIME_BASE)
        except av.FFmpegError as error:
            self._count_failure(error)
            frames = []  # with many threads, also those of sound packets
        yield from self._in_order(frames)
        if self._last_frame is not None:
            yield from self._stand_ins(None, self._last_frame)

    def reset(self) -> None:
        """Forget all packets and frames, after a seek. The counts stay."""
        if self._alpha_decoder is not None:
            self._alpha_decoder.flush_buffers()
        self._last_frame = self.last_pts = None
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
                self._awaited_pts.discard(frame.pts)
                yield from self._stand_ins(frame.pts, self._last_frame or frame)
            self._last_frame = frame
            self._set_pts(frame)
            yield frame

    def _stand_ins(self, before_pts: int | None, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Copy `frame` for each packet before a PTS that can no longer give one of its own; None for the end.

        Decoders put frames out in the order of their PTS. Without damage, a packet that gives no frame of
        its own PTS is no loss: the second field of a picture, or a frame that is not to be shown.
        """
        overdue = sorted(pts for pts in self._awaited_pts if before_pts is None or pts < before_pts)
        self._awaited_pts.difference_update(overdue)
        for pts in overdue if self.num_lost else ():
            if self.last_pts is None or pts > self.last_pts:
                self.num_repeated += 1
                copy = copy_frame(frame, pts)
                self._set_pts(copy)
                yield copy

    def _set_pts(self, frame: av.VideoFrame) -> None:
        """Give a frame a PTS that is greater than the last, touching only a frame that lacks it."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            pts = 0 if self.last_pts is None else self.last_pts + self._frame_ticks(frame)
        if self.last_pts is not None and pts <= self.last_pts:
            if frame.pts is not None:
                self.num_moved_pts += 1
                pts = self.last_pts + 1
            else:
                pts = self.last_pts + self._frame_ticks(frame)
        frame.pts = self.last_pts = pts

    def _frame_ticks(self, frame: av.VideoFrame) -> int:
        """Return the length of a frame whose container has no timestamps (raw H.264): its own or the nominal."""
        if frame.duration:
            return frame.duration
        rate = self._stream.guessed_rate or self._stream.average_rate or USUAL_RATE
        return max(1, round(1 / (rate * (frame.time_base or USUAL_TIME_BASE))))
