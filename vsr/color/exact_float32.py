"""Keep NVIDIA's TF32 out of float32 arithmetic that counts as exact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["exact_float32"]

_lock = threading.Lock()
_num_inside = 0
_put_back: Callable[[], None] = lambda: None  # noqa: E731


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute convolutions and products of float32 on CUDA with all 24 bits of their inputs inside.

    PyTorch lets cuDNN round them to TF32's 11 bits: of 10 bit video a tenth of the chroma samples would be off by one.
    The switch is one for the whole process. It is put back when the last of the threads inside has left, so whoever
    is not inside may meanwhile compute more exactly, and no slower in half precision.
    """
    global _num_inside, _put_back
    with _lock:
        if _num_inside == 0:
            _put_back = _switched_off()
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if _num_inside == 0:
                _put_back()


def _switched_off() -> Callable[[], None]:
    """Switch TF32 off; return what puts it back as it was."""
    try:
        both: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
        switches = [each for each in both if each.allow_tf32]
    except RuntimeError:  # the program has set it by the names of PyTorch 2.9, which do not mix with these
        return _switched_off_by_new_names()
    for switch in switches:
        switch.allow_tf32 = False

    def put_back() -> None:
        for switch in switches:
            switch.allow_tf32 = True

    return put_back


def _switched_off_by_new_names() -> Callable[[], None]:
    settings: list[Any] = [torch.backends.cudnn.conv, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    old = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"

    def put_back() -> None:
        for setting, value in zip(settings, old, strict=True):
            setting.fp32_precision = value

    return put_back
