"""Encode and decode frames in memory, to give training and test clips the marks of a codec.

Every codec runs in one thread with deterministic options: the same frames and options give the same samples, in one
process and from run to run on one machine.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import av.codec
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
from vsr.media.pyav_fixes import open_encoder

__all__ = [
    "CODECS",
    "SD_COLOR",
    "X26X_PRESETS",
    "YUV420",
    "Codec",
    "CodecSettings",
    "available_codecs",
    "clip_of_planes",
    "missing_codecs",
    "rgb_of_yuv420",
    "round_trip",
    "x264_rgb_round_trip",
    "x264_round_trip",
    "yuv420_of_rgb",
]

YUV420 = FORMATS["yuv420p"]
FRAME_RATE = Fraction(25)
# BT.601, limited range, left chroma: what players assume of images as small as low-resolution ones.
SD_COLOR = Color(
    Matrix.SMPTE170M, Primaries.SMPTE170M, Transfer.SMPTE170M, Range.LIMITED, ChromaLocation.LEFT, bit_depth=8
)


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """Describe the settings that a user of an encoder chooses.

    Args:
        quality: constant rate factor of x264, x265, VP9 and SVT-AV1; quantiser of VP8 (0 to 63), and of the MPEG family
            and MJPEG (1 to 31). Lower is better. DV has one quality.
        gop_frames: the most frames from one key frame to the next.
        b_frames: the most B-frames in a row; libvpx and SVT-AV1 arrange their own.
        preset: one of the codec's `presets`.
    """

    quality: int
    gop_frames: int = 250
    b_frames: int = 0
    preset: str = ""


@dataclass(frozen=True, slots=True)
class Codec:
    """Describe an encoder and a decoder by FFmpeg's names.

    Args:
        options: makes FFmpeg's options of the encoder for some settings.
        smallest_side, side_multiple: luma samples; other frames are padded. The padding is cropped again.
        canvas: (height, width) of the only frames that the codec knows. The frames of a clip are laid side by side on
            it, so that its blocks keep their size relative to the content; for codecs without prediction alone.
    """

    encoder: str
    decoder: str
    options: Callable[[CodecSettings], dict[str, str]]
    presets: tuple[str, ...] = ("",)
    pixel_format: str = "yuv420p"
    smallest_side: int = 2
    side_multiple: int = 2
    canvas: tuple[int, int] | None = None

    def fits(self, height: int, width: int) -> bool:
        """Return True if frames of this size can be encoded."""
        return self.canvas is None or (height <= self.canvas[0] and width <= self.canvas[1])


def _x264(settings: CodecSettings) -> dict[str, str]:
    params = {
        "keyint": settings.gop_frames,
        "bframes": settings.b_frames,
        # Macroblock-tree looks at the frames to come, of which a clip this short has none, and x264's
        # assembly for it gives other bytes from run to run.
        "mbtree": 0,
    }
    return {"crf": str(settings.quality), "preset": settings.preset, "x264-params": _joined(params)}


def _x265(settings: CodecSettings) -> dict[str, str]:
    params = {
        "keyint": settings.gop_frames,
        "bframes": settings.b_frames,
        "pools": "none",
        "frame-threads": 1,
        "wpp": 0,
        # With its 64² blocks, x265 reads memory that it never wrote where an image is hardly larger than one.
        "ctu": 32,
        "log-level": "none",
    }
    return {"crf": str(settings.quality), "preset": settings.preset, "x265-params": _joined(params)}


def _vpx(settings: CodecSettings) -> dict[str, str]:
    """Set options of libvpx for a preset of a deadline and a speed.

    'realtime' skips still blocks, as programs for calls do.
    """
    deadline, speed = settings.preset.split("-")
    live = {"lag-in-frames": "0", "auto-alt-ref": "0", "static-thresh": "100"}
    stored = {"lag-in-frames": "16", "auto-alt-ref": "1"}
    common = {"deadline": deadline, "cpu-used": speed, "g": str(settings.gop_frames)}
    return common | (live if deadline == "realtime" else stored)


def _vp8(settings: CodecSettings) -> dict[str, str]:
    # Its CRF is only the best quality that a bit rate may reach.
    return _vpx(settings) | {"b": "20M", "qmin": str(settings.quality), "qmax": str(settings.quality)}


def _vp9(settings: CodecSettings) -> dict[str, str]:
    return _vpx(settings) | {"b": "0", "crf": str(settings.quality)}


def _svtav1(settings: CodecSettings) -> dict[str, str]:
    return {
        "crf": str(settings.quality),
        "preset": settings.preset,
        "g": str(settings.gop_frames),
        "svtav1-params": "lp=1",
    }


def _mpeg(settings: CodecSettings) -> dict[str, str]:
    """Set options of the MPEG family: 'plain' is FFmpeg's default, 'rd' decides by rate and distortion."""
    quantizer = str(settings.quality)
    options = {"qmin": quantizer, "qmax": quantizer, "g": str(settings.gop_frames), "bf": str(settings.b_frames)}
    return options | ({"mbd": "rd", "trellis": "1"} if settings.preset == "rd" else {})


