"""Describe files and the machine for `vsr info` and `vsr doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch

from vsr.backends.engine import choose_device, choose_precision
from vsr.backends.installed import describe_auto, describe_backends
from vsr.backends.onnx_model import ONNX_SUFFIX
from vsr.backends.tuning import list_tunings
from vsr.errors import install_hint
from vsr.events import counted
from vsr.jobs.plan import Footage, choose_model
from vsr.media.formats import ENCODERS
from vsr.media.image_sequence import is_one_picture
from vsr.media.images import read_image
from vsr.media.read.reader import VideoReader
from vsr.media.read.video_info import VideoInfo
from vsr.media.write.stream_plan import codec_name
from vsr.models.cards import shipped_cards
from vsr.models.checkpoints import SUFFIXES
from vsr.models.conventions import Stated
from vsr.pipeline.loading import ModelOptions, load_card_and_net
from vsr.version import __version__

__all__ = ["describe_anything", "describe_file", "describe_machine", "facts_of"]

_EXTRAS = {"test": ("pytest", "the test suite")}


def describe_anything(path: Path, stated: Stated | None = None) -> str:
    """Describe a video, an image or a model, in lines. Raises InputError, ModelError.

    stated: of a model's file of another project.
    """
    if not _is_model(path):
        return describe_file(path)
    card = load_card_and_net(str(path), stated)[0]
    color = {"y": "luma (chroma is upscaled bicubically)", "rgb": "RGB", "yuv": "luma and chroma"}[card.color]
    lines = [
        f"{path}: model {card.name}, ×{card.scale}, {color}, {card.num_parameters:,} parameters"
        + (", sees earlier frames" if card.recurrent else ""),
        f"  {card.description}" if card.description else "",
        f"  network {card.net}, sees {card.halo} pixels around each"
        + (f", sides padded to multiples of {card.multiple_of}" if card.multiple_of > 1 else ""),
        f"  assumed or found out: {card.assumptions}" if card.assumptions else "",
        f"  licence: {card.license}" if card.license else "",
        *(f"  {name}: {value:.2f} dB" for name, value in card.figures.items()),
    ]
    return "\n".join(line for line in lines if line)


def _is_model(path: Path) -> bool:
    return str(path) in shipped_cards() or path.suffix.lower() in (*SUFFIXES, ONNX_SUFFIX) or path.suffix == ".tar"


def facts_of(path: Path, stated: Stated | None = None) -> dict[str, Any]:
    """Return the facts of `describe_anything`, as JSON has them. Raises InputError, ModelError."""
    if _is_model(path):
        return {"kind": "model", "file": str(path), **asdict(load_card_and_net(str(path), stated)[0])}
    if is_one_picture(path):
        image = read_image(path)
        channels = 1 if image.ndim == 2 else image.shape[2]
        size = {"width": image.shape[1], "height": image.shape[0]}
        return {"kind": "image", "file": str(path), **size, "channels": channels, "dtype": str(image.dtype)}
    notes: list[str] = []
    with VideoReader(path, warn=notes.append) as reader:
        streams = [
            {
                "index": stream.index,
                "type": stream.type,
                "codec": codec_name(stream) or None,
                "language": stream.language,
            }
            for stream in reader.other_streams
        ]
        return {
            "kind": "video",
            "file": str(path),
            "container": reader.container.format.name,
            "video": {"index": reader.stream.index, **_facts_of_video(reader.info)},
            "streams": streams,
            "chapters": len(reader.container.chapters()),
            "metadata": dict(reader.container.metadata),
            "notes": [str(note) for note in notes],
        }


def _facts_of_video(info: VideoInfo) -> dict[str, Any]:
    color = {name: getattr(value, "name", value) for name, value in asdict(info.color).items()}
    return {
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "pixel_format": info.source_pixel_format,
        "frames_per_second": None if info.average_rate is None else float(info.average_rate),
        "seconds": info.duration_seconds,
        "frames_by_header": info.num_frames_from_header,
        "time_base": str(info.time_base),
        "start_seconds": float(info.start_seconds or 0),
        "sample_aspect_ratio": None if info.sample_aspect_ratio is None else str(info.sample_aspect_ratio),
        "rotation_degrees": info.rotation_degrees,
        "is_interlaced": info.interlaced,
        "color": color,
        "is_color_assumed": info.untagged,
    }


def describe_file(path: Path) -> str:
    """Describe a video or an image, in lines. Raises InputError."""
    if is_one_picture(path):
        image = read_image(path)
        channels = 1 if image.ndim == 2 else image.shape[2]
        return f"{path}: picture, {image.shape[1]}x{image.shape[0]}, {channels} channels, {image.dtype}"
    warnings: list[str] = []
    with VideoReader(path, warn=warnings.append) as reader:
        lines = [f"{path}: {reader.container.format.long_name}"]
        lines += _video_lines(reader)
        for stream in reader.other_streams:
            codec = codec_name(stream) or "unknown codec"
            language = f", {stream.language}" if stream.language else ""
            lines.append(f"  stream {stream.index}: {stream.type}, {codec}{language}")
        if chapters := reader.container.chapters():
            lines.append(f"  {counted(len(chapters), 'chapter')}")
        for key, value in reader.container.metadata.items():
            lines.append(f"  {key}: {value}")
    return "\n".join(lines + [f"  note: {line}" for line in warnings])


def _video_lines(reader: VideoReader) -> list[str]:
    info = reader.info
    color = info.color
    rate = f"{float(info.average_rate):.3f} fps on average" if info.average_rate else "frame rate unknown"
    tagged = "assumed, untagged" if info.untagged else "tagged"
    length = f"{info.duration_seconds:.3f} s" if info.duration_seconds is not None else "duration unknown"
    lines = [
        f"  stream {reader.stream.index}: video, {info.codec}, {info.width}x{info.height}, {info.source_pixel_format}, "
        f"{rate}, {length}",
        f"    colour ({tagged}): matrix {color.matrix.name}, primaries {color.primaries.name}, "
        f"transfer {color.transfer.name}, {color.range.name.lower()} range, {color.bit_depth} bit, "
        f"chroma {color.chroma_location.name.lower()}",
        f"    time base {info.time_base} s, starts at {float(info.start_seconds or Fraction(0)):.6f} s"
        + (f", {info.num_frames_from_header} frames by the header" if info.num_frames_from_header else ""),
    ]
    if info.sample_aspect_ratio not in (None, 1):
        lines.append(f"    sample aspect ratio {info.sample_aspect_ratio}")
    if info.rotation_degrees:
        lines.append(f"    shown rotated by {info.rotation_degrees} degrees")
    if info.interlaced:
        lines.append("    interlaced")
    if info.hdr.mastering_display or info.hdr.content_light:
        lines.append("    HDR10 metadata: mastering display and content light level")
    lines += [f"    carries {name}" for name in info.side_data_not_carried]
    return lines


def _encoders() -> list[str]:
    """Return the names of the common video encoders that this FFmpeg has."""
    return [row.name for row in ENCODERS.values() if row.is_listed and row.name in av.codecs_available]


def describe_machine() -> str:
    """Versions, devices, encoders, missing extras, and what `auto` picks here."""
    device = choose_device()
    how = f"{describe_auto(device)}, {device}, {choose_precision(device)}"
    if device.type == "cpu":
        how = "the backend and precision that were measured to be the fastest here"
    lines = [
        f"vsr {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}",
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        build = f" (this torch is built for CUDA {torch.version.cuda})" if torch.version.cuda else ""
        lines.append("no CUDA GPU" + build)
    if torch.backends.mps.is_available():
        lines.append("mps: Metal GPU")
    lines += describe_backends()
    lines.append("encoders: " + ", ".join(_encoders()))
    for extra, (module, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            lines.append(f"missing: {purpose}; {install_hint(extra)}")
    for subject, is_image in (("video", False), ("a picture", True)):
        for scale in (2.0, 4.0):
            name, _ = choose_model(ModelOptions(scale=scale), Footage(640, 360, is_image), device)
            lines.append(f"auto for {subject} at ×{scale:g}: model {name} on {how}")
    if device.type == "cpu":
        measured = list_tunings()
        lines += [f"measured here: {name}: {text}" for name, text in measured.items()]
        lines += [] if measured else ["measured here: nothing yet; a long job does that, and 'vsr engine tune' at once"]
    return "\n".join(lines)
