"""Decode the wanted part of an input."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import av
from av.packet import Packet

from vsr.errors import InputError, reason
from vsr.events import Note, NoteCode, OnNote, Waking
from vsr.media.endpoints import Source
from vsr.media.pipe import run_in_thread
from vsr.media.pyav_fixes import read_chroma_location
from vsr.media.read.decoder import Decoder
from vsr.media.read.demuxer import Demuxer
from vsr.media.read.options import InputOptions
from vsr.media.read.other_packets import OtherPackets
from vsr.media.read.trim import TrimRange

__all__ = ["Frames", "TrimmedInput"]

Frames = Generator[av.VideoFrame | None, None, None]  # None: no frame yet, but packets of other streams to be taken


class TrimmedInput:
    """Decode the frames of the wanted part of an input, and gather the packets of its other streams.

    frames: those of the part, from the first on, as the decoder gives them.
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
        if num_restarts := self.demuxer.num_restarts:
            times = "once" if num_restarts == 1 else f"{num_restarts} times"
            text = f"{path}: its clock starts anew {times}; what follows goes on from there"
            self._warn(Note(NoteCode.TIMESTAMPS, text))
        if num_moved := self.decoder.num_moved_pts + self.others.num_moved:
            self._warn(Note(NoteCode.TIMESTAMPS, f"{path}: {num_moved} timestamps did not increase and were moved on"))
        if num_damaged := self.num_damaged:
            self._warn(
                Note(
                    NoteCode.DAMAGE,
                    f"{path}: {num_damaged} damaged packet{'s' if num_damaged > 1 else ''}: "
                    f"{self.decoder.num_repeated} frames repeat the one before, "
                    f"{self._num_concealed} are shown as far as they could be decoded",
                )
            )
        if self.trim.end is None:
            self.demuxer.check_for_missing_end()

    # -- opening ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Open the input and decode its first frame."""
        search = self.demuxer.can_seek  # else all before the start is decoded, too
        first = self._first_frame(search=search)
        is_searched = self._options.start_seconds is not None and self.demuxer.pipe is None
        if first is None and is_searched and self.decoder.last_pts is None:
            # A search in a short MPEG-TS ends behind its last key frame.
            search = False
            first = self._first_frame(search=search)
        if first is None:
            raise InputError(f"{self.demuxer.path}: {self._nothing_found()}")
        self.first, self.covers = first, self.others.covers
        if self._is_overfull:
            self._open(search=search)
        else:
            self.frames = _prepended(first, self.frames)

    def _first_frame(self, *, search: bool) -> av.VideoFrame | None:
        """Open the input and decode up to the first frame of the part; None where there is none.

        Packets of other streams wait meanwhile, as nobody can take them before the video is known. Where a file has
        more of them than are to be held, they are dropped, and the file is to be read again; of a pipe all are held.
        """
        self._open(search=search)
        self._is_overfull = False
        for frame in self.frames:
            if frame is not None:
                return frame
            if self.demuxer.pipe is None:
                self.others.take()
                self._is_overfull = True
        return None

    def _open(self, *, search: bool) -> None:
        """Open the input at the start of the part; at its own beginning where it is not to be searched."""
        demuxer, options = self.demuxer, self._options
        demuxer.open(self._gpu)
        self.chroma_location = read_chroma_location(demuxer.container, demuxer.stream.index)  # before threads decode
        self.trim = TrimRange(demuxer.container, options.start_seconds, options.duration_seconds)
        self.others = OtherPackets(self.trim)
        self.decoder = Decoder(demuxer.stream, demuxer.path, one_by_one=demuxer.images is not None)
        if self.trim.start is not None and search:
            try:
                demuxer.seek(self.trim.seek_target(demuxer.stream))
            except av.FFmpegError as error:
                raise InputError(f"{demuxer.path}: cannot be searched for the start time ({reason(error)})") from error
        self._num_concealed = 0
        self.frames = self._decode()

    def _nothing_found(self) -> str:
        """Say why there is no first frame."""
        if self.decoder.last_pts is not None:  # frames there are, but outside the part
            return f"has no frame at or after {float(self.trim.shift_seconds):g} s; start earlier"
        if not self.demuxer.can_seek and "mp4" in self.demuxer.container.format.name.split(","):
            return "its index comes last, which a pipe cannot go back from; add -movflags +faststart, or send NUT"
        num_damaged = self.num_damaged + self.demuxer.num_missing
        damage = f" ({num_damaged} damaged packets)" if num_damaged else ""
        return f"no video frame could be decoded{damage}"

    # -- decoding --------------------------------------------------------------------------------

    def _decode(self) -> Frames:
        """Decode the frames of the part, from the current place on."""
        self._is_over = False  # the part's last frame is out; sound that lies later in the file may follow
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

    def _in_part(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Leave out the frames before and after the part."""
        for frame in frames:
            if self._is_over or self.trim.ends_before(frame):
                self._is_over = True
            elif not self.trim.begins_after(frame):
                self._num_concealed += frame.is_corrupt
                yield frame


def _prepended(first: av.VideoFrame, frames: Frames) -> Frames:
    """Put a frame back before the others."""
    yield first
    yield from frames
