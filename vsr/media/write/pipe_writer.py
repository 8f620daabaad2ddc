"""Write the upscaled video and the source's other streams to stdout."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet

from vsr.errors import OutputError, VerificationError
from vsr.media.pipe import PipeWriter, run_in_thread
from vsr.media.read.reader import VideoReader
from vsr.media.write.container_writer import OutputSpec, VideoWriter

__all__ = ["PipeVideoWriter"]

BUFFER_BYTES = 2**16


class PipeVideoWriter(VideoWriter):
    """Encode and mux into a pipe, which cannot be read back.

    Raises BrokenPipeError when the reader of the pipe has gone.
    """

    def __init__(self, pipe: PipeWriter, reader: VideoReader, spec: OutputSpec) -> None:
        """Write the header to the pipe, and open the encoder.

        Args:
            pipe: Where to write.
            reader: The source.
            spec: What to write; it names the container, as a pipe has no suffix.
        """
        self._pipe, self._source = pipe, reader
        self._pts = array("q")  # of the video's packets, as they went to the muxer
        super().__init__(Path(pipe.name), reader, spec)

    def _open(self, options: dict[str, str]) -> OutputContainer:
        return av.open(self._pipe, "w", format=self.spec.container, container_options=options, buffer_size=BUFFER_BYTES)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with super()._writing():
                yield
        except OutputError:
            if self._pipe.is_reader_gone:
                raise BrokenPipeError from None
            raise

    def _write_header(self) -> None:
        with self._writing():
            run_in_thread(super()._write_header, self._pipe.interrupt)

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            self._pts.append(packet.pts)
            self.container.mux(packet)

    def finish(self) -> None:
        """Drain the encoders and end the stream."""
        run_in_thread(super().finish, self._pipe.interrupt)

    def verify(self) -> None:
        """Check that every frame that the reader gave went to the muxer, with its PTS. Raises VerificationError."""
        ticks = self._source.info.time_base / self._encoder.time_base
        expected = [round(pts * ticks) for pts in self._source.pts]
        if sorted(self._pts) != expected:
            raise VerificationError(
                f"{self.path}: {len(expected)} frames went in and {len(self._pts)} came out, or at other times"
            )

    def commit(self) -> None:
        """Do nothing: the reader of the pipe has all data."""

    def abort(self) -> None:
        """Close without completing."""
        self._pipe.interrupt()
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self.container.close()
