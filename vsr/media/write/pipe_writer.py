"""Containers that go to stdout: the video beside the source's other streams."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet

from vsr.errors import OutputError, VerificationError
from vsr.media.pipe import PipeWriter, run_in_thread
from vsr.media.read.reader import VideoReader
from vsr.media.write.container_writer import VideoWriter
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.stream_plan import StreamPlan

__all__ = ["PipeVideoWriter"]

BUFFER_BYTES = 2**16


class PipeVideoWriter(VideoWriter):
    """Encode and mux into a pipe. What went into it cannot be read back, nor taken back.

    Raises BrokenPipeError where nobody reads any more.
    """

    def __init__(
        self,
        pipe: PipeWriter,
        reader: VideoReader,
        settings: VideoSettings,
        plans: Sequence[StreamPlan],
        container: str,
    ) -> None:
        """container: FFmpeg's name of it."""
        self._pipe = pipe
        self._pts = array("q")  # of the video's packets, as they went to the muxer
        super().__init__(Path(pipe.name), reader, settings, plans, container=container)

    def _open(self, options: dict[str, str]) -> OutputContainer:
        return av.open(
            self._pipe, "w", format=self._container_name, container_options=options, buffer_size=BUFFER_BYTES
        )

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
        """Every frame that the reader handed out must have gone to the muxer, to be shown when the source shows it."""
        ticks = self._reader.info.time_base / self._encoder.time_base
        expected = [round(pts * ticks) for pts in self._reader.pts]
        if sorted(self._pts) != expected:
            raise VerificationError(
                f"{self.path}: {len(expected)} frames went in and {len(self._pts)} came out, or at other times"
            )

    def commit(self) -> None:
        """Nothing: the reader of the pipe has it all."""

    def abort(self) -> None:
        """Close without completing."""
        self._pipe.interrupt()
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self.container.close()
