"""Write the upscaled video and the source's other streams to a container file."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from vsr.errors import OutputError, is_disk_full, reason
from vsr.events import counted
from vsr.files import claim, naming_output, partial_path, put_in_place
from vsr.media.formats import find_container, find_container_of_file
from vsr.media.packet_checksum import StreamChecksum
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.encoder import VideoEncoder, VideoSettings
from vsr.media.write.remuxer import Remuxer, carried_tags, copy_chapters, use_known_languages
from vsr.media.write.stream_plan import StreamPlan
from vsr.media.write.verify import ExpectedOutput, verify_output

__all__ = ["OutputFile", "OutputSpec", "VideoWriter"]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The decisions that a writer of a container file carries out.

    Args:
        settings: How the video is encoded.
        streams: The plans of all other streams of the source.
        container: FFmpeg's name of the container; None for that of the file's suffix.
        info: Clock, rate, rotation and HDR of the frames to be written; None for those of the reader's frames.
        overwrite: Whether a file is replaced that has appeared in the target's place meanwhile.
        audio_bitrate: Of audio that is transcoded, in bits a second; None for the encoder's own.
    """

    settings: VideoSettings
    streams: Sequence[StreamPlan]
    container: str | None = None
    info: VideoInfo | None = None
    overwrite: bool = True
    audio_bitrate: int | None = None


class OutputFile(ABC):
    """A container file beside its target, which `commit` puts in place and `abort` removes.

    It has the streams of a source in their order: the main video, made anew, and the others as planned.
    """

    _num_lost_chapters = 0

    def __init__(self, path: Path, reader: VideoReader | None, spec: OutputSpec, partial: Path | None = None) -> None:
        """Create the file.

        Args:
            path: The target.
            reader: The source; None for frames without one, which `spec` has to describe.
            spec: What the file is to hold.
            partial: The path to write to until the file is complete; None for one beside `path`.
        """
        self.path, self.partial, self.spec = path, partial or partial_path(path), spec
        self._release: Callable[[], None] = lambda: None
        info = spec.info if reader is None else spec.info or reader.info
        assert info is not None
        self.info = info
        try:
            tags = {} if reader is None or reader.covers else carried_tags(reader.container.metadata)
            self.container = self._open(_muxer_options(path, spec.container, self.info.time_base, tags))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be created ({reason(error)})") from error
        self._remuxer = Remuxer(self.container, spec.streams, spec.audio_bitrate)
        self._video_index = 0

    def _open(self, options: dict[str, str]) -> OutputContainer:
        self._release = claim(self.partial)
        return av.open(f"file:{self.partial}", "w", format=self.spec.container, container_options=options)

    @abstractmethod
    def _add_video(self) -> Stream:
        """Add the main video's stream to the container."""

    def _add_streams(self, reader: VideoReader | None) -> None:
        if reader is None:
            self._video_index = self._add_video().index
            return
        covers = reader.covers
        for source in reader.container.streams:
            if source.index == reader.stream.index:
                stream = self._add_video()
                stream.metadata.update(carried_tags(source.metadata))
                stream.disposition = source.disposition
                self._video_index = stream.index
            else:
                self._remuxer.add_stream(source, covers.get(source.index, b""))
        use_known_languages(self.container)
        self.container.metadata.update(carried_tags(reader.container.metadata))
        end = reader.duration_limit_seconds
        self._num_lost_chapters = copy_chapters(reader.container, self.container, reader.shift_seconds, end)

    def _write_header(self) -> None:
        try:
            self.container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            refusal = f"{self.container.format.name} cannot hold these streams"
            what = "writing failed" if is_disk_full(error) else refusal
            raise OutputError(f"{self.path}: {what} ({reason(error)})") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what FFmpeg raises when it cannot write into an OutputError."""
        with naming_output(self.path, (OSError, av.FFmpegError)):
            yield

    def _complete(self) -> None:
        """Drain the encoders of sound and complete the partial file."""
        self._remuxer.flush()
        self.container.close()

    def check(self, pts: Sequence[int], time_base: Fraction, reader: VideoReader | None) -> None:
        """Read the complete file back and compare it with the source.

        Args:
            pts: The PTS of every frame that was written, in ticks of `time_base`.
            time_base: In seconds.
            reader: The source, whose packets of other streams must all be there; None for frames without one.

        Raises VerificationError with the first difference.
        """
        given, remuxer = {} if reader is None else reader.checksums, self._remuxer
        expected = ExpectedOutput(
            pts,
            time_base,
            self._video_index,
            {target: given.get(source, StreamChecksum()) for source, target in remuxer.copied.items()},
            "" if reader is None else reader.container.format.name,
            remuxer.num_refused,
            # Damaged sound is left out, and may have been at the beginning or the end.
            {t: given[s] for s, t in remuxer.transcoded_audio.items() if s in given and not remuxer.num_damaged_audio},
            remuxer.text_seconds,
            remuxer.heard_seconds,
        )
        verify_output(self.partial, self.path, expected)

    def commit(self) -> None:
        """Put the complete file in the target's place, in one step."""
        put_in_place(self.partial, self.path, self.spec.overwrite)
        self._release()

    def abort(self) -> None:
        """Close without completing, and remove the partial file."""
        # The file is removed, so an error while it is closed does not matter.
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self.container.close()
        self.partial.unlink(missing_ok=True)
        self._release()

    @property
    def omissions(self) -> Sequence[str]:
        """Name what was left out on the way, which no plan foresees, a line each."""
        container, num_damaged = self.container.format.name, self._remuxer.num_damaged_audio
        num_cut = self._remuxer.num_cut_texts
        counts = {
            f"{counted(num_damaged, 'damaged audio or subtitle packet')} left out": num_damaged,
            f"{counted(self._num_lost_chapters, 'chapter')}: {container} holds none": self._num_lost_chapters,
            f"{counted(num_cut, 'subtitle')} cut off where the next begins: {container} shows one at a time": num_cut,
        }
        return [line for line, count in counts.items() if count]


