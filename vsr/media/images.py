"""Read and write single images by OpenCV: PNG, JPEG, WebP, BMP and TIFF, 8 and 16 bit, with alpha."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.errors import InputError, OutputError, reason
from vsr.files import naming_output, write_file
from vsr.media.formats import IMAGE_MAGIC, IMAGE_SUFFIXES, find_image_format
from vsr.media.image_damage import find_damage, watched_decoding
from vsr.media.pipe import PipeReader, run_in_thread
from vsr.media.read.opening import check_source

__all__ = [
    "decode_image",
    "encode_image",
    "find_images",
    "holds_16_bit",
    "holds_alpha",
    "lost_in",
    "picture_size",
    "read_image",
    "read_piped_image",
    "read_rgb",
    "sort_out_damaged",
    "write_image",
]

_NUM_MAGIC_BYTES = 4


def read_image(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) gray, uint8 or uint16, upright by its EXIF tag."""
    check_source(path)
    return decode_image(np.fromfile(path, np.uint8), path)


def read_piped_image() -> np.ndarray:
    """Read an image as `read_image` does, from stdin."""
    pipe = PipeReader()
    try:
        return run_in_thread(
            lambda: decode_image(np.frombuffer(_piped(pipe), np.uint8), Path(pipe.name)), pipe.interrupt
        )
    finally:
        pipe.close()


def _piped(pipe: PipeReader) -> bytes:
    """Read all of a pipe, if it begins as an image does: a video may be longer than memory."""
    data = bytearray()
    while chunk := pipe.read(2**20):
        data += chunk
        if len(data) >= _NUM_MAGIC_BYTES and not data.startswith(IMAGE_MAGIC):
            raise InputError(f"{pipe.name}: is no image; for a video name a video to come out, or images (%06d.png)")
    if not data:
        raise InputError(f"{pipe.name}: nothing came from it (0 bytes); did the program before vsr fail?")
    return bytes(data)


def decode_image(data: np.ndarray, path: Path) -> np.ndarray:
    """Decode an image as `read_image` does, from the bytes of its file; path: its name in messages."""
    _check_whole(data.tobytes(), path)
    image = _decoded(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV can read")
    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 3):
        # Only these modes turn the image as its EXIF tag asks.
        upright = _decoded(data, cv2.IMREAD_GRAYSCALE if image.ndim == 2 else cv2.IMREAD_COLOR)
        image = image if upright is None else upright
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: {image.dtype} samples are not supported; convert the image to 8 or 16 bit")
    if image.ndim == 3 and image.shape[2] == 2:
        raise InputError(f"{path}: gray with alpha is not supported; convert the image to RGBA")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return np.ascontiguousarray(image)


def _decoded(data: np.ndarray, mode: int) -> np.ndarray | None:
    """Decode a file's bytes by OpenCV, without its lines on stderr; None where it cannot."""
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(data, mode)
    except cv2.error:  # an image that claims to be larger than OpenCV allows
        return None
    finally:
        logging.setLogLevel(before)


def holds_alpha(suffix: str) -> bool:
    """Say whether a kind of image file has a place for alpha."""
    return find_image_format(suffix).holds_alpha


def holds_16_bit(suffix: str) -> bool:
    """Say whether a kind of image file holds 16 bit samples as they are."""
    return find_image_format(suffix).holds_16_bit


def lost_in(path: Path, image: np.ndarray) -> list[str]:
    """Name the properties of an image that the file type of `path` cannot hold."""
    suffix, losses = path.suffix.lower(), []
    if image.ndim == 3 and image.shape[2] == 4 and not holds_alpha(suffix):
        losses.append(f"alpha is left out: {suffix} has none")
    if image.dtype == np.uint16 and not holds_16_bit(suffix):
        losses.append(f"16 bit samples become 8 bit: {suffix} has no more")
    return losses


def encode_image(image: np.ndarray, path: Path) -> bytes:
    """Encode an image to the bytes of its file. Raises OutputError where OpenCV cannot."""
    suffix = path.suffix.lower()
    if image.dtype == np.uint16 and not holds_16_bit(suffix):
        image = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.ndim == 3:
        if image.shape[2] == 4 and not holds_alpha(suffix):
            image = image[..., :3]
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    try:
        done, data = cv2.imencode(suffix, image, find_image_format(suffix).options)
    except cv2.error as error:
        raise OutputError(f"{path}: writing failed ({reason(error)})") from error
    if not done:
        raise OutputError(f"{path}: OpenCV cannot write this image as {suffix}")
    return bytes(data.data)


def write_image(path: Path, image: np.ndarray, overwrite: bool = True) -> None:
    """Write an image as `read_image` gives it, whole or not at all; JPEG and WebP at quality 95.

    overwrite: whether a file is replaced that is there by then.
    """
    data = encode_image(image, path)
    try:
        with naming_output(path):
            write_file(path, data, overwrite=overwrite)
    except OutputError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise OutputError(f"{path}: has appeared meanwhile, and is kept; `overwrite=True` overwrites it") from error
        raise


def find_images(folder: Path) -> list[Path]:
    """List the images below a folder, sorted by path. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: no images found ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def read_rgb(path: Path) -> Tensor:
    """Read an image as (3, H, W) uint8 RGB; gray becomes RGB, 16 bit becomes 8, alpha is left out.

    Raises InputError for a file that is no image, or not a whole one.
    """
    data = _bytes_of(path)
    _check_whole(data, path)
    bgr, damage = watched_decoding(lambda: _decoded(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), data)
    if bgr is None:
        raise InputError(f"{path}: cannot be read as an image")
    if damage:
        raise InputError(f"{path}: is not a whole image: {damage}")
    return torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1])).permute(2, 0, 1).contiguous()


def sort_out_damaged(paths: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Divide files into whole images and the others, with the reason by file, by their structure and header."""
    whole, unusable = [], {}
    for path in paths:
        try:
            _check_whole(_bytes_of(path), path)
            picture_size(path)
        except InputError as error:
            unusable[path] = str(error)
        else:
            whole.append(path)
    return whole, unusable


def _bytes_of(path: Path) -> bytes:
    """Read a file. Raises InputError where that fails: a folder, a link to nothing, no permission."""
    try:
        return path.read_bytes()
    except OSError as error:
        what = (
            "is a link to nothing" if path.is_symlink() and not path.exists() else f"cannot be read ({reason(error)})"
        )
        raise InputError(f"{path}: {what}") from error


def _check_whole(data: bytes, path: Path) -> None:
    """Raise InputError for an image that is damaged, before a decoder writes lines to stderr about it."""
    if damage := find_damage(data):
        raise InputError(f"{path}: is not a whole image: {damage}")


def picture_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image, from its header. Raises InputError where the file is no image.

    An image that its EXIF orientation lays on the side has the two the other way round in `read_rgb`.
    """
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            if video.width and video.height:
                return video.height, video.width
    except (av.FFmpegError, OSError, IndexError):
        pass  # not a format that FFmpeg knows; OpenCV may, or says that it is none
    image = read_rgb(path)
    return image.shape[1], image.shape[2]
