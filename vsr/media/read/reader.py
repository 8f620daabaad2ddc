"""Read a video as batches of native planes, and the packets of its other streams beside them."""

from __future__ import annotations

import contextlib
import hashlib
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.packet import Packet

from vsr.color.pixel_formats import FORMATS
from vsr.events import Note, NoteCode, OnNote, Waking
from vsr.frames import FrameBatch
from vsr.media.av_frames import load_batch, pts_of
from vsr.media.captions import Captions
from vsr.media.endpoints import Source, parse_source
from vsr.media.packet_checksum import StreamChecksum
from vsr.media.read.deinterlace import Deinterlacer
from vsr.media.read.frame_fitter import FrameFitter
from vsr.media.read.gif_alpha import is_opaque_gif
from vsr.media.read.options import InputOptions
from vsr.media.read.trimmed_input import Frames, TrimmedInput
from vsr.media.read.video_info import VideoInfo, describe_video

__all__ = ["Chunk", "FramePosition", "VideoReader"]

SEARCH_SECONDS = 1  # before a frame that is looked for, so that the deinterlacer has its neighbours


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next part of a file: packets of the other streams, then frames.

    packets: those that lie before the last of the frames and were not handed over yet; of bounded size.
    batch: the frames; None for packets alone, where a long stretch of the file has no frames, and at its end.
    is_beside: whether the frames lie before the part that is wanted, for networks that see them.
    """

    packets: tuple[Packet[Any], ...]
    batch: FrameBatch | None
    is_beside: bool = False


@dataclass(frozen=True, slots=True)
class FramePosition:
    """A frame to find again: its PTS as it was handed out, and the SHA-256 of its planes."""

    pts: int
    sha256: str

    @classmethod
    def of_last(cls, batch: FrameBatch) -> Self:
        """Take the position of the last frame in a batch."""
        digest = hashlib.sha256()
        for plane in batch.planes:
            digest.update(plane[-1].contiguous().numpy().data)
        return cls(batch.pts[-1], digest.hexdigest())


class VideoReader:
    """Decode the main video stream of a file, of stdin or of images, lazily and in presentation order.

    path, pipe, images, container, stream: as `Demuxer` has them.
    info: properties of the video.  is_deinterlaced: whether the first frame is.  is_doubled: whether fields are frames.
    other_streams: all but the decoded one, in the order of the file.  chosen_streams: indices of those wanted.
    covers: attached images, each a whole file of its kind, by the index of their stream.
    shift_seconds: taken off every timestamp: the start of the part that is read, else zero.
    duration_limit_seconds: the end of that part on the output's clock; None for the end of the file.
    pts: of every frame handed out, in ticks on the output's clock.  captions: of those that nobody has taken yet.
    """

    def __init__(
        self,
        source: Path | Source,
        options: InputOptions | None = None,
        *,
        gpu: int | None = None,
        warn: OnNote = lambda line: None,
        waking: Waking = contextlib.nullcontext,
    ) -> None:
        """Open an input and decode its first frame. Use as a context manager.

        Args:
            source: a file, stdin or images; a path stands for what `parse_source` finds.
            options: how to read it.
            gpu: index of the CUDA GPU that decodes, where it gives the same samples; None for the CPU.
            warn: called with one line for anything out of the ordinary.
            waking: as `Canceller.waking`; takes what ends the wait for a pipe, while the input is opened.

        Raises InputError where no frame can be decoded.
        """
        options = options or InputOptions()
        self._warn = warn
        self._input = TrimmedInput(
            parse_source(source) if isinstance(source, Path) else source, options, gpu, warn, waking
        )
        demuxer, trim = self._input.demuxer, self._input.trim
        self.path, self.pipe, self.images = demuxer.path, demuxer.pipe, demuxer.images
        self.container, self.stream = demuxer.container, demuxer.stream
        self.other_streams, self.chosen_streams = demuxer.other_streams, demuxer.chosen_streams
        self.covers = self._input.covers
        self.shift_seconds, self.duration_limit_seconds = trim.shift_seconds, trim.duration_limit_seconds
        self.pts: array[int] = array("q")  # 8 bytes a frame
        self.captions = Captions()
        try:
            self.info = info = self._describe()
            self.is_doubled = options.deinterlace == "double"
            if self.is_doubled:
                self.info = info = info.at_field_rate()
            is_always = self.is_doubled or options.deinterlace == "on"
            self.is_deinterlaced = is_always or (options.deinterlace == "auto" and info.interlaced)
            self._deinterlace = options.deinterlace
            self._fitter = FrameFitter(self.path, info, warn)
            self._shown = self._show()
        except BaseException:
            self._input.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the input, once no thread reads it any more."""
        self._shown.close()
        self._input.close()

    def interrupt(self) -> None:
        """End a read that waits for a pipe, from any thread; the input ends there. For a job that stops."""
        self._input.demuxer.interrupt()

    @property
    def num_damaged(self) -> int:
        """The number of video packets, so far, that could not be decoded wholly; a cut one at the end too."""
        return self._input.num_damaged + self._input.demuxer.num_missing

    @property
    def checksums(self) -> dict[int, StreamChecksum]:
        """The checksums of all packets handed over so far, by the index of their stream."""
        return self._input.others.checksums

    def chunks(self, batch_size: int) -> Iterator[Chunk]:
        """Read the whole file once, `batch_size` frames at a time (fewer at the end). Call it once.

        A chunk of packets alone comes wherever more of them are gathered than are to be held.
        """
        frames: list[av.VideoFrame] = []
        for frame in self._shown:
            if frame is None:
                yield Chunk(self._input.others.take(), None)
                continue
            frames.append(frame)
            if len(frames) == batch_size:
                yield Chunk(self._input.others.take(), self._next_batch(frames))
                frames = []
        self._input.warn_of_repairs()
        yield Chunk(self._input.others.take(), self._next_batch(frames) if frames else None)

    def other_packets(self) -> Iterator[Packet[Any]]:
        """Read the packets of the other streams alone. Call it once, instead of `chunks`."""
        return self._input.other_packets()

    def first_batch(self, num_frames: int) -> FrameBatch:
        """Return the first frame, `num_frames` times, to try something on."""
        info, frame = self.info, self._fitter.fit(self._input.first)
        planes = load_batch([frame] * num_frames, info.pixel_format)
        return FrameBatch(planes, tuple(range(num_frames)), (0,) * num_frames, info.time_base, info.color)

    def skip_through(self, last: FramePosition, *, search: bool) -> bool:
        """Make `chunks` go on after a frame that an earlier reader of the same part of the same file handed out.

        Args:
            last: the frame.
            search: go to a key frame before it, where the file can be searched, instead of decoding all again.

        Returns whether that frame is there, with the same samples. If not, the reader is of no more use.
        """
        return self.skip_to(last.pts, search=search) == last

    def skip_to(self, pts: int, *, search: bool) -> FramePosition | None:
        """Make `chunks` go on after the first frame that has a PTS, or a later one; return which it is.

        pts: in ticks on the output's clock.  search: as in `skip_through`.
        Returns None where there is no such frame, and where it may not be whole. Then the reader is of no more use.
        """
        shift = self._input.trim.shift_ticks(self.info.time_base)
        if search:
            seconds = (pts + shift) * self.info.time_base - SEARCH_SECONDS
            if not self._input.seek(math.floor(seconds / (self.stream.time_base or self.info.time_base))):
                return None
            self._shown.close()
            self._shown = self._show()
        for frame in self._shown:
            if frame is not None and pts_of(frame) - shift >= pts:
                break
            self._input.others.take()
        else:
            return None
        if search and self.num_damaged:  # by being torn out of its place, maybe
            return None
        return FramePosition.of_last(self._batch([frame]))

    def _describe(self) -> VideoInfo:
        """Describe the video; say where its frames are not read as the file has them, or not where they should."""
        info = describe_video(self.container, self.stream, self._input.first, self._input.chroma_location)
        if info.codec == "gif" and self.pipe is None and self.images is None and is_opaque_gif(self.path):
            info = replace(info, pixel_format=FORMATS["rgb24"])
        if info.pixel_format.name != info.source_pixel_format:
            self._warn(
                Note(
                    NoteCode.INPUT,
                    f"{self.path}: pixel format {info.source_pixel_format} is read as {info.pixel_format.name}",
                )
            )
        if self._input.decoder.is_on_gpu and info.pixel_format.layout != "semiplanar":
            # FFmpeg has turned to its own decoder by itself: frames of GPUs are nv12, p010 and their like.
            text = f"{self.path}: decoded on the CPU: the GPU does not take {info.source_pixel_format}"
            text += '; `hwaccel="none"` does it with more threads'
            self._warn(Note(NoteCode.INPUT, text))
        return info

    def _show(self) -> Frames:
        """Make the frames to be decoded ready to be seen: of one size and format, without fields."""
        if self._deinterlace == "off":
            for frame in self._input.frames:
                yield None if frame is None else self._fitter.fit(frame)
            return
        deinterlacer = Deinterlacer(
            every_frame=self._deinterlace != "auto", every_field=self.is_doubled, on_begin=self._warn_of_fields
        )
        for frame in self._input.frames:
            if frame is None:
                yield None
            else:
                yield from self._in_part(deinterlacer.push(self._fitter.fit(frame)))
        yield from self._in_part(deinterlacer.flush())

    def _in_part(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Leave out the frames made of fields before and after the part; both may be of one decoded frame."""
        trim = self._input.trim
        return (f for f in frames if not (self.is_doubled and (trim.begins_after(f) or trim.ends_before(f))))

    def _warn_of_fields(self, frame: av.VideoFrame) -> None:
        """Say where deinterlacing begins, if the first frame did not tell that it would."""
        if not self.is_deinterlaced:
            seconds = float(pts_of(frame) * self.info.time_base)
            text = f"{self.path}: interlaced from {seconds:g} s on; deinterlaced by bwdif from there"
            self._warn(Note(NoteCode.INPUT, text))

    def _next_batch(self, frames: list[av.VideoFrame]) -> FrameBatch:
        """Make the next batch to hand out."""
        batch = self._batch(frames)
        self.pts.extend(batch.pts)
        for frame, pts in zip(frames, batch.pts, strict=True):
            self.captions.keep(frame, pts)
        return batch

    def _batch(self, frames: list[av.VideoFrame]) -> FrameBatch:
        """Copy frames to the planes of a batch, on the output's clock."""
        info, shift = self.info, self._input.trim.shift_ticks(self.info.time_base)
        pts, durations = tuple(pts_of(f) - shift for f in frames), tuple(f.duration or 0 for f in frames)
        return FrameBatch(load_batch(frames, info.pixel_format), pts, durations, info.time_base, info.color)
