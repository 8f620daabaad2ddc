"""Compile a network for the shapes that repeat; run it as it is for others, and where it does not compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsr.events import Note, NoteCode, OnNote

__all__ = ["CompiledNet", "Compiler", "compile_for_gpu"]

Function = Callable[..., Any]  # of tensors, as the network
Compiler = Callable[[nn.Module], Function]
LONGEST_REASON = 200  # characters


def compile_for_gpu(net: nn.Module) -> Function:
    """Fuse element-wise layers and search for the fastest kernels; frames are too large to gain by CUDA graphs."""
    compiled: Function = torch.compile(net, dynamic=False, mode="max-autotune-no-cudagraphs")
    return compiled


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
            reason = (" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON]
            self._note(Note(NoteCode.FALLBACK, f"the network does not compile ({reason}): going on without"))
            return self._net(*inputs)
        self._shapes.add(shape)
        return out

    def _run(self, compiled: Function, shape: tuple[int, ...], inputs: tuple[Tensor, ...]) -> Any:
        try:
            return compiled(*inputs)
        except torch.OutOfMemoryError:
            self._shapes.discard(shape)  # a smaller one follows, which is not to be taken for a remainder
            raise
