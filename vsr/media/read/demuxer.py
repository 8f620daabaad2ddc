"""Read the packets of a file, of stdin or of numbered images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vsr.errors import InputError, reason
from vsr.events import Note, NoteCode, OnNote, counted
from vsr.media.endpoints import Images, Pipe, RemoteFile, Source
from vsr.media.formats import find_containers_of_demuxer
from vsr.media.packet_times import JUMP_SECONDS, RESTART_SECONDS, PacketClock
from vsr.media.pipe import PipeReader
from vsr.media.pyav_fixes import close_input, count_streams, demux_packets
from vsr.media.read.decoder import EXACT_ON_GPU
from vsr.media.read.gpu_frames import open_on_gpu
from vsr.media.read.opening import DEFAULT_FRAMERATE, InputFormat, open_images, open_input, open_pipe
from vsr.media.read.stream_map import main_stream, mapped_streams

__all__ = ["Demuxer"]

NUM_PLACES = 256  # of a file at which its clock is read
MISSING_SECONDS = 1  # less is no more than a stream that ends early


class Demuxer:
    """Open an input, choose the video stream to decode, and read packets on a clock that never starts anew.

    path: of the input, for messages.  pipe: stdin, where the input comes from there.
    images: those that are read as a video, where the input is such.
    container, stream: the opened input and its main video stream; there once `open` has returned.
    damage: the reason why reading stopped before the end, at data that make no packets; None where it did not.
    num_missing: parts of a frame at the end, and streams that turned up late, that are left out.
    """

    container: InputContainer
    stream: VideoStream

    def __init__(self, source: Source, format_: InputFormat, maps: tuple[str, ...], warn: OnNote) -> None:
        """Find the input; `open` opens it.

        Args:
            source: a file, stdin or images.
            format_: the demuxer and its options, where FFmpeg cannot see them.
            maps: the streams that are wanted, as ffmpeg's -map names them; the video stream is one of them.
            warn: called with one line for anything out of the ordinary.
        """
        self._warn, self._format, self._maps = warn, format_, maps
        self.pipe = PipeReader(source.path) if isinstance(source, Pipe) else None
        self.path = source.path if self.pipe is None else Path(self.pipe.name)
        self.images = source if isinstance(source, Images) else None
        self._opened = source.opened if isinstance(source, RemoteFile) else None
        self._num_openings = 0

    # -- opening ---------------------------------------------------------------------------------

    def open(self, gpu: int | None = None) -> None:
        """Open the input at its beginning. An input that is open already is closed, and opened again.

        gpu: index of the CUDA GPU that decodes, where it gives the same samples; None for the CPU.

        Raises InputError where it cannot be read or has no video stream.
        """
        if self._num_openings:
            close_input(self.container)
            if self.pipe is not None:
                self.pipe.seek(0)
        self._num_openings += 1
        self.container = self._open()
        self.stream = main_stream(self.container, self._maps, self.path)
        if gpu is not None:
            self._move_to_gpu(gpu)
        self.damage: str | None = None
        self.num_missing = 0
        self._num_bytes = self.container.size if self.pipe is None else 0
        self._formats = find_containers_of_demuxer(self.container.format.name)
        self._is_raw = any(row.is_raw for row in self._formats)  # whole frames and nothing else
        self._last_byte = 0  # where the last of them ended
        self._clock = PacketClock(self.container)
        self._num_keys_awaited = 0  # after a search, until frames can be decoded, at the right times
        self._guesses_times = any(row.guesses_times for row in self._formats)

    def _open(self) -> InputContainer:
        if self.pipe is not None:
            container = open_pipe(self.pipe, self.path, self._format)
            if container.format.name.endswith("_pipe") and self._format.framerate is None:
                self._warn(Note(NoteCode.INPUT, f"{self.path}: pictures, read as {DEFAULT_FRAMERATE} a second"))
            return container
        if self.images is not None:
            if self._format.framerate is None:
                self._say_once(
                    f"{self.path}: {counted(len(self.images.files), 'picture')}, read as {DEFAULT_FRAMERATE} a second"
                )
            return open_images(self.images, self._format)
        return open_input(self.path, format_=self._format, opened=self._opened)

    def _say_once(self, text: str) -> None:
        """Warn of a way to read the input that holds of every opening."""
        if self._num_openings == 1:
            self._warn(Note(NoteCode.INPUT, text))

    def _move_to_gpu(self, gpu: int) -> None:
        """Open the file again with a decoder on a GPU; where that cannot be, all stays as it is, with a warning."""
        codec = self.stream.codec_context.name
        if codec not in EXACT_ON_GPU:
            self._say_once(f"{self.path}: decoded on the CPU: of a GPU's {codec}, samples may differ")
            return
        if self.pipe is not None:
            self._say_once(f"{self.path}: decoded on the CPU: to open it again for a GPU, it has to be a file")
            return
        try:
            container = open_on_gpu(
                gpu,
                lambda device: open_input(self.path, device, opened=self._opened),
                lambda text: self._say_once(f"{self.path}: {text}"),
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            self._say_once(f"{self.path}: decoded on the CPU: FFmpeg finds no CUDA decoder ({reason(error)})")
            return
        self.container.close()
        self.container = container
        self.stream = main_stream(self.container, self._maps, self.path)

    @property
    def can_seek(self) -> bool:
        """True where the input can be searched; else all before a start time is decoded."""
        return self.pipe is None or self.pipe.seekable()

    def can_be_searched(self) -> bool:
        """Tell whether a search of the open input finds a time; the input is to be opened again afterwards.

        Not so where its clock starts anew or jumps, as the container's own search trusts the clock. That is looked for
        at places all over the file, and close together at its beginning, where a short recording may lie.
        """
        if not self.can_seek or not self._clock.may_restart:
            return self.can_seek
        if self.pipe is not None:
            return False
        size = self.container.size
        uniform = {size * number // NUM_PLACES for number in range(NUM_PLACES)}
        places = sorted(uniform | {size >> shift for shift in range(8, 40)})
        times = [time for time in map(self._seconds_at, places) if time is not None]  # none near the end
        steps = sorted(b - a for a, b in itertools.pairwise(times))
        if not steps or steps[0] < -RESTART_SECONDS:
            return False
        return steps[-1] < JUMP_SECONDS + 8 * steps[len(steps) // 2]

    def _seconds_at(self, place: int) -> Fraction | None:
        """Return the time of the first packet of the video that begins after a place in the file, in bytes."""
        try:
            self.container.seek(place, unsupported_byte_offset=True)
            packets = (p for p in demux_packets(self.container) if p.stream.index == self.stream.index)
            return next((packet.dts * packet.time_base for packet in packets if packet.dts is not None), None)
        except av.FFmpegError:
            return None

    @property
    def other_streams(self) -> list[Stream]:
        """Every stream but the main one, in the order of the file."""
        return [s for s in self.container.streams if s.index != self.stream.index]

    @property
    def chosen_streams(self) -> frozenset[int]:
        """The indices of the streams that are wanted."""
        return mapped_streams(tuple(self.container.streams), self._maps, self.path)

    @property
    def clock(self) -> PacketClock:
        """The clock of the packets that were read."""
        return self._clock

    # -- reading ---------------------------------------------------------------------------------

    def seek(self, ticks: int) -> None:
        """Go to a key frame of the main stream at or before a time in its ticks. Raises av.FFmpegError."""
        self.container.seek(ticks, stream=self.stream)
        self._clock = PacketClock(self.container)
        # FFmpeg counts the times of frames without one wrongly up to the first key frame, and from there to the next.
        self._num_keys_awaited = 2 if self._guesses_times else 1

    def packets(self) -> Iterator[Packet[Any]]:
        """Read the packets of all streams from the current place on; of the other streams none that is empty.

        Raises InputError where reading fails, or the file has become shorter meanwhile.
        """
        try:
            for packet in demux_packets(self.container):
                self._clock.shift(packet)
                if self._is_raw and packet.is_corrupt:  # the beginning of a frame
                    continue
                if self._is_raw:
                    self._last_byte = (packet.pos or 0) + packet.size
                is_video = packet.stream.index == self.stream.index
                if (is_video and self._is_usable(packet)) or (not is_video and packet.size):
                    yield packet
        except av.InvalidDataError as error:
            self._check_for_shrinking()
            self.damage = reason(error)
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self.path}: reading failed ({reason(error)})") from error
        else:
            self._check_for_shrinking()
            self._check_for_cut()
            self._check_for_late_streams()

    def _is_usable(self, packet: Packet[Any]) -> bool:
        """Tell whether a packet of the video can be decoded, which after a search begins with a key frame."""
        if self._num_keys_awaited and packet.is_keyframe and (packet.pts is not None or not self._guesses_times):
            self._num_keys_awaited -= 1
        return not self._num_keys_awaited

    def _check_for_shrinking(self) -> None:
        """Refuse a file that was longer when it was opened. At the end."""
        if self.pipe is None and self.container.size < self._num_bytes:
            raise InputError(f"{self.path}: has become shorter while it was read; start again when it is complete")

    def _check_for_cut(self) -> None:
        """Warn of a part of a frame at the end of an input that holds nothing but frames."""
        if not self._is_raw:
            return
        if self.pipe is None or self.pipe.seekable():
            num_bytes, remedy = self.container.size, "is the file complete?"
        else:
            num_bytes, remedy = self.pipe.num_bytes, "did the program before vsr fail?"
        if num_bytes > self._last_byte and not (self.pipe is not None and self.pipe.is_interrupted):
            text = f"{self.path}: ends in the middle of a frame, which is left out; {remedy}"
            self._warn(Note(NoteCode.DAMAGE, text))
            self.num_missing = 1

    def _check_for_late_streams(self) -> None:
        """Warn of streams that the start of the input did not show. At the end."""
        if all(row.lists_streams for row in self._formats):
            return
        num_late = count_streams(self.container) - len(self.container.streams)
        if num_late > 0:
            self._warn(
                Note(
                    NoteCode.DAMAGE,
                    f"{self.path}: {counted(num_late, 'late stream')} left out, as the start does not list all; "
                    "ffmpeg -analyzeduration 1G -probesize 1G -c copy to .mkv first finds them",
                )
            )
            self.num_missing += num_late

    def check_for_missing_end(self) -> None:
        """Warn where a header promises far more than there was: the file may be incomplete, or its header wrong.

        Only after all was read.
        """
        if self.pipe is not None or not any(row.states_duration for row in self._formats):
            return  # without a header, the duration is estimated
        duration, end = self.container.duration, self._clock.end_seconds
        if duration is not None and end is not None and end < duration / av.time_base - MISSING_SECONDS:
            promised = f"promises {duration / av.time_base:g} s, and there are {float(end):g} s"
            self._warn(Note(NoteCode.DAMAGE, f"{self.path}: its header {promised}; is the file complete?"))

    def interrupt(self) -> None:
        """End a read that waits for a pipe, from any thread; the input ends there."""
        if self.pipe is not None:
            self.pipe.interrupt()

    def close(self) -> None:
        """Close the input, once no thread reads it any more."""
        if hasattr(self, "container"):
            close_input(self.container)
        if self.pipe is not None:
            self.pipe.close()
