"""torch.compile for the shapes that repeat; every other shape, and a network that does not compile, runs as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsr.events import OnNote

__all__ = ["CompiledNet", "Compiler", "compile_for_gpu"]

Function = Callable[..., Any]  # of tensors, as the network
Compiler = Callable[[nn.Module], Function]
LONGEST_REASON = 200  # characters


def compile_for_gpu(net: nn.Module) -> Function:
    """Element-wise layers fused, the fastest kernels searched for; frames are too large for CUDA graphs to matter."""
    compiled: Function = torch.compile(net, dynamic=False, mode="max-autotune-no-cudagraphs")
    return compiled


class CompiledNet:
    """A network, (N, C, H, W) in and out, compiled when a shape is first seen.

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
        shape = tuple(inputs[0].shape)
        is_small = any(other[1:] == shape[1:] and other[0] > shape[0] for other in self._shapes)
        if self._has_failed or is_small:
            return self._net(*inputs)
        if self._compiled is not None and shape in self._shapes:
            return self._run(self._compiled, shape, inputs)
        return self._first_run(shape, inputs)

    def _first_run(self, shape: tuple[int, ...], inputs: tuple[Tensor, ...]) -> Any:
        self._note(f"compiling the network for {shape[-1]}x{shape[-2]}, batch {shape[0]}; this takes a while")
        try:
            if self._compiled is None:
                self._compiled = self._compiler(self._net)
            out = self._run(self._compiled, shape, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler, which may be missing, makes of a network
            self._has_failed = True
            text = " ".join(str(error).split()) or type(error).__name__
            self._note(f"the network does not compile ({text[:LONGEST_REASON]}): going on without")
            return self._net(*inputs)
        self._shapes.add(shape)
        return out

    def _run(self, compiled: Function, shape: tuple[int, ...], inputs: tuple[Tensor, ...]) -> Any:
        try:
            return compiled(*inputs)
        except torch.OutOfMemoryError:
            self._shapes.discard(shape)  # a smaller one follows, which is not to be taken for a remainder
            raise
