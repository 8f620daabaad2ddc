"""Videos as frames in memory: RGB arrays or tensors with their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.color.rgb import rgb_of_batch
from vsr.errors import InputError, OptionError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.media.read.deinterlace import DeinterlaceMode
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader

__all__ = [
    "SRGB",
    "ArrayKind",
    "Frame",
    "Image",
    "Number",
    "Video",
    "exact",
    "frames_of_batch",
    "open_video",
    "rgb_color",
    "rgb_format",
]

Number = int | float | str | Fraction  # a string as Fraction reads it: "30000/1001"
ArrayKind = Literal["numpy", "torch"]
Image = np.ndarray | Tensor

SRGB = Color(Matrix.RGB, Primaries.BT709, Transfer.SRGB, Range.FULL, ChromaLocation.LEFT, 8)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame of a video, as RGB.

    data: (H, W, 3) in the order R, G, B, a NumPy array or a tensor: uint8 from 0 to 255, of videos of more than 8
        bits uint16 from 0 to 65535; float from 0 to 1 is taken, too.
    pts: when it is shown, in ticks; None for a frame without a time.
    duration: how long, in ticks; 0 where that is unknown.
    time_base: seconds per tick.
    color: which colours the numbers stand for: primaries and transfer characteristics.
    """

    data: Image
    pts: int | None = None
    duration: int = 0
    time_base: Fraction = Fraction(1)
    color: Color = SRGB

    @property
    def pts_seconds(self) -> float | None:
        """Return the time at which it is shown, in seconds; None for a frame without one."""
        return None if self.pts is None else float(self.pts * self.time_base)

    @property
    def duration_seconds(self) -> float:
        """Return how long it is shown, in seconds; 0 where that is unknown."""
        return float(self.duration * self.time_base)

    @property
    def height(self) -> int:
        """Return the height in pixels."""
        return int(self.data.shape[0])

    @property
    def width(self) -> int:
        """Return the width in pixels."""
        return int(self.data.shape[1])


class Video:
    """A video to iterate over, as often as wanted: decoded lazily, frame by frame, from its start each time.

    Use it as a context manager, or close it. A pipe can be iterated over once.
    path: of the file.  options: how it is read.  info: properties of the video, by its first frame.
    is_pipe: whether it is read from stdin.  output: whether frames are arrays or tensors.
    """

    def __init__(self, path: Path, options: InputOptions, output: ArrayKind, note: Callable[[str], None]) -> None:
        """Open a video and decode its first frame; see `open_video`."""
        if output not in ("numpy", "torch"):
            raise OptionError(f'`output="{output}"`: is "numpy" or "torch"')
        self.path, self.options, self.output = path, options, output
        self._note, self._is_closed = note, False
        self._fresh: VideoReader | None = VideoReader(path, options, warn=note)
        self._open = {self._fresh}
        self.info = self._fresh.info
        self.is_pipe = self._fresh.pipe is not None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its frames, in pixels."""
        return self.info.width, self.info.height

    @property
    def color(self) -> Color:
        """The colour of its frames in memory; that of the file is `info.color`."""
        return rgb_color(self.info.color)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Frames that were decoded stay valid; iterations that are under way cannot go on."""
        self._is_closed, self._fresh = True, None
        while self._open:
            reader = self._open.pop()
            reader.interrupt()
            reader.close()

    def __iter__(self) -> Iterator[Frame]:
        for batch in self.batches(1):
            yield from frames_of_batch(batch, self.info.pixel_format, self.output)

    def batches(self, num_frames: int) -> Iterator[FrameBatch]:
        """Decode from the start, so many frames at a time, as native planes. Raises InputError when it is closed."""
        reader = self._begin()
        try:
            for chunk in reader.chunks(num_frames):
                if chunk.batch is not None:
                    yield chunk.batch
                if self._is_closed:
                    raise InputError(f"{self.path}: was closed; open it again")
        finally:
            if reader in self._open:
                self._open.remove(reader)
                reader.close()

    def interrupt(self) -> None:
        """End reads that wait for a pipe, from any thread."""
        for reader in tuple(self._open):
            reader.interrupt()

    def _begin(self) -> VideoReader:
        """Return a reader at the start: the one that was opened first, if it is unused."""
        if self._is_closed:
            raise InputError(f"{self.path}: was closed; open it again")
        reader, self._fresh = self._fresh, None
        if reader is None:
            if self.is_pipe:
                raise InputError(f"{self.path}: a pipe can be read once")
            reader = VideoReader(self.path, self.options)  # whose notes were given the first time
            self._open.add(reader)
        return reader


