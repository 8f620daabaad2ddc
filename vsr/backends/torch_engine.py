"""Run networks with PyTorch: on CUDA, MPS and CPU."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from vsr.backends.compiled import CompiledNet, Compiler
from vsr.backends.cuda_runner import DeviceRunner
from vsr.backends.engine import PRECISIONS, Launch, Precision, converted, current_device
from vsr.color.exact_float32 import exact_float32
from vsr.events import OnNote

__all__ = ["TorchEngine"]


class TorchEngine:
    """Run a network channels last, in fp16, bf16 or fp32; eagerly, or compiled.

    The network is copied: one float32 network can serve engines of several precisions. On a CPU the frames
    of a batch run side by side, each on its share of the threads: small convolutions have too little
    work for many threads to share, one frame stays in the caches, and the result is the same bit for bit.
    """

    def __init__(
        self,
        net: nn.Module,
        device: torch.device,
        precision: Precision,
        *,
        compiler: Compiler | None = None,
        note: OnNote = lambda line: None,
    ) -> None:
        """compiler: `compile_for_gpu` where the job is long enough for it; None runs the network as it is.

        note: called with one line when the network is compiled, and where it does not compile.
        """
        self.device, self.precision = device, precision
        self.dtype = PRECISIONS[precision]
        self.name = f"PyTorch {torch.__version__}, {device}, {precision}"
        eager = converted(net, device, self.dtype)
        self._is_compiled = compiler is not None
        self._net = eager if compiler is None else CompiledNet(eager, compiler, note)
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes repeat for a whole video: search once

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        # Layers in float32 are the reference, the last resort, or those that take and give the image itself.
        with exact_float32(), current_device(self.device):
            return self._computed(inputs)

    def make_launch(self, runner: DeviceRunner, shape: tuple[int, int, int, int]) -> Launch:
        """See `make_launch`: a call queues all its work on the stream that is the current one."""
        return self

    def _computed(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.device.type != "cpu" or inputs[0].shape[0] < 2 or self._is_compiled:  # what is compiled has its shape
            return self._run(*inputs)
        frames = tuple(torch.split(x, 1) for x in inputs)
        outs = list(self._side_by_side(torch.get_num_threads(), frames))
        return tuple(torch.cat(parts) for parts in zip(*outs, strict=True))

    def _side_by_side(self, num_threads: int, frames: tuple[tuple[Tensor, ...], ...]) -> Iterator[tuple[Tensor, ...]]:
        """Run frame by frame, on one thread too: a batch would be rounded otherwise than its frames."""
        num_workers = min(len(frames[0]), num_threads)
        if num_workers < 2:
            return map(self._run, *frames)

        def run(*parts: Tensor) -> tuple[Tensor, ...]:
            torch.set_num_threads(num_threads // num_workers)  # of this worker alone
            return self._run(*parts)

        if self._pool is None:
            # Kept, as a new thread has to fetch its memory from the system anew; ends with the engine.
            self._pool = ThreadPoolExecutor(num_threads, "vsr-network")
        return self._pool.map(run, *frames)

    @torch.inference_mode()  # is kept per thread
    def _run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self._net(*(x.contiguous(memory_format=torch.channels_last) for x in inputs))
        return out if isinstance(out, tuple) else (out,)
