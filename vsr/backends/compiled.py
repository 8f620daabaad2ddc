"""Compile a network, or the colour after it, for shapes that repeat; run it as it is for others, or on failure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsr.color.encoding import Coding, EncodeStep, encode_bands, encode_step, encode_whole
from vsr.color.sub_pixels import MakeSamples, Samples, SamplesStep, no_samples, samples_step
from vsr.events import Note, NoteCode, OnNote

__all__ = [
    "CompiledEncoding",
    "CompiledNet",
    "Compiler",
    "FusedSamples",
    "Kernel",
    "StepCompiler",
    "choose_samples",
    "compared",
    "compile_for_gpu",
    "compile_samples",
    "compile_step",
    "empty_alike",
    "fused",
    "reason_of",
]

Function = Callable[..., Any]  # of tensors, as the network
Compiler = Callable[[nn.Module], Function]
StepCompiler = Callable[[EncodeStep], EncodeStep]
_LONGEST_REASON = 200  # characters
_MOST_STRAYS = 16.0  # sums in another order, and products that are rounded or not; a wrong kernel is off by thousands
FRAMES_BEFORE_COMPILING = 500  # of one shape: the seconds that it takes are little beside a job of so many


def compile_for_gpu(net: nn.Module) -> Function:
    """Fuse element-wise layers and search for the fastest kernels; frames are too large to gain by CUDA graphs."""
    compiled: Function = torch.compile(net, dynamic=False, mode="max-autotune-no-cudagraphs")
    return compiled


def compile_step(step: EncodeStep) -> EncodeStep:
    """Fuse the operations on a whole frame; products and sums stay rounded by themselves, as in bands."""
    compiled: EncodeStep = torch.compile(step, dynamic=False, fullgraph=True, options={"emulate_precision_casts": True})
    return compiled


def reason_of(error: Exception) -> str:
    """Say on one line why something does not compile."""
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_REASON]


class Kernel:
    """A function of tensors as one compiled loop; it gives None from when it does not compile, or gives other values.

    Compiled when it is first called: a loop that took over later would round otherwise than what ran before it, and a
    job that was resumed would differ in its last bits. Out of memory surfaces as itself.
    """

    def __init__(self, compiled: Function, name: str, note: OnNote = lambda line: None) -> None:
        """name: of what it does, for the note that tells why it does not.  note: called with that, once."""
        self._compiled, self._name, self._note = compiled, name, note
        self.has_failed = False

    def __call__(self, *inputs: Any) -> Tensor | None:
        if self.has_failed:
            return None
        try:
            out: Tensor = self._compiled(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # see `CompiledNet`
            self.has_failed = True
            text = f"{self._name} is not compiled ({reason_of(error)}): going on without"
            self._note(Note(NoteCode.FALLBACK, text))
            return None
        return out


class FusedSamples:
    """See `MakeSamples`: by one loop, on a GPU."""

    def __init__(
        self, compiler: Callable[[SamplesStep], SamplesStep] | None = None, note: OnNote = lambda line: None
    ) -> None:
        """compiler: makes the loop of `samples_step`; `compile_samples` unless given.  note: see `Kernel`."""
        self._kernel = Kernel((compiler or compile_samples)(samples_step), "the making of samples", note)

    def __call__(self, sub_pixels: Tensor, base: Tensor, samples: Samples) -> Tensor | None:
        factor = math.isqrt(sub_pixels.shape[1] // base.shape[1])
        return self._kernel(sub_pixels, base, samples.constants(sub_pixels.device), factor, samples.is_wide)


def fused(step: Function) -> Function:
    """Compile a function of tensors to one loop for all sizes.

    Products and sums stay rounded by themselves, so that loops for other orders of memory give the same bits. Indices
    are taken to be right.
    """
    compiled: Function = torch.compile(
        step,
        dynamic=True,
        fullgraph=True,
        options={"emulate_precision_casts": True, "assert_indirect_indexing": False},
    )
    return compiled


def choose_samples(device: torch.device, note: OnNote) -> MakeSamples:
    """Make what makes samples on a device at once, if it is a GPU of CUDA.  note: see `Kernel`."""
    return FusedSamples(note=note) if device.type == "cuda" else no_samples


def compile_samples(step: SamplesStep) -> SamplesStep:
    """Fuse all of the step; it is compared with the step itself at the first of each size."""
    return compared(fused(step), step, _probed_samples)


def _probed_samples(sub_pixels: Tensor, base: Tensor, constants: Tensor, *rest: object) -> tuple[Any, ...]:
    """Make noise in the order of memory of the inputs, of which some is clamped at either end."""
    corrections, shown = empty_alike(sub_pixels).normal_(0, 0.3), empty_alike(base).uniform_()
    return corrections, shown.mul_(constants[2] / constants[1]), constants, *rest


def compared(compiled: Function, reference: Function, probe: Callable[..., tuple[Any, ...]]) -> Function:
    """Compare what a compiled function gives with a reference, once for each shape; RuntimeError where they differ.

    For kernels whose numbers nothing else checks. The first call with shapes, strides and types that are new waits for
    the device, and must be no part of a capture.

    Args:
        compiled, reference: take tensors and constants and give a tensor.
        probe: makes inputs to compare by, like those that it is given, which may be all zeros.
    """
    seen = set[tuple[object, ...]]()

    def run(*inputs: Any) -> Tensor:
        kind = tuple((x.shape, x.stride(), x.dtype, x.device) if isinstance(x, Tensor) else x for x in inputs)
        if kind not in seen:
            made = probe(*inputs)
            strays = _strays(compiled(*made), reference(*made))
            if not strays <= _MOST_STRAYS:  # true for NaN
                raise RuntimeError(f"its values differ by {strays:.2g} units in the last place")
            seen.add(kind)
        out: Tensor = compiled(*inputs)
        return out

    return run


def empty_alike(x: Tensor) -> Tensor:
    """Allocate a tensor of the strides of another, also where that is a part of a third: kernels may depend on them."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _strays(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference in units in the last place of the largest value; a 1 of integers is as the most."""
    difference = (found.to(torch.float32) - wanted.to(torch.float32)).abs().max()
    if not wanted.dtype.is_floating_point:
        return _MOST_STRAYS * float(difference)
    return float(difference / (wanted.abs().max().to(torch.float32) * torch.finfo(wanted.dtype).eps).clamp_min(1e-30))


