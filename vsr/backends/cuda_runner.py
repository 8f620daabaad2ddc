"""Give an engine its CUDA stream, memory and graphs, and order its work with the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vsr.errors import EngineError

__all__ = ["CudaRunner", "DeviceRunner", "Gpu"]

_capturing = threading.Lock()  # one at a time in a process: each begins with a wait for the whole device


@dataclass(frozen=True, slots=True)
class Gpu:
    """name: as the driver gives it.  compute_capability: "9.0"."""

    name: str
    compute_capability: str


class DeviceRunner(Protocol):
    """One GPU, and a stream on it that is not the default one."""

    device: torch.device
    gpu: Gpu

    @property
    def stream_handle(self) -> int:
        """The stream as a `cudaStream_t`, never 0."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make the device the current one inside: libraries beside torch allocate and compile on that."""
        ...

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Allocate contiguous memory at an address that stays. Raises torch.OutOfMemoryError."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Queue the work inside on the engine's stream, between the caller's work before and after it.

        Queues waits, and does not wait itself.
        """
        ...

    def copy_out(self, output: Tensor) -> Tensor:
        """Copy an output for the caller, on the caller's stream, which the next `turn` waits for."""
        ...

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Capture the work that `launch` queues as a graph; call the result to run it.

        Raises RuntimeError; then the stream may still be in a capture that nobody can end, and torch's allocator in
        the graph's memory: `renew` before anything else is queued.
        """
        ...

    def renew(self) -> None:
        """Take another stream; everything that was made for the one before is of no more use."""
        ...

    def wait(self) -> None:
        """Wait until the engine's stream is idle, so that its memory can go."""
        ...

    def free_unused(self) -> None:
        """Give memory that torch holds in reserve back to the device, for other libraries."""
        ...


class CudaRunner:
    """See `DeviceRunner`. Raises EngineError for a device that is no CUDA GPU."""

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda" or not torch.cuda.is_available():
            raise EngineError(f"TensorRT needs an NVIDIA GPU that this PyTorch can use, not '{device}'")
        self.device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        major, minor = torch.cuda.get_device_capability(self.device)
        self.gpu = Gpu(torch.cuda.get_device_name(self.device), f"{major}.{minor}")
        self.renew()

    def renew(self) -> None:
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._copied_out = torch.cuda.Event()  # type: ignore[no-untyped-call]  # which no thread waits for

    @property
    def stream_handle(self) -> int:
        return int(self._stream.cuda_stream)

    def active(self) -> AbstractContextManager[None]:
        return torch.cuda.device(self.device)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.zeros(tuple(shape), dtype=dtype, device=self.device)

    @contextmanager
    def turn(self) -> Iterator[None]:
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        # The caller of the turn before may have been another stream, which still reads the output.
        self._stream.wait_event(self._copied_out)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            caller.wait_stream(self._stream)

    def copy_out(self, output: Tensor) -> Tensor:
        copy = output.clone()
        self._copied_out.record(torch.cuda.current_stream(self.device))
        return copy

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Only this thread's calls belong to the capture; others go on decoding and encoding on the GPU.
        with _capturing, torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            launch()
        return graph.replay

    def wait(self) -> None:
        self._stream.synchronize()

    def free_unused(self) -> None:
        torch.cuda.empty_cache()
