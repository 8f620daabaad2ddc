"""The contract of engines, and the choice of their device and precision."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from vsr.backends.cuda_runner import DeviceRunner
from vsr.errors import OptionError

__all__ = [
    "PRECISIONS",
    "Engine",
    "Launch",
    "Precision",
    "Signature",
    "TooLargeError",
    "choose_device",
    "choose_precision",
    "converted",
    "cpu_has_bf16",
    "current_device",
    "image_signature",
    "make_launch",
    "own_stream",
    "release_buffers",
    "safer_precisions",
    "state_dtype",
]

Precision = Literal["int8", "fp16", "bf16", "fp32"]
PRECISIONS: dict[str, torch.dtype] = {
    "int8": torch.int8,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors that a network takes and gives, in the order of its arguments and results.

    inputs: name and number of channels of each; all share N, H and W.  outputs: name of each.
    No two tensors share a name: a state that goes in as "state" comes out as, say, "next_state".
    states: names of inputs that are outputs of the call before, and of these outputs.
    """

    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[str, ...]
    states: tuple[tuple[str, str], ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.inputs)


class TooLargeError(Exception):
    """Fewer frames, or smaller ones, are to be tried: a tensor would have more elements than the backend can count.

    num_frames: the most frames of this size that it can take at a time; 0 where one is too large already.
    """

    def __init__(self, message: str, num_frames: int) -> None:
        super().__init__(message)
        self.num_frames = num_frames


def image_signature(channels: int) -> Signature:
    """Return the signature of a network that takes an image "x" of so many channels and gives an image "y"."""
    return Signature((("x", channels),), ("y",))


class Engine(Protocol):
    """A network as a tensor function, without knowledge of video.

    Takes and gives any number of tensors, float32 (N, C, H, W) on `device`; images are nominally in [0, 1]. Inputs
    share N, H and W; each output is larger by a factor of its own. The state of a recurrent network is a further
    input and output: an engine keeps none between calls. It may be of another floating type, in which the engine
    gives it or takes it fastest, and channels last. Frames come out in the order they came in.
    A call raises TooLargeError before it computes anything where a batch is too large for it whatever the memory.
    dtype: the type that most layers compute in.
    """

    name: str
    device: torch.device
    dtype: torch.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...


def release_buffers(engine: Engine) -> None:
    """Let an engine go of the buffers of earlier batches, as smaller ones follow; most engines hold none."""
    release: Callable[[], None] | None = getattr(engine, "release", None)
    if release is not None:
        release()


Launch = Callable[..., tuple[Tensor, ...]]  # as the call of an engine


def make_launch(engine: Engine, runner: DeviceRunner, shape: tuple[int, int, int, int]) -> Launch | None:
    """Return a call that only queues an engine's work for one shape on a runner's stream; None where it has none.

    It can be captured as part of a graph that somebody else makes. Its outputs may be buffers that the next call
    overwrites, and nobody but the caller uses them. It is valid until the runner is renewed, and keeps what it needs.

    Args:
        shape: (N, C, H, W) of the first input.
    """
    make: Callable[[DeviceRunner, tuple[int, int, int, int]], Launch] | None = getattr(engine, "make_launch", None)
    return None if make is None else make(runner, shape)


def state_dtype(engine: Engine) -> torch.dtype:
    """Return the type in which a state goes through an engine without a conversion: its `state_dtype` if it has one."""
    own: torch.dtype | None = getattr(engine, "state_dtype", None)
    if own is not None:
        return own
    is_known = engine.device.type in ("cpu", "cuda")  # to warp 16 bits
    return engine.dtype if is_known and engine.dtype.is_floating_point else torch.float32


def choose_device(asked: str = "auto") -> torch.device:
    """Return the device asked for ("cuda:1", "mps", "cpu"), or the fastest; OptionError where the machine lacks it."""
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise OptionError(f"`device={asked}`: unknown; there are auto, cpu, cuda, cuda:N and mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"`device={asked}`: not there; this PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("`device=mps`: not there; this machine or this PyTorch has no Metal")
    if device.type not in ("cpu", "cuda", "mps"):
        raise OptionError(f"`device={asked}`: not supported; there are auto, cpu, cuda, cuda:N and mps")
    return device


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one of this thread inside: libraries beside PyTorch's own kernels ask for that one.

    Every thread begins with the first GPU as its current one.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def own_stream(device: torch.device) -> AbstractContextManager[object]:
    """Queue the work of this thread on a GPU on a stream that does not wait for the default one; one for each GPU.

    Decoders use the default stream: a frame would else be fetched only when all work is done that a network has
    queued before.
    """
    return torch.cuda.stream(_stream_of(device)) if device.type == "cuda" else nullcontext()


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def choose_precision(device: torch.device, asked: str = "auto") -> Precision:
    """Return the precision asked for, or the fastest that the device computes natively.

    fp16 on CUDA and MPS; bf16 on CPUs with AMX, which multiplies matrices of it, else fp32: other CPUs with bf16
    instructions may be slower with them, as only a measurement shows (`tuning`).
    """
    if asked in get_args(Precision):
        return asked  # type: ignore[return-value]
    if asked != "auto":
        raise OptionError(f"`precision={asked}`: unknown; there are auto, {', '.join(PRECISIONS)}")
    if device.type in ("cuda", "mps"):
        return "fp16"
    return "bf16" if _cpu_has("_is_amx_tile_supported") else "fp32"


def cpu_has_bf16() -> bool:
    """Tell whether this CPU has instructions for bf16."""
    return _cpu_has("_is_avx512_bf16_supported") or _cpu_has("_is_amx_tile_supported")


def _cpu_has(probe: str) -> bool:
    # PyTorch has no public question for this before 2.9; without the private ones, fp32 is always right.
    return bool(getattr(torch.cpu, probe, lambda: False)())


def safer_precisions(precision: Precision) -> tuple[Precision, ...]:
    """List the precisions to take, in order, when one gives wrong numbers."""
    order: dict[Precision, tuple[Precision, ...]] = {
        "int8": ("bf16", "fp32") if _cpu_has("_is_amx_tile_supported") else ("fp32",),
        "fp16": ("bf16", "fp32"),
        "bf16": ("fp32",),
        "fp32": (),
    }
    return order[precision]


def converted(net: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Copy a network to a device, channels last, in `dtype` but for the layers it keeps in float32 beside it.

    The layers of the image itself are kept beside bf16, whose 8 bits of mantissa would round it. fp16 has 11: beside it
    only layers stay that are not known to work in it; large tails in float32 would take twice the memory and time.
    """
    result = copy.deepcopy(net).eval().requires_grad_(False)
    result.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept = "keep_float32_in_fp16" if dtype == torch.float16 else "keep_float32"
    for name in (*getattr(net, kept, ()), *getattr(net, "float32_weights", ())):
        layer = copy.deepcopy(net.get_submodule(name)).requires_grad_(False)
        result.set_submodule(name, layer.to(device=device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    return result
