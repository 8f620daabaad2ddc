"""One suite for every engine: what the pipeline relies on, whatever runs the network."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from vsr.backends.engine import (
    Engine,
    Precision,
    Signature,
    choose_device,
    choose_precision,
    image_signature,
    safer_precisions,
)
from vsr.backends.select import EngineMaker, Place
from vsr.backends.torch_engine import TorchEngine
from vsr.color.pixel_formats import FORMATS, allocate_planes
from vsr.errors import OptionError
from vsr.frames import ChromaLocation, Color, FrameBatch, Matrix, Primaries, Range, Transfer
from vsr.models.cards import ModelCard
from vsr.models.nets import LumaNet, SRResNet
from vsr.models.quantization import calibrate, quantized
from vsr.models.weights import load_int8_net, load_net, resolve
from vsr.pipeline.checked_network import CheckedNetwork
from vsr.pipeline.color_path import Target
from vsr.pipeline.tiles import TiledNetwork
from vsr.pipeline.upscaler import Upscaler


def _places() -> dict[str, Place]:
    """Every backend on every device that the machine has."""
    cpu, places = torch.device("cpu"), {"pytorch-cpu": Place(torch.device("cpu"), "pytorch")}
    for name, is_there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if is_there:
            places[f"pytorch-{name}"] = Place(torch.device(name), "pytorch")
    if importlib.util.find_spec("openvino") is not None:
        places["openvino-cpu"] = Place(cpu, "openvino")
    if torch.cuda.is_available() and importlib.util.find_spec("tensorrt") is not None:
        places["tensorrt-cuda"] = Place(torch.device("cuda"), "tensorrt")
    return places


PLACES = _places()


def _precisions(place: Place) -> list[Precision]:
    if place.backend == "openvino":  # it refuses what the CPU lacks
        from vsr.backends.openvino_engine import _core

        there = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["fp32", *(name for name in ("bf16", "int8") if name.upper() in there)]  # type: ignore[list-item]
    return ["fp32", "fp16"] if place.device.type == "cuda" else ["fp32", "bf16"]


CASES = [(name, precision) for name, place in PLACES.items() for precision in _precisions(place)]
on_every_backend = pytest.mark.parametrize(("place", "precision"), CASES, ids=["-".join(case) for case in CASES])


def make_engine(net: nn.Module, channels: int, place: str, precision: Precision) -> Engine:
    return EngineMaker(net, image_signature(channels), PLACES[place]).make(precision)


def small_net(name: str) -> tuple[nn.Module, int]:
    """A network with weights that do something, and its input channels."""
    torch.manual_seed(5)
    net: nn.Module = LumaNet(8, 2, 2) if name == "luma" else SRResNet(8, 2, 2)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.1)
    return net.eval().requires_grad_(False), 1 if name == "luma" else 3


def small_integers(name: str) -> tuple[nn.Module, int]:
    """The same network for int8, whose engines are held to what its integers give."""
    net, channels = small_net(name)
    result = quantized(net)
    calibrate(result, [torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))])
    return result, channels


def limit(engine: Engine) -> float:
    """How far the output of random weights, which amplify, may be off; see the shipped networks for more."""
    return {torch.float32: 1e-5, torch.int8: 5e-2}.get(engine.dtype, 2e-2)


@pytest.fixture(params=[(*case, net) for case in CASES for net in ("luma", "srresnet")], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Engine, nn.Module, int]:
    place, precision, name = request.param
    net, channels = (small_integers if precision == "int8" else small_net)(name)
    return make_engine(net, channels, place, precision), net, channels


class SteppingNet(nn.Module):
    """One step of a small recurrent network: an image and a state go in; two images and the next state come out."""

    scales = (3, 2, 1)  # of the outputs
    halo = 2

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(2, 6, 3, padding=1)
        self.state = nn.Conv2d(6, 6, 3, padding=1)
        self.tail = nn.Conv2d(6, 9 + 8, 3, padding=1)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dtype = self.state.weight.dtype
        features = torch.tanh(self.head(x.to(dtype)) + self.state(hidden.to(dtype)))
        out = self.tail(features).to(x.dtype)
        sharp = nn.functional.pixel_shuffle(out[:, :9] + x[:, :1], 3)
        return sharp, nn.functional.pixel_shuffle(out[:, 9:], 2), features.to(x.dtype)


STEPPING = Signature((("x", 2), ("hidden", 6)), ("sharp", "chroma", "next_hidden"), (("hidden", "next_hidden"),))


def stepping_net() -> nn.Module:
    torch.manual_seed(6)
    return SteppingNet().eval().requires_grad_(False)


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
    assert (engine(x)[0].cpu() - reference).abs().max() < limit(engine)


@pytest.fixture(params=[case for case in CASES if case[1] != "int8"], ids="-".join)
def stepping(request: pytest.FixtureRequest) -> tuple[Engine, nn.Module]:
    place, precision = request.param
    net = stepping_net()
    return EngineMaker(net, STEPPING, PLACES[place]).make(precision), net


def step_inputs(engine: Engine, num: int, height: int = 19, width: int = 26) -> tuple[torch.Tensor, torch.Tensor]:
    return frames(engine, 2, num, height, width), frames(engine, 6, num, height, width) - 0.5


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_several_tensors_go_in_and_come_out_each_at_its_own_scale(
    stepping: tuple[Engine, nn.Module], num_frames: int
) -> None:
    engine, net = stepping
    inputs = step_inputs(engine, num_frames)
    outs = engine(*inputs)
    assert [tuple(out.shape) for out in outs] == [
        (num_frames, 1, 57, 78),
        (num_frames, 2, 38, 52),
        (num_frames, 6, 19, 26),
    ]
    for out, expected in zip(outs, net(*(x.cpu() for x in inputs)), strict=True):
        assert out.dtype.is_floating_point and out.device.type == engine.device.type
        assert (out.cpu() - expected).abs().max() < limit(engine)


def test_a_state_may_lie_channels_last_and_be_of_the_engines_type(stepping: tuple[Engine, nn.Module]) -> None:
    engine, _ = stepping
    x, hidden = step_inputs(engine, 2)
    hidden = hidden.to(engine.dtype).float()  # values that the type has
    wanted = engine(x, hidden)
    found = engine(x, hidden.to(engine.dtype).contiguous(memory_format=torch.channels_last))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert found[0].dtype == torch.float32


def test_a_state_that_is_fed_back_carries_over_and_none_is_kept(stepping: tuple[Engine, nn.Module]) -> None:
    engine, net = stepping
    xs = frames(engine, 2, 4)
    for _ in range(2):  # the second time as the first
        state = torch.zeros(1, 6, 19, 26, device=engine.device)
        expected_state = state.cpu()
        for x in torch.split(xs, 1):
            sharp, _, state = engine(x, state)
            expected, _, expected_state = net(x.cpu(), expected_state)
            assert (sharp.cpu() - expected).abs().max() < 2 * limit(engine)
    without, _, _ = engine(xs[-1:], torch.zeros(1, 6, 19, 26, device=engine.device))
    assert (sharp - without).abs().max() > 0.1  # else no state would be needed


def test_tiles_of_several_tensors_give_what_whole_frames_give(stepping: tuple[Engine, nn.Module]) -> None:
    engine, net = stepping
    card = ModelCard("stepping", "luma", {}, 3, "y", halo=net.halo, multiple_of=2)  # type: ignore[arg-type]
    inputs = step_inputs(engine, 3, 47, 61)
    whole, tiled = TiledNetwork(engine, card)(*inputs), TiledNetwork(engine, card, tile=20)(*inputs)
    for a, b, factor in zip(whole, tiled, (3, 2, 1), strict=True):
        assert a.shape[-2:] == (47 * factor, 61 * factor)
        assert (a - b).abs().max() < limit(engine)


def test_frames_of_several_tensors_that_lie_scattered_in_memory_are_taken(stepping: tuple[Engine, nn.Module]) -> None:
    engine, _ = stepping
    parts = tuple(x[..., 3:30, 5:31] for x in step_inputs(engine, 2, 40, 44))
    for a, b in zip(engine(*parts), engine(*(part.contiguous() for part in parts)), strict=True):
        assert torch.equal(a, b)


def picture(channels: int = 1) -> torch.Tensor:
    """Two frames with detail as pictures have it."""
    x = torch.rand(2, channels, 8, 9, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(x, (64, 72), mode="bicubic").clamp(0, 1)


@on_every_backend
@pytest.mark.parametrize("name", ["fast", "srresnet"])
def test_shipped_networks_stay_within_two_code_values(name: str, place: str, precision: Precision) -> None:
    card, path = resolve(name)
    if precision == "int8" and not card.int8_weights:
        pytest.skip(f"{name} has no weights for int8")
    net = load_int8_net(card) if precision == "int8" else load_net(card, path)
    channels = 1 if card.color == "y" else 3
    engine = make_engine(net, channels, place, precision)
    x = picture(channels)
    difference = (engine(x.to(engine.device))[0].cpu() - net(x)).abs()
    assert difference.max() < (1e-4 if precision == "fp32" else 2 / 255)
    assert difference.mean() < 0.1 / 255  # a picture that is rounded on the way differs by more


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (33, 17), (50, 51)])
def test_any_size_comes_out(case: tuple[Engine, nn.Module, int], size: tuple[int, int]) -> None:
    engine, net, channels = case
    x = frames(engine, channels, 2, *size)
    out = engine(x)[0].cpu()
    assert out.shape == (2, channels, 2 * size[0], 2 * size[1])
    assert (out - net(x.cpu())).abs().max() < limit(engine)


def test_tiles_give_what_whole_frames_give(case: tuple[Engine, nn.Module, int]) -> None:
    engine, net, channels = case
    card = ModelCard("small", "luma", {}, 2, "y", halo=net.halo)  # type: ignore[arg-type]
    x = frames(engine, channels, 3, 47, 61)
    whole, tiled = TiledNetwork(engine, card)(x)[0], TiledNetwork(engine, card, tile=20)(x)[0]
    assert (whole - tiled).abs().max() < limit(engine)


def test_frames_that_lie_scattered_in_memory_are_taken(case: tuple[Engine, nn.Module, int]) -> None:
    engine, _, channels = case
    x = frames(engine, channels, 2, 40, 44)
    part = x[..., 3:30, 5:31]
    assert torch.equal(engine(part)[0], engine(part.contiguous())[0])


@on_every_backend
def test_ten_bit_video_keeps_its_steps(place: str, precision: Precision) -> None:
    card, path = resolve("fast")
    load_quantized = functools.partial(load_int8_net, card)
    maker = EngineMaker(load_net(card, path), image_signature(1), PLACES[place], load_quantized=load_quantized)
    upscaler = Upscaler(CheckedNetwork(card, maker.make, precision, make_reference=maker.make_reference, is_fixed=True))
    color = Color(Matrix.BT709, Primaries.BT709, Transfer.BT709, Range.LIMITED, ChromaLocation.LEFT, 10)
    planes = allocate_planes(FORMATS["yuv420p10le"], 3, 20, 26)
    ramp = 200 + 20 * torch.arange(26) + torch.arange(20)[:, None]  # of every code that 8 bit lacks, too
    planes[0].copy_(torch.stack([ramp + frame for frame in range(3)])[:, None].to(torch.uint16))
    planes[1].fill_(512)
    batch = FrameBatch(planes, (0, 1, 2), (1, 1, 1), Fraction(1, 25), color)
    target = Target(26 * 4, 20 * 4, FORMATS["yuv420p10le"], color)
    out = upscaler.upscale(batch, target)
    expected = Upscaler(CheckedNetwork(card, lambda _: maker.make_reference(), "fp32")).upscale(batch, target)
    difference = out.planes[0].int() - expected.planes[0].int()
    assert difference.abs().max() <= (1 if precision == "fp32" else 4)  # a code value of 8 bit is four of these
    assert torch.equal(out.planes[1], expected.planes[1]) and out.pts == batch.pts
    # Of one frame, the batch's remainder, the same comes out.
    last = replace(batch, planes=tuple(p[2:] for p in planes), pts=(2,), durations=(1,))
    assert (upscaler.upscale(last, target).planes[0].int() - out.planes[0][2:].int()).abs().max() <= 1


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
    assert {safer_precisions(name)[-1] for name in ("int8", "fp16", "bf16")} == {"fp32"}
    assert safer_precisions("fp32") == ()
