"""One suite for every engine: what the pipeline relies on, whatever runs the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vsr.backends.engine import Engine, choose_device, choose_precision, safer_precisions
from vsr.backends.torch_engine import TorchEngine
from vsr.errors import OptionError
from vsr.models.nets import LumaNet, SRResNet
from vsr.models.weights import load_net, resolve

DEVICES = [
    "cpu",
    *(["cuda"] if torch.cuda.is_available() else []),
    *(["mps"] if torch.backends.mps.is_available() else []),
]
PRECISIONS = ["fp32", "bf16"]


def small_net(name: str) -> tuple[nn.Module, int]:
    """A network with weights that do something, and its input channels."""
    torch.manual_seed(5)
    net: nn.Module = LumaNet(8, 2, 2) if name == "luma" else SRResNet(8, 2, 2)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False), 1 if name == "luma" else 3


@pytest.fixture(params=[(d, p, n) for d in DEVICES for p in PRECISIONS for n in ("luma", "srresnet")], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Engine, nn.Module, int]:
    device, precision, name = request.param
    net, channels = small_net(name)
    return TorchEngine(net, torch.device(device), precision), net, channels


def frames(engine: Engine, channels: int, num: int, height: int = 19, width: int = 26) -> torch.Tensor:
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(num)).to(engine.device)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_output_is_float32_on_the_device_and_scaled(case: tuple[Engine, nn.Module, int], num_frames: int) -> None:
    engine, _, channels = case
    (out,) = engine(frames(engine, channels, num_frames))
    assert out.shape == (num_frames, channels, 38, 52)
    assert out.dtype == torch.float32 and out.device.type == engine.device.type


def test_frames_keep_their_order_and_do_not_mix(case: tuple[Engine, nn.Module, int]) -> None:
    engine, _, channels = case
    x = frames(engine, channels, 5)
    (together,) = engine(x)
    for position in range(5):
        (alone,) = engine(x[position : position + 1])
        assert torch.allclose(together[position], alone[0], atol=2e-3 if engine.dtype != torch.float32 else 1e-6)


def test_two_calls_agree_bit_for_bit(case: tuple[Engine, nn.Module, int]) -> None:
    engine, _, channels = case
    x = frames(engine, channels, 4)
    assert torch.equal(engine(x)[0], engine(x)[0])


def test_output_is_that_of_the_network_in_fp32(case: tuple[Engine, nn.Module, int]) -> None:
    engine, net, channels = case
    x = frames(engine, channels, 2)
    reference = net(x.cpu())
    limit = 1e-5 if engine.dtype == torch.float32 else 2e-2  # random weights amplify; see the next test
    assert (engine(x)[0].cpu() - reference).abs().max() < limit


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["fast", "fast-x2"])
def test_shipped_networks_in_low_precision_stay_within_two_code_values(name: str, device: str) -> None:
    net = load_net(*resolve(name))
    x = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(0))
    x = nn.functional.interpolate(x, (64, 72), mode="bicubic").clamp(0, 1)  # detail as pictures have it
    low = TorchEngine(net, torch.device(device), "bf16")(x.to(device))[0].cpu()
    assert (low - net(x)).abs().max() < 2 / 255


def test_input_is_left_as_it_was(case: tuple[Engine, nn.Module, int]) -> None:
    engine, _, channels = case
    x = frames(engine, channels, 2)
    before = x.clone()
    engine(x)
    assert torch.equal(x, before)


def test_the_given_network_is_left_in_float32(case: tuple[Engine, nn.Module, int]) -> None:
    _, net, _ = case
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_threads_of_the_caller_are_left_alone() -> None:
    before = torch.get_num_threads()
    net, _ = small_net("luma")
    TorchEngine(net, torch.device("cpu"), "fp32")(torch.rand(4, 1, 16, 16))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("asked", ["nonsense", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(asked: str) -> None:
    with pytest.raises(OptionError, match=asked):
        choose_device(asked)


def test_auto_precision_is_one_the_device_has() -> None:
    assert choose_precision(torch.device("cuda")) == "fp16"
    assert choose_precision(torch.device("cpu")) in ("bf16", "fp32")
    with pytest.raises(OptionError, match="fp8"):
        choose_precision(torch.device("cpu"), "fp8")


def test_fallback_ends_at_fp32() -> None:
    assert safer_precisions("fp16")[-1] == safer_precisions("bf16")[-1] == "fp32"
    assert safer_precisions("fp32") == ()
