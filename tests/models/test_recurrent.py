"""The recurrent network without weights: shapes, state, reach and what it starts from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.backends.engine import converted
from vsr.models.nets import RecurrentNet
from vsr.models.nets.recurrent import WithImages

every_form = pytest.mark.parametrize(("scale", "uses_next"), [(2, True), (4, True), (4, False)])


def _net(scale: int = 4, uses_next: bool = True) -> RecurrentNet:
    torch.manual_seed(1)
    net = RecurrentNet(features=8, blocks=2, scale=scale, uses_next=uses_next)
    torch.nn.init.normal_(net.tail.weight, std=0.05)
    return net.eval().requires_grad_(False)


def _inputs(net: RecurrentNet, height: int = 11, width: int = 14) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    channels = (3, 1, 1, net.state_channels)
    return [torch.rand(2, num, height, width, generator=generator) for num in channels]


@every_form
def test_gives_luma_chroma_and_a_state_that_goes_in_again(scale: int, uses_next: bool) -> None:
    net = _net(scale, uses_next)
    inputs = _inputs(net)
    luma, chroma, state = WithImages(net)(*inputs)
    assert torch.equal(net(*inputs), state)
    assert luma.shape == (2, 1, 11 * scale, 14 * scale)
    assert chroma.shape == (2, 2, 11 * scale // 2, 14 * scale // 2)
    assert state.shape == inputs[3].shape
    assert {x.dtype for x in (luma, chroma, state)} == {torch.float32}
    net(*inputs[:3], state)
    assert net(*inputs[:3], state.bfloat16()).dtype == torch.bfloat16


@every_form
def test_every_input_that_it_says_it_uses_matters(scale: int, uses_next: bool) -> None:
    net = _net(scale, uses_next)
    inputs = _inputs(net)
    luma = WithImages(net)(*inputs)[0]
    for position in range(4):
        changed = list(inputs)
        changed[position] = changed[position] + 0.1
        assert torch.equal(WithImages(net)(*changed)[0], luma) == (position == 2 and not uses_next)


def test_an_untrained_network_gives_the_nearest_neighbours_luma_and_leaves_chroma_alone() -> None:
    net = RecurrentNet(8, 2)
    torch.nn.init.zeros_(net.tail.weight)
    planes = torch.rand(1, 3, 6, 7)
    luma, chroma, _ = WithImages(net)(planes, planes[:, :1], planes[:, :1], net.initial_state(planes))
    assert torch.equal(luma, F.interpolate(planes[:, :1], scale_factor=4, mode="nearest"))
    assert not chroma.any()


def test_sixteen_bits_see_steps_of_luma_that_their_mantissa_lacks() -> None:
    net = converted(_net(), torch.device("cpu"), torch.bfloat16)
    planes, previous, following, _ = _inputs(_net())
    planes[:, :1] = 0.8
    finer = torch.cat((planes[:, :1] + 1 / 1023, planes[:, 1:]), 1)  # a code of 10 bits
    assert torch.equal(finer[:, :1].bfloat16(), planes[:, :1].bfloat16())
    first, second = (
        net.pixels(torch.cat((x, previous - 0.5, following - 0.5), 1), torch.bfloat16) for x in (planes, finer)
    )
    assert not torch.equal(first, second)


def test_frames_of_a_batch_do_not_see_one_another() -> None:
    net = _net()
    inputs = _inputs(net)
    assert torch.allclose(net(*inputs)[1:], net(*(x[1:] for x in inputs)), atol=1e-6)


def test_nothing_beyond_the_halo_reaches_a_pixel() -> None:
    net = _net()
    size = 4 * net.halo + 1
    inputs = _inputs(net, size, size)
    middle = size // 2
    changed = [x.clone() for x in inputs]
    for x in changed:
        x[..., middle + net.halo + 1 :] += 1
    luma, other = WithImages(net)(*inputs)[0], WithImages(net)(*changed)[0]
    assert torch.equal(luma[..., : 4 * (middle + 1)], other[..., : 4 * (middle + 1)])
    assert not torch.equal(luma[..., : 4 * (middle + 2)], other[..., : 4 * (middle + 2)])


def test_an_odd_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        RecurrentNet(scale=3)
