"""Through H.264 and back in memory: what a video codec does to training and test frames."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import av
import torch
import torch.nn.functional as F
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from torch import Tensor

from vsr.color import conversion as convert
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.media.av_frames import load_planes, store_planes

__all__ = ["SD_COLOR", "YUV420", "rgb_of_yuv420", "x264_rgb_round_trip", "x264_round_trip", "yuv420_of_rgb"]

YUV420 = FORMATS["yuv420p"]
FRAME_RATE = Fraction(25)
# BT.601, limited range, left chroma: what players assume of pictures as small as low-resolution ones.
SD_COLOR = Color(
    Matrix.SMPTE170M, Primaries.SMPTE170M, Transfer.SMPTE170M, Range.LIMITED, ChromaLocation.LEFT, bit_depth=8
)


def yuv420_of_rgb(rgb: Tensor) -> FrameBatch:
    """(N, 3, h, w) floats in [0, 1], h and w even, to N frames of 8 bit planes at 25 frames a second."""
    num_frames, _, height, width = rgb.shape
    luma, chroma = convert.rgb_to_ycbcr(rgb, SD_COLOR.matrix)
    chroma = convert.resize_chroma(chroma, (SD_COLOR, (0, 0)), (SD_COLOR, (1, 1)), (1, 1), (height, width))
    planes = (convert.quantize_luma(luma, SD_COLOR), convert.quantize_chroma(chroma, SD_COLOR))
    return FrameBatch(planes, tuple(range(num_frames)), (1,) * num_frames, 1 / FRAME_RATE, SD_COLOR)


def rgb_of_yuv420(frames: FrameBatch) -> Tensor:
    """The planes of `yuv420_of_rgb` to (N, 3, h, w) uint8."""
    luma, chroma = frames.planes
    full = convert.upsample_chroma(convert.dequantize_chroma(chroma, SD_COLOR), SD_COLOR, (1, 1), _size(luma))
    rgb = convert.ycbcr_to_rgb(convert.dequantize_luma(luma, SD_COLOR), full, SD_COLOR.matrix)
    return rgb.mul_(255).add_(0.5).clamp_(0, 255.5).to(torch.uint8)


def x264_round_trip(frames: FrameBatch, options: Mapping[str, str]) -> FrameBatch:
    """Encode the planes of `yuv420_of_rgb` with libx264 as one clip, and decode them again.

    options: the encoder's own, like ffmpeg's -crf, -preset and -x264-params.
    One thread, so that the same frames and options give the same bytes.
    """
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frames.width, frames.height, YUV420.name
    encoder.time_base, encoder.framerate = frames.time_base, FRAME_RATE
    encoder.thread_count = 1
    encoder.options = dict(options)
    packets: list[Packet[Stream]] = []
    for position in range(frames.num_frames):
        frame = store_planes(frames, position, YUV420)
        frame.pts, frame.time_base = frames.pts[position], frames.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return _decoded(packets, frames)


def _decoded(packets: list[Packet[Stream]], like: FrameBatch) -> FrameBatch:
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    out = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    if len(out) != like.num_frames:
        raise RuntimeError(f"{like.num_frames} frames went into x264 and {len(out)} came out")
    planes = allocate_planes(YUV420, like.num_frames, like.height, like.width)
    for position, frame in enumerate(out):
        load_planes(frame, YUV420, planes, position)
    return FrameBatch(planes, like.pts, like.durations, like.time_base, like.color)


def x264_rgb_round_trip(rgb: Tensor, options: Mapping[str, str]) -> Tensor:
    """(N, 3, h, w) floats in [0, 1] through YUV 4:2:0 and libx264 to (N, 3, h, w) uint8; odd sizes work."""
    height, width = _size(rgb)
    even = F.pad(rgb, (0, width % 2, 0, height % 2), mode="replicate")
    return rgb_of_yuv420(x264_round_trip(yuv420_of_rgb(even), options))[..., :height, :width]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
