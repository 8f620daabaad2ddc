"""Upscale frames that come one by one, and hand them on as they are done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch

from vsr.backends.select import choose_place
from vsr.events import OnNote
from vsr.frames import FrameBatch
from vsr.jobs.frame_source import FrameStream
from vsr.jobs.model_cache import ModelSource
from vsr.jobs.plan import Footage, choose_batch, choose_size
from vsr.media.read.reader import Chunk
from vsr.pipeline.color_path import Target
from vsr.pipeline.loading import ModelOptions
from vsr.pipeline.processor import make_processor
from vsr.pipeline.stages import NetworkStage
from vsr.pipeline.threads import Producer
from vsr.video import Frame, Image, Video, frames_of_batch, rgb_format

__all__ = ["upscale_frames"]


def upscale_frames(
    frames: Video | Iterable[Frame | Image], options: ModelOptions, models: ModelSource, note: OnNote
) -> Iterator[Frame]:
    """Upscale frames lazily, in their order; a few batches are in memory at a time.

    A video is decoded in a thread of its own, and its planes go through the network without a detour by RGB of 8
    bits; other frames are asked for in the caller's thread.

    Args:
        frames: A video, or any iterable of frames, arrays or tensors of one size.
        options: The model, the size that comes out, and the device.
        models: Loads the model.
        note: Called with one line for anything worth knowing.
    """
    with ExitStack() as stack:
        source = frames if isinstance(frames, Video) else FrameStream(frames)
        width, height = source.size
        place = choose_place(options.device, options.backend)
        choice = models.choose(options, place, Footage(width, height), note)
        upscaler = models.load(choice, _num_pixels(frames, source.size), note)
        size = choose_size(options, choice.scale, width, height, (False, False))
        target = Target(*size, rgb_format(source.color.bit_depth), source.color)
        network = NetworkStage(make_processor(upscaler, target, reuse=options.reuse, note=note), source.path)
        fitting = None if options.batch else upscaler.frames_that_fit(width, height)
        num_frames = choose_batch(options.batch, width, height, upscaler.device, fitting)
        batches: Iterable[FrameBatch] = source.batches(num_frames)
        if isinstance(source, Video):
            batches = producer = Producer(batches, "vsr-decode")
            stack.callback(producer.close)
            stack.callback(source.interrupt)
        for chunk in network.upscaled(Chunk((), batch) for batch in batches):
            assert chunk.batch is not None
            for frame in frames_of_batch(chunk.batch, target.pixel_format, source.output):
                yield frame if isinstance(source, Video) else _like_stream(frame, source)


def _num_pixels(frames: Video | Iterable[Frame | Image], size: tuple[int, int]) -> float:
    """Return the input pixels of all frames, by a header or the length of a list; infinite where that is not known."""
    if isinstance(frames, Video):
        num_frames = frames.info.num_frames_from_header
    else:
        num_frames = len(frames) if isinstance(frames, Sized) else None
    return math.inf if num_frames is None else float(num_frames) * size[0] * size[1]


def _like_stream(frame: Frame, stream: FrameStream) -> Frame:
    """Turn a frame into what the stream has: floats, and no time where there was none."""
    data = frame.data
    if stream.is_float:
        is_array = isinstance(data, np.ndarray)
        data = data.astype(np.float32) / 65535 if is_array else data.to(torch.float32) / 65535  # type: ignore[union-attr]
    return replace(frame, data=data, pts=frame.pts if stream.has_times else None)
