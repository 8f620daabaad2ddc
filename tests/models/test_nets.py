from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.backends.torch_engine import TorchEngine
from vsr.models.nets import EDSR, NETS, SRCNN, SRVGG, VDSR, LumaNet, MSRResNet, RRDBNet, SRResNet

LUMA_OPTIONS: list[dict[str, Any]] = [{"features": 6, "depth": 2, "scale": scale} for scale in (2, 3, 4)]
SRRESNET_OPTIONS: list[dict[str, Any]] = [
    {"features": 8, "num_blocks": 1, "scale": scale, "tail": tail, "head_kernel": head, "batch_norm": norm}
    for scale in (2, 3, 4)
    for tail in ("shuffle", "classic")
    for head in (3, 9)
    for norm in (False, True)
    if (scale, norm) != (3, True)
]
SRGAN_OPTIONS: list[dict[str, Any]] = [
    {"features": 8, "num_blocks": 1, "scale": scale, "tail": "classic", "residual": False, "fuse_act": scale == 4}
    | {"tanh_output": tanh}
    for scale in (2, 3, 4)
    for tanh in (False, True)
]
RRDB_OPTIONS: list[dict[str, Any]] = [
    {"features": 6, "num_blocks": 1, "growth": 3, "scale": scale, "unshuffle": unshuffle}
    for scale, unshuffle in ((4, 1), (2, 1), (2, 2), (1, 4), (8, 1))
]
OTHER_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    option
    for scale in (2, 3, 4)
    for option in (
        ("edsr", {"features": 8, "num_blocks": 2, "scale": scale, "residual_scale": 0.1}),
        ("msrresnet", {"features": 8, "num_blocks": 2, "scale": scale}),
        ("srvgg", {"features": 8, "depth": 2, "scale": scale}),
        ("vdsr", {"features": 8, "depth": 5, "scale": scale}),
        ("srcnn", {"kernels": (9, 1, 5), "scale": scale}),
        ("srcnn", {"kernels": (9, 5, 5), "scale": scale, "residual": False}),
    )
]
NEAREST = (
    [("luma", o) for o in LUMA_OPTIONS]
    + [("srresnet", o) for o in SRRESNET_OPTIONS]
    + [o for o in OTHER_OPTIONS if o[0] == "srvgg"]
)
OPTIONS = [
    *NEAREST,
    *(("srresnet", o) for o in SRGAN_OPTIONS),
    *(("rrdb", o) for o in RRDB_OPTIONS),
    *(o for o in OTHER_OPTIONS if o[0] != "srvgg"),
]


