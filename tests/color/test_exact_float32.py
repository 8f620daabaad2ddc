"""TF32, which cuDNN rounds float32 to: emulated on the CPU, as PyTorch's switch stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vsr.backends import torch_engine
from vsr.backends.engine import Precision
from vsr.backends.torch_engine import TorchEngine
from vsr.color import resample
from vsr.color.exact_float32 import exact_float32
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.models.nets import SRResNet
from vsr.models.nets.recurrent import RecurrentNet
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.processor import upscale_alone
from vsr.pipeline.upscaler import Upscaler

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.convolution.default)


class Tf32(TorchDispatchMode):
    """Round the inputs of float32 convolutions to 11 bits of mantissa wherever PyTorch would let cuDNN do so."""

    def __init__(self) -> None:
        super().__init__()
        self.num_rounded = self.num_convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CONVOLUTIONS and args[0].dtype == torch.float32:
            self.num_convolutions += 1
            if torch.backends.cudnn.allow_tf32:
                self.num_rounded += 1
                args = (_rounded(args[0]), _rounded(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def _rounded(x: Tensor) -> Tensor:
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def _batch(pixel_format: str) -> FrameBatch:
    format_ = FORMATS[pixel_format]
    planes = allocate_planes(format_, 1, 24, 32)
    for plane in planes:
        noise = torch.rand(plane.shape, generator=torch.Generator().manual_seed(plane.shape[1]))
        plane.copy_((noise * (2**format_.bit_depth - 1)).to(torch.int32))
    color = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, format_.bit_depth)
    return FrameBatch(planes, (0,), (1,), Fraction(1, 25), color)


def _upscaled(batch: FrameBatch, precision: Precision, pixel_format: str) -> tuple[Tensor, ...]:
    torch.manual_seed(3)
    net = SRResNet(8, 1, 2).eval()
    nn.init.normal_(net.tail[0].weight, std=0.05)

    def make_engine(precision: Precision) -> TorchEngine:
        return TorchEngine(net, torch.device("cpu"), precision)

    upscaler = Upscaler(CheckedNetwork(ModelCard("tiny", "srresnet", {}, 2, "rgb", net.halo), make_engine, precision))
    return upscaler.upscale(batch, Target(64, 48, FORMATS[pixel_format], batch.color)).planes


def _upscaled_as_video(batch: FrameBatch, precision: Precision, pixel_format: str) -> tuple[Tensor, ...]:
    torch.manual_seed(3)
    options: dict[str, Any] = {"features": 8, "blocks": 1, "scale": 2}
    net = RecurrentNet(**options).eval()
    nn.init.normal_(net.tail.weight, std=0.05)
    card = ModelCard("tiny", "recurrent", options, 2, "yuv", net.halo, recurrent=True, restart_interval=8, warm_up=2)

    def make_engine(precision: Precision) -> TorchEngine:
        return TorchEngine(net, torch.device("cpu"), precision)

    upscaler = Upscaler(CheckedNetwork(card, make_engine, precision))
    return upscale_alone(upscaler, batch, Target(64, 48, FORMATS[pixel_format], batch.color)).planes


@pytest.fixture(autouse=True)
def _pytorch_as_it_comes() -> None:
    assert torch.backends.cudnn.allow_tf32, "PyTorch's default"


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv420p12le", "yuv420p16le"])
@pytest.mark.parametrize(
    ("upscale", "precision"), [(_upscaled, "fp32"), (_upscaled, "bf16"), (_upscaled_as_video, "fp32")]
)
def test_no_sample_is_off_where_pytorch_may_use_tf32(
    pixel_format: str,
    upscale: Callable[[FrameBatch, Precision, str], tuple[Tensor, ...]],
    precision: Precision,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference, the last resort, the layers in float32 beside bf16 and all colour: bit for bit."""
    batch = _batch(pixel_format)
    expected = upscale(batch, precision, pixel_format)
    with Tf32() as emulated:
        found = upscale(batch, precision, pixel_format)
    assert emulated.num_convolutions > 3 and emulated.num_rounded == 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.backends.cudnn.allow_tf32, "the program's own setting is back"
    if pixel_format == "yuv420p16le":  # and the emulation would show it
        for module in (torch_engine, resample):
            monkeypatch.setattr(module, "exact_float32", nullcontext)
        with Tf32() as emulated:
            rounded = upscale(batch, precision, pixel_format)
        assert emulated.num_rounded == emulated.num_convolutions
        assert not any(torch.equal(a, b) for a, b in zip(rounded, expected, strict=True))


def test_tf32_stays_off_until_the_last_thread_has_left() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with exact_float32():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=stay)
    with exact_float32():
        thread.start()
        assert entered.wait(60)
    assert not torch.backends.cudnn.allow_tf32
    leave.set()
    thread.join()
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="before PyTorch 2.9")
def test_a_program_that_uses_the_newer_switches_keeps_them() -> None:
    setting, before = torch.backends.cudnn.conv, torch.backends.cuda.matmul.fp32_precision
    setting.fp32_precision = "ieee"  # now the older switch cannot be read
    try:
        with exact_float32():
            assert setting.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert (setting.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == ("ieee", before)
    finally:
        setting.fp32_precision = "tf32"
