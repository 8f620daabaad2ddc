"""Several devices take the batches of a video in turn; here they are CPUs whose work is done when it is fetched."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vsr.backends.engine import PRECISIONS, Precision
from vsr.backends.torch_engine import TorchEngine
from vsr.backends.transfers import DirectTransfers, Planes
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.errors import EngineError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.media.read.reader import Chunk
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.processor import FrameWise, make_processor
from vsr.pipeline.stages import NetworkStage
from vsr.pipeline.upscaler import Upscaler

COLOR = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 8)
TARGET = Target(64, 32, FORMATS["yuv420p"], COLOR)
CARD = ModelCard("tiny", "luma", {}, 2, "y", 8)


class Late(DirectTransfers):
    """Transfers of a pretended GPU: one batch in flight. log: "NAME begins" and "NAME is fetched", in order."""

    num_in_flight = 1

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(torch.device("cpu"))
        self._name, self._log = name, log

    def download(self, planes: Planes) -> Callable[[], Planes]:
        self._log.append(f"{self._name} begins")
        held = tuple(plane.clone() for plane in planes)

        def fetch() -> Planes:
            self._log.append(f"{self._name} is fetched")
            return held

        return fetch


class Weak(TorchEngine):
    """Gives NaN from a call on, in all but fp32."""

    good_calls = 10**6

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.good_calls -= 1
        (out,) = super().__call__(*inputs)
        return (out * float("nan") if self.good_calls < 0 and self.precision != "fp32" else out,)


def _net() -> LumaNet:
    torch.manual_seed(3)
    return LumaNet(4, 1, 2).eval()


def _upscaler(name: str = "", log: list[str] | None = None, precision: Precision = "fp32") -> Upscaler:
    def make(wanted: Precision) -> TorchEngine:
        engine = Weak(_net(), torch.device("cpu"), wanted)
        engine.name = f"PyTorch on {name}, {wanted}"
        return engine

    transfers = None if log is None else Late(name, log)
    return Upscaler(CheckedNetwork(CARD, make, precision), transfers)


def _ring(log: list[str], precision: Precision = "fp32", names: str = "AB") -> Upscaler:
    first, *others = (_upscaler(name, log, precision) for name in names)
    first.others = tuple(others)
    return first


def _batches(num: int) -> list[FrameBatch]:
    generator, batches = torch.Generator().manual_seed(5), []
    for position in range(num):
        planes = allocate_planes(FORMATS["yuv420p"], 2, 16, 32)
        for plane in planes:
            plane.copy_(torch.randint(16, 236, plane.shape, generator=generator))
        batches.append(FrameBatch(planes, (10 * position, 10 * position + 3), (3, 7), Fraction(1, 100), COLOR))
    return batches


def _through(upscaler: Upscaler, num: int) -> list[FrameBatch]:
    stage = NetworkStage(make_processor(upscaler, TARGET), Path("in.mkv"))
    chunks = [Chunk((), batch) for batch in _batches(num)]
    return [chunk.batch for chunk in stage.upscaled(chunks) if chunk.batch is not None]


@pytest.mark.parametrize("names", ["AB", "ABC"])
def test_frames_come_out_in_order_and_as_one_device_makes_them(names: str) -> None:
    log: list[str] = []
    found, wanted = _through(_ring(log, names=names), 7), _through(_upscaler(), 7)
    assert [batch.pts for batch in found] == [batch.pts for batch in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.planes, theirs.planes, strict=True))
    begun = [line[0] for line in log if line.endswith("begins")]
    assert begun == [names[number % len(names)] for number in range(7)], "each takes its turn"


def test_each_device_has_a_batch_waiting_while_it_works_on_the_one_before() -> None:
    log: list[str] = []
    _through(_ring(log), 8)
    for position, line in enumerate(log[:12]):
        if line.endswith("fetched"):
            in_work = [sum(each == f"{name} begins" for each in log[:position]) for name in "AB"]
            fetched = [sum(each == f"{name} is fetched" for each in log[:position]) for name in "AB"]
            assert all(begun - done >= 2 for begun, done in zip(in_work, fetched, strict=True)), log[:position]


def test_a_device_that_falls_back_takes_the_others_along() -> None:
    log: list[str] = []
    first = _ring(log, "bf16")
    second = first.others[0]
    second.engine.good_calls = 3  # type: ignore[attr-defined]
    found = _through(first, 14)
    assert (first.precision, second.precision) == ("fp32", "fp32")
    exact = _through(_upscaler(), 14)
    assert all(torch.equal(a, b) for a, b in zip(found[-1].planes, exact[-1].planes, strict=True))
    assert not any(batch.planes[0].float().isnan().any() for batch in found)


def test_an_error_names_the_device_that_it_is_of() -> None:
    first = _ring([])

    def fail(*inputs: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError("the device is lost")

    second = first.others[0]
    second.network._tiled._computed = fail  # type: ignore[assignment]
    with pytest.raises(EngineError, match=r"in.mkv: at frame 1: PyTorch on B, fp32 failed \(the device is lost\)"):
        _through(first, 4)


def test_frames_that_repeat_are_computed_anew_and_that_is_said() -> None:
    notes: list[str] = []
    processor = make_processor(_ring([]), TARGET, reuse=True, note=notes.append)
    assert isinstance(processor, FrameWise) and processor.reused_share is None
    assert notes == ["frames that repeat are computed anew: they may fall to another device"]
    assert processor.num_in_flight == 3
    assert processor.engine.dtype == PRECISIONS["fp32"]