def _ids(options: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return ["-".join(map(str, (name, *values.values()))) for name, values in options]


every_net = pytest.mark.parametrize(("name", "options"), OPTIONS, ids=_ids(OPTIONS))
every_net_on_the_nearest_neighbour = pytest.mark.parametrize(("name", "options"), NEAREST, ids=_ids(NEAREST))


def _build(name: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    return NETS[name](**options).eval()


def _num_channels(name: str) -> int:
    return 1 if name in ("luma", "vdsr", "srcnn") else 3


def _input(name: str, height: int = 8, width: int = 12) -> Tensor:
    return torch.rand((2, _num_channels(name), height, width), generator=torch.Generator().manual_seed(2))


def _num_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _nearest(x: Tensor, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="nearest")


@every_net
@torch.inference_mode()
def test_output_is_scale_times_larger(name: str, options: dict[str, Any]) -> None:
    out = _build(name, options)(x := _input(name))
    assert out.shape == (2, x.shape[1], 8 * options["scale"], 12 * options["scale"])
    assert out.dtype is torch.float32


@every_net
@torch.inference_mode()
def test_bf16_weights_take_and_give_float32_close_to_fp32(name: str, options: dict[str, Any]) -> None:
    net, x = _build(name, options), _input(name)
    reference = net(x)
    out = net.to(torch.bfloat16)(x)
    assert out.dtype is torch.float32
    assert (out - reference).abs().max() < 0.05


@every_net
@torch.inference_mode()
def test_an_engine_in_bf16_is_within_a_code_value_of_fp32(name: str, options: dict[str, Any]) -> None:
    net, x = _build(name, options), _input(name)
    (out,) = TorchEngine(net, torch.device("cpu"), "bf16")(x)
    assert (out - net(x)).abs().max() < 1 / 255


@pytest.mark.parametrize("options", LUMA_OPTIONS)
@torch.inference_mode()
def test_bf16_does_not_round_the_image_itself(options: dict[str, Any]) -> None:
    net, x = _build("luma", options), _input("luma")
    nn.init.zeros_(net.tail.weight)
    torch.testing.assert_close(net.to(torch.bfloat16)(x), _nearest(x, options["scale"]), rtol=0, atol=0)


def test_parameter_counts() -> None:
    assert _num_parameters(LumaNet(32, 5, 4)) == 51376
    assert _num_parameters(SRResNet()) == 1248129


def test_parameter_counts_of_the_published_networks() -> None:
    with torch.device("meta"):
        assert _num_parameters(EDSR(64, 16, 4)) == 1_517_571
        assert _num_parameters(EDSR(256, 32, 4, 0.1)) == 43_089_923
        assert _num_parameters(EDSR(256, 32, 3, 0.1)) == 43_680_003
        assert _num_parameters(EDSR(256, 32, 2, 0.1)) == 40_729_603
        assert _num_parameters(RRDBNet()) == 16_697_987
        assert _num_parameters(SRVGG(64, 16, 4)) == 621_424
        assert _num_parameters(SRVGG(64, 32, 4)) == 1_213_296
        assert _num_parameters(MSRResNet()) == 1_517_571
        assert _num_parameters(VDSR()) == 665_921
        assert _num_parameters(SRCNN((9, 1, 5))) == 8_129
        assert _num_parameters(SRCNN((9, 5, 5))) == 57_281


def test_the_paper_s_generator_has_its_published_size() -> None:
    net = SRResNet(tail="classic", head_kernel=9, batch_norm=True, residual=False)
    assert 1.5e6 < _num_parameters(net) < 1.6e6  # "1.5 million", Ledig et al. 2017


def _reach(net: Any, channels: int) -> tuple[int, int]:
    """Input pixels up or left of an output pixel's own, and down or right, on which it depends.

    A NaN reaches everything that depends on it, however small its weight. Networks that work on cells of
    pixels look different from each corner of a cell.
    """
    cell = getattr(net, "multiple_of", 1)
    side = -(-(2 * net.halo + 7) // cell) * cell
    reach = [(0, 0)]
    for center in {side // 2 // cell * cell, side // 2 // cell * cell + cell - 1}:
        x = torch.rand((1, channels, side, side), generator=torch.Generator().manual_seed(3))
        x[..., center, center] = float("nan")
        with torch.inference_mode():
            differs = net(x).isnan().any(1)[0]
        rows, columns = (differs.any(dim).nonzero().flatten() // net.scale for dim in (1, 0))
        down, up = int(max(rows.max(), columns.max())) - center, center - int(min(rows.min(), columns.min()))
        reach.append((down, up))
    return max(down for down, _ in reach), max(up for _, up in reach)


@every_net
def test_halo_covers_everything_an_output_pixel_depends_on(name: str, options: dict[str, Any]) -> None:
    net = _build(name, options)
    cell = getattr(net, "multiple_of", 1)
    assert net.halo - 4 * cell <= max(_reach(net, _num_channels(name))) <= net.halo


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_halo_of_the_luma_net_is_hardly_wider_than_needed(depth: int) -> None:
    net = LumaNet(features=6, depth=depth, scale=2).eval()
    assert net.halo - 2 <= min(_reach(net, 1)) <= max(_reach(net, 1)) <= net.halo


@every_net_on_the_nearest_neighbour
@torch.inference_mode()
def test_without_detail_the_output_is_the_nearest_neighbour(name: str, options: dict[str, Any]) -> None:
    net, x = _build(name, options), _input(name)
    last = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    torch.testing.assert_close(net(x), _nearest(x, options["scale"]), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_without_residual_the_output_is_the_network_s_alone() -> None:
    options = SRRESNET_OPTIONS[0]
    full, x = _build("srresnet", options), _input("srresnet")
    bare = _build("srresnet", options | {"residual": False})
    torch.testing.assert_close(full(x) - bare(x), _nearest(x, options["scale"]))


@torch.inference_mode()
def test_training_starts_near_the_nearest_neighbour_image() -> None:
    torch.manual_seed(4)
    x = _input("luma", 16, 16)
    assert (LumaNet(32, 5, 4)(x) - _nearest(x, 4)).abs().max() < 0.05


def test_the_classic_tail_refuses_scales_that_it_has_no_steps_for() -> None:
    with pytest.raises(ValueError, match="5"):
        SRResNet(scale=5, tail="classic")


@pytest.mark.parametrize(("scale", "unshuffle"), [(3, 1), (0, 1), (4, 3), (4, 0)])
def test_rrdb_refuses_scales_that_are_no_power_of_two(scale: int, unshuffle: int) -> None:
    with pytest.raises(ValueError, match=str(scale)):
        RRDBNet(scale=scale, unshuffle=unshuffle)


@torch.inference_mode()
def test_tanh_output_is_the_plain_one_squashed_into_the_range() -> None:
    options = SRGAN_OPTIONS[0]
    plain, squashed = (_build("srresnet", options | {"tanh_output": tanh})(_input("srresnet")) for tanh in (0, 1))
    torch.testing.assert_close(squashed, (torch.tanh(plain) + 1) / 2)
