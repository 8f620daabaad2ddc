"""To a file: the upscaled video beside the source's other streams, written apart and put in place when complete."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from vsr.errors import OutputError, reason
from vsr.files import naming_output, partial_path, put_in_place
from vsr.media.formats import find_container, find_container_of_file
from vsr.media.packet_checksum import StreamChecksum
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.encoder import VideoEncoder, VideoSettings
from vsr.media.write.remuxer import Remuxer, carried_tags, copy_chapters, use_known_languages
from vsr.media.write.stream_plan import StreamPlan
from vsr.media.write.verify import verify_output

__all__ = ["OutputFile", "VideoWriter"]


class OutputFile(ABC):
    """A container file beside its target, which `commit` puts in place and `abort` removes.

    It has the streams of a source in their order: the main video, made anew, and the others as planned.
    num_lost_chapters: how many the container cannot hold.
    """

    num_lost_chapters = 0

    def __init__(
        self,
        path: Path,
        plans: Sequence[StreamPlan],
        time_base: Fraction,
        partial: Path | None = None,
        container: str | None = None,
    ) -> None:
        """time_base: the clock of the video, in seconds.  partial: where the file gathers, if not beside `path`.

        container: FFmpeg's name of it, if not by the suffix.
        """
        self.path, self.partial, self._container_name = path, partial or partial_path(path), container
        try:
            self.container = self._open(_muxer_options(path, container, time_base))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be created ({reason(error)})") from error
        self._remuxer = Remuxer(self.container, plans)
        self._video_index = 0

    def _open(self, options: dict[str, str]) -> OutputContainer:
        return av.open(f"file:{self.partial}", "w", format=self._container_name, container_options=options)

    @abstractmethod
    def _add_video(self) -> Stream:
        """Add the main video's stream to the container."""

    def _add_streams(self, reader: VideoReader) -> None:
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
        self.num_lost_chapters = copy_chapters(reader.container, self.container, reader.shift_seconds, end)

    def _write_header(self) -> None:
        try:
            self.container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(
                f"{self.path}: {self.container.format.name} cannot hold these streams ({reason(error)})"
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what FFmpeg raises when it cannot write into an OutputError."""
        with naming_output(self.path, (OSError, av.FFmpegError)):
            yield

    def _complete(self) -> None:
        """Drain the encoders of sound and complete the partial file."""
        self._remuxer.flush()
        self.container.close()

    def check(self, pts: Sequence[int], time_base: Fraction, reader: VideoReader) -> None:
        """Read the complete file back: it must have the frames with those PTS, and every packet the reader gave.

        pts: in ticks of `time_base` (seconds). Raises VerificationError with the first difference.
        """
        checksums = {
            target: reader.checksums.get(source, StreamChecksum()) for source, target in self._remuxer.copied.items()
        }
        source_format = reader.container.format.name
        refused = self._remuxer.num_refused
        verify_output(self.partial, self.path, pts, time_base, checksums, self._video_index, source_format, refused)

    def commit(self) -> None:
        """Put the complete file in the target's place, at once."""
        put_in_place(self.partial, self.path)

    def abort(self) -> None:
        """Close without completing, and remove the partial file."""
        # The file goes away; what it lacks no longer matters.
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self.container.close()
        self.partial.unlink(missing_ok=True)

    @property
    def num_damaged_audio(self) -> int:
        """Audio packets that were to be transcoded and could not be decoded."""
        return self._remuxer.num_damaged_audio


class VideoWriter(OutputFile):
    """Encode and mux into a file beside the target."""

    def __init__(
        self,
        path: Path,
        reader: VideoReader,
        settings: VideoSettings,
        plans: Sequence[StreamPlan],
        info: VideoInfo | None = None,
        container: str | None = None,
    ) -> None:
        """info: what holds of the frames to be written (clock, rate, rotation, HDR); the reader's unless given.

        container: FFmpeg's name of it, if not by the suffix.
        """
        self._reader, self.settings, self._video_info = reader, settings, info or reader.info
        super().__init__(path, plans, self._video_info.time_base, container=container)
        try:
            self._add_streams(reader)
            self._encoder.open()
            self._write_header()
        except BaseException:
            self.abort()
            raise

    def _add_video(self) -> Stream:
        self._encoder = VideoEncoder(self.container, self.path, self.settings, self._video_info)
        return self._encoder.stream

    @property
    def num_frames(self) -> int:
        return self._encoder.num_frames

    @property
    def num_damaged(self) -> int:
        """Packets of the source's video that could not be decoded."""
        return self._reader.num_damaged

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
        """Read the complete file back: what the reader handed out against what the file holds.

        Nothing in between can vouch for itself. Raises VerificationError with the first difference.
        """
        self.check(self._reader.pts, self._reader.info.time_base, self._reader)


def _muxer_options(path: Path, container: str | None, time_base: Fraction) -> dict[str, str]:
    options = {"avoid_negative_ts": "disabled"}  # timestamps are the source's, not moved to zero
    row = find_container_of_file(path) if container is None else find_container(container)
    if row.takes_timescale:
        options["movflags"] = "+write_colr"
        options["video_track_timescale"] = str(time_base.denominator)
        options["movie_timescale"] = str(time_base.denominator)  # of the edit list, which holds a late start
    return options
