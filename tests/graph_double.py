"""A stand-in for CUDA graphs: what is captured on the CPU is written down, and done again at each replay.

A replay runs the operations that PyTorch was given, on the memory they had, and not the Python code around them: what
that code would do anew, such as counting its calls or taking another tensor, does not happen. After a capture all
that it made is NaN, as a capture computes nothing. Where CUDA would do something undefined, an assertion fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsr.backends.cuda_runner import Gpu

_ATEN = torch.ops.aten
_WAITS = {each.default for each in (_ATEN.item, _ATEN.is_nonzero, _ATEN._local_scalar_dense, _ATEN.nonzero)}


class Recording(TorchDispatchMode):
    """Write down operations as calls that do them again."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], None]] = []
        self._made: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        places = {x.untyped_storage().data_ptr() for x in given}
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in places]
        self._made += made

        def again() -> None:
            results = [x for x in tree_leaves(func(*args, **(kwargs or {}))) if isinstance(x, Tensor)]
            for target, x in zip(made, results if made else (), strict=True):
                target.copy_(x)

        if made or not func.is_view:
            self.operations.append(again)
        return out

    def spoil(self) -> None:
        """Leave nothing of the values that the capture has not computed."""
        for x in self._made:
            x.fill_(float("nan") if x.is_floating_point() else 0)


class GraphRunner:
    """See `DeviceRunner`: on the CPU, or on `meta`, which computes nothing.

    faults: what the next captures raise, in order; None for nothing.  most_bytes: of all that `zeros` gives at a time.
    log: "capture", "replay N" of the Nth graph, "renew", "wait", in order.
    """

    def __init__(self, *faults: BaseException | None, device: str = "cpu") -> None:
        self.device, self.gpu, self.stream_handle = torch.device(device), Gpu("Double GPU", "9.0"), 1 << 20
        self.faults, self.log = list(faults), list[str]()
        self.in_turn = self._is_broken = False

    @property
    def num_captures(self) -> int:
        return self.log.count("capture")

    @property
    def num_replays(self) -> int:
        return sum(line.startswith("replay") for line in self.log)

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        assert not self.in_turn, "allocated for the graph's stream, and used on the caller's"
        return torch.zeros(tuple(shape), dtype=dtype, device=self.device)

    @contextmanager
    def turn(self) -> Iterator[None]:
        assert not self.in_turn and not self._is_broken
        self.in_turn = True
        try:
            yield
        finally:
            self.in_turn = False

    def copy_out(self, output: Tensor) -> Tensor:
        assert not self.in_turn, "copied on the runner's stream"
        return output.clone()

    def recording(self) -> Recording:
        return Recording()

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        assert self.in_turn and not self._is_broken, "the stream is in a capture that failed"
        fault, stream = (self.faults.pop(0) if self.faults else None), self.stream_handle
        recording = self.recording()
        try:
            with recording:
                launch()
            if fault is not None:
                raise fault
        except BaseException:
            self._is_broken = True
            raise
        recording.spoil()
        self.log.append("capture")
        number = self.num_captures

        def replay() -> None:
            assert self.in_turn, "replayed on another stream"
            assert stream == self.stream_handle, "made for a stream that is gone"
            self.log.append(f"replay {number}")
            for operation in recording.operations:
                operation()

        return replay

    def renew(self) -> None:
        self.log.append("renew")
        self.stream_handle += 1
        self._is_broken = False

    def wait(self) -> None:
        self.log.append("wait")

    def free_unused(self) -> None:
        self.log.append("free unused")
