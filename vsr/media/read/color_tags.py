"""Read colour tags, display matrix and HDR side data of frames, and make them explicit."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import av
from av.sidedata.sidedata import SideData, Type

from vsr.color.pixel_formats import PixelFormat
from vsr.frames import ChromaLocation, Color, Matrix, Primaries, Range, Transfer
from vsr.media.pyav_fixes import accept_unknown_side_data

__all__ = [
    "CLOSED_CAPTIONS",
    "ContentLight",
    "HdrMetadata",
    "MasteringDisplay",
    "color_of_frame",
    "color_of_rgb_as_video",
    "display_matrix_of_frame",
    "hdr_of_frame",
    "is_standard_definition",
    "side_data_not_carried",
    "STEREO_LAYOUT",
]

_Tag = TypeVar("_Tag", Matrix, Primaries, Transfer)

# Untagged video of standard definition is BT.601, and other BT.709. Players take it so by both sides of the image, as
# cinema formats have few lines.
_SD_MOST_LINES = 576
_HD_FEWEST_COLUMNS = 1280

# Codecs whose 4:2:0 chroma lies in the middle of its four luma samples, as in JPEG and MPEG-1.
CENTERED_CHROMA = {"mjpeg", "mpeg1video", "h261", "h263", "h263p", "flv", "flv1", "vp6", "vp8"}


accept_unknown_side_data()
_EXIF = Type(31)  # AV_FRAME_DATA_EXIF

# Codecs whose standards make gray limited in range where nothing is said; FFmpeg takes all other gray for full.
_LIMITED_GRAY = {"h264", "hevc", "vvc", "av1", "libdav1d", "libaom-av1", "mpeg2video", "mpeg4"}

STEREO_LAYOUT = "stereo 3D layout"
CLOSED_CAPTIONS = "closed captions (CEA-608/708)"

# Side data of frames that PyAV gives no way to hand to an encoder: named, never dropped in silence.
_NOT_CARRIED = {
    Type.A53_CC: CLOSED_CAPTIONS,  # which encoders with a place for them are given, see `Captions`
    Type.DOVI_RPU_BUFFER: "Dolby Vision metadata",
    Type.DYNAMIC_HDR_PLUS: "HDR10+ dynamic metadata",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid dynamic metadata",
    Type.SPHERICAL: "360° projection",
    Type.STEREO3D: STEREO_LAYOUT,
    Type.S12M_TIMECODE: "SMPTE 12-1 timecode",
    Type.ICC_PROFILE: "ICC profile",
    _EXIF: "EXIF metadata",
}


@dataclass(frozen=True, slots=True)
class MasteringDisplay:
    """SMPTE ST 2086: CIE xy of red, green, blue and white, and luminances in cd/m²; None where absent."""

    primaries: tuple[tuple[Fraction, Fraction], ...] | None
    white_point: tuple[Fraction, Fraction] | None
    luminance_cd_m2: tuple[Fraction, Fraction] | None


@dataclass(frozen=True, slots=True)
class ContentLight:
    """CTA-861.3: the brightest pixel and the brightest frame average, in cd/m²."""

    max_cll_cd_m2: int
    max_fall_cd_m2: int


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    mastering_display: MasteringDisplay | None = None
    content_light: ContentLight | None = None


def is_standard_definition(width: int, height: int) -> bool:
    """Tell whether players take untagged video of a size, in pixels, for BT.601."""
    return width < _HD_FEWEST_COLUMNS and height <= _SD_MOST_LINES


def color_of_frame(
    frame: av.VideoFrame, format_: PixelFormat, codec: str, chroma_location: ChromaLocation | None = None
) -> tuple[Color, bool]:
    """Return the explicit colour of a decoded frame, and whether its matrix had to be assumed.

    chroma_location: as the stream states it; None for that of its codec.

    An untagged stream is BT.601 below 1280 columns and up to 576 lines, else BT.709, limited range, as players
    assume; RGB is full range, and so is gray, except where a codec's standard says otherwise.
    """
    is_sd = is_standard_definition(frame.width, frame.height)
    if format_.kind == "rgb":
        matrix: Matrix | None = Matrix.RGB
    else:
        matrix = _member(Matrix, frame.colorspace)
        matrix = None if matrix is Matrix.RGB else matrix
    untagged = matrix is None
    matrix = matrix or (Matrix.SMPTE170M if is_sd else Matrix.BT709) if untagged else matrix
    assert matrix is not None
    full = frame.color_range == Range.FULL or frame.format.name.startswith("yuvj")
    if frame.color_range not in (Range.LIMITED, Range.FULL):
        full = full or format_.kind == "rgb" or (format_.kind == "gray" and codec not in _LIMITED_GRAY)
    primaries = _member(Primaries, frame.color_primaries) or _usual_primaries(matrix, frame.height)
    transfer = _member(Transfer, frame.color_trc) or _usual_transfer(matrix, format_.bit_depth)
    location = chroma_location or (ChromaLocation.CENTER if codec in CENTERED_CHROMA else ChromaLocation.LEFT)
    color_range = Range.FULL if full else Range.LIMITED
    return Color(matrix, primaries, transfer, color_range, location, format_.bit_depth), untagged


def color_of_rgb_as_video(color: Color, width: int, height: int) -> Color:
    """Choose the colour in which RGB is encoded where the codec wants Y'CbCr: limited range, matrix by size."""
    matrix = Matrix.SMPTE170M if is_standard_definition(width, height) else Matrix.BT709
    return Color(matrix, color.primaries, color.transfer, Range.LIMITED, ChromaLocation.LEFT, color.bit_depth)


