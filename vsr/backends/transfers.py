"""Move planes to a device and back, beside the computing where the device can do that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from vsr.backends.engine import current_device

__all__ = ["DirectTransfers", "MetalTransfers", "PinnedTransfers", "Planes", "Transfers", "make_transfers"]

Planes = tuple[Tensor, ...]


class Transfers(Protocol):
    """Copies between CPU tensors and a device.

    num_in_flight: batches to begin before the one before is fetched, so that the device is never idle.
    """

    num_in_flight: int

    def upload(self, planes: Planes) -> Planes:
        """Copy planes to the device, for use on the current stream. They must not be changed any more."""
        ...

    def download(self, planes: Planes) -> Callable[[], Planes]:
        """Begin to fetch planes; a call of the result, from any thread, waits and gives CPU tensors."""
        ...


def make_transfers(device: torch.device) -> Transfers:
    """Make the transfers that suit a device."""
    if device.type == "cuda":
        return PinnedTransfers(device)
    return MetalTransfers(device) if device.type == "mps" else DirectTransfers(device)


class DirectTransfers:
    """Copy at once, for devices without streams; on the CPU, copy nothing."""

    num_in_flight = 0

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def upload(self, planes: Planes) -> Planes:
        return tuple(plane.to(self._device) for plane in planes)

    def download(self, planes: Planes) -> Callable[[], Planes]:
        fetched = tuple(plane.cpu() for plane in planes)
        return lambda: fetched


class MetalTransfers(DirectTransfers):
    """Copy at once, code values of 16 bits as int32: before PyTorch 2.9, MPS refuses uint16."""

    def upload(self, planes: Planes) -> Planes:
        return super().upload(
            tuple(plane.to(torch.int32) if plane.dtype == torch.uint16 else plane for plane in planes)
        )

    def download(self, planes: Planes) -> Callable[[], Planes]:
        fetched = super().download(planes)()
        narrow = tuple(plane.to(torch.uint16) if plane.dtype == torch.int32 else plane for plane in fetched)
        return lambda: narrow


class PinnedTransfers:
    """Copy through page-locked memory on CUDA, on a stream each way, so that copies run beside kernels.

    With one batch in flight, a batch's upload overlaps the computing of the one before, and its download
    that of the one after. torch's allocators keep page-locked blocks and reuse one only when its copy is
    done.
    """

    num_in_flight = 1

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(self, planes: Planes) -> Planes:
        caller = torch.cuda.current_stream(self._device)
        with current_device(self._device), torch.cuda.stream(self._up):
            moved = tuple(plane.pin_memory().to(self._device, non_blocking=True) for plane in planes)
        caller.wait_stream(self._up)
        for plane in moved:
            plane.record_stream(caller)  # allocated for the other stream, which must not reuse it too early
        return moved

    def download(self, planes: Planes) -> Callable[[], Planes]:
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        # A wait that spins would take a core from the encoder.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with current_device(self._device), torch.cuda.stream(self._down):
            fetched = tuple(torch.empty_like(plane, device="cpu", pin_memory=True) for plane in planes)
            for target, plane in zip(fetched, planes, strict=True):
                target.copy_(plane, non_blocking=True)
                plane.record_stream(self._down)
            done.record(self._down)

        def wait() -> Planes:
            done.synchronize()
            return fetched

        return wait
