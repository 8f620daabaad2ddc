"""Make what browsers can play of videos, and compare two videos frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av

import vsr
from vsr.errors import InputError
from vsr.quality.frames import as_measured, decoded_video
from vsr.quality.metrics import psnr_db
from vsr.serve.media_check import open_stranger

__all__ = ["FramePsnr", "browser_copy", "frame_psnrs", "playable_kind"]

# By the demuxer: media type, video and audio codecs, by the names of FFmpeg's decoders.
_PLAYED = {
    "mov": ("video/mp4", {"h264"}, {"aac", "mp3", "mp3float"}),
    "matroska": (
        "video/webm",
        {"vp8", "vp9", "libvpx", "libvpx-vp9"},
        {"opus", "libopus", "vorbis", "libvorbis"},
    ),
}
_PIXELS = ("yuv420p", "yuvj420p")
_QUALITY = 17  # CRF of x264: the eye sees no difference, and decoding is cheap


def playable_kind(path: Path) -> str | None:
    """Return the media type of a file that every browser plays as it is; None of any other.

    That is H.264 with AAC or MP3 in MP4, and VP8 or VP9 with Opus or Vorbis in WebM, of 8 bit 4:2:0.
    """
    try:
        with open_stranger(path) as container:
            kind, videos, sounds = _PLAYED[container.format.name.split(",")[0]]
            video = container.streams.video[0].codec_context
            is_played = video.name in videos and video.pix_fmt in _PIXELS
            used = {stream.codec_context.name for stream in container.streams.audio}
            return kind if is_played and used <= sounds else None
    except (vsr.VsrError, av.FFmpegError, LookupError):
        return None


def browser_copy(
    source: Path,
    target: Path,
    *,
    start_seconds: float | None = None,
    duration_seconds: float | None = None,
    demuxer: str | None = None,
) -> None:
    """Write a copy of a video, or of a part of it, that every browser plays; its frames have the times of the source.

    Args:
        source: The video.
        target: An MP4 file to write.
        start_seconds, duration_seconds: The part, as `vsr.enhance` takes it.
        demuxer: FFmpeg's name of the source's format; None to recognise it.
    """
    with vsr.open_video(
        source,
        start_seconds=start_seconds,
        duration_seconds=duration_seconds,
        input_format=demuxer,
        note=_ignored,
    ) as video:
        vsr.save_video(
            target,
            video,
            like=video,
            codec="libx264",
            crf=_QUALITY,
            preset="veryfast",
            pix_fmt="yuv420p",
            audio="none" if duration_seconds is not None else "aac",
            overwrite=True,
            verify=False,
        )


def _ignored(line: str) -> None:
    """Take a note: the page has shown those of the job."""


@dataclass(frozen=True, slots=True)
class FramePsnr:
    """Give the luma PSNR of a frame, in dB, and its time in seconds."""

    seconds: float
    psnr_db: float


def frame_psnrs(
    result: Path, reference: Path, on_frame: Callable[[int], None] = lambda number: None
) -> list[FramePsnr]:
    """Measure the luma PSNR of every frame of a finished video against the sharp original.

    Raises InputError where the two differ in size or number of frames.
    """
    found: list[FramePsnr] = []
    with closing(decoded_video(result, _ignored)) as frames, closing(decoded_video(reference, _ignored)) as truths:  # type: ignore[type-var]
        while True:
            frame, truth = next(frames, None), next(truths, None)
            if frame is None and truth is None:
                return found
            if frame is None or truth is None:
                raise InputError(f"{reference.name}: has {'fewer' if truth is None else 'more'} frames than the result")
            image, original, _ = as_measured(frame, truth)[:3]
            if image.size != original.size:
                sizes = [f"{each.size[0]}x{each.size[1]}" for each in (original, image)]
                raise InputError(
                    f"{reference.name}: is {sizes[0]}, and the result {sizes[1]}; they must be of one size"
                )
            found.append(FramePsnr(float(frame.seconds), psnr_db(image.luma, original.luma, peak=image.peak)))
            on_frame(len(found))
