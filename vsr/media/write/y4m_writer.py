"""Write YUV4MPEG2 ("y4m"): raw planes after a header line, which most video tools read from a pipe.

The header's words are those of mjpegtools' yuv4mpeg(5) and, for more than 8 bits and the range, FFmpeg's. FFmpeg's
muxer is not used because PyAV has no way to give it the sample aspect ratio.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from vsr.errors import VerificationError
from vsr.files import claim, naming_output, partial_path, put_in_place
from vsr.frames import ChromaLocation, Range
from vsr.media.pipe import PipeWriter
from vsr.media.read.opening import DEFAULT_FRAMERATE
from vsr.media.read.reader import Chunk, VideoReader
from vsr.media.write.encoder import VideoSettings

__all__ = ["Y4mWriter"]

_SUBSAMPLING = {(1, 1): "420", (1, 0): "422", (0, 0): "444"}
# Words for the location of 4:2:0 chroma; locations without a word get the nearest, mpeg2.
_SITINGS = {ChromaLocation.CENTER: "jpeg", ChromaLocation.TOPLEFT: "paldv"}


class Y4mWriter:
    """Write frames to a pipe, or to a file beside the target."""

    def __init__(
        self, path: Path, reader: VideoReader, settings: VideoSettings, pipe: PipeWriter | None, overwrite: bool = True
    ) -> None:
        """Open the file.

        Args:
            path: The target; for a pipe, its name in messages.
            reader: The source.
            settings: How the frames are stored.
            pipe: Where to write; None for the file.
            overwrite: Whether a file is replaced that has appeared in the target's place meanwhile.
        """
        self.path, self.partial, self.settings = path, partial_path(path), settings
        self._reader, self._pipe, self._overwrite = reader, pipe, overwrite
        self._rate = reader.info.average_rate or DEFAULT_FRAMERATE
        self._first_seconds: Fraction | None = None
        self.num_frames = self.num_bytes = self._num_moved = 0
        with self._writing():
            self._release = claim(self.partial) if pipe is None else lambda: None
            self._file = None if pipe is not None else self.partial.open("wb")
        self._is_progressive = reader.is_deinterlaced or not reader.info.interlaced

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the system raises when it cannot write into an OutputError, but for a reader that has gone."""
        try:
            yield
        except OSError:
            if self._pipe is not None and self._pipe.is_reader_gone:
                raise
            with naming_output(self.path):
                raise

    def _put(self, data: bytes | memoryview) -> None:
        with self._writing():
            if self._file is not None:
                self._file.write(data)
            elif self._pipe is not None:
                self._pipe.write(data)
        self.num_bytes += len(data)

    @property
    def num_damaged(self) -> int:
        """Count the packets of the source's video that could not be decoded."""
        return self._reader.num_damaged

    def write(self, chunk: Chunk) -> None:
        """Write a chunk's frames, and drop its packets. Raises BrokenPipeError when the reader of a pipe has gone."""
        batch = chunk.batch
        if batch is None:
            return
        if not self.num_frames:  # not in __init__: only this thread may wait for the pipe
            self._put(_header(self.settings, self._rate, self._is_progressive))
        for position, pts in enumerate(batch.pts):
            self._look_at_time(pts * batch.time_base, batch.time_base)
            self._put(b"FRAME\n")
            for plane in batch.planes:
                self._put(plane[position].contiguous().numpy().data.cast("B"))
            self.num_frames += 1

    def _look_at_time(self, seconds: Fraction, tick: Fraction) -> None:
        if self._first_seconds is None:
            self._first_seconds = seconds
        if abs(seconds - self._first_seconds - self.num_frames / self._rate) > tick:
            self._num_moved += 1

    @property
    def omissions(self) -> list[str]:
        """Return what y4m cannot hold of the frames' times, a line each."""
        losses = []
        if self._first_seconds:
            losses.append(f"the start at {float(self._first_seconds):g} s is left out: y4m begins at 0")
        if self._num_moved:
            losses.append(
                f"{self._num_moved} frames are moved: y4m has a constant frame rate, here {float(self._rate):g} a "
                'second; `format="nut"` keeps their times'
            )
        return losses

    def finish(self) -> None:
        """Complete the file."""
        if self._file is not None:
            with self._writing():
                self._file.close()

    def verify(self) -> None:
        """Check that every frame that the reader gave was written in full. Raises VerificationError."""
        expected = len(self._reader.pts)
        if self.num_frames != expected:
            raise VerificationError(f"{self.path}: {expected} frames went in and {self.num_frames} came out")
        if self._file is not None and self.partial.stat().st_size != self.num_bytes:
            raise VerificationError(f"{self.path}: not all that was written is there; the file was removed")

    def commit(self) -> None:
        """Put the complete file in the target's place; for a pipe, do nothing."""
        if self._file is not None:
            put_in_place(self.partial, self.path, self._overwrite)
            self._release()

    def abort(self) -> None:
        """Close without completing, and remove the partial file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self.partial.unlink(missing_ok=True)
            self._release()


def _header(settings: VideoSettings, rate: Fraction, is_progressive: bool) -> bytes:
    """Return the first line."""
    aspect = settings.sample_aspect_ratio or Fraction(0)
    sides = f"{aspect.numerator}:{aspect.denominator}" if aspect else "0:0"  # 0:0 is unknown
    color_range = "FULL" if settings.color.range is Range.FULL else "LIMITED"
    words = [
        f"YUV4MPEG2 W{settings.width} H{settings.height} F{rate.numerator}:{rate.denominator}",
        f"{'Ip' if is_progressive else 'I?'} A{sides} C{_samples(settings)} XCOLORRANGE={color_range}",
    ]
    return " ".join(words).encode() + b"\n"


def _samples(settings: VideoSettings) -> str:
    """Return the word for the pixel format: 420mpeg2, 422p10, mono and so on."""
    format_ = settings.pixel_format
    depth = str(format_.bit_depth) if format_.bit_depth > 8 else ""
    if format_.kind == "gray":
        return "mono" + depth
    name = _SUBSAMPLING[format_.chroma_shift]
    if depth:
        return f"{name}p{depth}"
    return name + _SITINGS.get(settings.color.chroma_location, "mpeg2") if name == "420" else name
