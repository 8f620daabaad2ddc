"""Measure the quality of frames against a reference while a job runs."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError
from vsr.events import OnNote
from vsr.frames import FrameBatch
from vsr.media.images import read_rgb
from vsr.media.read.options import InputOptions
from vsr.media.read.reader import VideoReader
from vsr.media.write.encoder import VideoSettings
from vsr.quality.frames import LUMA, Image, Luma, batch_luma_psnr_db, is_same_moment, undamaged_frames
from vsr.quality.metrics import pooled_psnr_db, psnr_db

__all__ = ["FrameQuality", "ReferenceMeter", "image_quality", "read_reference"]

_MEASURED = "the frames as they are handed to the encoder"
_DIGITS = 6  # kept of a figure in dB


class FrameQuality:
    """Collect luma PSNR in dB frame by frame, with times in seconds on the output's clock."""

    def __init__(self, reference: Path) -> None:
        self._reference = reference
        self._luma: Luma | None = None
        self._pts_seconds: list[float] = []
        self._psnrs_db: list[float] = []

    def append(self, pts_seconds: Fraction, value_db: float, luma: Luma) -> None:
        self._pts_seconds.append(float(pts_seconds))
        self._psnrs_db.append(value_db)
        self._luma = luma

    @property
    def mean_psnr_db(self) -> float:
        """Return the mean of the frames' PSNR, as papers give it; infinite where one frame equals the reference."""
        return fmean(self._psnrs_db)

    def as_json(self) -> dict[str, object]:
        frames = zip(self._pts_seconds, self._psnrs_db, strict=True)
        return {
            "reference": str(self._reference),
            "measured": _MEASURED,
            "luma": None if self._luma is None else LUMA[self._luma],
            "mean_luma_psnr_db": _number(self.mean_psnr_db),
            "pooled_luma_psnr_db": _number(pooled_psnr_db(self._psnrs_db)),
            "frames": [{"pts_seconds": pts, "luma_psnr_db": _number(value)} for pts, value in frames],
        }


class ReferenceMeter:
    """Compare upscaled frames with those of a reference video as they come. Use as a context manager.

    The same part of the reference is read as of the input (`start_seconds`, `duration_seconds`), on the same clock.
    """

    def __init__(
        self,
        reference: Path,
        source: VideoReader,
        settings: VideoSettings,
        note: OnNote,
        *,
        start_seconds: Fraction | None = None,
        duration_seconds: Fraction | None = None,
    ) -> None:
        """Open the reference and compare its header with the job's.

        Args:
            reference: the reference video.
            source: the input of the job.
            settings: size and samples of the output.
            note: called with one line for each irregularity of the reference.
            start_seconds, duration_seconds: the part of the source that is enhanced; None for its start, and its end.

        Raises InputError where the headers show already that the two cannot belong together.
        """
        self.quality = FrameQuality(reference)
        self._path, self._source, self._format = reference, source.path, settings.pixel_format
        self._num_frames = 0
        part = InputOptions(start_seconds=start_seconds, duration_seconds=duration_seconds)
        self._reader = VideoReader(reference, part, warn=note)
        try:
            info = self._reader.info
            _check_size(reference, (info.width, info.height), (settings.width, settings.height))
            if start_seconds is None and duration_seconds is None:
                _check_lengths(self._reader, source)
        except BaseException:
            self._reader.close()
            raise
        self._frames = undamaged_frames(self._reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def measure(self, batch: FrameBatch) -> None:
        """Measure upscaled frames, in the output's planes. Raises InputError where one has no counterpart."""
        for output in batch.split(1):
            truth = next(self._frames, None)
            seconds = output.pts[0] * output.time_base
            if truth is None:
                raise InputError(f"{self._path}: ends after {self._num_frames} frames, and {self._source} has more")
            self._check_time(seconds, truth, output.time_base)
            value_db, luma = batch_luma_psnr_db((truth, self._reader.info.pixel_format), (output, self._format))
            self.quality.append(seconds, value_db, luma)
            self._num_frames += 1

    def finish(self) -> None:
        """Check, after the last frame, that the reference has no more. Raises InputError where it has."""
        if next(self._frames, None) is not None:
            raise InputError(f"{self._path}: goes on after the {self._num_frames} frames of {self._source}")

    def _check_time(self, seconds: Fraction, truth: FrameBatch, tick: Fraction) -> None:
        truth_seconds = truth.pts[0] * truth.time_base
        if not is_same_moment(seconds, truth_seconds, max(tick, truth.time_base)):
            raise InputError(
                f"{self._path}: its frame {self._num_frames + 1} is at {float(truth_seconds):.6f} s, and that of "
                f"{self._source} at {float(seconds):.6f} s: a frame is missing or the start is another"
            )


def read_reference(reference: Path, size: tuple[int, int]) -> Tensor:
    """Read a reference image as (3, H, W) uint8 RGB. Raises InputError if its size is not the output's."""
    truth = read_rgb(reference)
    _check_size(reference, (truth.shape[2], truth.shape[1]), size)
    return truth


def image_quality(reference: Path, truth: Tensor, upscaled: np.ndarray) -> FrameQuality:
    """Measure the BT.601 luma PSNR of an upscaled image against a reference.

    Args:
        reference: path of the reference, for the result.
        truth: the reference, as `read_reference` returns it.
        upscaled: the image, as `Upscaler.upscale_image` returns it; alpha does not count.
    """
    pixels = torch.from_numpy(np.atleast_3d(upscaled).astype(np.float32)).permute(2, 0, 1)[:3].expand(3, -1, -1)
    if upscaled.dtype == np.uint16:
        pixels = pixels / 257
    quality = FrameQuality(reference)
    value_db = psnr_db(Image.from_rgb(pixels).luma, Image.from_rgb(truth).luma)
    quality.append(Fraction(0), value_db, "bt601")
    return quality


def _check_size(reference: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size != expected:
        raise InputError(
            f"{reference}: is {size[0]}x{size[1]}, and the output will be {expected[0]}x{expected[1]}; "
            "name another reference, or give `size`"
        )


def _check_lengths(reference: VideoReader, source: VideoReader) -> None:
    """Raise InputError where the headers tell that frames are missing.

    Headers may err, so both the number of frames and their duration must say so.
    """
    first, second = reference.info.num_frames_from_header, source.info.num_frames_from_header
    time, source_time = _seconds_from_header(reference), _seconds_from_header(source)
    if first is None or second is None or first == second or time is None or source_time is None:
        return
    if abs(time - source_time) * max(first, second) >= max(time, source_time) / 2:  # half a frame
        raise InputError(
            f"{reference.path}: has {first} frames in {float(time):.3f} s, and {source.path} "
            f"{second} in {float(source_time):.3f} s; a reference has a frame for each of the input"
        )


def _seconds_from_header(reader: VideoReader) -> Fraction | None:
    duration, time_base = reader.stream.duration, reader.stream.time_base
    return None if duration is None or time_base is None else duration * time_base


def _number(value_db: float) -> float | str:
    """Format a PSNR for JSON, which has no infinity."""
    return round(value_db, _DIGITS) if math.isfinite(value_db) else str(value_db)
