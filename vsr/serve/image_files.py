"""Decode the images that clients send: their kind by their bytes, their size before their pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from vsr.errors import InputError
from vsr.media.images import decode_image, encode_image
from vsr.serve.errors import TooLargeError
from vsr.serve.settings import Limits

__all__ = ["NO_IMAGE", "decode_upload", "encode_png", "read_size"]

NO_IMAGE = "Please submit a valid image in PNG, TIFF, JPEG, GIF, WebP or BMP format"
_KINDS = ("PNG", "TIFF", "JPEG", "GIF", "WEBP", "BMP")
_NAME = Path("image")  # in messages; a client's own name of a file says nothing


def read_size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """Read (width, height) of an image from its header, and go back to its start.

    Raises InputError where it is no image of a known kind, TooLargeError where it has more pixels than is allowed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_KINDS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"the image has more than {limits.image_pixels:,} pixels") from error
    except Exception as error:  # a damaged header raises whatever it leads to
        raise InputError(NO_IMAGE) from error
    finally:
        file.seek(0)
    if width * height > limits.image_pixels:
        raise TooLargeError(f"the image is {width}×{height}; at most {limits.image_pixels:,} pixels are taken")
    if width < 1 or height < 1:
        raise InputError(NO_IMAGE)
    return width, height


def decode_upload(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode an image as `read_image` does. Raises InputError where it cannot be, or has another size than it says.

    Args:
        data: the file.
        size: (width, height) from its header.
    """
    try:
        image = decode_image(np.frombuffer(data, np.uint8), _NAME)
    except InputError as error:
        raise InputError(NO_IMAGE if "OpenCV" in str(error) else str(error)) from error
    if sorted(image.shape[:2]) != sorted(size):  # EXIF may have turned it
        raise InputError(NO_IMAGE)
    return image


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image as PNG."""
    return encode_image(image, Path("result.png"))
