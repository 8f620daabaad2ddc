"""Decide what becomes of a video whose frames are written as image files."""

from __future__ import annotations

from vsr.color.pixel_formats import FORMATS, PixelFormat
from vsr.errors import OptionError
from vsr.events import Note, NoteCode
from vsr.frames import ChromaLocation, Color, Matrix, Range, Transfer
from vsr.jobs.omissions import file_omissions, left_out_streams, output_aspect, sample_omissions
from vsr.jobs.options import JobOptions
from vsr.jobs.plan import VideoPlan, choose_size, input_notes
from vsr.jobs.source import expected_frames
from vsr.media.endpoints import Images
from vsr.media.images import holds_16_bit, holds_alpha
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.encoder import VideoSettings
from vsr.media.write.image_writer import is_right_angled

__all__ = ["IMAGES", "plan_images"]

IMAGES = "pictures"  # in the place of a container's name
_OF_VIDEO = ("codec", "crf", "preset", "pix_fmt", "format")

# Pixel formats of images on the way to their files, by what they show and their bits.
_FORMATS = {
    ("gray", 8): "gray", ("gray", 16): "gray16le", ("rgb", 8): "gbrp", ("rgb", 16): "gbrp16le",
    ("alpha", 8): "gbrap", ("alpha", 16): "gbrap16le",
}  # fmt: skip


def plan_images(reader: VideoReader, target: Images, options: JobOptions, scale: int) -> VideoPlan:
    """Decide on samples and size of images, and name what they cannot hold. scale: of the network."""
    given = [name for name in _OF_VIDEO if getattr(options.encoding, name) is not None]
    if given or options.encoding.encoder_options:
        raise OptionError(f"`{(given or ['encoder_options'])[0]}`: is of video, and images come out")
    info, suffix = reader.info, target.suffix.lower()
    depth = 16 if info.color.bit_depth > 8 and holds_16_bit(suffix) else 8
    format_ = FORMATS[_FORMATS[_kind(info, suffix), depth]]
    width, height = choose_size(options.model, scale, info.width, info.height, (False, False))
    settings = VideoSettings(suffix.removeprefix("."), format_, width, height, _color(info, format_))
    streams = left_out_streams(reader, options.encoding.audio, "pictures hold")
    omissions = [f"{s.title}: {s.note}" for s in streams if s.is_omission]
    omissions += file_omissions(reader, "pictures hold")
    omissions += _frame_omissions(info, settings, suffix)
    notes = [Note(NoteCode.STREAM, f"{s.title}: {s.note}") for s in streams if not s.is_omission]
    if reader.images is None:
        notes.append(Note(NoteCode.TIMESTAMPS, "pictures hold no times: only the order of the frames is kept"))
    if info.untagged and not info.color.is_rgb:
        notes.append(Note(NoteCode.INPUT, f"the video has no colour tags; read as {info.color.matrix.name}"))
    if reader.is_deinterlaced:
        notes += input_notes(reader)
    return VideoPlan(settings, tuple(streams), IMAGES, expected_frames(reader), tuple(notes), tuple(omissions))


def _kind(info: VideoInfo, suffix: str) -> str:
    if info.pixel_format.alpha and holds_alpha(suffix):
        return "alpha"
    return "gray" if info.pixel_format.kind == "gray" else "rgb"


def _color(info: VideoInfo, format_: PixelFormat) -> Color:
    source, location = info.color, ChromaLocation.LEFT
    matrix = Matrix.RGB if format_.kind == "rgb" else source.matrix
    return Color(matrix, source.primaries, source.transfer, Range.FULL, location, format_.bit_depth)


def _frame_omissions(info: VideoInfo, settings: VideoSettings, suffix: str) -> list[str]:
    omissions = [f"{name} of the video cannot be carried over" for name in info.side_data_not_carried]
    omissions += sample_omissions(info.pixel_format, settings.pixel_format, suffix)
    aspect = output_aspect(info, settings.width, settings.height)
    if aspect not in (None, 1):
        omissions.append(f"the sample aspect ratio {aspect} is left out: pictures have square samples")
    if info.display_matrix and not is_right_angled(info.display_matrix):
        omissions.append(f"the rotation by {info.rotation_degrees} degrees is left out: pictures turn by quarters")
    if settings.color.transfer in (Transfer.PQ, Transfer.HLG):
        omissions.append(
            f"that the samples are HDR ({settings.color.transfer.name}) is left out: pictures cannot say so"
        )
    return omissions
