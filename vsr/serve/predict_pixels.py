"""Read and write pixels as TensorFlow Serving's JSON has them: nested lists, or image files as Base64."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vsr.errors import InputError
from vsr.serve.image_files import decode_upload, encode_png, read_size
from vsr.serve.settings import Limits

__all__ = ["DEFAULT_SIGNATURE", "SIGNATURES", "PixelSignature", "instances_of"]

DEFAULT_SIGNATURE = "serving_default"
_ROWS = 64  # that are written at a time


@dataclass(frozen=True, slots=True)
class PixelSignature:
    """Describe how a signature writes pixels.

    input_name, output_name: of its tensors.  dtype: TensorFlow's name of their type.
    low, high: the values of black and white; both 0 where pixels are files, as Base64.
    """

    input_name: str
    output_name: str
    dtype: str
    low: float = 0.0
    high: float = 0.0

    def read(self, value: Any, limits: Limits) -> np.ndarray:
        """Read one image: nested lists (height, width, channels), or {"b64": text} with any signature.

        Raises InputError. Returns it as `Upscaler.upscale_image` takes it: uint8 of files and integers, uint16 of
        floats.
        """
        if isinstance(value, Mapping):
            return _from_file(value, limits)
        if self.dtype == "DT_STRING":
            raise InputError(f'{self.input_name}: give each image as {{"b64": "..."}}')
        pixels = _array(value, self.input_name)
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.size == 0:
            raise InputError(
                f"{self.input_name}: has shape {tuple(pixels.shape)} per image; "
                "(height, width, channels) with 1, 3 or 4 channels is expected"
            )
        if not (np.isfinite(pixels).all() and pixels.min() >= self.low and pixels.max() <= self.high):
            raise InputError(
                f"{self.input_name}: values must lie between {self.low:g} and {self.high:g} with this signature; "
                "see 'signature_name'"
            )
        if self.dtype == "DT_UINT8":
            if (pixels != np.floor(pixels)).any():
                raise InputError(f"{self.input_name}: whole numbers are expected with this signature")
            image = pixels.astype(np.uint8)
        else:
            image = ((pixels - self.low) * (65535 / (self.high - self.low)) + 0.5).astype(np.uint16)
        return np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)

    def write(self, image: np.ndarray) -> Iterator[str]:
        """Yield one upscaled image as the JSON that `read` reads, some rows at a time."""
        if self.dtype == "DT_STRING":
            yield json.dumps({"b64": base64.b64encode(encode_png(image)).decode()}, separators=(",", ":"))
            return
        pixels = image[..., None] if image.ndim == 2 else image
        for first in range(0, pixels.shape[0], _ROWS):
            yield "," if first else "["
            yield json.dumps(self._values(pixels[first : first + _ROWS]), separators=(",", ":"))[1:-1]
        yield "]"

    def _values(self, pixels: np.ndarray) -> Any:
        peak = 255 if pixels.dtype == np.uint8 else 65535
        if self.dtype == "DT_UINT8":
            return (pixels if peak == 255 else (pixels.astype(np.uint32) * 255 + 32767) // 65535).tolist()
        values = pixels.astype(np.float64) * ((self.high - self.low) / peak) + self.low
        return np.round(values, 6).tolist()


SIGNATURES: Mapping[str, PixelSignature] = {
    DEFAULT_SIGNATURE: PixelSignature("inputs", "outputs", "DT_FLOAT", 0.0, 1.0),
    "signed": PixelSignature("inputs", "outputs", "DT_FLOAT", -1.0, 1.0),
    "uint8": PixelSignature("inputs", "outputs", "DT_UINT8", 0.0, 255.0),
    "image_bytes": PixelSignature("image_bytes", "outputs_bytes", "DT_STRING"),
}


def instances_of(body: Any, signature: PixelSignature) -> list[Any]:
    """Take the images of a request apart, in row format ("instances") or in column format ("inputs").

    Raises InputError where the request has neither, both, or is of another form.
    """
    if not isinstance(body, dict):
        raise InputError("JSON Value: must be an object")
    if ("instances" in body) == ("inputs" in body):
        raise InputError("the request must have exactly one of the keys 'instances' and 'inputs'")
    is_row = "instances" in body
    values, key = body["instances" if is_row else "inputs"], "instances" if is_row else "inputs"
    if not is_row and isinstance(values, dict) and "b64" not in values:
        values = _named(values, signature)
    if not isinstance(values, list) or not values:
        raise InputError(f"'{key}' must be a list with at least one image")
    if not is_row:
        return values
    return [_named(value, signature) if isinstance(value, dict) and "b64" not in value else value for value in values]


def _named(values: dict[str, Any], signature: PixelSignature) -> Any:
    """Return the value of the one input, which is named."""
    if set(values) != {signature.input_name}:
        raise InputError(f"the signature has one input, '{signature.input_name}'; the request names {sorted(values)}")
    return values[signature.input_name]


def _array(value: Any, name: str) -> np.ndarray:
    try:
        array = np.array(value)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name}: the lists of an image must be of one length") from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name}: numbers are expected")
    return array.astype(np.float64)


def _from_file(value: Mapping[str, Any], limits: Limits) -> np.ndarray:
    text = value.get("b64")
    if set(value) != {"b64"} or not isinstance(text, str):
        raise InputError('a file is given as {"b64": "..."}')
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("b64: not Base64") from error
    return decode_upload(data, read_size(io.BytesIO(data), limits))
