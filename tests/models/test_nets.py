from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsr.models.nets import NETS, LumaNet, SRResNet

LUMA_OPTIONS: list[dict[str, Any]] = [{"features": 6, "depth": 2, "scale": scale} for scale in (2, 3, 4)]
SRRESNET_OPTIONS: list[dict[str, Any]] = [
    {"features": 8, "num_blocks": 1, "scale": scale, "tail": tail, "head_kernel": head, "batch_norm": norm}
    for scale in (2, 4)
    for tail in ("shuffle", "classic")
    for head in (3, 9)
    for norm in (False, True)
]
OPTIONS = [("luma", o) for o in LUMA_OPTIONS] + [("srresnet", o) for o in SRRESNET_OPTIONS]
every_net = pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=["-".join(map(str, (n, *o.values()))) for n, o in OPTIONS]
)


def _build(name: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    return NETS[name](**options).eval()


def _input(name: str, height: int = 7, width: int = 9) -> Tensor:
    channels = 1 if name == "luma" else 3
    return torch.rand((2, channels, height, width), generator=torch.Generator().manual_seed(2))


def _num_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _nearest(x: Tensor, scale: int) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="nearest")


@every_net
@torch.inference_mode()
def test_output_is_scale_times_larger(name: str, options: dict[str, Any]) -> None:
    out = _build(name, options)(x := _input(name))
    assert out.shape == (2, x.shape[1], 7 * options["scale"], 9 * options["scale"])
    assert out.dtype is torch.float32


@every_net
@torch.inference_mode()
def test_bf16_weights_take_and_give_float32_close_to_fp32(name: str, options: dict[str, Any]) -> None:
    net, x = _build(name, options), _input(name)
    reference = net(x)
    out = net.to(torch.bfloat16)(x)
    assert out.dtype is torch.float32
    assert (out - reference).abs().max() < 0.05


@pytest.mark.parametrize("options", LUMA_OPTIONS)
@torch.inference_mode()
def test_bf16_does_not_round_the_picture_itself(options: dict[str, Any]) -> None:
    net, x = _build("luma", options), _input("luma")
    nn.init.zeros_(net.tail.weight)
    torch.testing.assert_close(net.to(torch.bfloat16)(x), _nearest(x, options["scale"]), rtol=0, atol=0)


def test_parameter_counts() -> None:
    assert _num_parameters(LumaNet(32, 5, 4)) == 51376
    assert _num_parameters(SRResNet()) == 1248129


def test_the_paper_s_generator_has_its_published_size() -> None:
    net = SRResNet(tail="classic", head_kernel=9, batch_norm=True, residual=False)
    assert 1.5e6 < _num_parameters(net) < 1.6e6  # "1.5 million", Ledig et al. 2017


def _reach(net: Any, channels: int) -> tuple[int, int]:
    """Input pixels up or left of an output pixel's own, and down or right, on which it depends."""
    net, side = net.double(), 2 * net.halo + 7
    x = torch.rand((1, channels, side, side), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    center = side // 2
    changed = x.clone()
    changed[..., center, center] += 1
    with torch.inference_mode():
        differs = (net(changed) != net(x)).any(1)[0]
    rows, columns = (differs.any(dim).nonzero().flatten() // net.scale for dim in (1, 0))
    return int(max(rows.max(), columns.max())) - center, center - int(min(rows.min(), columns.min()))


@every_net
def test_halo_covers_everything_an_output_pixel_depends_on(name: str, options: dict[str, Any]) -> None:
    net = _build(name, options)
    assert max(_reach(net, 1 if name == "luma" else 3)) <= net.halo


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_halo_of_the_luma_net_is_hardly_wider_than_needed(depth: int) -> None:
    net = LumaNet(features=6, depth=depth, scale=2).eval()
    assert net.halo - 2 <= min(_reach(net, 1)) <= max(_reach(net, 1)) <= net.halo


@every_net
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
def test_training_starts_near_the_nearest_neighbour_picture() -> None:
    torch.manual_seed(4)
    x = _input("luma", 16, 16)
    assert (LumaNet(32, 5, 4)(x) - _nearest(x, 4)).abs().max() < 0.05


def test_the_classic_tail_refuses_scales_that_are_no_power_of_two() -> None:
    with pytest.raises(ValueError, match="3"):
        SRResNet(scale=3, tail="classic")