class VideoWriter(OutputFile):
    """Encode and mux into a file beside the target."""

    def __init__(self, path: Path, reader: VideoReader | None, spec: OutputSpec) -> None:
        """Create the file, write its header, and open the encoder. The arguments are those of `OutputFile`."""
        self._reader = reader
        super().__init__(path, reader, spec)
        try:
            self._add_streams(reader)
            self._encoder.open()
            self._write_header()
        except BaseException:
            self.abort()
            raise

    def _add_video(self) -> Stream:
        captions = None if self._reader is None else self._reader.captions
        self._encoder = VideoEncoder(self.container, self.path, self.spec.settings, self.info, captions=captions)
        return self._encoder.stream

    @property
    def num_frames(self) -> int:
        return self._encoder.num_frames

    @property
    def num_damaged(self) -> int:
        """Count the packets of the source's video that could not be decoded."""
        return 0 if self._reader is None else self._reader.num_damaged

    def write(self, chunk: Chunk) -> None:
        """Encode a chunk's frames and mux its packets; the muxer interleaves all by DTS."""
        with self._writing():
            for packet in chunk.packets:
                self._remuxer.mux(packet)
            if chunk.batch is not None:
                self._mux(self._encoder.encode(chunk.batch))

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            self.container.mux(packet)

    def finish(self) -> None:
        """Drain the encoders and complete the partial file."""
        with self._writing():
            self._mux(self._encoder.flush())
            self._complete()

    def verify(self) -> None:
        """Read the complete file back and compare it with the frames and packets that the reader gave.

        Raises VerificationError with the first difference.
        """
        assert self._reader is not None  # of frames without a source, the caller knows the times, and calls `check`
        self.check(self._reader.pts, self._reader.info.time_base, self._reader)


_FINEST_TRACK_CLOCK = 1_000_000  # ticks a second; a track's samples last at most 2**31 ticks
_COARSEST_FILE_CLOCK = 90_000


def _muxer_options(
    path: Path, container: str | None, time_base: Fraction, tags: Collection[str] = ()
) -> dict[str, str]:
    """Return the options by which a muxer keeps the source's timestamps, and all of its file's tags."""
    options = {"avoid_negative_ts": "disabled"}  # else they are moved to zero
    row = find_container_of_file(path) if container is None else find_container(container)
    if row.takes_timescale:
        clock = min(time_base.denominator, _FINEST_TRACK_CLOCK)
        # The start of each track is stored in ticks of the file's clock: those of the sound as well.
        file_clock = clock * -(-_COARSEST_FILE_CLOCK // clock)
        options["movflags"] = "+write_colr+faststart"  # with the index in front, so that it plays while it arrives
        # Players know the usual place for tags better, so that it is left only for tags that it does not hold. FFmpeg
        # writes covers to that place alone: the caller names no tags where there is one.
        if row.takes_free_tags and not {tag.lower() for tag in tags} <= (row.file_tags or set()):
            options["movflags"] += "+use_metadata_tags"
        options["video_track_timescale"] = str(clock)
        options["movie_timescale"] = str(file_clock)
    return options
