"""What an engine is, and on which device and at which precision it runs unless told otherwise."""

from __future__ import annotations

import copy
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from vsr.errors import OptionError

__all__ = [
    "PRECISIONS",
    "Engine",
    "Precision",
    "choose_device",
    "choose_precision",
    "converted",
    "safer_precisions",
]

Precision = Literal["int8", "fp16", "bf16", "fp32"]
PRECISIONS: dict[str, torch.dtype] = {
    "int8": torch.int8,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}


class Engine(Protocol):
    """A network as a tensor function. It knows nothing of video.

    Inputs and outputs are float32 (N, C, H, W) on `device`, nominally in [0, 1]; the state of a
    recurrent network is a further input and output. `dtype` is what the network computes in, most of it.
    An engine keeps no state between calls, and gives the frames back in the order they came.
    """

    name: str
    device: torch.device
    dtype: torch.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...


def choose_device(asked: str = "auto") -> torch.device:
    """The device asked for ("cuda:1", "mps", "cpu"), or the fastest there is.

    Raises OptionError where the machine lacks it.
    """
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise OptionError(f"unknown device '{asked}'; there are auto, cpu, cuda, cuda:N and mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"device '{asked}' is not there: this PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("device 'mps' is not there: this machine or this PyTorch has no Metal")
    if device.type not in ("cpu", "cuda", "mps"):
        raise OptionError(f"device '{asked}' is not supported; there are auto, cpu, cuda, cuda:N and mps")
    return device


def choose_precision(device: torch.device, asked: str = "auto") -> Precision:
    """The precision asked for, or the fastest that the device computes natively.

    fp16 on CUDA and MPS; bf16 on CPUs with bf16 instructions (AVX512-BF16, AMX), else fp32.
    """
    if asked in get_args(Precision):
        return asked  # type: ignore[return-value]
    if asked != "auto":
        raise OptionError(f"unknown precision '{asked}'; there are auto, {', '.join(PRECISIONS)}")
    if device.type in ("cuda", "mps"):
        return "fp16"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    # PyTorch has no public question for this before 2.9; without the private ones, fp32 is always right.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def safer_precisions(precision: Precision) -> tuple[Precision, ...]:
    """What to fall back to, in order, when a precision gives wrong numbers."""
    order: dict[Precision, tuple[Precision, ...]] = {
        "int8": ("bf16", "fp32") if _cpu_has_bf16() else ("fp32",),
        "fp16": ("bf16", "fp32"),
        "bf16": ("fp32",),
        "fp32": (),
    }
    return order[precision]


def converted(net: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy on the device, channels last, in `dtype` but for the layers the network keeps in float32."""
    result = copy.deepcopy(net).eval().requires_grad_(False)
    result.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name in getattr(net, "keep_float32", ()):
        layer = copy.deepcopy(net.get_submodule(name)).requires_grad_(False)
        result.set_submodule(name, layer.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    return result
