"""Convolutions of integers: their numbers, their scales, their weights on disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.errors import ModelError, OptionError
from vsr.models.cards import SHIPPED, ModelCard, find_card, shipped_cards
from vsr.models.nets import NETS, LumaNet
from vsr.models.quantization import (
    QuantizedConv2d,
    calibrate,
    is_quantized,
    quantized,
    quantized_layers,
    without_quantization,
)
from vsr.models.weights import load_int8_net, load_net, read_card, save_model_file

SMALL: dict[str, dict[str, Any]] = {
    "luma": {"features": 6, "depth": 1, "scale": 3},
    "srresnet": {"features": 6, "num_blocks": 1, "scale": 2, "tail": "classic", "residual": False},
    "msrresnet": {"features": 6, "num_blocks": 1},
    "edsr": {"features": 6, "num_blocks": 1, "scale": 2},
    "rrdb": {"features": 6, "num_blocks": 1, "growth": 4, "scale": 2, "unshuffle": 2},
    "srvgg": {"features": 6, "depth": 1},
    "vdsr": {"features": 6, "depth": 3, "scale": 2},
    "srcnn": {"kernels": (9, 1, 5), "scale": 2},
}
CARD = ModelCard("small", "luma", {"features": 6, "depth": 2, "scale": 2}, 2, "y", halo=4)


def _net() -> LumaNet:
    torch.manual_seed(4)
    net = LumaNet(6, 2, 2)
    nn.init.normal_(net.tail.weight, std=0.05)
    return net.eval().requires_grad_(False)


def _images(num: int = 2, channels: int = 1) -> Tensor:
    return torch.rand(num, channels, 24, 20, generator=torch.Generator().manual_seed(num))


def _calibrated() -> nn.Module:
    net = quantized(_net())
    calibrate(net, [_images()])
    return net


def _integer_layers(net: nn.Module) -> list[QuantizedConv2d]:
    return [module for module in net.modules() if isinstance(module, QuantizedConv2d)]


def test_the_numbers_are_those_of_integer_arithmetic() -> None:
    """Products and sums of int64 by hand, one scale at the end: equal to the last bit but for that scale."""
    layer = _integer_layers(_calibrated())[0]
    x = torch.randn(2, 6, 9, 7, generator=torch.Generator().manual_seed(1)) * 0.7
    codes = (x / layer.input_scale).round().clamp(-128, 127).to(torch.int64)
    weights = layer.weight_integers().to(torch.int64)
    assert codes.min() == -128 or codes.max() == 127  # some are clipped
    patches = F.unfold(codes.double(), 3, padding=1).to(torch.int64)
    sums = torch.einsum("oi,nip->nop", weights.flatten(1), patches).view(2, 6, 9, 7)
    assert layer.bias is not None
    expected = sums.double() * (layer.input_scale * layer.weight_scales()).double()[:, None, None]
    torch.testing.assert_close(layer(x).double(), expected + layer.bias.double()[:, None, None], rtol=1e-6, atol=1e-6)


def test_weights_use_all_of_the_range_in_every_channel() -> None:
    for layer in _integer_layers(_calibrated()):
        assert torch.equal(layer.weight_integers().abs().amax((1, 2, 3)), torch.full((6,), 127, dtype=torch.int8))
        error = (layer.weight_integers() * layer.weight_scales()[:, None, None, None] - layer.weight).abs()
        assert (error <= 0.5001 * layer.weight_scales()[:, None, None, None]).all()


def test_a_channel_of_zeros_gives_its_bias() -> None:
    net = _calibrated()
    layer = _integer_layers(net)[0]
    layer.weight[2] = 0
    assert layer.bias is not None
    out = layer(torch.rand(1, 6, 5, 5))
    assert torch.equal(out[0, 2], layer.bias[2].expand(5, 5)) and out.isfinite().all()


def test_calibration_is_close_to_the_network_and_the_same_each_time() -> None:
    net, x = _net(), _images(3)
    first, second = _calibrated(), _calibrated()
    for one, other in zip(_integer_layers(first), _integer_layers(second), strict=True):
        assert torch.equal(one.input_scale, other.input_scale) and one.input_scale != 1
    assert (first(x) - net(x)).abs().max() < 2 / 255
    assert not torch.equal(first(x), net(x))  # it does round


def test_one_outlier_does_not_set_the_scale() -> None:
    net = quantized(_net())
    tame, wild = _images(), _images()
    wild[0, 0, 3, 3] = 6.0
    calibrate(net, [tame])
    before = [float(layer.input_scale) for layer in _integer_layers(net)]
    calibrate(net, [wild])
    after = [float(layer.input_scale) for layer in _integer_layers(net)]
    assert all(new < 4 * old for old, new in zip(before, after, strict=True))  # the outlier alone asks for 6


@pytest.mark.parametrize("name", SMALL)
def test_first_and_last_convolution_stay_as_they_are(name: str) -> None:
    """First and last by the order in which they run."""
    net = NETS[name](**SMALL[name]).eval()
    order: list[str] = []
    for layer, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, layer=layer: order.append(layer))
    channels = 1 if name in ("luma", "vdsr", "srcnn") else 3
    net(torch.rand(1, channels, 16, 16))
    assert quantized_layers(net) == order[1:-1]
    changed = quantized(net)
    assert [n for n, m in changed.named_modules() if isinstance(m, QuantizedConv2d)] == order[1:-1]
    assert is_quantized(changed) and not is_quantized(net) and not is_quantized(without_quantization(changed))


def test_a_network_of_two_convolutions_has_none_to_quantize() -> None:
    with pytest.raises(ValueError, match="no convolutions"):
        quantized(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3)))


def test_gradients_pass_the_rounding_and_stop_where_values_are_clipped() -> None:
    layer = _integer_layers(_calibrated())[0].requires_grad_(True)
    x = torch.tensor([0.3, 300.0]).view(1, 1, 1, 2).expand(1, 6, 1, 2) * layer.input_scale * 1.0
    x = x.detach().requires_grad_(True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is not None
    assert (x.grad[..., 0] != 0).all() and (x.grad[..., 1] == 0).all()
    assert layer.weight.grad.abs().sum() > 0


def test_autocast_in_bfloat16_multiplies_the_same_integers() -> None:
    layer = _integer_layers(_calibrated())[0]
    x = _images(1, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, layer(x), rtol=2**-7, atol=1e-3)  # sums are rounded, what is summed is not


def test_half_precision_keeps_rounded_weights_to_the_integer(tmp_path: Path) -> None:
    net = _calibrated()
    integers = [layer.weight_integers() for layer in _integer_layers(net)]
    for layer in _integer_layers(net):
        layer.round_weights()
    card = replace(CARD, quantized=True)
    save_model_file(tmp_path / "a.safetensors", card, {k: v.half() for k, v in net.state_dict().items()})
    loaded = load_net(read_card(tmp_path / "a.safetensors"), tmp_path / "a.safetensors")
    for layer, before in zip(_integer_layers(loaded), integers, strict=True):
        assert torch.equal(layer.weight_integers(), before)


def test_weights_for_int8_do_not_load_as_others_nor_others_as_them(tmp_path: Path) -> None:
    save_model_file(tmp_path / "int8.safetensors", CARD, _calibrated().state_dict())
    save_model_file(tmp_path / "plain.safetensors", CARD, _net().state_dict())
    with pytest.raises(ModelError, match="does not fit"):
        load_net(CARD, tmp_path / "int8.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        load_net(replace(CARD, quantized=True), tmp_path / "plain.safetensors")


def test_a_model_without_weights_for_int8_says_what_helps() -> None:
    with pytest.raises(OptionError, match=r"'small' has no weights.*--calibrate"):
        load_int8_net(CARD)


with_int8 = pytest.mark.parametrize("name", [card.name for card in shipped_cards().values() if card.int8_weights])


def test_fast_has_weights_for_int8() -> None:
    assert find_card("fast").int8_weights


@with_int8
def test_shipped_weights_for_int8_fit_and_cost_little(name: str) -> None:
    card = find_card(name)
    assert hashlib.sha256((SHIPPED / card.int8_weights).read_bytes()).hexdigest() == card.int8_sha256
    judge = "Vid4 BI" if card.recurrent else "Set5"
    assert card.figures[judge] - card.figures[f"{judge} int8"] <= 0.1
    net = load_int8_net(card)
    assert len(_integer_layers(net)) == len(quantized_layers(load_net(card, SHIPPED / card.weights)))
    for layer in _integer_layers(net):
        assert 0 < layer.input_scale < 1
        assert (layer.weight_integers().abs().amax((1, 2, 3)) == 127).all()
