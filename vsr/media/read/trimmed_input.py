"""Decode the wanted part of an input."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet

from vsr.errors import InputError
from vsr.events import Note, NoteCode, OnNote, Waking, counted
from vsr.media.av_frames import pts_of
from vsr.media.endpoints import Source
from vsr.media.pipe import run_in_thread
from vsr.media.pyav_fixes import read_chroma_location
from vsr.media.read.decoder import Decoder
from vsr.media.read.demuxer import Demuxer
from vsr.media.read.options import InputOptions
from vsr.media.read.other_packets import OtherPackets
from vsr.media.read.trim import INTERLEAVE_SECONDS, TrimRange

__all__ = ["Frames", "TrimmedInput"]

SECONDS_TO_RECOVER = 2  # after which a decoder that began at no key frame, but where rows are renewed, has them all
LATE_AUDIO_SECONDS = Fraction(1, 10)  # after the start, where its packets may lie before the place that was found

Frames = Generator[av.VideoFrame | None, None, None]  # None: no frame yet, but packets of other streams to be taken


class TrimmedInput:
    """Decode the frames of the wanted part of an input, and gather the packets of its other streams.

    frames: those of the part, from the first on, as the decoder gives them. Where a frame is to be made of each field,
        also the two before it and the one after it, which have a field in the part or stand beside one that has.
    first: the first of them.  others: packets of the other streams that were met on the way.
    covers: attached images, each a whole file of its kind, by the index of their stream.
    demuxer, decoder, trim, chroma_location: of the opened input.
    """

    frames: Frames

    def __init__(
        self,
        source: Source,
        options: InputOptions,
        gpu: int | None,
        warn: OnNote,
        waking: Waking = contextlib.nullcontext,
    ) -> None:
        """Open an input and decode its first frame. Arguments as `VideoReader` takes them."""
        self._warn, self._gpu, self._options = warn, gpu, options
        self.demuxer = Demuxer(source, options.format, options.maps, warn)
        self._num_concealed = 0  # frames of the part that the decoder guessed in part
        self._before: deque[av.VideoFrame] = deque(maxlen=2 if options.deinterlace == "double" else 0)
        try:
            if self.demuxer.pipe is None:
                self._begin()
            else:
                with waking(self.demuxer.interrupt):
                    run_in_thread(self._begin, self.demuxer.interrupt)
        except BaseException:
            self.demuxer.close()
            raise

    def close(self) -> None:
        """Close the input, once no thread reads it any more."""
        self.frames.close()
        self.demuxer.close()

    @property
    def num_damaged(self) -> int:
        """The number of video packets, so far, that could not be decoded wholly."""
        return max(self.decoder.num_torn, self.decoder.num_lost + self._num_concealed)

    def seek(self, ticks: int) -> bool:
        """Go to a key frame at or before a time in the stream's ticks; return False where that cannot be done."""
        try:
            self.demuxer.seek(ticks)
        except av.FFmpegError:
            return False
        self.frames.close()
        self.decoder.reset()
        self.others.forget_order()
        self.frames = self._decode()
        return True

    def other_packets(self) -> Iterator[Packet[Any]]:
        """Read the packets of the other streams alone, instead of the frames."""
        yield from self.others.take()
        for packet in self.demuxer.packets():
            if self.trim.ends_long_before(packet):
                return
            if packet.stream.index != self.demuxer.stream.index:
                self.others.add(packet)
                yield from self.others.take()

    def warn_of_repairs(self) -> None:
        """Say which timestamps and frames were repaired, and whether the end is missing. After the last frame."""
        path = self.demuxer.path
        clock = self.demuxer.clock
        if clock.num_restarts:
            times = "once" if clock.num_restarts == 1 else f"{clock.num_restarts} times"
            text = f"{path}: its clock starts anew {times}; what follows goes on from there"
            self._warn(Note(NoteCode.TIMESTAMPS, text))
        for jump in clock.jump_seconds:
            text = f"{path}: its clock jumps ahead by {float(jump):g} s; what follows goes on from there"
            self._warn(Note(NoteCode.TIMESTAMPS, text))
        if num_moved := self.decoder.num_moved_pts + self.others.num_moved:
            self._warn(
                Note(NoteCode.TIMESTAMPS, f"{path}: {counted(num_moved, 'timestamp')} did not increase: moved on")
            )
        if num_reordered := self.decoder.num_reordered:
            text = f"{path}: {counted(num_reordered, 'frame')} came after one that is shown later: put in order"
            self._warn(Note(NoteCode.TIMESTAMPS, text))
        if num_damaged := self.num_damaged:
            self._warn(
                Note(
                    NoteCode.DAMAGE,
                    f"{path}: {counted(num_damaged, 'damaged packet')}; frames that repeat the one before: "
                    f"{self.decoder.num_repeated}; shown as far as they could be decoded: {self._num_concealed}",
                )
            )
        if self.trim.end is None:
            self.demuxer.check_for_missing_end()

    # -- opening ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Open the input and decode its first frame."""
        for seconds_before in self._search_steps():
            first = self._first_frames(seconds_before)
            if seconds_before is None or (first and self._is_exact(seconds_before)):
                break
        if not first:
            raise InputError(f"{self.demuxer.path}: {self._nothing_found()}")
        self.first, self.covers = first[-1], self.others.covers
        if self._is_overfull:
            self._open(seconds_before)
        else:
            self.frames = _prepended(first, self.frames)

    def _search_steps(self) -> Iterator[int | None]:
        """Give the seconds before the start of the part to search for, one after another; None for the beginning.

        A search does not always end where it should: few containers list their key frames, many places in them are no
        key frames, and frames that are shown before a key frame may need what lies before it.
        """
        start = self._options.start_seconds
        if start and self.demuxer.can_seek:  # a pipe is opened once
            self.demuxer.open(self._gpu)
            seconds, last = 0, start if self.demuxer.can_be_searched() else 0
            while seconds < last:
                yield seconds
                seconds = 2 * seconds or 1
        yield None

    def _is_exact(self, seconds_before: int) -> bool:
        """Tell whether a search ended so early that no frame, and no packet of another stream, of the part is lost.

        That is so where a key frame lies at or before the start, or where frames do that are long since whole.
        """
        if not self.decoder.is_timed or self._first_seconds is None:
            return False
        start = self.trim.shift_seconds
        is_whole = self._has_passed_key or self._first_seconds <= start - SECONDS_TO_RECOVER
        late = [s for s in self.others.first_audio_seconds.values() if s > start + LATE_AUDIO_SECONDS]
        return is_whole and (not late or seconds_before >= INTERLEAVE_SECONDS)

    def _first_frames(self, seconds_before: int | None) -> list[av.VideoFrame]:
        """Open the input and decode up to the first frame of the part; return it last, after those its fields need.

        Packets of other streams wait meanwhile, as nobody can take them before the video is known. Where a file has
        more of them than are to be held, they are dropped, and the file is to be read again; of a pipe all are held.
        """
        self._open(seconds_before)
        self._is_overfull = False
        frames: list[av.VideoFrame] = []
        for frame in self.frames:
            if frame is None:
                if self.demuxer.pipe is None:
                    self.others.take()
                    self._is_overfull = True
                continue
            frames.append(frame)
            if not self.trim.begins_after(frame):
                break
        return frames

    def _open(self, seconds_before: int | None) -> None:
        """Open the input some seconds before the start of the part; None for the input's own beginning."""
        demuxer, options = self.demuxer, self._options
        demuxer.open(self._gpu)
        self.chroma_location = read_chroma_location(demuxer.container, demuxer.stream.index)  # before threads decode
        self.trim = TrimRange(demuxer.container, options.start_seconds, options.duration_seconds)
        self.others = OtherPackets(self.trim)
        self.decoder = Decoder(demuxer.stream, demuxer.path, self._warn, one_by_one=demuxer.images is not None)
        if seconds_before is not None:
            # Where a container cannot be searched, the next step is tried, and at last all is decoded.
            with contextlib.suppress(av.FFmpegError):
                demuxer.seek(self.trim.seek_target(demuxer.stream, seconds_before))
        self._num_concealed = 0
        self._first_seconds: Fraction | None = None  # of the first frame that was decoded
        self._has_passed_key = False  # at or before the start of the part
        self.frames = self._decode()

    def _nothing_found(self) -> str:
        """Say why there is no first frame."""
        if self.decoder.last_pts is not None:  # frames there are, but outside the part
            return f"has no frame at or after {float(self._options.start_seconds or 0):g} s; start earlier"
        if not self.demuxer.can_seek and "mp4" in self.demuxer.container.format.name.split(","):
            return "its index comes last, which a pipe cannot go back from; add -movflags +faststart, or send NUT"
        num_damaged = self.num_damaged + self.demuxer.num_missing
        damage = f" ({num_damaged} damaged packets)" if num_damaged else ""
        return f"no video frame could be decoded{damage}"

    # -- decoding --------------------------------------------------------------------------------

    def _decode(self) -> Frames:
        """Decode the frames of the part, from the current place on."""
        self._is_over = False  # the part's last frame is out; sound that lies later in the file may follow
        self._has_begun = False
        self._before.clear()
        for packet in self.demuxer.packets():
            if self._is_over and self.trim.ends_long_before(packet):
                return
            if packet.stream.index != self.demuxer.stream.index:
                self.others.add(packet)
                if self.others.is_full:
                    yield None
            elif not self._is_over:
                yield from self._in_part(self.decoder.decode(packet))
        if self.demuxer.damage is not None:
            self.decoder.num_lost += 1
            if self.decoder.last_pts is not None:  # else an error will say that there is nothing
                text = f"{self.demuxer.path}: reading stopped at damaged data ({self.demuxer.damage})"
                self._warn(Note(NoteCode.DAMAGE, text))
        if not self._is_over:
            yield from self._in_part(self.decoder.flush())
            yield from self._after_last()

    def _in_part(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Leave out the frames before and after the part, but for those that its fields need."""
        for frame in frames:
            self._note_place(frame)
            if self._is_over:
                continue
            if self.trim.begins_after(frame):
                self._before.append(frame)
                continue
            self._is_over = self.trim.ends_before(frame)
            if not self._is_over or self._has_field_before(pts_of(frame)):
                yield from self._taken([*self._before, frame])
            elif self._options.deinterlace == "double" and self._has_begun:
                yield from self._taken([frame])

    def _after_last(self) -> Iterator[av.VideoFrame]:
        """Hand out the last frame of the file, and the one before it, where only a field of it lies in the part."""
        if self._before and not self._is_over:
            last, first = self._before[-1], self._before[0]
            if self._has_field_before(pts_of(last) + (last.duration or pts_of(last) - pts_of(first))):
                yield from self._taken([*self._before])

    def _has_field_before(self, pts: int) -> bool:
        """Tell whether the part begins between the fields of the last frame before it; the next has the given PTS."""
        if not self._before:
            return False
        last, start, end = self._before[-1], self.trim.start, self.trim.end
        seconds = Fraction(pts_of(last) + pts, 2) * (last.time_base or 0)
        return (start is None or seconds >= start) and (end is None or seconds < end)

    def _taken(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        """Count frames as handed out."""
        self._before.clear()
        self._has_begun = True
        self._num_concealed += sum(frame.is_corrupt for frame in frames)
        return frames

    def _note_place(self, frame: av.VideoFrame) -> None:
        """Note what the first frames after a search tell of its end."""
        if self._has_passed_key or self.trim.start is None:
            return
        seconds = pts_of(frame) * Fraction(frame.time_base or 0)
        self._first_seconds = seconds if self._first_seconds is None else self._first_seconds
        self._has_passed_key = frame.key_frame and seconds <= self.trim.start


def _prepended(first: list[av.VideoFrame], frames: Frames) -> Frames:
    """Put frames back before the others."""
    yield from first
    yield from frames
