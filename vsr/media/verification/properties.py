"""Compare how frames are to be shown: size, shape, rotation, colour; and chapters."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from fractions import Fraction

from vsr.events import counted
from vsr.frames import ChromaLocation, Matrix, Range, Transfer
from vsr.media.read.color_tags import CENTERED_CHROMA, MasteringDisplay
from vsr.media.read.video_info import VideoInfo
from vsr.media.verification.contents import ChapterMark, FileContents
from vsr.media.verification.difference import Difference, DifferenceCode

__all__ = ["chapter_differences", "image_differences", "mean_color_differences"]

ASPECT_TOLERANCE = 0.01  # of the shape, for sides that are rounded to even numbers
CHAPTER_SECONDS = 0.002  # containers' clocks for chapters tick every millisecond
HDR_TOLERANCE = Fraction(1, 1000)  # of a luminance; and of a chromaticity of 1
MEAN_COLOR_TOLERANCE = 0.06  # of full scale
ROTATION_TOLERANCE = 2**16 // 100  # of a display matrix in 16.16 fixed point

# Numbers of H.273 that stand for the same formula, by what they are of.
_SAME_FORMULA: dict[str, dict[IntEnum, IntEnum]] = {
    "matrix": {Matrix.BT470BG: Matrix.SMPTE170M},
    "transfer": {
        Transfer.SMPTE170M: Transfer.BT709,
        Transfer.BT2020_10: Transfer.BT709,
        Transfer.BT2020_12: Transfer.BT709,
    },
}


def image_differences(source: VideoInfo, output: VideoInfo) -> Iterator[Difference]:
    """Compare how images are to be shown; another size, codec and pixel format are expected."""
    if output.width < source.width or output.height < source.height:
        text = f"the image is {output.width}x{output.height}, smaller than the source's {source.width}x{source.height}"
        yield Difference(DifferenceCode.SIZE, text)
    want, got = _shape(source), _shape(output)
    if abs(got / want - 1) > ASPECT_TOLERANCE:
        text = f"the image is shown {float(got):.3f} times as wide as high, and the source {float(want):.3f} times"
        yield Difference(DifferenceCode.ASPECT, text)
    if not _is_same_rotation(source.display_matrix, output.display_matrix):
        turned = [f"{i.rotation_degrees} degrees" if i.display_matrix else "none" for i in (output, source)]
        text = f"the image is shown with another rotation: {turned[0]}, and the source {turned[1]}"
        yield Difference(DifferenceCode.ROTATION, text)
    yield from _color_differences(source, output)
    yield from _sample_differences(source, output)
    yield from _hdr_differences(source, output)


def mean_color_differences(want: tuple[float, ...], got: tuple[float, ...]) -> Iterator[Difference]:
    """Compare the mean red, green and blue of the first frames, which no upscaler moves far."""
    if max(abs(a - b) for a, b in zip(want, got, strict=True)) > MEAN_COLOR_TOLERANCE:
        shown = [", ".join(f"{value:.2f}" for value in color) for color in (got, want)]
        text = f"the first frame's mean red, green and blue are {shown[0]}, and in the source {shown[1]}"
        yield Difference(DifferenceCode.COLOR, text)


def _shape(info: VideoInfo) -> Fraction:
    return Fraction(info.width, info.height) * (info.sample_aspect_ratio or 1)


def _is_same_rotation(want: tuple[int, ...] | None, got: tuple[int, ...] | None) -> bool:
    """Compare display matrices, but for their translation, which is in pixels."""
    unturned = (2**16, 0, 0, 0, 2**16)
    want, got = (matrix[:5] if matrix else unturned for matrix in (want, got))
    return all(abs(a - b) <= ROTATION_TOLERANCE for a, b in zip(want, got, strict=True))


def _color_differences(source: VideoInfo, output: VideoInfo) -> Iterator[Difference]:
    """Compare colour as players take it: untagged video by its size."""
    want, got = source.color, output.color
    names = ["primaries"]
    if want.is_rgb == got.is_rgb:
        names += ["matrix", "transfer", "range"]  # of RGB coded as Y'CbCr, these are up to who codes it
    if any(source.pixel_format.chroma_shift) and any(output.pixel_format.chroma_shift):
        names.append("chroma_location")
    for name in names:
        a, b = getattr(want, name), getattr(got, name)
        if _is_of_codec(name, source, output):
            continue
        same = _SAME_FORMULA.get(name, {})
        if same.get(a, a) is not same.get(b, b):
            tagged = " (untagged)" if output.untagged else ""
            text = f"the {name.replace('_', ' ')} of the colour is {b.name}{tagged}, and the source's {a.name}"
            yield Difference(DifferenceCode.COLOR, text)


def _is_of_codec(name: str, source: VideoInfo, output: VideoInfo) -> bool:
    """Tell whether a property of the colour says only how the output's codec has samples, not how they are shown.

    Chroma lies between the pixels in some codecs, JPEG has full range, and nothing but the size tells the primaries of
    video without tags.
    """
    if name == "chroma_location":
        return output.codec in CENTERED_CHROMA and output.color.chroma_location is ChromaLocation.CENTER
    if name == "range":
        return output.codec == "mjpeg" and output.color.range is Range.FULL
    return name == "primaries" and source.untagged and output.untagged


def _sample_differences(source: VideoInfo, output: VideoInfo) -> Iterator[Difference]:
    """Name what samples of the output cannot hold of the source's."""
    want, got = source.pixel_format, output.pixel_format
    if got.bit_depth < want.bit_depth:
        yield Difference(DifferenceCode.SAMPLES, f"samples have {got.bit_depth} bits of {want.bit_depth}")
    if want.alpha and not got.alpha:
        yield Difference(DifferenceCode.SAMPLES, "alpha is missing")
    is_coarser = any(b > a for a, b in zip(want.chroma_shift, got.chroma_shift, strict=True))
    if want.kind != "gray" and (got.kind == "gray" or is_coarser):
        text = f"colour has fewer samples: {output.source_pixel_format} of {source.source_pixel_format}"
        yield Difference(DifferenceCode.SAMPLES, text)


