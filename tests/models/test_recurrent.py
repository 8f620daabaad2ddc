"""The recurrent network without weights: shapes, state, reach and what it starts from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.models.nets import RecurrentNet

every_form = pytest.mark.parametrize(("scale", "uses_next"), [(2, True), (4, True), (4, False)])


def _net(scale: int = 4, uses_next: bool = True) -> RecurrentNet:
    torch.manual_seed(1)
    net = RecurrentNet(features=8, blocks=2, scale=scale, uses_next=uses_next)
    torch.nn.init.normal_(net.tail.weight, std=0.05)
    return net.eval().requires_grad_(False)


def _inputs(net: RecurrentNet, height: int = 11, width: int = 14) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    channels = (3, 1, 1, net.features, net.detail_channels)
    return [torch.rand(2, num, height, width, generator=generator) for num in channels]


@every_form
def test_gives_luma_chroma_and_a_state_that_goes_in_again(scale: int, uses_next: bool) -> None:
    net = _net(scale, uses_next)
    inputs = _inputs(net)
    luma, chroma, hidden, detail = net(*inputs)
    assert luma.shape == (2, 1, 11 * scale, 14 * scale)
    assert chroma.shape == (2, 2, 11 * scale // 2, 14 * scale // 2)
    assert (hidden.shape, detail.shape) == (inputs[3].shape, inputs[4].shape)
    assert {x.dtype for x in (luma, chroma, hidden, detail)} == {torch.float32}
    net(*inputs[:3], hidden, detail)


@every_form
def test_every_input_that_it_says_it_uses_matters(scale: int, uses_next: bool) -> None:
    net = _net(scale, uses_next)
    inputs = _inputs(net)
    luma = net(*inputs)[0]
    for position in range(5):
        changed = list(inputs)
        changed[position] = changed[position] + 0.1
        assert torch.equal(net(*changed)[0], luma) == (position == 2 and not uses_next)


def test_an_untrained_network_gives_the_nearest_neighbours_luma_and_leaves_chroma_alone() -> None:
    net = RecurrentNet(8, 2)
    torch.nn.init.zeros_(net.tail.weight)
    planes = torch.rand(1, 3, 6, 7)
    luma, chroma, _, _ = net(planes, planes[:, :1], planes[:, :1], *net.initial_state(planes))
    assert torch.equal(luma, F.interpolate(planes[:, :1], scale_factor=4, mode="nearest"))
    assert not chroma.any()


def test_frames_of_a_batch_do_not_see_one_another() -> None:
    net = _net()
    inputs = _inputs(net)
    together = net(*inputs)
    alone = net(*(x[1:] for x in inputs))
    assert all(torch.allclose(a[1:], b, atol=1e-6) for a, b in zip(together, alone, strict=True))


def test_nothing_beyond_the_halo_reaches_a_pixel() -> None:
    net = _net()
    size = 4 * net.halo + 1
    inputs = _inputs(net, size, size)
    middle = size // 2
    changed = [x.clone() for x in inputs]
    for x in changed:
        x[..., middle + net.halo + 1 :] += 1
    luma, other = net(*inputs)[0], net(*changed)[0]
    assert torch.equal(luma[..., : 4 * (middle + 1)], other[..., : 4 * (middle + 1)])
    assert not torch.equal(luma[..., : 4 * (middle + 2)], other[..., : 4 * (middle + 2)])


def test_an_odd_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        RecurrentNet(scale=3)
