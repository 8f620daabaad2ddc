"""Run the networks of OpenCV's dnn_superres (ESPCN, FSRCNN, LapSRN, EDSR) from their TensorFlow files.

The usual OpenCV packages lack the module dnn_superres. Its networks run through `cv2.dnn`, and the little it does
besides is done here in the same manner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vsr.errors import ModelError
from vsr.quality.protocols import Upscale

__all__ = ["load_opencv_peer", "with_block_sizes"]

_PROBE_SIDE = 16
_EDSR_MEAN_BGR = (103.1545782, 111.561547, 114.35629928)  # of DIV2K; dnn_superres subtracts and adds it
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_NODE, _OP, _ATTR, _KEY, _VALUE = 1, 2, 5, 1, 2  # field numbers of GraphDef, NodeDef and its map of attributes


def load_opencv_peer(path: Path) -> tuple[Upscale, int]:
    """Load a network of dnn_superres; return it with its scale. Raises ModelError where OpenCV cannot run it."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        graph = with_block_sizes(path.read_bytes())
        net = cv2.dnn.readNetFromTensorflow(np.frombuffer(graph, np.uint8))
    except (cv2.error, ValueError, IndexError, OSError) as error:
        raise ModelError(f"{path}: not a TensorFlow graph that OpenCV reads ({_first_line(error)})") from error
    channels, scale = _probe(net, path)
    upscale = _upscale_luma if channels == 1 else _upscale_bgr
    return lambda low: upscale(net, low, scale), scale


def _probe(net: Any, path: Path) -> tuple[int, int]:
    """Find out a network's number of channels and its scale by trying, as the file does not tell."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the first try may be the wrong one
    why = "no output"
    try:
        for channels in (1, 3):
            try:
                net.setInput(np.zeros((1, channels, _PROBE_SIDE, _PROBE_SIDE), np.float32))
                shape = net.forward().shape
            except cv2.error as error:
                why = _first_line(error)
                continue
            scale, rest = divmod(shape[-1], _PROBE_SIDE)
            if shape == (1, channels, _PROBE_SIDE * scale, _PROBE_SIDE * scale) and scale > 1 and not rest:
                return channels, scale
            why = f"{_PROBE_SIDE}x{_PROBE_SIDE} pixels in {channels} channels give the shape {shape}"
    finally:
        cv2.utils.logging.setLogLevel(level)
    raise ModelError(f"{path}: not a network of dnn_superres ({why})")


def _upscale_luma(net: Any, low: Tensor, scale: int) -> Tensor:
    """Upscale by ESPCN, FSRCNN or LapSRN: full-range luma by the network, the colour differences bilinearly."""
    ycrcb = cv2.cvtColor(low.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2YCrCb)
    net.setInput(cv2.dnn.blobFromImage(ycrcb[:, :, 0], 1 / 255))
    luma = _code_values(net.forward()[0, 0] * 255)
    size = (low.shape[2] * scale, low.shape[1] * scale)
    colors = [cv2.resize(ycrcb[:, :, channel], size) for channel in (1, 2)]
    rgb = cv2.cvtColor(cv2.merge([luma, *colors]), cv2.COLOR_YCrCb2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def _upscale_bgr(net: Any, low: Tensor, scale: int) -> Tensor:
    """Upscale by EDSR: all three channels, without the mean."""
    mean = np.array(_EDSR_MEAN_BGR, np.float32)[:, None, None]
    net.setInput(np.ascontiguousarray(low.flip(0).numpy().astype(np.float32) - mean)[None])
    return torch.from_numpy(_code_values(net.forward()[0] + mean)).flip(0)


def _code_values(x: np.ndarray) -> np.ndarray:
    return np.floor(x + 0.5).clip(0, 255).astype(np.uint8)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


# -- the graph -----------------------------------------------------------------------------------------------


def with_block_sizes(graph: bytes) -> bytes:
    """Add to a GraphDef's DepthToSpace nodes their `block_size` under OpenCV's name for it.

    dnn_superres brings a layer of its own for these nodes; cv2.dnn's has no TensorFlow name for the size.
    """
    parts = []
    for number, payload, raw in _fields(graph):
        is_shuffle = number == _NODE and (_OP, b"DepthToSpace") in [field[:2] for field in _fields(payload)]
        parts.append(_delimited(_NODE, payload + _opencv_block_size(payload)) if is_shuffle else raw)
    return b"".join(parts)


def _opencv_block_size(node: bytes) -> bytes:
    for number, payload, _ in _fields(node):
        attribute = {key: value for key, value, _ in _fields(payload)} if number == _ATTR else {}
        if attribute.get(_KEY) == b"block_size":
            return _delimited(_ATTR, _delimited(_KEY, b"blocksize") + _delimited(_VALUE, attribute[_VALUE]))
    return b""


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, payload (of strings and messages, else b"") and raw bytes of each field of a protobuf message."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        length = {_FIXED32: 4, _FIXED64: 8}.get(tag & 7, 0)
        if tag & 7 == _DELIMITED:
            length, position = _varint(message, position)
        elif tag & 7 == _VARINT:
            _, position = _varint(message, position)
        elif not length:
            raise ValueError("not a protobuf message")
        if position + length > len(message):
            raise ValueError("the file ends too early")
        payload = message[position : position + length] if tag & 7 == _DELIMITED else b""
        position += length
        yield tag >> 3, payload, message[start:position]


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _delimited(number: int, payload: bytes) -> bytes:
    return _encoded(number << 3 | _DELIMITED) + _encoded(len(payload)) + payload


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