def _mjpeg(settings: CodecSettings) -> dict[str, str]:
    return {"qmin": str(settings.quality), "qmax": str(settings.quality)}


def _dv(settings: CodecSettings) -> dict[str, str]:
    return {}


X26X_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")

# Plain H.263 knows five frame sizes; its successor of 1998 and Flash's variant know all.
CODECS: dict[str, Codec] = {
    "h264": Codec("libx264", "h264", _x264, X26X_PRESETS),
    "hevc": Codec("libx265", "hevc", _x265, X26X_PRESETS, smallest_side=32),
    "vp8": Codec("libvpx", "vp8", _vp8, ("good-2", "good-4", "realtime-8")),
    "vp9": Codec("libvpx-vp9", "vp9", _vp9, ("good-2", "good-4", "realtime-7")),
    "av1": Codec("libsvtav1", "libdav1d", _svtav1, ("8", "10")),
    "mpeg2": Codec("mpeg2video", "mpeg2video", _mpeg, ("plain", "rd")),
    "mpeg4": Codec("mpeg4", "mpeg4", _mpeg, ("plain", "rd")),
    "h263": Codec("h263p", "h263p", _mpeg, ("plain", "rd"), side_multiple=4),
    "flv1": Codec("flv", "flv", _mpeg, ("plain", "rd")),
    # Its samples are of full range; those of limited range take the same way, if a little smaller.
    "mjpeg": Codec("mjpeg", "mjpeg", _mjpeg, pixel_format="yuvj420p"),
    # No macroblock lies across two frames of the canvas.
    "dv": Codec("dvvideo", "dvvideo", _dv, side_multiple=16, canvas=(576, 720)),
}


def _joined(params: Mapping[str, object]) -> str:
    return ":".join(f"{key}={value}" for key, value in params.items())


@functools.cache
def available_codecs() -> tuple[str, ...]:
    """Name the codecs of `CODECS` that this PyAV can encode and decode."""
    return tuple(name for name, codec in CODECS.items() if _has(codec.encoder, "w") and _has(codec.decoder, "r"))


def missing_codecs() -> tuple[str, ...]:
    """Name the codecs of `CODECS` that this PyAV lacks."""
    return tuple(name for name in CODECS if name not in available_codecs())