def open_video(
    path: str | PathLike[str],
    *,
    output: ArrayKind = "numpy",
    start_seconds: Number | None = None,
    duration_seconds: Number | None = None,
    deinterlace: DeinterlaceMode = "auto",
    maps: Sequence[str] = (),
    input_format: str | None = None,
    video_size: str | None = None,
    pixel_format: str | None = None,
    framerate: Number | None = None,
    note: Callable[[str], None] | None = None,
) -> Video:
    """Open a video to iterate over its frames.

    Args:
        path: A video; a pattern ("%06d.png", "*.png") or a folder of images; "-" is stdin.
        output: "numpy" for frames as arrays, "torch" for tensors.
        start_seconds, duration_seconds: The part to read; with a start, times begin at zero.
        deinterlace: "auto" (where the video says that it is interlaced), "on", "off" or "double" (a frame a field).
        maps: Streams to take, each as ffmpeg's -map names them; for `save_video`.
        input_format, video_size, pixel_format, framerate: Of raw video and of images, as for `enhance`.
        note: Called with one line for anything out of the ordinary, such as damage.

    Raises InputError where no frame can be decoded.
    """
    options = InputOptions(
        input_format=input_format,
        video_size=video_size,
        pixel_format=pixel_format,
        framerate=exact(framerate),
        maps=tuple(maps),
        start_seconds=exact(start_seconds),
        duration_seconds=exact(duration_seconds),
        deinterlace=deinterlace,
    )
    return Video(Path(path), options, output, note or _ignored)


def exact(number: Number | None) -> Fraction | None:
    """Return a number as it was written: 0.2 is 1/5, and not the float next to it. Raises ValueError, TypeError."""
    if number is None:
        return None
    given: Any = number
    if isinstance(given, (np.floating, np.integer)):
        number = float(given)
    try:
        return Fraction(str(number)) if isinstance(number, float) else Fraction(number)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f'{number!r} is not a number; give 12.5, or a fraction as in "30000/1001"') from error
    except TypeError as error:
        raise TypeError(f"{number!r} ({type(number).__name__}) is not a number of seconds or frames") from error


def _ignored(line: str) -> None:
    """Take a note that nobody asked for."""


def rgb_format(bit_depth: int) -> PixelFormat:
    """Return the pixel format of frames in memory for a source of that depth: planar RGB of 8 or 16 bits."""
    return FORMATS["gbrp" if bit_depth == 8 else "gbrp16le"]


def rgb_color(color: Color) -> Color:
    """Return the colour of frames in memory whose source has that colour."""
    depth = 8 if color.bit_depth == 8 else 16
    return Color(Matrix.RGB, color.primaries, color.transfer, Range.FULL, ChromaLocation.LEFT, depth)


@torch.no_grad()  # whose tensors a caller may train with, unlike those of inference mode
def frames_of_batch(batch: FrameBatch, format_: PixelFormat, output: ArrayKind) -> list[Frame]:
    """Convert native planes to frames. format_: of the planes.

    Raises InputError for a colour matrix that cannot be converted to RGB.
    """
    color = rgb_color(batch.color)
    rgb = batch.planes[0]
    if not batch.color.is_rgb or batch.color.bit_depth != color.bit_depth:
        peak = 2.0**color.bit_depth - 1
        rgb = rgb_of_batch(batch, format_).clamp_(0, 1).mul_(peak).add_(0.5).to(color.dtype)
    images = rgb.permute(0, 2, 3, 1).contiguous()
    times = zip(batch.pts, batch.durations, strict=True)
    return [
        Frame(image.numpy() if output == "numpy" else image, pts, duration, batch.time_base, color)
        for image, (pts, duration) in zip(images, times, strict=True)
    ]