def _member(kind: type[_Tag], value: int) -> _Tag | None:
    """Return the enumeration's member, or None for "unspecified", reserved and unknown numbers."""
    return kind(value) if value in kind._value2member_map_ else None


def _usual_primaries(matrix: Matrix, height: int) -> Primaries:
    if matrix in (Matrix.BT2020_NCL, Matrix.BT2020_CL, Matrix.ICTCP):
        return Primaries.BT2020
    if matrix is Matrix.BT470BG or (matrix is Matrix.SMPTE170M and height == _SD_MOST_LINES):
        return Primaries.BT470BG
    if matrix in (Matrix.SMPTE170M, Matrix.SMPTE240M):
        return Primaries.SMPTE170M
    return Primaries.BT709


def _usual_transfer(matrix: Matrix, bit_depth: int) -> Transfer:
    if matrix is Matrix.RGB:
        return Transfer.SRGB
    if matrix in (Matrix.BT2020_NCL, Matrix.BT2020_CL):
        return Transfer.BT2020_12 if bit_depth >= 12 else Transfer.BT2020_10
    if matrix in (Matrix.SMPTE170M, Matrix.BT470BG):
        return Transfer.SMPTE170M
    return Transfer.BT709


def display_matrix_of_frame(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Return the nine numbers of the display matrix, or None where the image is shown as it is stored."""
    data = _side_data(frame, Type.DISPLAYMATRIX)
    return None if data is None or len(data) < 36 else struct.unpack("<9i", data[:36])


def hdr_of_frame(frame: av.VideoFrame) -> HdrMetadata:
    """Read the mastering display (ST 2086) and the content light level of a frame."""
    light = _side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    display = _side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    return HdrMetadata(
        None if display is None else _mastering_display(display),
        None if light is None else ContentLight(*struct.unpack("<2I", light[:8])),
    )


def side_data_not_carried(frame: av.VideoFrame, codec: str) -> tuple[str, ...]:
    """Name the side data of a frame that the output will lack."""
    kinds = {data.type for data in frame.side_data}  # type: ignore[attr-defined]
    if codec == "tiff":
        kinds.discard(_EXIF)  # all of a TIFF's own fields count as such
    return tuple(name for kind, name in _NOT_CARRIED.items() if kind in kinds)


def _mastering_display(data: bytes) -> MasteringDisplay:
    """Unpack AVMasteringDisplayMetadata: 3×2 + 2 + 2 rationals of two ints, then two flags."""
    numbers = struct.unpack("<20i2i", data[:88])
    ratios = [Fraction(n, d) if d else Fraction(0) for n, d in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
    has_primaries, has_luminance = numbers[20], numbers[21]
    return MasteringDisplay(
        ((ratios[0], ratios[1]), (ratios[2], ratios[3]), (ratios[4], ratios[5])) if has_primaries else None,
        (ratios[6], ratios[7]) if has_primaries else None,
        (ratios[8], ratios[9]) if has_luminance else None,
    )


def _side_data(frame: av.VideoFrame, kind: Type) -> bytes | None:
    items: Iterable[SideData] = frame.side_data  # type: ignore[assignment]  # a sequence, whatever its stub says
    return next((bytes(data) for data in items if data.type == kind), None)
