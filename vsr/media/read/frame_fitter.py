"""Bring every frame of a video to the size and pixel format of its first one."""

from __future__ import annotations

from pathlib import Path

import av

from vsr.events import Note, NoteCode, OnNote
from vsr.media.pyav_fixes import resize_frame
from vsr.media.read.video_info import VideoInfo

__all__ = ["FrameFitter"]


class FrameFitter:
    """Resize and convert frames that differ from the first one, by one pass of swscale, and say so."""

    def __init__(self, path: Path, info: VideoInfo, warn: OnNote) -> None:
        """Set the size and format to keep.

        Args:
            path: of the input, for messages.
            info: of the video, as its first frame tells.
            warn: called with one line for each new size and each new format.
        """
        self._path, self._info, self._warn = path, info, warn
        self._strange_sizes: set[tuple[int, int]] = set()
        self._strange_formats: set[str] = set()

    def fit(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame of the size and format of the first one; the frame itself, where it has them."""
        info, size = self._info, (frame.width, frame.height)
        if frame.format.name == info.pixel_format.name and size == (info.width, info.height):
            return frame
        if size != (info.width, info.height) and size not in self._strange_sizes:
            self._strange_sizes.add(size)
            self._warn(
                Note(
                    NoteCode.INPUT,
                    f"{self._path}: the picture changes size to {frame.width}x{frame.height}; "
                    f"scaled to the first size, {info.width}x{info.height}",
                )
            )
        if frame.format.name not in (info.source_pixel_format, *self._strange_formats):
            self._strange_formats.add(frame.format.name)
            self._warn(
                Note(
                    NoteCode.INPUT,
                    f"{self._path}: the pixel format changes to {frame.format.name}; "
                    f"turned into the first one, {info.pixel_format.name}",
                )
            )
        # Y'CbCr samples keep their meaning: no change of matrix or range.
        converts_colors = info.pixel_format.kind == "rgb"
        return resize_frame(frame, info.width, info.height, info.pixel_format.name, converts_colors=converts_colors)
