"""Open a decoder on a GPU that PyTorch uses, and bring its frames to the CPU without holding Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import torch
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.sidedata.sidedata import Type
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from vsr.errors import reason
from vsr.events import Note, NoteCode, OnNote

__all__ = ["GpuFrames", "copied", "open_on_gpu"]

# Of a frame, beside its samples; PyAV sets no others.
_ATTRIBUTES = (
    "pts",
    "dts",
    "duration",
    "time_base",
    "key_frame",
    "pict_type",
    "colorspace",
    "color_range",
    "color_primaries",
    "color_trc",
)


def open_on_gpu(gpu: int, open_with: Callable[[HWAccel], InputContainer], say: Callable[[str], None]) -> InputContainer:
    """Open an input with a decoder on a GPU whose frames stay there, in PyTorch's context, if that has one.

    FFmpeg's own context could not lend its memory, and the GPU's primary one it refuses, once PyTorch has made it with
    its own flags. Raises what `open_with` does.

    Args:
        gpu: index of the CUDA GPU.
        open_with: opens the input with the settings of a decoder.
        say: called with one line where the decoder does not work in PyTorch's context; its frames are then fetched as
            they are decoded.
    """
    if torch.cuda.is_available():
        options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
        try:
            torch.empty(1, device=f"cuda:{gpu}")  # makes the context where there is none yet
            with torch.cuda.device(gpu):
                return open_with(HWAccel("cuda", str(gpu), is_hw_owned=True, options=options))
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            why = reason(error) if isinstance(error, (av.FFmpegError, OSError)) else str(error).partition("\n")[0]
            say(f"the GPU's decoder does not work in PyTorch's context, but beside it, which is slower ({why})")
    return open_with(HWAccel("cuda", str(gpu), allow_software_fallback=True))


class GpuFrames:
    """Bring the frames of a decoder to the CPU: by PyTorch, through page-locked memory; else by PyAV.

    PyAV holds Python's lock meanwhile, which the threads of network and encoder then wait for, and copies to ordinary
    memory, which is slower. It is taken for frames of which more than the samples counts, as it copies all: the first,
    damaged ones, ones with fields or captions; and where PyTorch cannot read the frames, with one note.
    """

    def __init__(self, path: Path, warn: OnNote) -> None:
        """path: of the input, for messages.  warn: called with one line where PyTorch cannot read the frames."""
        self._path, self._warn = path, warn
        self._is_first, self._has_failed = True, False

    def fetch(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame on the CPU: the frame itself where it is there already."""
        if frame.sw_format is None:
            return frame
        is_first, self._is_first = self._is_first, False
        if not (is_first or self._has_failed or _is_more_than_samples(frame)):
            try:
                return _fetched(frame)
            except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                self._has_failed = True
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
                text = f"{self._path}: the GPU's frames are fetched by PyAV, which is slower ({why})"
                self._warn(Note(NoteCode.INPUT, text))
        return frame.reformat(format=frame.sw_format.name)


def _is_more_than_samples(frame: av.VideoFrame) -> bool:
    """Tell whether a frame has what a copy of its planes loses, or odd sides, which are not wrapped."""
    if frame.interlaced_frame or frame.is_corrupt or frame.width % 2 or frame.height % 2:
        return True
    return any(data.type == Type.A53_CC for data in frame.side_data)  # type: ignore[attr-defined]


def _fetched(frame: av.VideoFrame) -> av.VideoFrame:
    """Copy a frame's planes to memory of PyTorch, and make a frame of that."""
    assert frame.sw_format is not None
    planes = [from_dlpack(plane.__dlpack__()) for plane in frame.planes]
    fetched = av.VideoFrame.from_dlpack(copied(planes), format=frame.sw_format.name)
    for name in _ATTRIBUTES:
        setattr(fetched, name, getattr(frame, name))
    return fetched


def copied(planes: list[Tensor]) -> list[Tensor]:
    """Copy planes of a decoder to the CPU; page-locked where they are on a GPU, and complete on return.

    The decoder writes them on the default stream of the GPU, and so may the next frame's once these are let go: the
    copies are queued there, between the two, and waited for.
    """
    if not planes[0].is_cuda:
        return [torch.empty(plane.shape, dtype=plane.dtype).copy_(plane) for plane in planes]
    held = [torch.empty(plane.shape, dtype=plane.dtype, pin_memory=True) for plane in planes]
    device = planes[0].device
    stream, done = torch.cuda.default_stream(device), torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    with torch.cuda.device(device), torch.cuda.stream(stream):
        for target, plane in zip(held, planes, strict=True):
            target.copy_(plane, non_blocking=True)
        done.record(stream)
    done.synchronize()  # lets Python's lock go
    return held