class CompiledNet:
    """A network, compiled when the shapes of its inputs, (N, C, H, W) each, are first seen.

    A batch smaller than one that is compiled for the same picture size runs as it is: a clip's last few
    frames are not worth another minute. Out of memory surfaces as itself, and the shape is forgotten.
    """

    def __init__(self, net: nn.Module, compiler: Compiler, note: OnNote = lambda line: None) -> None:
        """note: called with a line when a shape is compiled, and with the reason where that fails; then no more."""
        self._net, self._compiler, self._note = net, compiler, note
        self._compiled: Function | None = None
        self._shapes: set[tuple[int, ...]] = set()
        self._has_failed = False

    def __call__(self, *inputs: Tensor) -> Any:
        shape = tuple(inputs[0].shape)  # the others share N, H and W, and their channels never change
        is_small = any(other[1:] == shape[1:] and other[0] > shape[0] for other in self._shapes)
        if self._has_failed or is_small:
            return self._net(*inputs)
        if self._compiled is not None and shape in self._shapes:
            return self._run(self._compiled, shape, inputs)
        return self._first_run(shape, inputs)

    def _first_run(self, shape: tuple[int, ...], inputs: tuple[Tensor, ...]) -> Any:
        text = f"compiling the network for {shape[-1]}x{shape[-2]}, batch {shape[0]}; this takes a while"
        self._note(Note(NoteCode.ENGINE, text))
        try:
            if self._compiled is None:
                self._compiled = self._compiler(self._net)
            out = self._run(self._compiled, shape, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler, which may be missing, makes of a network
            self._has_failed = True
            self._note(Note(NoteCode.FALLBACK, f"the network does not compile ({reason_of(error)}): going on without"))
            return self._net(*inputs)
        self._shapes.add(shape)
        return out

    def _run(self, compiled: Function, shape: tuple[int, ...], inputs: tuple[Tensor, ...]) -> Any:
        try:
            return compiled(*inputs)
        except torch.OutOfMemoryError:
            self._shapes.discard(shape)  # a smaller one follows, which is not to be taken for a remainder
            raise


class CompiledEncoding:
    """Make planes of RGB as `encode_bands` does, bit for bit; compiled once many frames of one shape have come.

    Out of memory surfaces as itself.
    """

    def __init__(self, compiler: StepCompiler = compile_step, note: OnNote = lambda line: None) -> None:
        """note: called with the reason where the step does not compile; bands go on then."""
        self._compiler, self._note = compiler, note
        self._step: EncodeStep | None = None
        self._has_failed = False
        self._shape: tuple[object, ...] = ()
        self._num_frames = 0  # of the shape

    def __call__(self, rgb: Tensor, coding: Coding) -> tuple[Tensor, Tensor]:
        shape = (*rgb.shape, coding)
        if shape != self._shape and self._num_frames < FRAMES_BEFORE_COMPILING:
            self._shape, self._num_frames = shape, 0
        if shape != self._shape or self._has_failed:
            return encode_bands(rgb, coding)
        self._num_frames += rgb.shape[0]
        return encode_bands(rgb, coding) if self._num_frames < FRAMES_BEFORE_COMPILING else self._run(rgb, coding)

    def _run(self, rgb: Tensor, coding: Coding) -> tuple[Tensor, Tensor]:
        try:
            self._step = self._step or self._compiler(encode_step)
            return encode_whole(rgb, coding, self._step)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # see `CompiledNet`
            self._has_failed = True
            text = f"colour conversion does not compile ({reason_of(error)}): going on without"
            self._note(Note(NoteCode.FALLBACK, text))
            return encode_bands(rgb, coding)
