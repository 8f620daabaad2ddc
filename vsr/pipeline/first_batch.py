"""Choose how many frames a GPU takes at first: by its free memory and the most that the network holds at a time."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsr.backends.engine import PRECISIONS, Precision, Signature, converted

__all__ = ["free_bytes", "frames_that_fit", "peak_bytes"]

_META = torch.device("meta")
_BYTES_AROUND = 64  # for a pixel of the output: floats of its colours, and the planes of two batches in flight
_SHARE = 0.85  # of the memory that is free: kernels take scratch memory, and blocks leave gaps


def frames_that_fit(free: int, peak: int, out_pixels: int, *, is_recurrent: bool) -> int:
    """Return the number of frames to begin with, at least 1; running out of memory halves it later on.

    Args:
        free: bytes.
        peak: bytes that the network holds at a time for one frame; see `peak_bytes`.
        out_pixels: of the network's output, for one frame.
        is_recurrent: whether the network takes the frames of a batch one by one.
    """
    usable, around = int(free * _SHARE), _BYTES_AROUND * out_pixels
    return max(1, (usable - peak) // around if is_recurrent else usable // (peak + around))


def free_bytes(device: torch.device) -> int:
    """Count the bytes of a CUDA GPU that are free, those that PyTorch holds in reserve among them."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def peak_bytes(net: nn.Module, signature: Signature, height: int, width: int, precision: Precision) -> int:
    """Count the bytes that a network's tensors take at the most for one frame.

    Nothing is computed: the network runs on PyTorch's `meta` device, which knows shapes and types alone. The weights
    are left out. An engine that fuses layers holds less.

    Args:
        height, width: of the input, in pixels.
        precision: of the layers; int8 counts as the fp16 that lies between its layers on a GPU.
    """
    dtype = PRECISIONS["fp16" if precision == "int8" else precision]
    on_meta = converted(net, _META, dtype)
    held, states = _Held(), dict(signature.states)
    types = [dtype if name in states else torch.float32 for name in signature.input_names]
    with torch.inference_mode(), held:
        shapes = [(1, channels, height, width) for _, channels in signature.inputs]
        on_meta(*(torch.empty(shape, dtype=each, device=_META) for shape, each in zip(shapes, types, strict=True)))
    return held.most


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of the tensors that are held at a time. most: at the worst moment."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now, self.most = 0, 0
        self._users: Counter[int] = Counter()  # tensors that share a piece of memory, by its number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.device == _META:
                self._hold(x)
        return out

    def _hold(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._users[key]:
            self._now += size
            self.most = max(self.most, self._now)
        self._users[key] += 1
        weakref.finalize(x, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._now -= size