def _hdr_differences(source: VideoInfo, output: VideoInfo) -> Iterator[Difference]:
    """Compare HDR10 metadata."""
    want, got = source.hdr, output.hdr
    if want.mastering_display is not None and not _is_same_display(want.mastering_display, got.mastering_display):
        change = "differs" if got.mastering_display else "is missing"
        yield Difference(DifferenceCode.HDR, f"the mastering display of HDR10 {change}")
    if want.content_light not in (None, got.content_light):
        change = "differs" if got.content_light else "is missing"
        yield Difference(DifferenceCode.HDR, f"the content light level of HDR10 {change}")


def _is_same_display(want: MasteringDisplay, got: MasteringDisplay | None) -> bool:
    """Compare mastering displays, as far as their values are coded with the same precision."""
    if got is None:
        return False
    points, found_points = _chromaticities(want), _chromaticities(got)
    luminances, found_luminances = want.luminance_cd_m2 or (), got.luminance_cd_m2 or ()
    if len(points) != len(found_points) or len(luminances) != len(found_luminances):
        return False
    is_same_color = all(abs(a - b) <= HDR_TOLERANCE for a, b in zip(points, found_points, strict=True))
    pairs = zip(luminances, found_luminances, strict=True)
    return is_same_color and all(abs(a - b) <= HDR_TOLERANCE * max(a, Fraction(1)) for a, b in pairs)


def _chromaticities(display: MasteringDisplay) -> list[Fraction]:
    points = [*(display.primaries or ()), *([display.white_point] if display.white_point else [])]
    return [value for point in points for value in point]


def chapter_differences(source: FileContents, output: FileContents, offset_seconds: float) -> Iterator[Difference]:
    """Compare starts and titles of chapters; where one ends, few containers say."""
    want, got = source.chapters, output.chapters
    if len(want) != len(got):
        yield Difference(
            DifferenceCode.CHAPTERS, f"the source has {counted(len(want), 'chapter')} and the output {len(got)}"
        )
        return
    pairs: Iterator[tuple[ChapterMark, ChapterMark]] = zip(want, got, strict=True)
    for number, (a, b) in enumerate(pairs, 1):
        if abs(b.start_seconds - a.start_seconds - offset_seconds) > CHAPTER_SECONDS:
            due = a.start_seconds + offset_seconds
            text = f"chapter {number} starts at {b.start_seconds:.3f} s and not at {due:.3f} s"
            yield Difference(DifferenceCode.CHAPTERS, text)
        if a.title != b.title:
            yield Difference(DifferenceCode.CHAPTERS, f"chapter {number} is called '{b.title}' and not '{a.title}'")