def _has(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.codec.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def clip_of_planes(luma: Tensor, chroma: Tensor) -> FrameBatch:
    """Make a clip of 25 frames a second from (N, 1, h, w) and (N, 2, ceil(h/2), ceil(w/2)) uint8 planes."""
    num_frames = len(luma)
    return FrameBatch((luma, chroma), tuple(range(num_frames)), (1,) * num_frames, 1 / FRAME_RATE, SD_COLOR)


def yuv420_of_rgb(rgb: Tensor, siting: ChromaLocation = ChromaLocation.LEFT) -> FrameBatch:
    """Convert RGB to N frames of 8 bit 4:2:0 planes at 25 frames a second.

    Args:
        rgb: (N, 3, h, w) floats in [0, 1].
        siting: place of the chroma samples; the frames are tagged as left-sited all the same.
    """
    sited = dataclasses.replace(SD_COLOR, chroma_location=siting)
    luma, chroma = convert.rgb_to_ycbcr(rgb, SD_COLOR.matrix)
    chroma = convert.resize_chroma(chroma, (SD_COLOR, (0, 0)), (sited, (1, 1)), (1, 1), _size(rgb))
    return clip_of_planes(convert.quantize_luma(luma, SD_COLOR), convert.quantize_chroma(chroma, SD_COLOR))


def rgb_of_yuv420(frames: FrameBatch) -> Tensor:
    """Convert the planes of `yuv420_of_rgb` to (N, 3, h, w) uint8."""
    luma, chroma = frames.planes
    full = convert.upsample_chroma(convert.dequantize_chroma(chroma, SD_COLOR), SD_COLOR, (1, 1), _size(luma))
    rgb = convert.ycbcr_to_rgb(convert.dequantize_luma(luma, SD_COLOR), full, SD_COLOR.matrix)
    return rgb.mul_(255).add_(0.5).clamp_(0, 255.5).to(torch.uint8)


def round_trip(frames: FrameBatch, codec: Codec, options: Mapping[str, str]) -> FrameBatch:
    """Encode 8 bit 4:2:0 frames as one clip, and decode them again; any size.

    Args:
        frames: the clip.
        codec: encoder and decoder.
        options: the encoder's own, like ffmpeg's -crf, -preset and -x264-params.

    Raises RuntimeError if the decoder gives another number of frames than went in.
    """
    height, width = frames.height, frames.width
    if not codec.fits(height, width):
        raise ValueError(f"frames of {width}x{height} do not fit the {codec.encoder} encoder")
    step = codec.side_multiple
    padded = _padded(frames, [max(codec.smallest_side, -(-side // step) * step) for side in (height, width)])
    if codec.canvas is None:
        luma, chroma = _decoded(_encoded(padded, codec, options), codec, padded)
    else:
        mosaic = _mosaic(padded, codec.canvas)
        planes = _decoded(_encoded(mosaic, codec, options), codec, mosaic)
        luma, chroma = (
            _tiles(plane, _size(own), frames.num_frames) for plane, own in zip(planes, padded.planes, strict=True)
        )
    chroma_height, chroma_width = YUV420.chroma_size(height, width)
    cropped = (luma[..., :height, :width].contiguous(), chroma[..., :chroma_height, :chroma_width].contiguous())
    return FrameBatch(cropped, frames.pts, frames.durations, frames.time_base, frames.color)


def x264_round_trip(frames: FrameBatch, options: Mapping[str, str]) -> FrameBatch:
    """Encode the planes of `yuv420_of_rgb` with libx264 as one clip, and decode them again."""
    return round_trip(frames, CODECS["h264"], options)


def x264_rgb_round_trip(rgb: Tensor, options: Mapping[str, str]) -> Tensor:
    """Pass (N, 3, h, w) floats in [0, 1] through YUV 4:2:0 and libx264; return uint8 RGB. Odd sizes work."""
    return rgb_of_yuv420(x264_round_trip(yuv420_of_rgb(rgb), options))


def _encoded(frames: FrameBatch, codec: Codec, options: Mapping[str, str]) -> list[Packet[Stream]]:
    encoder = av.CodecContext.create(codec.encoder, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frames.width, frames.height, codec.pixel_format
    encoder.time_base, encoder.framerate = frames.time_base, FRAME_RATE
    encoder.thread_count = 1
    encoder.options = dict(options)
    open_encoder(encoder)
    packets: list[Packet[Stream]] = []
    for position in range(frames.num_frames):
        frame = store_planes(frames, position, FORMATS[codec.pixel_format])
        frame.pts, frame.time_base = frames.pts[position], frames.time_base
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _decoded(packets: list[Packet[Stream]], codec: Codec, like: FrameBatch) -> tuple[Tensor, ...]:
    """Decode packets into planes, as many and as large as those of `like`."""
    decoder = av.CodecContext.create(codec.decoder, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    out = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    if len(out) != like.num_frames:
        raise RuntimeError(f"{like.num_frames} frames went into {codec.encoder} and {len(out)} came out")
    planes = allocate_planes(YUV420, like.num_frames, like.height, like.width)
    for position, frame in enumerate(out):
        load_planes(frame, FORMATS[frame.format.name], planes, position)
    return planes


def _padded(frames: FrameBatch, size: list[int]) -> FrameBatch:
    """Repeat the last row and column until the luma is of an even size (height, width)."""
    if [frames.height, frames.width] == size:
        return frames
    planes = [
        F.pad(plane.float(), (0, width - plane.shape[3], 0, height - plane.shape[2]), mode="replicate").byte()
        for plane, (height, width) in zip(frames.planes, (size, (size[0] // 2, size[1] // 2)), strict=True)
    ]
    return FrameBatch(tuple(planes), frames.pts, frames.durations, frames.time_base, frames.color)


def _mosaic(frames: FrameBatch, canvas: tuple[int, int]) -> FrameBatch:
    """Lay the frames of a clip side by side on as few frames of the canvas's size as hold them."""
    shape = YUV420.chroma_size(*canvas)
    luma, chroma = (_mosaic_plane(plane, size) for plane, size in zip(frames.planes, (canvas, shape), strict=True))
    return clip_of_planes(luma, chroma)


def _mosaic_plane(plane: Tensor, canvas: tuple[int, int]) -> Tensor:
    num_frames, channels, height, width = plane.shape
    rows, columns = canvas[0] // height, canvas[1] // width
    num_canvases = -(-num_frames // (rows * columns))
    # What is left over of the last canvas is filled with the clip again: as busy as the rest.
    index = torch.arange(num_canvases * rows * columns) % num_frames
    tiles = plane[index].view(num_canvases, rows, columns, channels, height, width)
    whole = tiles.permute(0, 3, 1, 4, 2, 5).reshape(num_canvases, channels, rows * height, columns * width)
    rest = (0, canvas[1] - columns * width, 0, canvas[0] - rows * height)
    return F.pad(whole.float(), rest, mode="replicate").byte()


def _tiles(plane: Tensor, size: tuple[int, int], num_frames: int) -> Tensor:
    """Cut the first `num_frames` tiles out of a `_mosaic_plane`."""
    num_canvases, channels = plane.shape[:2]
    rows, columns = plane.shape[2] // size[0], plane.shape[3] // size[1]
    whole = plane[..., : rows * size[0], : columns * size[1]]
    tiles = whole.reshape(num_canvases, channels, rows, size[0], columns, size[1]).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(-1, channels, *size)[:num_frames]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
